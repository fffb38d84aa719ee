"""What a comparison of arms over seeds found: plain frozen values, `compare.json` as they are.

The arithmetic that fills them is in `limbeck.distill.compare_summary`. Accuracies are shares of
test rows, losses in nats, times in minutes; every interval is a 95 % t-interval over seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from limbeck.numerics.intervals import Interval
from limbeck.numerics.significance import LEVEL
from limbeck.report.plain import from_plain, to_plain
from limbeck.report.results import ArmKind

FORMAT = 1
SEEDS_TO_CLAIM = 5
"""With fewer seeds a comparison is shown but nothing is called better or worse."""


@dataclass(frozen=True, slots=True)
class ArmOverSeeds:
    """One arm, or the teacher, over all seeds.

    Args:
        name, title, kind: As in the runs.
        accuracy, macro_f1: On test.
        nll: After temperature scaling.
        minutes: Spent in training; None for the teacher.
        validation_accuracy: Mean over seeds, or None where it is unknown.
        by_seed: Test accuracy of each seed, in the order of the comparison's seeds.
    """

    name: str
    title: str
    kind: ArmKind
    accuracy: Interval
    macro_f1: Interval
    nll: Interval
    minutes: Interval | None
    validation_accuracy: float | None
    by_seed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PairOverSeeds:
    """`first` minus `second`, paired by seed.

    Args:
        first, second: Names of arms.
        accuracy, macro_f1, nll: Mean differences; of nll, negative is better.
        deviation: Standard deviation of the differences in accuracy.
        by_seed: Difference in accuracy of each seed.
        p: Two-sided p-value of the difference in accuracy, by the paired t-test.
        p_holm: The same, adjusted for the number of pairs.
        significant: At least 5 seeds, and the interval of `accuracy` excludes 0.
        sentence: What it says, in plain words.
    """

    first: str
    second: str
    accuracy: Interval
    macro_f1: Interval
    nll: Interval
    deviation: float
    by_seed: tuple[float, ...]
    p: float
    p_holm: float
    significant: bool
    sentence: str

    @property
    def holds(self) -> bool:
        """Whether it is significant among all pairs that were looked at, and not only alone."""
        return self.significant and self.p_holm < LEVEL


@dataclass(frozen=True, slots=True)
class SeedRun:
    """One finished run of the comparison.

    Args:
        seed: Its seed.
        test_rows: Rows it was measured on.
        pool_rows: Pool rows with an answer that it may learn from; None where unknown.
        steps: Gradient steps of every arm's schedule.
        bought, cached, money: Answers paid for and found in the ledger; millionths of the currency.
        minutes: Wall-clock minutes of the run.
        shipped: Arm that its validation rows chose.
        verdict: Headline of its own report.
    """

    seed: int
    test_rows: int
    pool_rows: int | None
    steps: int
    bought: int
    cached: int
    money: int
    minutes: float
    shipped: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Arms over seeds.

    Args:
        title: Of the page.
        created: Date and time, ISO 8601.
        baseline: Arm that the others are compared with.
        labels_arm: The labels-only arm with the best mean validation accuracy.
        runs: One a finished seed, by seed.
        failed: Why a seed is missing, one sentence by its number.
        arms: In the order of the run file.
        teacher: None when it was not asked about the test rows.
        pairs: Every arm against the baseline, and every distilled arm against `labels_arm`.
        needed: How many seeds would resolve a difference of a point, as a sentence.
        notes: What else to know before believing the intervals.
        currency: Of the money.
        config_toml: Settings that all seeds share.
        environment: Versions and machine, by name.
        format: Version of this layout.
    """

    title: str
    created: str
    baseline: str
    labels_arm: str
    runs: tuple[SeedRun, ...]
    failed: dict[str, str]
    arms: tuple[ArmOverSeeds, ...]
    teacher: ArmOverSeeds | None
    pairs: tuple[PairOverSeeds, ...]
    needed: str
    notes: tuple[str, ...]
    currency: str
    config_toml: str
    environment: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def everyone(self) -> tuple[ArmOverSeeds, ...]:
        """The arms, then the teacher where there is one."""
        return self.arms if self.teacher is None else (*self.arms, self.teacher)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that have finished."""
        return tuple(run.seed for run in self.runs)

    def arm(self, name: str) -> ArmOverSeeds:
        """Find an arm, or the teacher, by its name."""
        return next(arm for arm in self.everyone if arm.name == name)

    def against(self, name: str, other: str) -> PairOverSeeds | None:
        """The pair of `name` and `other` in this order, or None where it was not compared."""
        found = (p for p in self.pairs if (p.first, p.second) == (name, other))
        return next(found, None)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, no NaN."""
        return cast(dict[str, object], to_plain(self, where="comparison"))

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> "Comparison":
        """Read what `to_dict` wrote; raises DataError with the path of what does not fit."""
        return from_plain(cls, dict(value), where="comparison")
