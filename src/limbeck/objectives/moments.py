"""Counts, means and scatters of embeddings, class by class, in one pass over batches.

Source of the update that merges two groups without losing digits: Chan, Golub, LeVeque, "Updating
formulae and a pairwise algorithm for computing sample variances", COMPSTAT (1982).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.errors import ConfigError, DataError, ShapeError
from limbeck.numerics.logspace import log_probs

BLOCK = 4096
"""Rows that are copied to float64 at a time."""


@dataclass(slots=True, eq=False)
class Group:
    """Moments of some rows: their number, mean (D) and centred scatter (D, D), float64.

    The scatter is the sum, not the mean, of (h - mean)(h - mean)^T.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, dim: int) -> "Group":
        """No rows of width D."""
        zero = torch.zeros(dim, dtype=torch.float64)
        return cls(0, zero, torch.zeros(dim, dim, dtype=torch.float64))

    def add(self, rows: Tensor) -> None:
        """Add float64 rows, shape (n, D), n >= 1; they are centred in place."""
        mean = finite_mean(rows)
        centred = rows.sub_(mean).numpy()
        # NumPy sees that this product is symmetric and computes half of it.
        self.scatter += torch.from_numpy(centred.T @ centred)
        self._shift(len(rows), mean)

    def merge(self, other: "Group") -> None:
        """Add the rows of another group."""
        if other.count:
            self.scatter += other.scatter
            self._shift(other.count, other.mean)

    def _shift(self, count: int, mean: Tensor) -> None:
        total, gap = self.count + count, mean - self.mean
        self.scatter.addr_(gap, gap, alpha=self.count * count / total)
        self.mean = self.mean + gap * (count / total)
        self.count = total


class ClassMoments:
    """Moments of each class, and what a linear model of the log-probabilities needs.

    Rows may come in any order and in batches of any size; large means lose no digits.

    Cost: 8 D^2 bytes for each class seen, and n D^2 operations in float64 for n rows.
    """

    def __init__(self) -> None:
        self.groups: dict[int, Group] = {}
        self._rows = 0
        self._mean = torch.zeros(0, dtype=torch.float64)
        self._told = torch.zeros(0, dtype=torch.float64)
        self._cross = torch.zeros(0, 0, dtype=torch.float64)

    @property
    def dim(self) -> int:
        """D; 0 before the first rows."""
        return next((len(group.mean) for group in self.groups.values()), 0)

    def update(self, embeddings: Tensor, classes: Tensor, probs: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            embeddings: Floating point, shape (n, D).
            classes: Class of each row, int64, shape (n,), >= 0.
            probs: The teacher's probabilities at temperature 1, shape (n, C), if `head` is wanted.

        Raises:
            ShapeError: shapes do not fit each other or earlier batches.
            ConfigError: a class is negative.
            DataError: an embedding holds NaN or an infinite number.
        """
        check_rows(embeddings, classes)
        if self.dim and embeddings.shape[1] != self.dim:
            raise ShapeError(
                f"embeddings have {embeddings.shape[1]} numbers a row but earlier ones had "
                f"{self.dim}; all answers must come from one teacher."
            )
        for start in range(0, len(embeddings), BLOCK):
            rows = embeddings[start : start + BLOCK].detach().cpu()
            kinds = classes[start : start + BLOCK].cpu()
            for c in kinds.bincount().nonzero().flatten().tolist():
                if c not in self.groups:
                    self.groups[c] = Group.empty(rows.shape[1])
                self.groups[c].add(rows[kinds == c].double())
            if probs is not None:
                self._cross_with(rows.double(), probs[start : start + BLOCK])

    def total(self) -> Group:
        """Moments of all rows together."""
        out = Group.empty(self.dim)
        for group in self.groups.values():
            out.merge(group)
        return out

    def head(self) -> Tensor:
        """Least-squares weights of centred log-probabilities on embeddings, float64, shape (C, D).

        Of several solutions the shortest one. If the probabilities are softmax(W h + b), it is W
        with its mean row taken out, up to directions in which the embeddings do not vary.

        Raises:
            ConfigError: `update` was never given probabilities.
        """
        if not self._rows:
            raise ConfigError("a linear head is fitted to probabilities; give `update` some.")
        values, vectors = torch.linalg.eigh(self.total().scatter)
        kept = values > values[-1].clamp_min(0) * len(values) * 1e-14
        vectors = vectors[:, kept]
        weight: Tensor = ((vectors.T @ self._cross) / values[kept, None]).T @ vectors.T
        return weight

    def _cross_with(self, rows: Tensor, probs: Tensor) -> None:
        told = log_probs(probs.detach().cpu().double())
        told = told - told.mean(dim=1, keepdim=True)
        mean, middle, count = rows.mean(dim=0), told.mean(dim=0), len(rows)
        if not self._rows:
            self._mean, self._told = torch.zeros_like(mean), torch.zeros_like(middle)
            self._cross = torch.zeros(len(mean), len(middle), dtype=torch.float64)
        total = self._rows + count
        gap, step = mean - self._mean, middle - self._told
        self._cross.addmm_((rows - mean).T, told - middle)
        self._cross.addr_(gap, step, alpha=self._rows * count / total)
        self._mean = self._mean + gap * (count / total)
        self._told = self._told + step * (count / total)
        self._rows = total


def finite_mean(rows: Tensor) -> Tensor:
    """Mean of float64 rows (n, D), shape (D,).

    Raises:
        DataError: a row holds NaN or an infinite number, which only a mean shows at no cost.
    """
    mean = rows.mean(dim=0)
    if not bool(mean.isfinite().all()):
        raise DataError(
            "embeddings hold NaN or infinite numbers; leave these rows out, or repair what gives "
            "the embeddings."
        )
    return mean


def check_rows(embeddings: Tensor, classes: Tensor) -> None:
    """Refuse what is not a matrix of embeddings with a class for each row.

    Raises:
        ShapeError: a shape or a dtype is wrong.
        ConfigError: a class is negative.
    """
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise ShapeError(
            f"embeddings must be a floating-point (n, D) matrix, got {embeddings.dtype} of shape "
            f"{tuple(embeddings.shape)}; flatten each row's representation."
        )
    if classes.shape != embeddings.shape[:1] or classes.dtype != torch.long:
        raise ShapeError(
            f"classes must be int64 of shape ({len(embeddings)},), got {classes.dtype} of shape "
            f"{tuple(classes.shape)}; give one class a row, such as probs.argmax(dim=1)."
        )
    if len(classes) and int(classes.min()) < 0:
        raise ConfigError(
            f"classes hold {int(classes.min())} but start at 0; leave rows without a class out."
        )
