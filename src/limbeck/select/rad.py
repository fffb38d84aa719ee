"""Robust active distillation: ask about rows that are informative and that the teacher knows.

A player spreads its questions over n rows with gains g; then an adversary picks the m rows that the
teacher gets wrong, whose gain is lost. The player's best answer to the worst adversary puts
probability on the k most informative rows, in inverse proportion to their gain.

Source: Baykal, Trinh, Iliopoulos, Menghani, Vee, "Robust active distillation", ICLR 2023, arXiv
2210.01213; its abstract was at hand. The closed form of the game is a reconstruction, checked
against the linear program that defines it; the game with caps for batches is our own.
"""

import operator
from bisect import bisect_left

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.select.gains import check_gains

FLOOR = 1e-6
"""Gains below this count as this: 1 / g must stay finite."""
_HALVINGS = 200


def rad_distribution(gains: Tensor, mistakes: int) -> tuple[Tensor, float]:
    """Solve max over q, min over sets M of m rows, of the sum of q_i g_i outside of M.

    With gains in descending order s_1 >= s_2 >= ... and H_k = 1/s_1 + ... + 1/s_k,
    k* = argmax over k > m of (k - m) / H_k (the smallest such k), q_i = (1 / g_i) / H_k* for the
    k* rows of largest gain, else 0.

    Args:
        gains: Informativeness g of each row, in [0, 1], floating point, shape (n,), n >= 1.
        mistakes: Rows m that the teacher gets wrong, >= 0; n - 1 at most counts.

    Returns:
        The distribution q over rows, float64, shape (n,); and the value (k* - m) / H_k*: the gain
        of one question against the worst adversary. Of equal gains the earlier row comes first.

    Raises:
        ShapeError, ConfigError: gains are no gains, or `mistakes` is negative.

    Cost: O(n log n) time, 40 bytes a row.
    """
    s, order, m = sorted_gains(gains, mistakes)
    harmonic = np.cumsum(1 / s)
    k = _support(harmonic, m)
    q = np.zeros(len(s))
    q[order[:k]] = 1 / s[:k] / harmonic[k - 1]
    return torch.from_numpy(q).to(gains.device), float((k - m) / harmonic[k - 1])


def rad_inclusion(gains: Tensor, mistakes: int, k: int) -> Tensor:
    """Inclusion probabilities of a batch of k rows: the same game with p_i <= 1 and sum k.

    The value of p is max over c >= 0 of sum_i min(p_i g_i, c) - m c. For a given c the best p fills
    rows in descending order of gain up to min(1, c / g_i) until k is used up; that value is concave
    in c and its slope is known, so c is found by bisection. What is left over goes to the most
    informative rows.

    Args:
        gains: Informativeness of each row, in [0, 1], floating point, shape (n,).
        mistakes: Rows m that the teacher gets wrong, >= 0; n - 1 at most counts. 0 gives exactly
            the k rows of largest gain.
        k: Rows of the batch, 0 <= k <= n.

    Returns:
        p, float64, in [0, 1], sum k, shape (n,). `limbeck.numerics.rounding` draws by it.

    Raises:
        ShapeError, ConfigError: as `rad_distribution`, or k is out of range.

    Cost: O(n log n) time, 60 bytes a row: 10 million rows in seconds.
    """
    check_batch(k, len(gains))
    if k in (0, len(gains)):
        check_gains(gains)
        return torch.full((len(gains),), float(k > 0), dtype=torch.float64, device=gains.device)
    s, order, m = sorted_gains(gains, mistakes)
    filled = np.zeros(len(s))
    if m == 0:
        filled[:k] = 1.0
    else:
        _fill(filled, s, np.cumsum(1 / s), m, k)
    p = np.empty(len(s))
    p[order] = filled
    return torch.from_numpy(p).to(gains.device)


def worst_case(p: Tensor, gains: Tensor, mistakes: int) -> float:
    """Gain of inclusion probabilities when the teacher errs on the worst m rows.

    Args:
        p: A distribution, or inclusion probabilities of a batch, shape (n,).
        gains: Informativeness of each row, in [0, 1], shape (n,).
        mistakes: Rows m that the teacher gets wrong.

    Returns:
        The sum of p_i g_i without its m largest terms.

    Cost: O(n log n).
    """
    check_gains(gains)
    products = (p.double() * gains.double()).sort(descending=True).values
    return float(products[max(mistakes, 0) :].sum())


