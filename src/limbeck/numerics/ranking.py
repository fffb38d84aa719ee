"""How well scores rank two classes: ROC and precision-recall curves, areas, DeLong's interval.

Everything is pure and computed by numpy in float64. n rows; `scores` are float, shape (n,), higher
for the positive class, without NaN; `positive` says which rows are positive, bool, shape (n,). A
row is called positive when its score is at least the threshold, so rows of equal score go together.

Source: DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated
receiver operating characteristic curves", Biometrics 44 (1988), computed by ranks as in Sun and
Xu, "Fast implementation of DeLong's algorithm", IEEE Signal Processing Letters 21 (2014).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from limbeck.errors import DataError, ShapeError
from limbeck.numerics.intervals import Interval, score_interval

_Z = 1.959963984540054  # standard normal quantile at 0.975
_NOTHING = 1e-24  # a variance that is rounding alone


@dataclass(frozen=True, slots=True, eq=False)
class RankingCurve:
    """A curve with one point for each distinct score, from the highest threshold to the lowest.

    Args:
        x, y: Coordinates in [0, 1], float64, shape (m,).
        thresholds: Score from which on a row is called positive, float64, shape (m,), falling.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    def thinned(self, most: int) -> tuple[tuple[float, float], ...]:
        """At most `most` + 1 points, ends included, evenly along x + rising y: for a picture."""
        keep = np.arange(len(self.x))
        if len(keep) > most:
            way = self.x + np.maximum.accumulate(self.y)
            keep = np.searchsorted(way, np.linspace(way[0], way[-1], most))
            keep = np.unique(np.append(keep, len(self.x) - 1))
        return tuple((round(float(self.x[i]), 5), round(float(self.y[i]), 5)) for i in keep)


def roc_curve(scores: ArrayLike, positive: ArrayLike) -> RankingCurve:
    """True positive rate (y) against false positive rate (x), from (0, 0) at threshold inf.

    Raises:
        DataError: only one class occurs, or a score is NaN; ShapeError: shapes differ.

    Cost: O(n log n) time, O(n) memory.
    """
    values, truth = _arrays(scores, positive)
    thresholds, hits, alarms = _cumulated(values, truth)
    return RankingCurve(
        x=np.append(0.0, alarms / alarms[-1]),
        y=np.append(0.0, hits / hits[-1]),
        thresholds=np.append(np.inf, thresholds),
    )


def precision_recall_curve(scores: ArrayLike, positive: ArrayLike) -> RankingCurve:
    """Precision (y) against recall (x); the last point is the share of positive rows, at recall 1.

    Raises:
        DataError: only one class occurs, or a score is NaN; ShapeError: shapes differ.

    Cost: O(n log n) time, O(n) memory.
    """
    values, truth = _arrays(scores, positive)
    thresholds, hits, alarms = _cumulated(values, truth)
    return RankingCurve(x=hits / hits[-1], y=hits / (hits + alarms), thresholds=thresholds)


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float:
    """Area under the precision-recall steps: precision weighted by the gain in recall.

    Steps, not straight lines: between two points of the curve precision does not go straight, and
    lines would flatter. The expectation of a random ranking is near the share of positive rows.
    """
    curve = precision_recall_curve(scores, positive)
    return float((np.diff(curve.x, prepend=0.0) * curve.y).sum())


def roc_auc(scores: ArrayLike, positive: ArrayLike) -> Interval:
    """Probability that a positive row scores above a negative one; ties count half (Mann-Whitney).

    Args:
        scores: Higher for the positive class.
        positive: Which rows are positive.

    Returns:
        The area with its 95 % interval: DeLong's variance, on the scale of log-odds so that it
        stays in [0, 1]. Where that variance is 0 or unknown (area 0 or 1, or one row of a class)
        it is Wilson's interval of a share over as many trials as the rarer class has rows: no area
        varies more than such a share (Birnbaum and Klose, Annals of Mathematical Statistics 28,
        1957).

    Raises:
        DataError: only one class occurs, or a score is NaN; ShapeError: shapes differ.

    Cost: O(n log n) time, O(n) memory.
    """
    values, truth = _arrays(scores, positive)
    above, below = _placements(values, truth)
    area = float(above.mean())
    rarer = min(len(above), len(below))
    variance = _variance(above, below) if rarer > 1 else 0.0
    if variance <= 0 or not 0 < area < 1:
        return score_interval(min(max(area, 0.0), 1.0), rarer)
    centre = math.log(area / (1 - area))
    reach = _Z * math.sqrt(variance) / (area * (1 - area))
    return Interval(area, _expit(centre - reach), _expit(centre + reach))


