"""What a comparison of students found: plain frozen values that go into metrics.json as they are.

The arithmetic that fills them is in `limbeck.distill` (evaluate, deferral, verdict); they live here
because the report is all about them and must not know the job that made them.
Accuracies and shares are in [0, 1], losses in nats, times in seconds, all on test rows unless the
name says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from limbeck.errors import ConfigError
from limbeck.numerics.intervals import Interval
from limbeck.numerics.metrics import ReliabilityBin

ArmKind = Literal["labels", "distilled", "teacher"]
VerdictKind = Literal["ship", "labels_suffice", "stop_buying", "trust_mismatch"]
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One evaluation during training; None where nothing was measured."""

    step: int
    train_loss: float | None
    validation_nll: float | None
    validation_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Confused:
    """How often class `truth` was taken for class `predicted` (positions in the classes)."""

    truth: int
    predicted: int
    count: int


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One way of training a student (or the teacher itself), measured on the test rows.

    Args:
        name: Short name, such as "slam_soft"; unique in an evaluation.
        title: What people read.
        kind: What it learnt from; "teacher" for the teacher.
        chosen: It is the one that ships.
        accuracy: With its 95 % bootstrap interval.
        macro_f1, nll, brier, ece: At temperature 1.
        nll_calibrated, ece_calibrated: After temperature scaling; None without a temperature.
        temperature: Fitted on validation; None when the arm trained on the validation rows.
        confusion: Counts by [truth][prediction]; empty for more classes than fit a table.
        confused: The most frequent mistakes, most frequent first.
        precision, recall: Of each class.
        reliability, reliability_calibrated: Bins of the top-1 probability, before and after.
        validation_accuracy, validation_nll: None when it was not held out.
        steps, best_step, seconds, parameters: None for the teacher where unknown.
        curve: Training curve.
        settings: What else to know about the arm.
        roc_auc: Area under the ROC curve, with its 95 % interval by DeLong; like all that follows,
            None or empty unless there are two classes and both occur on test.
        average_precision: Area under the steps of the precision-recall curve.
        roc: (false positive rate, true positive rate), thinned for a picture.
        precision_recall: (recall, precision), thinned for a picture.
    """

    name: str
    title: str
    kind: ArmKind
    chosen: bool
    accuracy: Interval
    macro_f1: float
    nll: float
    brier: float
    ece: float
    nll_calibrated: float | None
    ece_calibrated: float | None
    temperature: float | None
    confusion: tuple[tuple[int, ...], ...]
    confused: tuple[Confused, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    reliability: tuple[ReliabilityBin, ...]
    reliability_calibrated: tuple[ReliabilityBin, ...]
    validation_accuracy: float | None
    validation_nll: float | None
    steps: int | None = None
    best_step: int | None = None
    seconds: float | None = None
    parameters: int | None = None
    curve: tuple[CurvePoint, ...] = ()
    settings: dict[str, Scalar] = field(default_factory=dict)
    roc_auc: Interval | None = None
    average_precision: float | None = None
    roc: tuple[tuple[float, float], ...] = ()
    precision_recall: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """A score of `first` minus that of `second` on the same rows: accuracy, or ROC area."""

    first: str
    second: str
    interval: Interval


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All arms on the same test rows.

    Args:
        rows: Test rows.
        classes: Class names.
        arms: The students, in the order in which they were given.
        teacher: The teacher, or None when it was not asked about the test rows.
        teacher_validation_accuracy: None when unknown.
        differences: One for each pair of arms, the teacher included.
        labels_arm: The labels-only arm with the best validation accuracy: the one to beat.
        candidate: The distilled arm that the verdict is about: the chosen one, else the one with
            the best validation accuracy.
        shipped: The chosen arm.
        gain_kept: (candidate - labels only) / (teacher - labels only) in accuracy; None when the
            teacher is not significantly above the labels-only student.
        positive: The class that the ROC and precision-recall curves are about; None unless there
            are two classes and both occur on test.
        positive_share: Its share of the test rows: the precision of a random ranking.
        roc_differences: Differences of ROC areas, one for each pair of arms, by DeLong.
    """

    rows: int
    classes: tuple[str, ...]
    arms: tuple[ArmResult, ...]
    teacher: ArmResult | None
    teacher_validation_accuracy: float | None
    differences: tuple[PairedDifference, ...]
    labels_arm: str
    candidate: str
    shipped: str
    gain_kept: float | None
    positive: str | None = None
    positive_share: float | None = None
    roc_differences: tuple[PairedDifference, ...] = ()

    def arm(self, name: str) -> ArmResult:
        """Find an arm, or the teacher, by its name."""
        everyone = self.arms if self.teacher is None else (*self.arms, self.teacher)
        for arm in everyone:
            if arm.name == name:
                return arm
        known = ", ".join(a.name for a in everyone)
        raise ConfigError(f"no arm is called {name!r}; this evaluation has {known}.")

    def difference(self, first: str, second: str) -> Interval:
        """Accuracy of `first` minus accuracy of `second`, paired by row."""
        return _between(self.differences, first, second)

    def roc_difference(self, first: str, second: str) -> Interval:
        """ROC area of `first` minus that of `second`, on the same rows."""
        return _between(self.roc_differences, first, second)


