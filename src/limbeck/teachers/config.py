"""Settings of a teacher: one class for Python, for the TOML file and for the command line."""

import math
import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path

from limbeck.errors import ConfigError, LimbeckWarning
from limbeck.teachers.endpoint_config import EndpointConfig
from limbeck.teachers.pricing import MOST_PRICE

READS = {
    "fit": ("path", "members", "subclasses"),
    "table": ("path", "label", "columns"),
    "module": ("factory", "weights", "classes", "columns"),
    "sklearn": ("path", "trusted", "factory", "fingerprint", "classes", "columns"),
    "callable": ("function", "fingerprint", "classes", "columns"),
    "student": ("path",),
    "huggingface": ("path", "classes", "columns", "max_tokens", "pickled_weights"),
    "human": ("question", "people", "columns", "fingerprint"),
    "endpoint": ("endpoint", "fingerprint", "columns"),
    "ensemble": ("teachers",),
    "simulated": (
        *("teachers", "path", "label", "columns", "error_rate", "error_falls", "adversarial"),
        *("failure_rate", "latency_seconds", "noise_seed"),
    ),
}
"""Settings that each of our own kinds reads, beside price_per_answer and currency."""
MOST_MEMBERS = 10
"""Each member of an ensemble holds out another tenth of its rows."""
MOST_SUBCLASSES = 256
NO_MEMBERS = ("fit", "human", "ensemble")
"""Kinds that cannot be in an ensemble: they need a run, or a command, of their own."""
MOST_FALLING_ERROR = 0.5
"""Where errors fall with the margin they begin at twice their mean, which is at most 1."""
LEAST_TEACHERS = 2
LEAST_TOKENS, MOST_TOKENS = 3, 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherConfig:
    """Who answers. Each kind reads some of the settings."""

    kind: str
    """table, module, sklearn, callable, student, huggingface, endpoint, human, ensemble, simulated,
    fit, or one that a package of yours registers."""
    path: Path | None = None
    """table, simulated: the file of answers (default: columns of the rows themselves). student: the
    folder, or one that holds folders member0, member1, ... huggingface: the model's folder.
    fit: a file of labelled rows of its own (default: the labelled rows of the run).
    sklearn: a skops file; pickle and joblib files are refused."""
    trusted: tuple[str, ...] = ()
    """sklearn: types in the skops file that you agree to; a refusal lists what to look at."""
    members: int = 1
    """fit: models to train, 1 to 10. Two or more answer with their mean, and with their spread."""
    subclasses: int = 1
    """fit: outputs that the model has for each class. From 2 on it invents subclasses as it is
    trained (Subclass Distillation), which the arm subclass fits."""
    teachers: "tuple[TeacherConfig, ...]" = ()
    """ensemble: two or more teachers, each a table [[teacher.teachers]] with settings of its own;
    they answer with their mean. simulated: one, whose top class is taken for the truth."""
    label: str = ""
    """table, simulated: the column of hard labels. Default: columns of probabilities."""
    factory: str = ""
    """module: what builds the network, as package.module:function. sklearn, instead of a path: what
    gives the fitted estimator."""
    weights: Path | None = None
    """module: the .safetensors file."""
    function: str = ""
    """callable: what answers, as package.module:function."""
    fingerprint: str = ""
    """callable, sklearn, human, endpoint: a text that you change when its answers change. Default:
    the source file of the function, the content of the skops file; endpoint: nothing beside the
    name of the model and all that shapes its answers."""
    classes: tuple[str, ...] = ()
    """module, callable: class names in the order of the outputs. Default: the task's order.
    sklearn: in the order of classes_. Default: these as texts. huggingface: in the order of the
    outputs. Default: the names in the model's id2label."""
    columns: tuple[str, ...] = ()
    """module, callable, sklearn, table with a file: columns that the teacher sees. Default: all
    inputs; sklearn: those that it was fitted on, where it knows their names. huggingface: one
    column of text or of images, or two of text, which it reads as a pair. human: what people
    see. endpoint: what the default user message shows."""
    max_tokens: int = 0
    """huggingface: tokens of a row that are read, marks included. Default 0: what the model can
    read, 512 at most. Longer rows are cut at their end, with a warning."""
    pickled_weights: bool = False
    """huggingface: your word that weights which are no safetensors may be opened."""
    question: str = "Which class is right?"
    """human: what people are asked."""
    people: int = 1
    """human: most people who label a question; their votes are shared out, and each costs
    price_per_answer."""
    error_rate: float = 0.0
    """simulated: share of answers whose top class is wrong, in [0, 1]."""
    error_falls: bool = False
    """simulated: the chance of an error falls in a straight line with the margin, from twice
    error_rate (which is at most 0.5 then) at margin 0 to none at margin 1. Default: it is the same
    everywhere."""
    adversarial: bool = False
    """simulated: each true class has one wrong class, always the same. Default: any, by chance."""
    failure_rate: float = 0.0
    """simulated: share of questions that fail, in [0, 1]; asking again does not help."""
    latency_seconds: float = 0.0
    """simulated: seconds that an answer takes; those of a batch come one after the other."""
    noise_seed: int = 0
    """simulated: another number, other errors and failures."""
    endpoint: EndpointConfig | None = None
    """endpoint: the server, the prompt, the price and the limits."""
    price_per_answer: int = 0
    """Millionths of the currency that an answer counts for, to rehearse a budget in money."""
    currency: str = "USD"
    """ISO 4217 code of the price."""

    def __post_init__(self) -> None:
        if not self.kind:
            raise ConfigError("teacher.kind is empty; name one, such as table, module or fit.")
        self._warn_of_unread()
        if not 0 <= self.price_per_answer <= MOST_PRICE:
            raise ConfigError(
                f"teacher.price_per_answer={self.price_per_answer}: must be in [0, {MOST_PRICE:,}] "
                f"millionths of the currency."
            )
        if not 1 <= self.members <= MOST_MEMBERS:
            raise ConfigError(
                f"teacher.members={self.members}: must be in [1, {MOST_MEMBERS}]; each member "
                f"chooses its steps on another tenth of the rows, and 1 is a single model."
            )
        if not 1 <= self.subclasses <= MOST_SUBCLASSES:
            raise ConfigError(
                f"teacher.subclasses={self.subclasses}: must be in [1, {MOST_SUBCLASSES}]; 1 is a "
                f"plain model."
            )
        if self.members > 1 and self.subclasses > 1:
            raise ConfigError(
                f"teacher.members={self.members} and teacher.subclasses={self.subclasses}: "
                f"subclasses of different models have nothing in common; set one of the two to 1."
            )
        if self.people < 1:
            raise ConfigError(f"teacher.people={self.people}: must be at least 1.")
        self._check_teachers()
        self._check_simulation()
        if self.max_tokens != 0 and not LEAST_TOKENS <= self.max_tokens <= MOST_TOKENS:
            raise ConfigError(
                f"teacher.max_tokens={self.max_tokens}: must be in [{LEAST_TOKENS}, {MOST_TOKENS}],"
                f" or 0 for what the model can read."
            )

    def _check_teachers(self) -> None:
        if self.kind == "ensemble" and len(self.teachers) < LEAST_TEACHERS:
            raise ConfigError(
                f"teacher.kind='ensemble' has {len(self.teachers)} teachers, expected at least "
                f"{LEAST_TEACHERS}; give each a table [[teacher.teachers]]."
            )
        if self.kind == "simulated" and len(self.teachers) > 1:
            raise ConfigError(
                f"teacher.kind='simulated' has {len(self.teachers)} teachers, expected one at "
                f"most, whose top class is the truth; leave the others out."
            )
        if self.kind == "ensemble" and self.price_per_answer:
            raise ConfigError(
                f"teacher.price_per_answer={self.price_per_answer} is set for an ensemble, whose "
                f"teachers are paid one by one; set it in their tables."
            )
        for one in self.teachers if self.kind in ("ensemble", "simulated") else ():
            if one.kind in NO_MEMBERS:
                raise ConfigError(
                    f"teacher.teachers holds the kind {one.kind!r}, which cannot be a part of "
                    f"another teacher; for 'fit' give the folder of one that is trained, with "
                    f"kind = 'student'."
                )
            if one.currency != self.currency:
                raise ConfigError(
                    f"teacher.teachers holds a price in {one.currency} but teacher.currency is "
                    f"{self.currency}; give all in one currency."
                )

    def _check_simulation(self) -> None:
        for name in ("error_rate", "failure_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"teacher.{name}={getattr(self, name)}: must be in [0, 1], a share of answers."
                )
        if self.error_falls and self.error_rate > MOST_FALLING_ERROR:
            raise ConfigError(
                f"teacher.error_rate={self.error_rate}: must be at most {MOST_FALLING_ERROR} with "
                f"teacher.error_falls, which begins at twice that; lower it, or leave error_falls "
                f"out."
            )
        if not 0 <= self.latency_seconds < math.inf:
            raise ConfigError(
                f"teacher.latency_seconds={self.latency_seconds}: must be >= 0 and finite."
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
            teachers=tuple(one.relative_to(folder) for one in self.teachers),
        )
