"""95 % intervals: paired bootstrap over rows, t over seeds, Wilson for a share.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), Section 13.3 (percentile
interval); Wilson, "Probable inference", JASA 22 (1927).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import ShapeError

Scores = NDArray[np.floating] | NDArray[np.bool_] | NDArray[np.integer]

DRAWS = 10_000
_Z = 1.959963984540054
"""Standard normal quantile at 0.975."""
_LEVELS = 512
"""More distinct scores than this are rounded to a grid: errors of at most 1/1022 of their range."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval, all in the unit of the estimate."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the estimate differs from 0 significantly."""
        return self.low > 0 or self.high < 0

    @property
    def half_width(self) -> float:
        """Half the width of the interval: what the evidence can resolve."""
        return (self.high - self.low) / 2

    def __neg__(self) -> "Interval":
        return Interval(-self.estimate, -self.high, -self.low)


def paired_bootstrap(
    a: Scores, b: Scores, *, draws: int = DRAWS, generator: np.random.Generator
) -> Interval:
    """Compare two models on the same rows: mean(a) - mean(b) with a percentile interval.

    Args:
        a, b: A score a row (right or wrong, a loss), shape (n,); row i of both is the same row.
        draws: Resamples of the rows.
        generator: Source of the resamples.

    Raises:
        ShapeError: shapes differ, or there is no row.

    Cost: O(draws min(v, 512)) time, v the number of distinct differences (3 for right and wrong).
    """
    if a.shape != b.shape:
        raise ShapeError(
            f"a paired comparison needs scores of the same rows, got shapes {a.shape} and "
            f"{b.shape}; score both models on one set of rows."
        )
    return bootstrap_mean(
        a.astype(np.float64) - b.astype(np.float64), draws=draws, generator=generator
    )


def bootstrap_mean(
    scores: Scores, *, draws: int = DRAWS, generator: np.random.Generator
) -> Interval:
    """Mean of `scores`, shape (n,), with the percentile interval of resampled means."""
    if scores.ndim != 1 or len(scores) == 0:
        raise ShapeError(
            f"a bootstrap needs scores of shape (n,) with n >= 1, got {scores.shape}; "
            f"give one score a row."
        )
    values = scores.astype(np.float64)
    means = _resampled_means(values, draws, generator)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


def paired_t(differences: Scores) -> Interval:
    """Mean of seed-paired differences, shape (s,), s >= 2, with the t-interval of s - 1 degrees."""
    from scipy.special import stdtrit

    s = len(differences)
    if differences.ndim != 1 or s < 2:
        raise ShapeError(
            f"a t-interval needs at least 2 differences in one axis, got shape "
            f"{differences.shape}; run more seeds."
        )
    values = differences.astype(np.float64)
    mean = float(values.mean())
    reach = float(stdtrit(s - 1, 0.975)) * float(values.std(ddof=1)) / math.sqrt(s)
    return Interval(mean, mean - reach, mean + reach)


def wilson(successes: int, n: int) -> Interval:
    """Share of successes with Wilson's score interval; it stays in [0, 1], also at 0 and n."""
    if not 0 <= successes <= n or n < 1:
        raise ShapeError(
            f"{successes} successes in {n} trials: need n >= 1 and 0 <= successes <= n."
        )
    return score_interval(successes / n, n)


def score_interval(p: float, n: float, *, z: float = _Z) -> Interval:
    """Wilson's score interval of a share `p` in [0, 1] over `n` > 0 trials.

    `n` may be no whole number, for answers that are worth more or less than one each. `z` is the
    two-sided quantile; the default is that of 95 %.
    """
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The closed form gives exactly 0 and 1 at the ends; floating point may miss them by 1e-17.
    low = 0.0 if p == 0 else centre - reach
    high = 1.0 if p == 1 else centre + reach
    return Interval(p, low, high)


def _resampled_means(
    values: NDArray[np.float64], draws: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) > _LEVELS:
        distinct, counts = _on_a_grid(values)
    # Resampling n rows and counting each value is one multinomial draw: the same law, but its cost
    # depends on the number of distinct values, which is 3 for differences of right and wrong.
    means = generator.multinomial(n, counts / n, size=draws) @ distinct / n
    shifted: NDArray[np.float64] = means + (values.mean() - distinct @ counts / n)
    return shifted


def _on_a_grid(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    low, high = values.min(), values.max()
    width = (high - low) / (_LEVELS - 1)
    counts = np.bincount(np.rint((values - low) / width).astype(np.int64), minlength=_LEVELS)
    return low + width * np.arange(_LEVELS), counts
