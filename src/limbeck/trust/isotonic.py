"""Trust that grows with the teacher's margin: an isotonic fit of "was it right".

Source: Kontonis et al., "SLaM: Student-label mixing for distillation with unlabeled examples",
NeurIPS 2023, arXiv 2302.03806. That alpha(x) is a non-decreasing function of the margin with values
in [lower, 1] is a reconstruction from memory of the paper. Pool-adjacent-violators: Barlow,
Bartholomew, Bremner, Brunk, "Statistical inference under order restrictions" (1972).
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import ConfigError, DataError, LimbeckWarning, ShapeError

FEW_ROWS = 30
"""Below this many validation rows a fit says little; a warning is given."""

MANY_ROWS = 100
"""From this many rows on, a teacher that is always right has probably seen them."""

GRID = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Lower bounds that `choose_lower` compares."""

Floats = NDArray[np.float64]


def margin(teacher_probs: Tensor) -> Tensor:
    """Largest less second largest probability of each row.

    Args:
        teacher_probs: Teacher probabilities at temperature 1, floating point, shape (n, C), C >= 2.

    Returns:
        Margins in [0, 1], shape (n,), dtype of the probabilities.

    Raises:
        ShapeError: not a floating-point matrix with at least two columns.

    Cost: O(n C).
    """
    if teacher_probs.ndim != 2 or teacher_probs.shape[1] < 2:
        raise ShapeError(
            f"margin needs probabilities of shape (n, C) with C >= 2, got "
            f"{tuple(teacher_probs.shape)}; give one row of C probabilities for each question."
        )
    two = teacher_probs.topk(2, dim=1).values
    return two[:, 0] - two[:, 1]


@dataclass(frozen=True, slots=True)
class IsotonicTrust:
    """alpha(margin): non-decreasing, straight between knots, constant outside them.

    Args:
        knots: Margins in increasing order.
        values: alpha at each knot, non-decreasing, in [lower, 1].
        lower: Least alpha that can come out, in (0, 1].
        rows: Validation rows that it was fitted on.
    """

    knots: tuple[float, ...]
    values: tuple[float, ...]
    lower: float
    rows: int

    @classmethod
    def fit(cls, margins: Tensor, correct: Tensor, *, lower: float = 0.5) -> Self:
        """Fit by least squares among non-decreasing functions with values in [lower, 1].

        Args:
            margins: The teacher's margins on validation rows, shape (n,), n >= 1, finite.
            correct: Whether its top class was the true one, bool or 0/1, shape (n,). The rows must
                be none that the teacher was trained on.
            lower: Least alpha, in (0, 1]. From 0.5 on, un-normalised SLaM never pushes the student
                away from the teacher's label.

        Raises:
            ShapeError: shapes differ or there is no row.
            DataError: a margin is not finite, or `correct` holds something else than 0 and 1.
            ConfigError: `lower` is out of range.

        Warns with LimbeckWarning when `lower` < 0.5, when there are fewer than 30 rows, and when
        the teacher is right on all of 100 rows or more.

        Cost: O(n log n).
        """
        x, y = as_arrays(margins, correct)
        _check_lower(lower)
        _warn(y, lower)
        blocks = _pool(x, y)
        values = np.clip(blocks.mean, lower, 1.0)
        # Two knots a block are enough: the function is flat between its first and last margin.
        knots = np.stack([blocks.first, blocks.last], axis=1).ravel()
        heights = np.repeat(values, 2)
        distinct = np.append(True, np.diff(knots) > 0)
        return cls(
            tuple(knots[distinct].tolist()), tuple(heights[distinct].tolist()), lower, len(x)
        )

    def alpha(self, margins: Tensor) -> Tensor:
        """Estimated probability that the teacher's top class is right.

        Args:
            margins: Floating point, any shape and device.

        Returns:
            alpha in [lower, 1], same shape, dtype and device.

        Cost: O(n log knots).
        """
        knots = torch.tensor(self.knots, dtype=torch.float64, device=margins.device)
        values = torch.tensor(self.values, dtype=torch.float64, device=margins.device)
        x = margins.double().clamp(knots[0], knots[-1])
        right = torch.searchsorted(knots, x).clamp(1, max(1, len(knots) - 1))
        if len(knots) == 1:
            return torch.full_like(margins, self.values[0])
        left = right - 1
        part = (x - knots[left]) / (knots[right] - knots[left])
        return (values[left] + part * (values[right] - values[left])).to(margins.dtype)

    def to_dict(self) -> dict[str, object]:
        """Give the fit as plain JSON values."""
        return {
            "knots": list(self.knots),
            "values": list(self.values),
            "lower": self.lower,
            "rows": self.rows,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, object]) -> Self:
        """Build the fit that `to_dict` described."""
        return cls(
            tuple(cast(Sequence[float], state["knots"])),
            tuple(cast(Sequence[float], state["values"])),
            cast(float, state["lower"]),
            cast(int, state["rows"]),
        )


