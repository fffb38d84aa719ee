"""What the rest will come to: a 95 % interval for a sum, from the first part of it.

Source: Cochran, "Sampling Techniques", 3rd ed. (1977), Sections 2.6 (simple random sampling) and
6.3 (ratio estimate). The interval is Student's, as for a mean.
"""

import math

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics.intervals import Interval

LEAST_BLOCKS = 3


def forecast_sum(
    values: NDArray[np.floating] | NDArray[np.integer],
    units: float,
    *,
    sizes: NDArray[np.integer] | None = None,
) -> Interval:
    """Predict the sum over units to come from blocks of units that were seen.

    With R = sum(values) / sum(sizes), the estimate is R units. Blocks scatter around R sizes with
    a standard deviation s (k - 1 degrees of freedom). Where K = units / mean(sizes) blocks are to
    come, the error has the variance s^2 K (1 + K / k): K for the scatter of the blocks to come and
    K^2 / k for what is not known of R. This is also the variance of the rest of a finite population
    of k + K blocks of which k were drawn: the finite-population correction is in it.

    Args:
        values: Sum of each block seen, >= 0, shape (k,), k >= 3.
        units: Units to come, >= 0.
        sizes: Units of each block, > 0, shape (k,). Default: one each.

    Returns:
        The estimate with its 95 % interval, which does not go below 0.

    Raises:
        ShapeError: fewer than 3 blocks, or shapes differ.
        ConfigError: `units` is negative or a size is not positive.
    """
    from scipy.special import stdtrit

    v = np.asarray(values, np.float64)
    a = np.ones_like(v) if sizes is None else np.asarray(sizes, np.float64)
    k = len(v)
    if v.ndim != 1 or k < LEAST_BLOCKS or a.shape != v.shape:
        raise ShapeError(
            f"a forecast needs at least {LEAST_BLOCKS} blocks, each with a value and a size, got "
            f"values of shape {v.shape} and sizes of shape {a.shape}; wait for more blocks."
        )
    if units < 0 or float(a.min()) <= 0:
        raise ConfigError(
            f"units={units}, smallest size {a.min():g}: units must be >= 0 and sizes > 0."
        )
    ratio = float(v.sum() / a.sum())
    scatter = float(np.square(v - ratio * a).sum()) / (k - 1)
    blocks = units / float(a.mean())
    reach = float(stdtrit(k - 1, 0.975)) * math.sqrt(scatter * blocks * (1 + blocks / k))
    estimate = ratio * units
    return Interval(estimate, max(0.0, estimate - reach), estimate + reach)


def merged(
    values: NDArray[np.float64], sizes: NDArray[np.int64], most: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Join neighbouring blocks so that at most `most` are left, of about as many units each.

    Neighbours in time are alike (a server is slow for a while), and a forecast from many small
    blocks would take them for independent: long blocks are nearly so (batch means).

    Args:
        values, sizes: Of each block, in order, shape (k,).
        most: Blocks to leave, >= 1.

    Returns:
        Values and sizes of the joined blocks, shape (min(k, most),) or less.
    """
    if len(values) <= most:
        return values, sizes
    ends = np.cumsum(sizes)
    place = np.minimum((ends - sizes) * most // ends[-1], most - 1)
    _, starts = np.unique(place, return_index=True)
    return np.add.reduceat(values, starts), np.add.reduceat(sizes, starts)
