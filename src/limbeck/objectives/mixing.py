"""Stable values and closed-form gradients of cross-entropies with mixed predictions.

For a class c with student probability f, the mix is alpha f + other (1 - f) in the teacher's top
set and alpha f outside of it, where other = (1 - alpha) / nu; see `limbeck.objectives.slam`.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from limbeck.objectives.checks import working

FEW = 8
"""Up to this k, taking the maximum k times is quicker than any sort."""


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """How a teacher's labels of B rows err.

    Args:
        alpha: Probability that the top class is right, in (0, 1], shape (B,).
        k: Size of the top set, an int or int64 of shape (B,).
        normalized: Whether nu is k - 1 or 1.
    """

    alpha: Tensor
    k: int | Tensor
    normalized: bool

    def rates(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Give alpha and (1 - alpha) / nu, both of shape (B,) in this dtype."""
        alpha = self.alpha.detach().to(dtype)
        return alpha, (1 - alpha) / (self.k - 1) if self.normalized else 1 - alpha


def hard_loss(logits: Tensor, labels: Tensor, noise: Noise, eps: float) -> Tensor:
    """-log max(mix, eps) of one class a row; the class must be in the row's top set.

    Args:
        logits: Student logits, shape (B, C).
        labels: int64, shape (B,).
        noise: The rows' noise.
        eps: Floor of the mix.

    Returns:
        Loss of each row, shape (B,). Only the label's own probability matters, so it is a function
        of the row's cross-entropy and costs one number a row more.
    """
    logits = working(logits)
    alpha, other = noise.rates(logits.dtype)
    log_f = -functional.cross_entropy(logits, labels, reduction="none")
    loss: Tensor = _Hard.apply(log_f, alpha, other, eps)  # type: ignore[no-untyped-call]  # torch
    return loss


def attracting(noise: Noise, eps: float) -> tuple[Tensor, Tensor] | None:
    """Prepare rows for `attracted_loss`, before the step and on the CPU: values are looked at.

    Returns:
        log(alpha - other) and log other, both float32 of shape (B,); None if some row's loss pushes
        away from the label or may reach its floor.
    """
    alpha, other = noise.rates(torch.float32)
    fit = (alpha > other) & ((other >= eps) | (alpha >= 1))
    return ((alpha - other).log(), other.log()) if bool(fit.all()) else None


def attracted_loss(logits: Tensor, labels: Tensor, log_gain: Tensor, log_other: Tensor) -> Tensor:
    """What `hard_loss` gives for rows that `attracting` has prepared, in a third of the time.

    mix = other + (alpha - other) f has two terms of one sign, so its log is a single operation,
    which is also exact for alpha = 1, where log other = -inf.
    """
    crossed = functional.cross_entropy(working(logits), labels, reduction="none")
    return -torch.logaddexp(log_gain.to(crossed) - crossed, log_other.to(crossed))


def soft_loss(
    logits: Tensor, teacher_probs: Tensor, top: Tensor, noise: Noise, eps: float
) -> Tensor:
    """- sum_c p_c log max(mix_c, eps).

    Args:
        logits: Student logits, shape (B, C).
        teacher_probs: p, shape (B, C).
        top: `ranking(teacher_probs, noise.k)`.
        noise: The rows' noise.
        eps: Floor of the mix.

    Returns:
        Loss of each row, shape (B,).
    """
    log_f = torch.log_softmax(working(logits), dim=1)
    alpha, other = noise.rates(log_f.dtype)
    at_top = other[:, None]
    if isinstance(noise.k, Tensor):
        at_top = at_top * inside(top, noise.k)
    target = teacher_probs.detach().to(log_f.dtype)
    loss: Tensor = _Soft.apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        log_f, target, alpha, top, at_top, eps
    )
    return loss


def first_max(teacher_probs: Tensor) -> Tensor:
    """Most probable class of each row, int64, shape (B,); of equal ones the first."""
    # `max` promises the first of equal entries, and is three times as fast as `argmax` on a CPU.
    return teacher_probs.float().max(dim=1).indices


