"""When the student is unsure, ask the teacher: the deferral curve and the threshold to export.

A row is deferred when the student's calibrated top-1 probability is at most the threshold. So
threshold 0 defers nothing and threshold 1 defers everything, and a higher one never defers less.
The threshold is chosen on validation; the curve that people see is measured on test.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics.metrics import correct
from limbeck.report.results import Deferral, DeferralPoint

__all__ = ["Deferral", "DeferralPoint", "Split", "choose", "curve", "defers", "study"]

TOLERANCE = 0.005
"""Accuracy that may be given up against the best point of the curve; 0.5 points."""
_POINTS = 101


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """What student and teacher say about n rows with true labels.

    Args:
        student_probs: After temperature scaling, float, shape (n, C).
        teacher_probs: float, shape (n, C).
        labels: int, shape (n,).
    """

    student_probs: ArrayLike
    teacher_probs: ArrayLike
    labels: ArrayLike


def defers(student_probs: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Which rows go to the teacher, bool, shape (n,)."""
    # Softmax may round to a hair above 1; threshold 1 must still defer everything.
    confidence = np.minimum(np.asarray(student_probs, np.float64).max(axis=1), 1.0)
    unsure: NDArray[np.bool_] = confidence <= threshold
    return unsure


def curve(split: Split, *, price: float) -> tuple[DeferralPoint, ...]:
    """Accuracy and price for every share of deferred rows, at most about 100 points.

    Args:
        split: The rows.
        price: Of one answer, in millionths of a currency unit, >= 0.

    Returns:
        Points by rising share; the first is the student alone, the last the teacher alone. Rows of
        equal confidence go together, since no threshold can part them.
    """
    points = _every_point(split, price)
    if len(points) <= _POINTS:
        return points
    shares = np.array([p.share for p in points])
    keep = np.unique(np.searchsorted(shares, np.linspace(0, 1, _POINTS)))
    return tuple(points[i] for i in keep)


def choose(
    validation: Split, *, share: float | None = None, tolerance: float = TOLERANCE
) -> tuple[DeferralPoint, str]:
    """Choose the threshold on validation rows.

    Args:
        validation: Rows that neither student nor teacher was trained on.
        share: The most rows that may be deferred, in [0, 1]: the threshold is then the highest
            one within it. None: the smallest share whose accuracy is within `tolerance` of the
            best.
        tolerance: Accuracy that may be given up, >= 0; unused with a `share`.

    Returns:
        The point (its price is 0: the price is reported on test) and the rule as a sentence.

    Raises:
        ConfigError: `share` or `tolerance` is out of range.
    """
    if tolerance < 0:
        raise ConfigError(f"tolerance={tolerance}: must be >= 0; 0 takes the best accuracy.")
    points = _every_point(validation, 0.0)
    if share is not None:
        if not 0 <= share <= 1:
            raise ConfigError(f"share={share}: the share of deferred rows must be in [0, 1].")
        within = [p for p in points if p.share <= share]
        return within[-1], f"the largest share up to the {share:.0%} that was asked for"
    best = max(p.accuracy for p in points)
    enough = next(p for p in points if p.accuracy >= best - tolerance)
    return enough, (
        f"the smallest share whose validation accuracy is within {100 * tolerance:g} points "
        f"of the best ({best:.1%})"
    )


def study(
    validation: Split,
    test: Split,
    *,
    price: float,
    currency: str = "USD",
    share: float | None = None,
    tolerance: float = TOLERANCE,
) -> Deferral:
    """Choose the threshold on validation and measure curve and threshold on test."""
    on_validation, rule = choose(validation, share=share, tolerance=tolerance)
    return Deferral(
        curve=curve(test, price=price),
        chosen=_at(test, on_validation.threshold, price),
        validation=on_validation,
        rule=rule,
        currency=currency,
    )


def _every_point(split: Split, price: float) -> tuple[DeferralPoint, ...]:
    confidence, student, teacher = _read(split)
    n = len(confidence)
    order = np.argsort(confidence, kind="stable")
    ranked = confidence[order]
    # Deferring the k least sure rows swaps k student answers for teacher answers.
    swapped = np.cumsum(teacher[order].astype(np.int64) - student[order])
    last = np.append(np.flatnonzero(np.diff(ranked)), n - 1)  # last row of each run of ties
    right = np.append(0, swapped[last]) + student.sum()
    shares = np.append(0, last + 1) / n
    following = np.append(ranked, 1.0)[last + 1]
    # Half-way between two confidences: a student that rounds differently defers the same rows.
    middle = (ranked[last] + following) / 2
    thresholds = np.append(0.0, np.where(middle < following, middle, ranked[last]))
    thresholds[-1] = 1.0
    columns = zip(thresholds, shares, right / n, shares * price * 1000, strict=True)
    return tuple(DeferralPoint(*(float(v) for v in row)) for row in columns)


def _at(split: Split, threshold: float, price: float) -> DeferralPoint:
    _, student, teacher = _read(split)
    sent = defers(split.student_probs, threshold)
    share = float(sent.mean())
    accuracy = float(np.where(sent, teacher, student).mean())
    return DeferralPoint(threshold, share, accuracy, share * price * 1000)


def _read(split: Split) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    probs = np.asarray(split.student_probs, np.float64)
    if probs.shape != np.shape(split.teacher_probs):
        raise ShapeError(
            f"student and teacher probabilities have shapes {probs.shape} and "
            f"{np.shape(split.teacher_probs)}; ask the teacher about the same rows."
        )
    right = correct(probs, split.labels), correct(split.teacher_probs, split.labels)
    return np.minimum(probs.max(axis=1), 1.0), *right
