"""Stable values and closed-form gradients of cross-entropies with mixed predictions.

For a class c with student probability f, the mix is alpha f + other (1 - f) in the teacher's top
set and alpha f outside of it, where other = (1 - alpha) / nu; see `limbeck.objectives.slam`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from limbeck.objectives.checks import check_pair, working

FEW = 8
"""Up to this k, taking the maximum k times is quicker than any sort."""
DENSE = 128
"""Up to so many classes mixing them all is quicker than picking out the top set."""


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


def attracting(noise: Noise, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Prepare rows for `attracted_loss`, on the CPU only: values are looked at.

    Returns:
        log(alpha - other) and log other, both of this dtype and shape (B,); None if some row's loss
        pushes away from the label or may reach its floor, and on a GPU, which would have to wait.
    """
    alpha, other = noise.rates(dtype)
    return ((alpha - other).log(), other.log()) if _attracts(alpha, other, eps) else None


def attracted_loss(logits: Tensor, labels: Tensor, log_gain: Tensor, log_other: Tensor) -> Tensor:
    """What `hard_loss` gives for rows that `attracting` has prepared, in a third of the time.

    mix = other + (alpha - other) f has two terms of one sign, so its log is a single operation. It
    is exact, too, for alpha = 1, where log other = -inf, and for alpha = other.
    """
    crossed = functional.cross_entropy(working(logits), labels, reduction="none")
    return -torch.logaddexp(log_gain.to(crossed) - crossed, log_other.to(crossed))


def prepare_soft(teacher_probs: Tensor, noise: Noise, eps: float) -> dict[str, Tensor]:
    """Compute what `soft_loss` wants and the student has no part in.

    Args:
        teacher_probs: p, floating point, shape (B, C).
        noise: The rows' noise.
        eps: Floor of the mix.

    Returns:
        Tensors whose first axis is the row, for the quickest form that holds: logs of the noise
        where all classes are in the top set; the top set's mix and the `rest` of -p for more than
        `DENSE` classes; else the mix of all classes, which also serves rows that push away from the
        label.
    """
    target = teacher_probs.detach()
    alpha, other = (rate[:, None] for rate in noise.rates(target.dtype))
    attracts, count = _attracts(alpha, other, eps), target.shape[1]
    if attracts and isinstance(noise.k, int) and noise.k == count:
        return {"label": -target, "log_gain": (alpha - other).log(), "log_other": other.log()}
    if attracts and count > DENSE and isinstance(noise.k, int):
        return _prepare_sparse(target, ranking(target, noise.k), alpha, other, eps)
    top = ranking(target, noise.k)
    other = torch.zeros_like(target).scatter_(1, top, other * inside(top, noise.k))
    return {
        "label": -target,
        "spread": target * other,
        "other": other,
        "gain": alpha - other,
        "sure": alpha >= 1,
    }


def _prepare_sparse(
    target: Tensor, top: Tensor, alpha: Tensor, other: Tensor, eps: float
) -> dict[str, Tensor]:
    sure = alpha >= 1
    # Where alpha = 1 the whole row is rest, and its mix is set to 1, which has no log.
    label = -target.gather(1, top).masked_fill_(sure, 0.0)
    rest = (-target).scatter_add_(1, top, -label)
    mass, log_alpha = rest.sum(dim=1, keepdim=True), alpha.log()
    return {
        "rest": rest,
        "mass": mass,
        "top": top,
        "label": label,
        "spread": -label * other,
        "other": other.masked_fill(sure, 1.0).expand_as(label).contiguous(),
        "gain": (alpha - other).masked_fill_(sure, 0.0),
        # log alpha is added once a row, here in equal parts, since columns are summed anyway.
        "offset": (mass * log_alpha / top.shape[1]).expand_as(label).contiguous(),
        "floor": (math.log(eps) - log_alpha).masked_fill_(sure, -torch.inf),
    }


