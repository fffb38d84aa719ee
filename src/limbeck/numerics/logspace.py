"""Probabilities in log space: what plain formulas lose near 0 and 1.

Source of `log1mexp`: M. Mächler, "Accurately computing log(1 - exp(-|a|))", R package Rmpfr (2012).
"""

import math

import torch
from torch import Tensor


def log1mexp(x: Tensor) -> Tensor:
    """Compute log(1 - exp(x)): the log of the complement of a log-probability.

    Args:
        x: Log-probabilities in nats, <= 0, floating point, any shape.

    Returns:
        Same shape and dtype; 0 where `x` is -inf, -inf where `x` is 0.

    Cost: O(numel). The gradient is -1 / expm1(-x): finite but for `x` = 0, where it is infinite.
    """
    # expm1 keeps the digits of 1 - exp(x) when x is near 0, log1p keeps those of exp(x) when x is
    # far below it; the two meet with equal error at -log 2. Each branch gets a harmless input where
    # the other is used: `where` alone would let a NaN of the unused branch into the gradient.
    near = x > -math.log(2)
    from_expm1 = torch.log(-torch.expm1(torch.where(near, x, -1.0)))
    from_log1p = torch.log1p(-torch.exp(torch.where(near, -1.0, x)))
    return torch.where(near, from_expm1, from_log1p)


def log_probs(probs: Tensor) -> Tensor:
    """Take the log of probabilities so that a zero stays usable in later arithmetic.

    Args:
        probs: Probabilities in [0, 1], floating point, any shape.

    Returns:
        Same shape, at least the log of the smallest normal number of the dtype (about -87.3 nats in
        float32), so that 0 * log 0 is 0 and softmax(log p / tau) has no NaN.
    """
    return probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


def retemper(probs: Tensor, temperature: float) -> Tensor:
    """Move probabilities from temperature 1 to another: softmax(log p / tau).

    Args:
        probs: Probabilities at temperature 1, floating point, shape (..., C).
        temperature: tau > 0; above 1 flattens, below 1 sharpens, 1 returns `probs` itself.

    Returns:
        Same shape and dtype, rows sum to 1.
    """
    if temperature == 1.0:
        return probs
    return torch.softmax(log_probs(probs) / temperature, dim=-1)
