"""Settings of the search for a student's architecture."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from limbeck.errors import ConfigError

Option = int | float
Method = Literal["layernas", "paper", "evolution", "mnasnet", "local", "random", "tpe", "nsga2"]


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """What `student.arch = "search"` tries, and under which limit."""

    trials: int = 60
    """Architectures to train for a short while. A finished search goes on when it is raised."""
    method: Method = "layernas"
    """How they are chosen; paper is the literal form of LayerNAS, the others are its rivals."""
    cost: str = "macs"
    """What is limited: macs, parameters, bytes, activation_bytes, sums of a text_bag, or latency
    in milliseconds with `table`."""
    limit: float = 0.0
    """Greatest cost, in its own unit. Default 0: `share` of the cost of the student of
    student.settings."""
    share: float = 0.5
    """Greatest cost as a share of that student's, > 0; not read where there is a limit."""
    least: float = 0.0
    """Least cost, in its own unit; 0 sets none."""
    table: Path = Path()
    """File of measured costs that `limbeck search cost-fit` has written, for latency."""
    length: int = 0
    """Of the row that is costed: token ids of a text_transformer, n-grams of a text_bag. Default 0:
    as many token ids as it reads."""
    arm: str = ""
    """Arm that trials train; labels asks no teacher. Default: soft_kd, or the first arm that learns
    from answers."""
    steps: int = 0
    """Gradient steps of a trial. Default 0: a quarter of an arm's. With one_shot those of the
    shared network, by default twice an arm's."""
    reward: Literal["accuracy", "likelihood"] = "accuracy"
    """What is made great on validation: accuracy, or the likelihood after temperature scaling,
    which tells more apart where there are few validation rows."""
    one_shot: bool = False
    """Train one network that holds all students of an image_cnn space, and score trials with its
    weights: hundreds of trials at little cost, with ranks that are less true."""
    check: int = 20
    """With one_shot: students that are also trained on their own, to say how true the ranks are."""
    stop: Literal["never", "median", "halving"] = "never"
    """Trials that are given up early: those below the median of the others at the same step, or
    by successive halving. Such a trial counts and has no reward."""
    workers: int = 1
    """Trials at once, each in a process of its own, or in a Ray actor with engine ray."""
    storage: str = ""
    """Address of an Optuna storage, such as postgresql://... Default: a SQLite file in the run
    folder."""
    options: dict[str, tuple[Option, ...]] = field(default_factory=dict)
    """Values to try for a setting, instead of the usual ones, such as width = [16, 32, 64]; a
    single one leaves the setting as it is."""

    def __post_init__(self) -> None:
        for name, value, least in (
            *(("trials", self.trials, 1), ("workers", self.workers, 1)),
            *(("limit", self.limit, 0), ("least", self.least, 0)),
            *(("length", self.length, 0), ("steps", self.steps, 0), ("check", self.check, 0)),
        ):
            if not least <= value < float("inf"):
                raise ConfigError(f"search.{name}={value}: must be at least {least} and finite.")
        if not 0 < self.share < float("inf"):
            raise ConfigError(f"search.share={self.share}: must be > 0; 0.5 is half the cost.")
        if self.limit and self.least > self.limit:
            raise ConfigError(
                f"search.least={self.least:g} is above search.limit={self.limit:g}; nothing lies "
                f"between them."
            )
        if (self.cost == "latency") != (self.table != Path()):
            raise ConfigError(
                f"search.cost={self.cost!r} with search.table={str(self.table)!r}: latency is read "
                f"from a table, and the other costs need none; make one with `limbeck search "
                f"cost-fit`."
            )

        if self.one_shot and self.stop != "never":
            raise ConfigError(
                f"search.stop={self.stop!r} with search.one_shot: trials of a network that is "
                f"shared are not trained, so none can be given up; leave stop out."
            )

    def relative_to(self, folder: Path) -> Self:
        """Paths are relative to the run file."""
        return (
            self if self.table == Path() else replace(self, table=(folder / self.table).resolve())
        )


def checked_options(values: Mapping[str, object]) -> dict[str, tuple[Option, ...]]:
    """Read the table search.options.

    Raises:
        ConfigError: a value is no list of numbers, or an empty one.
    """
    found: dict[str, tuple[Option, ...]] = {}
    for name, given in values.items():
        listed = given if isinstance(given, list) else [given]
        plain = [one for one in listed if not isinstance(one, bool)]
        numbers = [one for one in plain if isinstance(one, int | float)]
        if not listed or len(numbers) < len(listed):
            raise ConfigError(
                f"search.options.{name}={given!r}: must be a list of numbers, such as [16, 32]."
            )
        found[name] = tuple(numbers)
    return found
