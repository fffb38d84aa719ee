"""Learn a halfspace from labels that are flipped at random, when it is known how often.

A halfspace w* with margin gamma labels rows of the unit ball; each label is right with probability
alpha(x) > 1/2, else flipped. The ramp f(t) = clip(1/2 + t / (2 gamma), 0, 1) of t = w*.x then *is*
the true label, and SLaM's mix of it is the mean of the noisy label:

    E[y | x] = u_x(w*.x),    u_x(t) = alpha f(t) + (1 - alpha)(1 - f(t)).

u_x rises, with slope at most (2 alpha - 1) / (2 gamma), so it has a matching loss, convex in w,

    L(w) = mean_i [ U_i(w.x_i) - y_i w.x_i ],    U_i' = u_i,
    grad L = mean_i (u_i(w.x_i) - y_i) x_i,

and it is minimised over the unit ball.

Source: a **reconstruction** of the learner for halfspaces with margin and random classification
noise that the theory of SLaM speaks of (Kontonis et al., NeurIPS 2023, arXiv 2302.03806, abstract);
the paper's own algorithm was not at hand. The step is that of GLM-tron: Kakade, Kalai, Kanade,
Shamir, "Efficient learning of generalized linear models with isotonic regression", NeurIPS 2011,
Section 3, with a link of its own for each row.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from limbeck.errors import ConfigError, DataError, ShapeError

_SLACK = 1e-4
"""Rows may be this much longer than 1: what rounding leaves of rows scaled to length 1."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Halfspace:
    """The rows x with w.x > 0.

    Args:
        weight: w, shape (d,), of length at most 1.
        steps: Gradient steps that were taken.
        gap: Length of the projected gradient at w: 0 at the minimum.
    """

    weight: Tensor
    steps: int
    gap: float

    def predict(self, x: Tensor) -> Tensor:
        """Class of each row of `x` (n, d): int64, shape (n,), 1 inside the halfspace, else 0."""
        return (x @ self.weight.to(x.dtype) > 0).long()


def learn_halfspace(
    x: Tensor,
    y: Tensor,
    alpha: Tensor | float,
    *,
    margin: float,
    max_steps: int = 10_000,
    tolerance: float = 1e-6,
) -> Halfspace:
    """Fit a halfspace through the origin to noisy labels.

    Args:
        x: Rows, floating point, shape (n, d), of length at most 1. Append a constant column for a
            halfspace that does not pass through the origin.
        y: Noisy labels, int64 of 0 and 1, shape (n,).
        alpha: Probability that a row's label is right, in (1/2, 1]: floating point, shape (n,), or
            one number for all rows.
        margin: gamma in (0, 1]: |w*.x| is at least this for the unit vector w* that is sought.
        max_steps: Gradient steps at most, >= 1.
        tolerance: Stop when the projected gradient is at most this long, > 0.

    Returns:
        The halfspace; the same inputs give the same one.

    Raises:
        ShapeError: shapes or dtypes do not fit each other, or there is no row.
        DataError: a row is longer than 1 or not finite, or a label is not 0 or 1.
        ConfigError: alpha, margin, max_steps or tolerance is out of range.

    Cost: O(n d) a step; steps grow with 1 / sqrt(margin) at most, by acceleration.
    Guarantee: L is convex, so no other w in the unit ball fits better. With the true alpha, a row
    that w misclassifies has |u(w.x) - u(w*.x)| >= (2 alpha - 1) / 2, which bounds the error by the
    distance of the means. That about 1 / (margin^2 error^2) rows are enough, up to factors of
    2 alpha - 1, is a reconstruction.
    """
    alpha = _checked(x, y, alpha)
    if not 0 < margin <= 1:
        raise ConfigError(
            f"margin={margin}: must lie in (0, 1], the least |w.x| of rows no longer than 1."
        )
    if max_steps < 1 or not tolerance > 0:
        raise ConfigError(
            f"max_steps={max_steps}, tolerance={tolerance}: give at least 1 step and a tolerance "
            f"above 0; 10000 and 1e-6 are usual."
        )
    wide = x.detach().double()
    weight, steps, gap = _minimise(
        wide, y.double(), alpha, margin, max_steps=max_steps, tolerance=tolerance
    )
    return Halfspace(weight.to(x.dtype), steps, gap)