def _between(pairs: Sequence[PairedDifference], first: str, second: str) -> Interval:
    for pair in pairs:
        if (pair.first, pair.second) == (first, second):
            return pair.interval
        if (pair.first, pair.second) == (second, first):
            return -pair.interval
    raise ConfigError(f"{first!r} and {second!r} were not compared; name two different arms.")


@dataclass(frozen=True, slots=True)
class DeferralPoint:
    """What happens when rows with top-1 probability <= threshold go to the teacher.

    Args:
        threshold: In [0, 1].
        share: Share of rows that go.
        accuracy: Of student and teacher together.
        price: Of 1,000 rows, in millionths of the currency.
    """

    threshold: float
    share: float
    accuracy: float
    price: float


@dataclass(frozen=True, slots=True)
class Deferral:
    """The deferral curve and the threshold that is exported.

    Args:
        curve: On test, by rising share, from 0 (student alone) to 1 (teacher alone).
        chosen: The exported threshold, measured on test.
        validation: The same threshold, measured on the validation rows where it was chosen.
        rule: How it was chosen, as a sentence.
        currency: Of the prices.
    """

    curve: tuple[DeferralPoint, ...]
    chosen: DeferralPoint
    validation: DeferralPoint
    rule: str
    currency: str = "USD"


@dataclass(frozen=True, slots=True)
class DecisionCost:
    """What one way of deciding costs on the test rows.

    Args:
        title: What people read.
        threshold: From this probability of the positive class on it is named; 0 is always, 1 never.
        cost: Of 1,000 rows, with its 95 % bootstrap interval.
        saved: What 1,000 rows cost more than with the exported threshold, paired by row; None for
            the exported threshold itself.
        false_positives, false_negatives: Test rows.
        accuracy: Share of test rows that are right.
    """

    title: str
    threshold: float
    cost: Interval
    saved: Interval | None
    false_positives: int
    false_negatives: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The threshold on the probability of the positive class that mistakes of unequal cost want.

    Args:
        positive: The positive class.
        cost_false_positive, cost_false_negative: As they were set.
        threshold: The exported one.
        bayes: cost_false_positive / (cost_false_positive + cost_false_negative).
        cheapest: The cheapest threshold on the validation rows.
        rule: How the exported one was chosen, as a sentence.
        validation_rows, test_rows: How many rows of each.
        ways: On test: the exported threshold, then 0.5, always, never.
        validation_curve, test_curve: (threshold, cost of 1,000 rows), by rising threshold.
    """

    positive: str
    cost_false_positive: float
    cost_false_negative: float
    threshold: float
    bayes: float
    cheapest: float
    rule: str
    validation_rows: int
    test_rows: int
    ways: tuple[DecisionCost, ...]
    validation_curve: tuple[tuple[float, float], ...]
    test_curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class TrustCheck:
    """Does trust, fitted on validation, hold on test?

    Args:
        mean_alpha: Mean of alpha over the test rows, fitted without a floor.
        teacher_accuracy: What the teacher really got right there.
        gap: mean_alpha - teacher_accuracy; its interval counts the luck of the test rows and of
            the validation rows.
        rows, validation_rows: How many of each.
    """

    mean_alpha: float
    teacher_accuracy: float
    gap: Interval
    rows: int
    validation_rows: int

    @property
    def holds(self) -> bool:
        """Whether the gap can be luck."""
        return not self.gap.excludes_zero


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the evidence says."""

    kind: VerdictKind
    title: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The headline and what stands behind it.

    Args:
        kind: Of the headline.
        title: A few words: what to do.
        sentences: Plain words with numbers and intervals, most important first.
        findings: Everything that was found; the first is the headline.
        evidence: The numbers in the sentences, by name.
    """

    kind: VerdictKind
    title: str
    sentences: tuple[str, ...]
    findings: tuple[Finding, ...]
    evidence: dict[str, float]