def expected_inclusion(gains: Tensor, error: Tensor, k: int) -> Tensor:
    """Inclusion probabilities where the teacher's error at each row can be estimated beforehand.

    Maximises sum_i p_i g_i (1 - e_i): the k rows with the largest expected gain, with no adversary.

    Args:
        gains: Informativeness g of each row, in [0, 1], shape (n,).
        error: Probability e that the teacher is wrong, in [0, 1], shape (n,).
        k: Rows of the batch, 0 <= k <= n.

    Returns:
        p in {0, 1}, float64, shape (n,), sum k; of equal ones the earlier row.

    Raises:
        ShapeError, ConfigError: gains or errors are out of [0, 1], lengths differ, k out of range.
    """
    check_batch(k, len(gains))
    check_gains(gains)
    if error.shape != gains.shape:
        raise ConfigError(f"{len(error)} errors for {len(gains)} gains; give one for each row.")
    if not bool(((error >= 0) & (error <= 1)).all()):  # NaN fails both
        raise ConfigError(
            "the teacher's errors must be probabilities in [0, 1], without NaN; give 1 - trust."
        )
    expected = gains.double() * (1 - error.double())
    p = torch.zeros(len(gains), dtype=torch.float64, device=gains.device)
    p[expected.sort(descending=True, stable=True).indices[:k]] = 1.0
    return p


def _fill(
    p: NDArray[np.float64], s: NDArray[np.float64], harmonic: NDArray[np.float64], m: int, k: int
) -> None:
    """Write the best inclusion probabilities into `p`, in the order of descending gain."""
    low, high = 0.0, float(s[0])
    for _ in range(_HALVINGS):
        c = (low + high) / 2
        if c in (low, high):
            break
        low, high = (c, high) if _slope(s, harmonic, m, k, c) > 0 else (low, c)
    above, whole = _filled(s, harmonic, k, high)
    p[:whole] = np.minimum(1, high / s[:whole])
    left = k - float(p[:whole].sum())
    if whole < len(s):
        p[whole] = min(max(left, 0.0), 1.0)
        left -= p[whole]
    # Rows that are not full yet, the most informative first.
    room = 1 - p[:above]
    added = np.clip(left - (np.cumsum(room) - room), 0, room) if left > 0 else 0.0
    p[:above] += added


def _filled(
    s: NDArray[np.float64], harmonic: NDArray[np.float64], k: int, c: float
) -> tuple[int, int]:
    """How many rows have a gain above c, and how many are filled to min(1, c / gain) by k."""
    above = bisect_left(s, -c, key=operator.neg)
    used = c * harmonic[above - 1] if above else 0.0
    if used >= k:
        return above, int(np.searchsorted(harmonic, k / c, side="right"))
    return above, min(len(s), above + int(k - used))


def _slope(
    s: NDArray[np.float64], harmonic: NDArray[np.float64], m: int, k: int, c: float
) -> float:
    """Right derivative by c of the value of the best filling."""
    above, whole = _filled(s, harmonic, k, c)
    rising = min(above, whole)
    last = s[whole] if whole < len(s) else 0.0
    spent = harmonic[rising - 1] if rising else 0.0
    return float(rising - m - last * spent)


def sorted_gains(
    gains: Tensor, mistakes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Gains in descending order with their floor, the rows in that order, and m in range."""
    check_gains(gains)
    if len(gains) == 0:
        raise ConfigError("no gains, so there is nothing to choose from; give at least one row.")
    if mistakes < 0:
        raise ConfigError(f"mistakes={mistakes}: must be >= 0; round (1 - accuracy) n.")
    s, order = gains.detach().cpu().sort(descending=True, stable=True)
    return s.double().clamp_min_(FLOOR).numpy(), order.numpy(), min(mistakes, len(gains) - 1)


def _support(harmonic: NDArray[np.float64], m: int) -> int:
    """The smallest k > m that maximises (k - m) / H_k."""
    value = np.arange(1, len(harmonic) - m + 1) / harmonic[m:]
    # Rounding must not make one of several equal values the largest.
    return int(m + 1 + np.argmax(value >= value.max() * (1 - 1e-14)))


def check_batch(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ConfigError(f"k={k}: a batch from {n} rows must have 0 to {n} of them.")
