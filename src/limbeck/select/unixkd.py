"""UNIXKD: ask the teacher about mixed inputs, more mixed where the student is sure.

Source: Xu, Liu, Loy, "Computation-efficient knowledge distillation via uncertainty-aware mixup",
arXiv 2012.09413, and its public code. It works on a minibatch of inputs that can be mixed, such as
images; mixed texts mean nothing.
"""

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError
from limbeck.select.gains import Measure, gains


def unixkd_batch(
    x: Tensor,
    probs: Tensor,
    k: int,
    generator: torch.Generator,
    *,
    measure: Measure = "entropy",
    w: float = 1000.0,
    b: int = 32,
) -> tuple[Tensor, Tensor]:
    """Mix the rows of a minibatch and keep the k of most uncertain origin for the teacher.

    Rows are sorted by the student's uncertainty. Row r of B is mixed with a random row,
    (1 - c) x_r + c x_other, with c = lambda sigmoid(w (r / B - (2 b - 1) / (2 B))), lambda uniform:
    the b most uncertain rows stay as they are, the others are mixed.

    Args:
        x: Inputs, floating point, shape (B, ...).
        probs: Student probabilities of these rows, shape (B, C).
        k: Rows to keep, in [0, B]. The source's: 48 of 64.
        generator: Source of randomness.
        measure: Uncertainty, "entropy" (default), "margin" or "least_confidence".
        w: Steepness. Default: the source's 1000.
        b: Rows that stay unmixed. Default: the source's 32.

    Returns:
        Mixed inputs to ask the teacher about and to train on, shape (k, ...); and the places of
        their origin in the minibatch, int64, shape (k,), the most uncertain first.

    Raises:
        ShapeError, ConfigError: rows do not fit, k is out of range, inputs are no floating point.
    """
    n = len(x)
    if not x.is_floating_point() or len(probs) != n:
        raise ShapeError(
            f"unixkd mixes floating-point inputs (B, ...) with probabilities (B, C) of the same "
            f"rows, got {x.dtype} of {tuple(x.shape)} and {tuple(probs.shape)}."
        )
    if not 0 <= k <= n:
        raise ConfigError(f"k={k}: must be in [0, {n}] rows of the minibatch.")
    order = gains(probs, measure).sort(descending=True, stable=True).indices
    other = torch.randperm(n, generator=generator)
    rank = torch.arange(n, dtype=torch.float64)
    ramp = torch.sigmoid(w * (rank / max(n, 1) - (2 * b - 1) / (2 * max(n, 1))))
    share = torch.rand((), dtype=torch.float64, generator=generator) * ramp
    share = share.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    mixed = (1 - share) * x[order] + share * x[other]
    return mixed[:k], order[:k]
