"""Settings of a teacher: one class for Python, for the TOML file and for the command line."""

import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path

from limbeck.errors import ConfigError, LimbeckWarning

READS = {
    "fit": ("path", "members"),
    "table": ("path", "label", "columns"),
    "module": ("factory", "weights", "classes", "columns"),
    "sklearn": ("path", "trusted", "factory", "fingerprint", "classes", "columns"),
    "callable": ("function", "fingerprint", "classes", "columns"),
    "student": ("path",),
}
"""Settings that each of our own kinds reads, beside price_per_answer and currency."""
MOST_MEMBERS = 10
"""Each member of an ensemble holds out another tenth of its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherConfig:
    """Who answers. Each kind reads some of the settings."""

    kind: str
    """table, module, sklearn, callable, student, fit, or one that a package of yours registers."""
    path: Path | None = None
    """table: the file of answers (default: columns of the rows themselves). student: the folder,
    or one that holds folders member0, member1, ...
    fit: a file of labelled rows of its own (default: the labelled rows of the run).
    sklearn: a skops file; pickle and joblib files are refused."""
    trusted: tuple[str, ...] = ()
    """sklearn: types in the skops file that you agree to; a refusal lists what to look at."""
    members: int = 1
    """fit: models to train, 1 to 10. Two or more answer with their mean, and with their spread."""
    label: str = ""
    """table: the column of hard labels. Default: columns of probabilities."""
    factory: str = ""
    """module: what builds the network, as package.module:function. sklearn, instead of a path: what
    gives the fitted estimator."""
    weights: Path | None = None
    """module: the .safetensors file."""
    function: str = ""
    """callable: what answers, as package.module:function."""
    fingerprint: str = ""
    """callable, sklearn: a text that you change when its answers change. Default: the source file
    of the function, the content of the skops file."""
    classes: tuple[str, ...] = ()
    """module, callable: class names in the order of the outputs. Default: the task's order.
    sklearn: in the order of classes_. Default: these as texts."""
    columns: tuple[str, ...] = ()
    """module, callable, sklearn, table with a file: columns that the teacher sees. Default: all
    inputs; sklearn: those that it was fitted on, where it knows their names."""
    price_per_answer: int = 0
    """Millionths of the currency that an answer counts for, to rehearse a budget in money."""
    currency: str = "USD"
    """ISO 4217 code of the price."""

    def __post_init__(self) -> None:
        if not self.kind:
            raise ConfigError("teacher.kind is empty; name one, such as table, module or fit.")
        self._warn_of_unread()
        if self.price_per_answer < 0:
            raise ConfigError(
                f"teacher.price_per_answer={self.price_per_answer}: must be >= 0 millionths of the "
                f"currency."
            )
        if not 1 <= self.members <= MOST_MEMBERS:
            raise ConfigError(
                f"teacher.members={self.members}: must be in [1, {MOST_MEMBERS}]; each member "
                f"chooses its steps on another tenth of the rows, and 1 is a single model."
            )

    def _warn_of_unread(self) -> None:
        """A setting that this kind does not read was meant for another kind, or misunderstood."""
        if self.kind not in READS:
            return
        defaults = {field.name: field.default for field in fields(self)}
        for name in sorted({name for group in READS.values() for name in group}):
            if getattr(self, name) != defaults[name] and name not in READS[self.kind]:
                warnings.warn(
                    f"teacher.{name} means nothing to the teacher {self.kind!r}, which reads "
                    f"{', '.join(READS[self.kind])}; it is not used.",
                    LimbeckWarning,
                    stacklevel=4,
                )

    def relative_to(self, folder: Path) -> "TeacherConfig":
        """The same settings with relative paths taken from `folder`, for a file that lies there."""
        return replace(
            self,
            path=None if self.path is None else folder / self.path,
            weights=None if self.weights is None else folder / self.weights,
        )