def roc_auc_difference(first: ArrayLike, second: ArrayLike, positive: ArrayLike) -> Interval:
    """Area of `first` minus area of `second` on the same rows, with DeLong's paired 95 % interval.

    Args:
        first, second: Scores of two models, float, shape (n,); row i of both is the same row.
        positive: Which rows are positive.

    Returns:
        The difference, in [-1, 1]. With one row of a class nothing is known, and the interval is
        [-1, 1]. Where both place every row alike among those of the other class, the interval is
        [0, 0]: these rows show the same ranking, whichever of them are looked at. That is no
        evidence that the models are equal, and `excludes_zero` is false.

    Raises:
        DataError: only one class occurs, or a score is NaN; ShapeError: shapes differ.

    Cost: O(n log n) time, O(n) memory.
    """
    one, truth = _arrays(first, positive)
    other, _ = _arrays(second, positive)
    (above, below), (above2, below2) = _placements(one, truth), _placements(other, truth)
    difference = float(above.mean() - above2.mean())
    if min(len(above), len(below)) < 2:
        return Interval(difference, -1.0, 1.0)
    variance = _variance(above - above2, below - below2)
    if variance < _NOTHING and difference != 0:
        # Every row tells the same difference, which a few rows can do by chance.
        return _from_both(roc_auc(one, truth), roc_auc(other, truth))
    reach = _Z * math.sqrt(variance)
    return Interval(difference, max(difference - reach, -1.0), min(difference + reach, 1.0))


def _from_both(first: Interval, second: Interval) -> Interval:
    """Interval of a difference from those of its two parts, by squares and sums.

    Source: Newcombe, "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 17 (1998), method 10.
    """
    difference = first.estimate - second.estimate
    below = math.hypot(first.estimate - first.low, second.high - second.estimate)
    above = math.hypot(first.high - first.estimate, second.estimate - second.low)
    return Interval(difference, max(difference - below, -1.0), min(difference + above, 1.0))


def _arrays(
    scores: ArrayLike, positive: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, truth = np.asarray(scores, np.float64), np.asarray(positive)
    if values.ndim != 1 or truth.shape != values.shape or truth.dtype != np.bool_:
        raise ShapeError(
            f"a ranking needs scores of shape (n,) and as many bools, got {values.shape} and "
            f"{truth.dtype} of shape {truth.shape}; give one score and one bool a row."
        )
    count = int(truth.sum())
    if count in (0, len(truth)):
        raise DataError(
            f"a ranking needs rows of both classes, got {count} positive and {len(truth) - count} "
            f"negative; measure on rows that hold some of each."
        )
    if np.isnan(values).any():
        raise DataError(
            f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN, which have no rank; "
            f"give numbers."
        )
    return values, truth


def _cumulated(
    values: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Distinct scores, falling, with the positive and the negative rows at or above each."""
    distinct, place = np.unique(values, return_inverse=True)
    hits = np.bincount(place[truth], minlength=len(distinct))[::-1].cumsum()
    alarms = np.bincount(place[~truth], minlength=len(distinct))[::-1].cumsum()
    return distinct[::-1], hits.astype(np.float64), alarms.astype(np.float64)


def _placements(
    values: NDArray[np.float64], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each positive row the share of negative rows below it, ties half; for negative, above."""
    everyone = _midranks(values)
    m, n = int(truth.sum()), int((~truth).sum())
    above = (everyone[truth] - _midranks(values[truth])) / n
    below = 1.0 - (everyone[~truth] - _midranks(values[~truth])) / m
    return above, below


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks


def _variance(above: NDArray[np.float64], below: NDArray[np.float64]) -> float:
    return float(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
