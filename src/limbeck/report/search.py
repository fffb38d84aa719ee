"""What a search for a student's architecture found, for its page and its section of a report.

Architectures are positions of options, layer by layer. Numbers must be finite, as JSON has no
others: None stands for a limit that is infinite and for a reward that there is not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from limbeck.report.plain import from_plain, to_plain


@dataclass(frozen=True, slots=True)
class SearchLayer:
    """A choice of the space.

    Args:
        name: Such as "width".
        options: What can be chosen, as text; drawn in this order, so best from small to large.
        default: Position of the base student's option.
    """

    name: str
    options: tuple[str, ...]
    default: int


@dataclass(frozen=True, slots=True)
class SearchTrial:
    """An architecture that was trained, or whose training failed.

    Args:
        number: 0, 1, 2, ... in the order of asking.
        options: Position of the option of each layer.
        cost: In the unit of the cost.
        in_range: Whether it may be the answer.
        reward: To be maximised; None where the trial failed or was stopped early.
        how: Part of the search that asked for it, such as "sweep", "explore", "polish", "random".
        seconds: Of its training, or None.
        steps: Gradient steps that were taken, or None.
        stopped: Whether it was stopped early; without that and without a reward it failed.
    """

    number: int
    options: tuple[int, ...]
    cost: float
    in_range: bool
    reward: float | None
    how: str
    seconds: float | None = None
    steps: int | None = None
    stopped: bool = False

    @property
    def failed(self) -> bool:
        """Whether there is no reward, and not because it was stopped."""
        return self.reward is None and not self.stopped


@dataclass(frozen=True, slots=True)
class SearchDiagnostics:
    """What `limbeck.search.diagnostics.Diagnostics` says, which see.

    Args:
        status: Of the search, such as "searching" or "exhausted".
        swept: Whether nothing that is kept has an untried option.
        out_of_range: Share of the trials that could not be the answer, in [0, 1].
        validity: For each layer but the last, in [-1, 1], or None where it tells nothing.
        kept: Prefixes kept of each of these layers.
        widths: Widest group of each of these layers, in the unit of the cost.
        loss_of_limit: Sum of `widths`.
    """

    status: str
    swept: bool
    out_of_range: float
    validity: tuple[float | None, ...]
    kept: tuple[int, ...]
    widths: tuple[float, ...]
    loss_of_limit: float


@dataclass(frozen=True, slots=True)
class SearchView:
    """A finished search, or one as far as it has come.

    Args:
        kind: Of the student, such as "image_cnn".
        method: Of searching, such as "layernas".
        arm: Title of the arm that the trials were trained as.
        reward: What was maximised, such as "validation accuracy"; shown in per cent where the name
            ends with "accuracy".
        cost: What was limited, such as "macs".
        unit: Of the cost, as shown behind a number; may be empty.
        low, high: Admissible range of the cost; None for no limit at that end.
        base_cost: Of the base student, whose options are the defaults.
        seed: Of the search.
        layers: Of the space.
        trials: In the order of asking.
        best: Number of the trial that is the answer, or None.
        front: Numbers of the trials that are beaten by nothing as cheap, ascending in cost.
        diagnostics: None for a method without.
        edges: Of the groups of whole architectures, ascending; may be empty.
        notes: What else to know, a sentence each.
        measured: (number of a trial, predicted cost, measured cost).
        base_reward: Of the base student, where it was trained beside the trials.
    """

    kind: str
    method: str
    arm: str
    reward: str
    cost: str
    unit: str
    low: float | None
    high: float | None
    base_cost: float
    seed: int
    layers: tuple[SearchLayer, ...]
    trials: tuple[SearchTrial, ...]
    best: int | None
    front: tuple[int, ...] = ()
    diagnostics: SearchDiagnostics | None = None
    edges: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    measured: tuple[tuple[int, float, float], ...] = ()
    base_reward: float | None = None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; raises DataError for NaN and infinity."""
        return cast(dict[str, object], to_plain(self))

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> "SearchView":
        """Read what `to_dict` wrote; raises DataError with the path of what does not fit."""
        return from_plain(cls, dict(value))

    def trial(self, number: int) -> SearchTrial:
        """The trial of this number."""
        return next(each for each in self.trials if each.number == number)

    @property
    def answer(self) -> SearchTrial | None:
        """The best trial in range."""
        return None if self.best is None else self.trial(self.best)

    @property
    def defaults(self) -> tuple[int, ...]:
        """The base student's options."""
        return tuple(layer.default for layer in self.layers)

    @property
    def base(self) -> SearchTrial | None:
        """The trial of the base student, where it was tried and has a reward."""
        found = (t for t in self.trials if t.options == self.defaults and t.reward is not None)
        return next(found, None)

    @property
    def reached_by_base(self) -> float | None:
        """The base student's reward, where it was trained, as a trial or beside them."""
        if self.base_reward is not None:
            return self.base_reward
        return None if self.base is None else self.base.reward

    @property
    def base_in_range(self) -> bool:
        """Whether the base student's cost is within the limit."""
        least = self.low is None or self.base_cost >= self.low
        return least and (self.high is None or self.base_cost <= self.high)

    @property
    def in_percent(self) -> bool:
        """Whether rewards are shares that are shown in per cent."""
        return self.reward.endswith("accuracy")

    @property
    def rewarded(self) -> tuple[SearchTrial, ...]:
        """Trials with a reward."""
        return tuple(each for each in self.trials if each.reward is not None)
