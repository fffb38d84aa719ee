"""Draw exactly k distinct rows, each with a probability of its own.

Source: Gandhi, Khuller, Parthasarathy, Srinivasan, "Dependent rounding and its applications to
approximation algorithms", JACM 53 (2006), Section 2, for the rounding; the same scheme is known as
pivotal sampling: Deville and Tille, "Unequal probability sampling without replacement through a
splitting method", Biometrika 85 (1998), Section 5. Systematic sampling is Madow's (1949).
"""

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError

_SUM_TOLERANCE = 1e-6


def dependent_rounding(p: Tensor, generator: torch.Generator) -> Tensor:
    """Draw rows such that row i is among them with probability p_i, by a tournament of pairs.

    Two rows with probabilities a and c meet. With a + c < 1 one of them is out and the other goes
    on with a + c; otherwise one is drawn and the other goes on with a + c - 1. Who it is is chosen
    so that both keep their marginals. All pairs of a level meet at once, in random order.

    Args:
        p: Inclusion probabilities, floating point, in [0, 1], shape (n,), with an integer sum k.
        generator: Source of randomness, on the device of `p`.

    Returns:
        Drawn rows in ascending order, int64, shape (k,): those with p = 1 always, p = 0 never.

    Raises:
        ShapeError: `p` is not a 1-d floating-point tensor.
        ConfigError: a probability is NaN or out of [0, 1], or the sum is no integer within 1e-6 k.

    Cost: O(n) time and about 40 n bytes.
    Guarantee: the marginals are p (up to float64), the size is k, and of two rows the one is never
    made likelier by the other: E[X_i X_j] <= p_i p_j.
    """
    x, k = _checked(p)
    drawn = x >= 1
    open_rows = ((x > 0) & (x < 1)).nonzero()[:, 0]
    open_rows = open_rows[torch.randperm(len(open_rows), generator=generator, device=x.device)]
    left = x[open_rows]
    while len(left) > 1:
        half = len(left) // 2
        a, c = left[:half], left[half : 2 * half]
        u = torch.rand(half, dtype=torch.float64, generator=generator, device=x.device)
        total = a + c
        out = total < 1
        # Below one: a survives with a / (a + c). Above: a is drawn with (1 - c) / (2 - a - c), and
        # survives otherwise.
        first_stays = torch.where(out, u * total < a, u * (2 - total) >= 1 - c)
        rows_a, rows_c = open_rows[:half], open_rows[half : 2 * half]
        stays, ends = _switch(first_stays, rows_a, rows_c)
        drawn[ends[~out]] = True
        value = torch.where(out, total, total - 1)
        # Rounding may have brought a survivor to 0 or 1, which is then settled as well.
        drawn[stays[value >= 1]] = True
        going = (value > 0) & (value < 1)
        open_rows = torch.cat([stays[going], open_rows[2 * half :]])
        left = torch.cat([value[going], left[2 * half :]])
    if len(left):  # the sum is an integer, so what is left of it is one up to rounding
        drawn[open_rows] = left >= 0.5
    rows = drawn.nonzero()[:, 0]
    assert len(rows) == k, (len(rows), k)
    return rows


def systematic_sampling(p: Tensor, generator: torch.Generator) -> Tensor:
    """Draw rows such that row i is among them with probability p_i, by equal steps from one start.

    Rows in random order lie on a line, each as long as its probability; with u uniform in [0, 1)
    those are drawn on which u, u + 1, u + 2, ... fall.

    Args:
        p: Inclusion probabilities, floating point, in [0, 1], shape (n,), with an integer sum k.
        generator: Source of randomness, on the device of `p`.

    Returns:
        Drawn rows in ascending order, int64, shape (k,): those with p = 1 always, p = 0 never.

    Raises:
        ShapeError, ConfigError: as `dependent_rounding`.

    Cost: O(n) time, one random number beside the order; about 32 n bytes.
    Guarantee: the marginals are p and the size is k. Pairs may be positively correlated.
    """
    x, k = _checked(p)
    sure = (x >= 1).nonzero()[:, 0]
    open_rows = ((x > 0) & (x < 1)).nonzero()[:, 0]
    want = k - len(sure)
    if want <= 0 or len(open_rows) == 0:
        return sure[:k]
    open_rows = open_rows[torch.randperm(len(open_rows), generator=generator, device=x.device)]
    ends = x[open_rows].cumsum(0)
    ends *= want / ends[-1]  # rounding must not lose or add a step
    ends[-1] = want
    u = torch.rand((), dtype=torch.float64, generator=generator, device=x.device)
    steps = torch.arange(want, device=x.device)
    hit = torch.searchsorted(ends, u + steps, right=True)
    # Two steps on one row are possible only through rounding: the second goes to the next row.
    hit = (hit - steps).cummax(0).values + steps
    hit = torch.minimum(hit, len(open_rows) - want + steps)
    return torch.cat([sure, open_rows[hit]]).sort().values


def _switch(first: Tensor, a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(first, a, c), torch.where(first, c, a)


def _checked(p: Tensor) -> tuple[Tensor, int]:
    """The probabilities as float64, and their sum."""
    if p.ndim != 1 or not p.is_floating_point():
        raise ShapeError(
            f"inclusion probabilities must be a floating-point tensor of shape (n,), got {p.dtype} "
            f"of shape {tuple(p.shape)}."
        )
    x = p.detach().double()
    if len(x) and not bool(((x >= 0) & (x <= 1 + 1e-9)).all()):  # NaN fails both
        raise ConfigError(
            f"inclusion probabilities must lie in [0, 1], got values from {float(x.min()):.6g} to "
            f"{float(x.max()):.6g}; scale them and cap them at 1."
        )
    total = float(x.sum())
    k = round(total)
    if abs(total - k) > _SUM_TOLERANCE * max(1, k):
        raise ConfigError(
            f"inclusion probabilities sum to {total:.9g}, which is no whole number of rows; scale "
            f"them so that their sum is how many you want."
        )
    return x, k