def ranking(teacher_probs: Tensor, k: int | Tensor) -> Tensor:
    """Most probable classes in order, equal ones by class: int64, (B, k), or (B, C) for a tensor k.

    Probabilities are compared as float32. The answer is the same on any device, which `topk` on the
    probabilities does not promise for equal ones.
    """
    probs = teacher_probs.detach().float()
    count = probs.shape[1]
    if isinstance(k, int) and k <= FEW:
        rest, best = probs.clone(), []
        for _ in range(k):
            best.append(rest.max(dim=1, keepdim=True).indices)
            rest.scatter_(1, best[-1], -1.0)
        return torch.cat(best, dim=1)
    # Non-negative floats are ordered as their bits are (+ 0.0 mends -0.0). Bits and class in one
    # integer make the keys of a row distinct. A stable sort takes 20 times as long at C = 1000.
    keys = (probs + 0.0).view(torch.int32).long() * count - torch.arange(count, device=probs.device)
    return keys.topk(k if isinstance(k, int) else count, dim=1).indices


def inside(top: Tensor, k: int | Tensor) -> Tensor:
    """Which columns of a ranking belong to the row's own top k: bool, shape of `top`."""
    if isinstance(k, int):
        return torch.ones_like(top, dtype=torch.bool)
    return torch.arange(top.shape[1], device=top.device) < k[:, None]


def log_mix(log_f: Tensor, alpha: Tensor, other: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """log max(alpha f + other (1 - f), eps), and its derivative by log f.

    Args:
        log_f: log f, any shape.
        alpha: Broadcasts against it. Where it is 1 the result is log f itself: no floor, and no
            0 / 0 when f underflows.
        other: Broadcasts against it.
        eps: Floor of the mix.

    Returns:
        Both of the shape of `log_f`, finite wherever `log_f` is.
    """
    gain = (alpha - other) * log_f.exp()
    mixed = other + gain
    sure = alpha >= 1
    slope = (gain / mixed).masked_fill_(mixed <= eps, 0.0).masked_fill_(sure, 1.0)
    return torch.where(sure, log_f, mixed.clamp_min_(eps).log_()), slope


class _Hard(torch.autograd.Function):
    """Minus `log_mix` of one entry a row."""

    @staticmethod
    def forward(ctx: Any, log_f: Tensor, alpha: Tensor, other: Tensor, eps: float) -> Tensor:
        value, slope = log_mix(log_f, alpha, other, eps)
        ctx.save_for_backward(slope)
        return -value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return -upstream * slope, None, None, None


class _Soft(torch.autograd.Function):
    """The soft loss from log f, shape (B, C).

    Outside the top set log max(alpha f, eps) = log alpha + max(log f, floor), one pass over (B, C);
    only the entries of the top set are mixed. The derivative is taken on the way, in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        log_f: Tensor,
        target: Tensor,
        alpha: Tensor,
        top: Tensor,
        other: Tensor,
        eps: float,
    ) -> Tensor:
        log_alpha = alpha.log()
        floor = torch.where(alpha < 1, math.log(eps) - log_alpha, -torch.inf)[:, None]
        work = torch.maximum(log_f, floor)
        # Less log alpha here and in all of the top set: it is added once a row, at the end.
        at_top, slope = log_mix(log_f.gather(1, top), alpha[:, None], other, eps)
        work.scatter_(1, top, at_top - log_alpha[:, None])
        above = (work * target).sum(dim=1)
        # 1 where the floor does not bind: a comparison in place stays in floating point.
        work.gt_(floor).scatter_(1, top, slope).mul_(target)
        ctx.save_for_backward(work)
        return -(above + log_alpha * target.sum(dim=1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (pull,) = ctx.saved_tensors
        return -upstream[:, None] * pull, None, None, None, None, None