def ramp(t: Tensor, margin: float) -> Tensor:
    """f(t) = clip(1/2 + t / (2 gamma), 0, 1), any shape: the label of a row that is `t` away."""
    return (0.5 + t / (2 * margin)).clamp(0, 1)


def matching_loss(weight: Tensor, x: Tensor, y: Tensor, alpha: Tensor, *, margin: float) -> Tensor:
    """L(w) of the module's first lines, a number; its gradient is mean (u(w.x) - y) x.

    Args:
        weight: w, floating point, shape (d,).
        x: Shape (n, d).
        y: 0 or 1, or their mean, shape (n,), floating point.
        alpha: Shape (n,).
        margin: gamma > 0.
    """
    t = x @ weight
    # The integral of the ramp: 0 up to -gamma, a parabola inside, t beyond gamma.
    inner = t.clamp(-margin, margin)
    area = (inner + margin).square() / (4 * margin) + (t - margin).clamp_min(0)
    return ((2 * alpha - 1) * area + (1 - alpha) * t - y * t).mean()


def _minimise(
    x: Tensor, y: Tensor, alpha: Tensor, margin: float, *, max_steps: int, tolerance: float
) -> tuple[Tensor, int, float]:
    """Accelerated projected gradient descent that forgets its momentum when it points uphill."""
    n = len(x)
    # The curvature of L is at most this: the largest slope times the largest eigenvalue of x'x / n.
    slopes = ((2 * alpha - 1) / (2 * margin)).sqrt()[:, None] * x
    curvature = float(torch.linalg.matrix_norm(slopes, ord=2)) ** 2 / n
    rate = 1 / max(curvature, 1e-12)
    weight = ahead = torch.zeros_like(x[0])
    momentum, gap, step = 1.0, float("inf"), 0
    for step in range(1, max_steps + 1):
        f = ramp(x @ ahead, margin)
        mean = alpha * f + (1 - alpha) * (1 - f)
        moved = _in_ball(ahead - rate * ((mean - y) @ x / n))
        gap = float((ahead - moved).norm()) / rate
        if gap <= tolerance:
            return moved, step, gap
        if float((ahead - moved) @ (moved - weight)) > 0:
            momentum = 1.0
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (momentum - 1) / following * (moved - weight)
        weight, momentum = moved, following
    return weight, step, gap


def _in_ball(weight: Tensor) -> Tensor:
    inside: Tensor = weight / weight.norm().clamp_min(1)
    return inside


def _checked(x: Tensor, y: Tensor, alpha: Tensor | float) -> Tensor:
    """Refuse what does not fit; alpha as float64 of shape (n,)."""
    if x.ndim != 2 or not x.is_floating_point() or x.numel() == 0:
        raise ShapeError(
            f"learn_halfspace needs rows as a floating-point (n, d) tensor with n, d >= 1, got "
            f"{x.dtype} of shape {tuple(x.shape)}."
        )
    if y.shape != x.shape[:1] or y.dtype != torch.long:
        raise ShapeError(
            f"labels must be int64 of shape ({len(x)},), got {y.dtype} of shape {tuple(y.shape)}; "
            f"give 0 or 1 for each row."
        )
    if not bool(((y == 0) | (y == 1)).all()):
        raise DataError("labels must be 0 or 1; map -1 to 0 with (y > 0).long().")
    longest = float(x.detach().norm(dim=1).max())
    if not longest <= 1 + _SLACK:
        raise DataError(
            f"the longest row has length {longest:.4g}, expected finite rows no longer than 1; "
            f"divide all rows by it, and the margin too."
        )
    alpha = torch.as_tensor(alpha, dtype=torch.float64, device=x.device)
    if alpha.ndim == 0:
        alpha = alpha.expand(len(x))
    if alpha.shape != y.shape:
        raise ShapeError(
            f"alpha has shape {tuple(alpha.shape)}, expected ({len(x)},) or one number; give the "
            f"probability that each label is right."
        )
    low, high = float(alpha.min()), float(alpha.max())
    if not (low > 0.5 and high <= 1):
        raise ConfigError(
            f"alpha lies in [{low:.4g}, {high:.4g}] but must lie in (1/2, 1]: a label that is "
            f"wrong half of the time says nothing; leave such rows out."
        )
    return alpha.detach()