def choose_lower(
    margins: Tensor,
    correct: Tensor,
    *,
    grid: Sequence[float] = GRID,
    folds: int = 5,
    generator: torch.Generator,
) -> float:
    """Choose the lower bound whose alpha predicts held-out rows best; no student is trained.

    Args:
        margins: The teacher's margins on validation rows, shape (n,), n >= `folds`.
        correct: Whether its top class was the true one, bool or 0/1, shape (n,).
        grid: Bounds to compare, each in (0, 1].
        folds: Parts of the cross-validation, >= 2.
        generator: Deals the rows into folds; on the CPU.

    Returns:
        The bound with the largest Bernoulli log-likelihood; of equal ones the first in `grid`.

    Raises:
        ShapeError, DataError, ConfigError: as `IsotonicTrust.fit`; too few rows for the folds.

    Cost: O(folds n log n).
    """
    x, y = as_arrays(margins, correct)
    n = len(x)
    for lower in grid:
        _check_lower(lower)
    if not grid or not 2 <= folds <= n:
        raise ConfigError(
            f"choose_lower: {folds} folds of {n} rows and a grid of {len(grid)}; there must be "
            f"2 to {n} folds and at least one bound."
        )
    fold = torch.randperm(n, generator=generator).numpy() % folds
    held_out = np.empty(n)
    for i in range(folds):
        blocks = _pool(x[fold != i], y[fold != i])
        knots = np.stack([blocks.first, blocks.last], axis=1).ravel()
        held_out[fold == i] = np.interp(x[fold == i], knots, np.repeat(blocks.mean, 2))
    # A fit of 1 meets a wrong row sooner or later: Laplace's rule keeps that from costing infinity.
    highest = (n + 1) / (n + 2)
    scores = []
    for lower in grid:
        p = np.clip(np.clip(held_out, lower, 1.0), 1 - highest, highest)
        scores.append(float(np.sum(np.log(np.where(y > 0, p, 1 - p)))))
    return grid[int(np.argmax(scores))]


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """Pieces on which the fitted function is constant, in order, each field of shape (b,)."""

    first: Floats
    last: Floats
    mean: Floats


def _pool(x: Floats, y: Floats) -> _Blocks:
    """Pool adjacent violators: the non-decreasing least-squares fit, without bounds.

    Clipping it to bounds gives exactly the fit with these bounds.
    """
    points, where = np.unique(x, return_inverse=True)
    weight = np.bincount(where).astype(np.float64)
    total = np.bincount(where, weights=y)
    first: list[int] = []
    weights: list[float] = []
    totals: list[float] = []
    for i in range(len(points)):
        first.append(i)
        weights.append(float(weight[i]))
        totals.append(float(total[i]))
        # Means compared by cross-multiplication: the sums are integers, so equality is exact.
        while len(first) > 1 and totals[-2] * weights[-1] >= totals[-1] * weights[-2]:
            first.pop()
            last_weight, last_total = weights.pop(), totals.pop()
            weights[-1] += last_weight
            totals[-1] += last_total
    last = [*(start - 1 for start in first[1:]), len(points) - 1]
    return _Blocks(points[first], points[last], np.asarray(totals) / np.asarray(weights))


def as_arrays(margins: Tensor, correct: Tensor) -> tuple[Floats, Floats]:
    if margins.ndim != 1 or margins.shape != correct.shape or len(margins) == 0:
        raise ShapeError(
            f"trust needs margins and correct of one shape (n,) with n >= 1, got "
            f"{tuple(margins.shape)} and {tuple(correct.shape)}; give one entry for each "
            f"validation row."
        )
    x = margins.detach().double().cpu().numpy()
    y = correct.detach().double().cpu().numpy()
    if not np.isfinite(x).all():
        raise DataError(
            f"trust: margin {int(np.flatnonzero(~np.isfinite(x))[0])} is NaN or infinite; margins "
            f"must be finite. Check the teacher's probabilities."
        )
    if not np.isin(y, (0.0, 1.0)).all():
        raise DataError(
            "trust: correct must hold only 0 and 1 (or False and True); pass "
            "teacher_probs.argmax(dim=1) == labels."
        )
    return x, y


def _check_lower(lower: float) -> None:
    if not 0 < lower <= 1:
        raise ConfigError(f"lower={lower}: must lie in (0, 1]; 0.5 never repels a label.")


def _warn(correct: Floats, lower: float) -> None:
    n = len(correct)
    if lower < 0.5:
        warnings.warn(
            f"lower={lower}: below 0.5 un-normalised SLaM pushes the student away from the "
            f"teacher's label; use 0.5 or more unless that is what you want.",
            LimbeckWarning,
            stacklevel=3,
        )
    if n < FEW_ROWS:
        warnings.warn(
            f"trust is fitted on {n} validation rows, which says little; give at least {FEW_ROWS}.",
            LimbeckWarning,
            stacklevel=3,
        )
    if n >= MANY_ROWS and correct.all():
        warnings.warn(
            f"the teacher is right on all {n} validation rows, so alpha is 1 everywhere and SLaM "
            f"is plain distillation; was the teacher trained on these rows? Use rows that it has "
            f"not seen.",
            LimbeckWarning,
            stacklevel=3,
        )