def soft_loss(logits: Tensor, named: Mapping[str, Tensor], eps: float) -> Tensor:
    """- sum_c p_c log max(mix_c, eps).

    Args:
        logits: Student logits, shape (B, C).
        named: What `prepare_soft` gave of the same rows.
        eps: The same floor of the mix.

    Returns:
        Loss of each row, shape (B,).

    Raises:
        ShapeError: the logits are of other rows or classes.
    """
    label = named["rest" if "rest" in named else "label"]
    check_pair(logits, label)
    logits = working(logits)
    if logits.dtype == torch.float64:
        named = {n: t.double() if t.is_floating_point() else t for n, t in named.items()}
        label = label.double()
    # PyTorch's own derivatives, where they will do, cost half as much as an autograd function.
    if "log_gain" in named:
        log_gained = torch.log_softmax(logits, dim=1) + named["log_gain"]
        return torch.logaddexp(log_gained, named["log_other"]).mul(label).sum(dim=1)
    if "rest" in named:
        return _sum_of(_Sparse, logits, named, eps)
    mixed = torch.addcmul(named["other"], named["gain"], torch.softmax(logits, dim=1))
    if _above(mixed.detach(), eps):
        return mixed.log().mul(label).sum(dim=1)
    return _sum_of(_Dense, logits, named, eps)


def _sum_of(
    kind: type[torch.autograd.Function], logits: Tensor, named: Mapping[str, Tensor], eps: float
) -> Tensor:
    loss: Tensor = kind.apply(logits, named, eps)  # type: ignore[no-untyped-call]  # torch's own
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


class _Dense(torch.autograd.Function):
    """The soft loss with all classes mixed, also where a mix is at its floor or f underflows.

    The derivative by log f_c is -p_c gain_c f_c / mix_c = -p_c + p_c other_c / mix_c, or 0 where
    the mix is at its floor. Where alpha = 1 there is none, and log f is itself the log of the mix.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, named: Mapping[str, Tensor], eps: float) -> Tensor:
        label, sure = named["label"], named["sure"]
        log_f = torch.log_softmax(logits, dim=1)
        mixed = torch.addcmul(named["other"], named["gain"], log_f.exp())
        low = (mixed <= eps).logical_and_(~sure)
        mixed.clamp_min_(eps)
        pull = torch.addcdiv(label, named["spread"], mixed).masked_fill_(low, 0.0)
        ctx.save_for_backward(pull, log_f)
        return torch.where(sure, log_f, mixed.log_()).mul_(label).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        pull, log_f = ctx.saved_tensors
        grad = torch._log_softmax_backward_data(pull, log_f, 1, pull.dtype)
        return grad.mul_(upstream[:, None]), None, None


class _Sparse(torch.autograd.Function):
    """The soft loss with only the top set mixed: the fewest passes over (B, C).

    Outside the top set log max(alpha f, eps) = log alpha + max(log f, floor).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, named: Mapping[str, Tensor], eps: float) -> Tensor:
        rest, mass, top, label = (named[n] for n in ("rest", "mass", "top", "label"))
        log_f = torch.log_softmax(logits, dim=1)
        floor = named["floor"]
        if not _above(log_f, floor):
            above = torch.maximum(log_f, floor) * rest
            rest = rest.masked_fill(log_f <= floor, 0.0)
            mass = rest.sum(dim=1, keepdim=True)
        else:
            above = log_f * rest
        f = log_f.exp_()  # in place: fresh memory costs more than the exponential
        mixed = torch.addcmul(named["other"], named["gain"], f.gather(1, top))
        pull = torch.addcdiv(label, named["spread"], mixed)
        at_top = torch.addcmul(named["offset"], mixed.log_(), label)
        ctx.save_for_backward(rest, mass, top, pull, f)
        return above.scatter_add_(1, top, at_top).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        rest, mass, top, pull, f = ctx.saved_tensors
        total = pull.sum(dim=1, keepdim=True).add_(mass)
        grad = torch.addcmul(rest, f, total, value=-1).scatter_add_(1, top, pull)
        return grad.mul_(upstream[:, None]), None, None


def _above(x: Tensor, bound: Tensor | float) -> bool:
    """Whether all entries are above all bounds; never known on a GPU, which would have to wait."""
    if x.device.type != "cpu" or x.numel() == 0:
        return False
    return float(x.amin()) > float(bound.amax() if isinstance(bound, Tensor) else bound)


def _attracts(alpha: Tensor, other: Tensor, eps: float) -> bool:
    """Whether no row's loss pushes away from the label or may reach its floor in the top set."""
    if alpha.device.type != "cpu":
        return False
    return bool(((alpha >= other) & ((other >= eps) | (alpha >= 1))).all())
