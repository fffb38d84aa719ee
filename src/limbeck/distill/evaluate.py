"""Measure every arm, and the teacher, on the same test rows, with paired intervals.

Pure: log-probabilities in, an `Evaluation` out. Nothing here looks at test rows to choose which
student ships: that was decided on validation before (`ArmRun.chosen`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics import metrics, ranking
from limbeck.numerics.intervals import Interval, bootstrap_mean, paired_bootstrap, wilson
from limbeck.report.plain import from_plain, to_plain
from limbeck.report.results import (
    ArmKind,
    ArmResult,
    Confused,
    CurvePoint,
    Evaluation,
    PairedDifference,
    Scalar,
)

__all__ = [
    "ArmRun",
    "Evaluation",
    "TeacherRun",
    "best_on_validation",
    "evaluate",
    "from_dict",
    "to_dict",
]

TEACHER = "teacher"
_MAX_TABLE = 30
"""Classes up to which the whole confusion matrix is kept (and can be read)."""
_CONFUSED = 20
_CURVE_POINTS = 149


@dataclass(frozen=True, slots=True, eq=False)
class ArmRun:
    """A trained student, as the training left it.

    Args:
        name: Short unique name: "labels", "labels_and_validation", "hard_kd", "soft_kd",
            "slam_soft", "slam_hard".
        title: What people read.
        kind: "labels" when no teacher answer was used, else "distilled".
        test_log_probs: Log-probabilities at temperature 1, float, shape (n, C), n test rows.
        chosen: It is the one that ships; decided on validation.
        temperature: Fitted on validation; None without one.
        validation_accuracy, validation_nll: None when nothing was held out.
        steps, best_step: Gradient steps taken, and the one whose weights were kept.
        seconds: Spent in training.
        parameters: Of the student.
        curve: (step, train loss, validation NLL, validation accuracy) of each evaluation.
        settings: What else to know: learning rate, objective settings.
    """

    name: str
    title: str
    kind: Literal["labels", "distilled"]
    test_log_probs: NDArray[np.floating]
    chosen: bool = False
    temperature: float | None = None
    validation_accuracy: float | None = None
    validation_nll: float | None = None
    steps: int | None = None
    best_step: int | None = None
    seconds: float | None = None
    parameters: int | None = None
    curve: tuple[tuple[int, float | None, float | None, float | None], ...] = ()
    settings: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class TeacherRun:
    """The teacher as an arm.

    Args:
        test_probs: Its answers on the test rows, float, shape (n, C); None when it was not asked.
        title: What people read.
        validation_accuracy: On the validation rows; None when it was not asked there.
        temperature: Fitted on validation; None when it was not asked there.
        parameters: None when unknown.
    """

    test_probs: NDArray[np.floating] | None
    title: str = "Teacher"
    validation_accuracy: float | None = None
    temperature: float | None = None
    parameters: int | None = None


def evaluate(
    arms: Sequence[ArmRun],
    teacher: TeacherRun,
    labels: NDArray[np.integer],
    classes: Sequence[str],
    *,
    generator: np.random.Generator,
    positive: str = "",
) -> Evaluation:
    """Compare arms on test rows.

    Args:
        arms: At least one of each kind, exactly one of them chosen.
        teacher: The teacher, also when it was not asked about test rows.
        labels: True classes of the test rows, int, shape (n,).
        classes: C class names.
        generator: Draws the bootstrap resamples.
        positive: Of two classes the one that ROC and precision-recall curves are about; "" for the
            second.

    Raises:
        ConfigError: a kind of arm is missing, names repeat, or not exactly one arm is chosen.
        ShapeError: an arm has not one row of C log-probabilities for each label.

    Cost: O(arms n C) plus 10,000 multinomial draws for each pair of arms; under a second.
    """
    _check(arms, teacher, labels, len(classes))
    place = _positive_place(labels, classes, positive)
    results = [_ranked(_measure(a, a.kind, labels, generator), a, labels, place) for a in arms]
    everyone, taught, asked = list(arms), None, _as_run(teacher)
    if asked is not None:
        taught = _ranked(_measure(asked, "teacher", labels, generator), asked, labels, place)
        everyone.append(asked)
    right = {a.name: metrics.correct(a.test_log_probs, labels) for a in everyone}
    differences = tuple(
        PairedDifference(a, b, paired_bootstrap(right[a], right[b], generator=generator))
        for a, b in combinations(right, 2)
    )
    # Chosen on validation like everything else: the best of two on test would be a little too good,
    # which is harmless where it must be beaten but not where the teacher is called worse.
    labels_arm = best_on_validation([r for r in results if r.kind == "labels"])
    candidate = _candidate(results)
    return Evaluation(
        rows=len(labels),
        classes=tuple(classes),
        arms=tuple(results),
        teacher=taught,
        teacher_validation_accuracy=teacher.validation_accuracy,
        differences=differences,
        labels_arm=labels_arm.name,
        candidate=candidate.name,
        shipped=next(r.name for r in results if r.chosen),
        gain_kept=_gain_kept(candidate, labels_arm, taught, differences),
        positive=None if place is None else classes[place],
        positive_share=None if place is None else float((labels == place).mean()),
        roc_differences=() if place is None else _roc_differences(everyone, labels, place),
    )


def to_dict(evaluation: Evaluation) -> dict[str, object]:
    """Plain JSON values, no NaN."""
    return cast(dict[str, object], to_plain(evaluation, where="evaluation"))


def from_dict(value: Mapping[str, object]) -> Evaluation:
    """Read what `to_dict` wrote; raises DataError with the path of what does not fit."""
    return from_plain(Evaluation, dict(value), where="evaluation")


def _check(
    arms: Sequence[ArmRun], teacher: TeacherRun, labels: NDArray[np.integer], num_classes: int
) -> None:
    names = [a.name for a in arms]
    if len(set(names)) < len(names) or TEACHER in names:
        raise ConfigError(
            f"arms are named {names}; names must differ and {TEACHER!r} is the teacher's own."
        )
    if {a.kind for a in arms} != {"labels", "distilled"}:
        raise ConfigError(
            f"arms {names} leave nothing to compare; give at least one labels-only arm and one "
            f"distilled arm."
        )
    chosen = [a.name for a in arms if a.chosen]
    if len(chosen) != 1:
        raise ConfigError(f"{len(chosen)} arms are chosen ({chosen}); exactly one can ship.")
    wanted = (len(labels), num_classes)
    everyone = [(a.name, a.test_log_probs) for a in arms]
    if teacher.test_probs is not None:
        everyone.append((TEACHER, teacher.test_probs))
    for name, values in everyone:
        if tuple(values.shape) != wanted or len(labels) == 0:
            raise ShapeError(
                f"{name} has test probabilities of shape {tuple(values.shape)}, expected {wanted} "
                f"with at least one row; predict all test rows with every arm."
            )


def _as_run(teacher: TeacherRun) -> ArmRun | None:
    if teacher.test_probs is None:
        return None
    probs = np.asarray(teacher.test_probs, np.float64)
    return ArmRun(
        name=TEACHER,
        title=teacher.title,
        kind="labels",
        # A teacher may say exactly 0; the loss of such a row is cut where `nll` cuts it.
        test_log_probs=np.log(np.maximum(probs, np.exp(-100.0))),
        temperature=teacher.temperature,
        validation_accuracy=teacher.validation_accuracy,
        parameters=teacher.parameters,
    )


def _measure(
    run: ArmRun, kind: ArmKind, labels: NDArray[np.integer], generator: np.random.Generator
) -> ArmResult:
    log_probs = np.asarray(run.test_log_probs, np.float64)
    right = metrics.correct(log_probs, labels)
    counts = metrics.confusion(log_probs.argmax(axis=1), labels, log_probs.shape[1])
    precision, recall = metrics.precision_recall(counts)
    raw = metrics.reliability(np.exp(log_probs), labels)
    cool = None
    cool_bins: tuple[metrics.ReliabilityBin, ...] = ()
    if run.temperature is not None:
        cool = metrics.tempered(log_probs, run.temperature)
        cool_bins = metrics.reliability(np.exp(cool), labels)
    return ArmResult(
        name=run.name,
        title=run.title,
        kind=kind,
        chosen=run.chosen,
        accuracy=_share(right, generator),
        macro_f1=metrics.macro_f1(counts),
        nll=metrics.nll(log_probs, labels),
        brier=metrics.brier(np.exp(log_probs), labels),
        ece=metrics.ece(raw),
        nll_calibrated=None if cool is None else metrics.nll(cool, labels),
        ece_calibrated=metrics.ece(cool_bins) if cool_bins else None,
        temperature=run.temperature,
        confusion=_table(counts),
        confused=_most_confused(counts),
        precision=tuple(precision.tolist()),
        recall=tuple(recall.tolist()),
        reliability=raw,
        reliability_calibrated=cool_bins,
        validation_accuracy=run.validation_accuracy,
        validation_nll=run.validation_nll,
        steps=run.steps,
        best_step=run.best_step,
        seconds=run.seconds,
        parameters=run.parameters,
        curve=tuple(CurvePoint(*point) for point in run.curve),
        settings=dict(run.settings),
    )


def _positive_place(
    labels: NDArray[np.integer], classes: Sequence[str], positive: str
) -> int | None:
    """Position of the positive class; None where there is nothing to rank."""
    if len(classes) != 2 or len(np.unique(labels)) < 2:
        return None
    return list(classes).index(positive) if positive else 1


def _log_odds(run: ArmRun, place: int) -> NDArray[np.float64]:
    """Scores that rank as the probability does, but keep apart what rounds to probability 1."""
    log_probs = np.asarray(run.test_log_probs, np.float64)
    odds: NDArray[np.float64] = log_probs[:, place] - log_probs[:, 1 - place]
    return odds


def _ranked(
    result: ArmResult, run: ArmRun, labels: NDArray[np.integer], place: int | None
) -> ArmResult:
    if place is None:
        return result
    scores, truth = _log_odds(run, place), labels == place
    return replace(
        result,
        roc_auc=ranking.roc_auc(scores, truth),
        average_precision=ranking.average_precision(scores, truth),
        roc=ranking.roc_curve(scores, truth).thinned(_CURVE_POINTS),
        precision_recall=ranking.precision_recall_curve(scores, truth).thinned(_CURVE_POINTS),
    )


def _roc_differences(
    runs: Sequence[ArmRun], labels: NDArray[np.integer], place: int
) -> tuple[PairedDifference, ...]:
    odds = {run.name: _log_odds(run, place) for run in runs}
    return tuple(
        PairedDifference(a, b, ranking.roc_auc_difference(odds[a], odds[b], labels == place))
        for a, b in combinations(odds, 2)
    )


def _share(right: NDArray[np.bool_], generator: np.random.Generator) -> Interval:
    if right.all() or not right.any():
        # Resampling equal rows gives an interval of no width: a claim that n rows cannot carry.
        return wilson(int(right.sum()), len(right))
    return bootstrap_mean(right, generator=generator)


def _table(counts: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    if len(counts) > _MAX_TABLE:
        return ()
    return tuple(tuple(int(c) for c in row) for row in counts)


def _most_confused(counts: NDArray[np.int64]) -> tuple[Confused, ...]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSED]
    cells = zip(*np.unravel_index(order, wrong.shape), strict=True)
    found = (Confused(int(t), int(p), int(wrong[t, p])) for t, p in cells)
    return tuple(c for c in found if c.count > 0)


def _candidate(results: Sequence[ArmResult]) -> ArmResult:
    distilled = [r for r in results if r.kind == "distilled"]
    chosen = [r for r in distilled if r.chosen]
    return chosen[0] if chosen else best_on_validation(distilled)


def best_on_validation(arms: Sequence[ArmResult]) -> ArmResult:
    """The arm with the best validation accuracy; equal ones by NLL, then by order."""
    return max(
        arms,
        key=lambda a: (
            -1.0 if a.validation_accuracy is None else a.validation_accuracy,
            -np.inf if a.validation_nll is None else -a.validation_nll,
        ),
    )


def _gain_kept(
    candidate: ArmResult,
    labels_arm: ArmResult,
    teacher: ArmResult | None,
    differences: Sequence[PairedDifference],
) -> float | None:
    if teacher is None:
        return None
    gain = next(
        d.interval
        for d in differences
        if (d.first, d.second) == (labels_arm.name, TEACHER)  # the teacher comes last in a pair
    )
    if gain.high >= 0:  # labels only is not significantly below: a ratio of noise says nothing
        return None
    return (candidate.accuracy.estimate - labels_arm.accuracy.estimate) / -gain.estimate
