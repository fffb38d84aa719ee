"""p-values of seed-paired differences, several of them at once, and the seeds that they need.

Source: Student's t-test; Holm, "A simple sequentially rejective multiple test procedure",
Scandinavian Journal of Statistics 6 (1979), Section 2.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import ConfigError, ShapeError

LEVEL = 0.05
POWER = 0.8


def paired_p(differences: NDArray[np.floating]) -> float:
    """Two-sided p-value of "the mean difference is 0", by the paired t-test.

    Args:
        differences: One a seed, float, shape (s,), s >= 2.

    Returns:
        In [0, 1]; below 0.05 exactly where the interval of `paired_t` excludes 0. Differences that
        are all the same give 0, or 1 where they are all 0.

    Raises:
        ShapeError: fewer than two differences.
    """
    from scipy.special import stdtr

    s = len(differences)
    if differences.ndim != 1 or s < 2:
        raise ShapeError(
            f"a t-test needs at least 2 differences in one axis, got shape {differences.shape}; "
            f"run more seeds."
        )
    values = differences.astype(np.float64)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(s)
    if error == 0:
        return float(mean == 0)
    return float(2 * stdtr(s - 1, -abs(mean) / error))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjust p-values of several tests, in their order.

    Args:
        p_values: Of m tests, in [0, 1].

    Returns:
        In [0, 1], none below its own p-value.

    Guarantee: calling a difference real where its value here is below 0.05 is wrong about any of
    the m differences with a probability of at most 5 %, whatever the tests have to do with each
    other.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return tuple(adjusted)


def seeds_needed(
    deviation: float, difference: float, *, power: float = POWER, least: int = 2, most: int = 10_000
) -> int | None:
    """How many seeds until a paired t-test at 5 % finds a true difference of this size.

    Args:
        deviation: Standard deviation of the seed-paired differences, >= 0.
        difference: True mean difference, > 0, in the same unit.
        power: Share of such comparisons that should find it, in (0, 1).
        least, most: Fewest and most seeds to consider.

    Returns:
        The smallest such number, or None where `most` are not enough.

    Raises:
        ConfigError: a value is out of range.

    Cost: O(log most) evaluations of the noncentral t distribution.
    """
    if deviation < 0 or difference <= 0 or not 0 < power < 1:
        raise ConfigError(
            f"deviation={deviation}, difference={difference}, power={power}: need deviation >= 0, "
            f"difference > 0 and power in (0, 1)."
        )
    if _power(least, deviation, difference) >= power:
        return least
    if _power(most, deviation, difference) < power:
        return None
    low, high = least, most  # power grows with the seeds
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if _power(middle, deviation, difference) >= power else (middle, high)
        )
    return high


def _power(seeds: int, deviation: float, difference: float) -> float:
    """Probability that the test finds the difference, with the right sign."""
    from scipy.special import nctdtr, stdtrit

    if deviation == 0:
        return 1.0
    shift = difference / deviation * math.sqrt(seeds)
    if shift > 30:  # far beyond any critical value of 3 seeds and more, and nctdtr may not converge
        return 1.0
    found = 1.0 - float(nctdtr(seeds - 1, shift, stdtrit(seeds - 1, 1 - LEVEL / 2)))
    return found if math.isfinite(found) else 1.0
