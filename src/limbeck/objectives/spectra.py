"""Principal directions of each class's embeddings inside a subspace, exactly or from few passes.

Source: Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449: principal components for each class in the null space of the
teacher's last layer. How they are computed here is ours.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.moments import BLOCK, ClassMoments, check_rows, finite_mean
from limbeck.objectives.rotations import EXTRA, subspace_iteration, top_directions, without

EXACT_DIM = 4096
"""The widest embedding whose covariances are computed in full."""
EXACT_BYTES = 2**31
"""Memory that the covariances of all classes may take."""

Batches = Iterable[tuple[Tensor, Tensor]]
"""Embeddings (n, D) with their classes (n,), batch by batch."""


class Spectra(Protocol):
    """Covariances C_c of C classes of embeddings."""

    counts: list[int]
    """Rows of each class; 0 for one without rows."""
    means: list[Tensor]
    """Mean of each class, float64, shape (D,)."""

    def products(self, columns: list[Tensor]) -> list[Tensor]:
        """C_c @ columns for each class, shape (D, m)."""

    def principal(
        self, rows: Tensor, sizes: list[int], generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Variances and principal directions of each class outside the span of `rows` (r, D)."""


class ExactSpectra:
    """Covariances that are in memory."""

    def __init__(self, moments: ClassMoments, num_classes: int) -> None:
        zero = torch.zeros(moments.dim, dtype=torch.float64)
        groups = [moments.groups.get(c) for c in range(num_classes)]
        self._groups = groups
        self.counts = [0 if group is None else group.count for group in groups]
        self.means = [zero if group is None else group.mean for group in groups]

    def products(self, columns: list[Tensor]) -> list[Tensor]:
        """C_c @ columns for each class, shape (D, m)."""
        return [
            torch.zeros_like(own) if group is None else group.scatter @ own / group.count
            for group, own in zip(self._groups, columns, strict=True)
        ]

    def principal(
        self, rows: Tensor, sizes: list[int], generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Variances and principal directions of each class outside the span of `rows` (r, D)."""
        found = []
        for group, mean, size in zip(self._groups, self.means, sizes, strict=True):
            if group is None:
                found.append((mean.new_zeros(size), mean.new_zeros(len(mean), size)))
                continue
            inside = without(rows, without(rows, group.scatter).T) / group.count
            values, vectors = top_directions((inside + inside.T) / 2, size)
            found.append((values, without(rows, vectors)))
        return found


class SketchedSpectra:
    """Covariances that are known by passes over the rows: memory D x (size + 10) a class.

    Args:
        batches: Embeddings and classes; read once now and again for every product.
        num_classes: C, or None for those that occur.

    Raises:
        ShapeError: there are no rows.
        ConfigError: the batches can be read only once, or a class is not in [0, C).
        DataError: an embedding holds NaN or an infinite number.
    """

    def __init__(self, batches: Batches, num_classes: int | None) -> None:
        if iter(batches) is batches:
            raise ConfigError(
                f"embeddings wider than {EXACT_DIM} numbers (or covariances of more than "
                f"{EXACT_BYTES >> 30} GiB) need several passes, but these batches can be read only "
                f"once; pass a list or an object whose __iter__ starts anew."
            )
        self._batches = batches
        self._num_classes = num_classes
        sums: dict[int, tuple[int, Tensor]] = {}
        for c, rows in self._blocks():
            count, mean = sums.get(c, (0, torch.zeros(rows.shape[1], dtype=torch.float64)))
            total = count + len(rows)
            sums[c] = (total, mean + (finite_mean(rows) - mean) * (len(rows) / total))
        if not sums:
            raise _no_rows()
        zero = torch.zeros_like(next(iter(sums.values()))[1])
        places = range(max(sums) + 1 if num_classes is None else num_classes)
        self.counts = [sums.get(c, (0, zero))[0] for c in places]
        self.means = [sums.get(c, (0, zero))[1] for c in places]

    def products(self, columns: list[Tensor]) -> list[Tensor]:
        """C_c @ columns for each class, shape (D, m)."""
        out = [torch.zeros_like(own) for own in columns]
        for c, rows in self._blocks():
            centred = rows - self.means[c]
            out[c].addmm_(centred.T, centred @ columns[c], alpha=1 / self.counts[c])
        return out

    def principal(
        self, rows: Tensor, sizes: list[int], generator: torch.Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Variances and principal directions of each class outside the span of `rows` (r, D)."""
        dim = len(self.means[0])
        starts = [
            torch.randn(
                dim, min(size + EXTRA, dim - len(rows)), dtype=torch.float64, generator=generator
            )
            for size in sizes
        ]
        # Taken out on both sides: of a covariance of low rank a basis holds columns left to chance,
        # which need not avoid the rows.
        found = subspace_iteration(
            lambda columns: [
                without(rows, own)
                for own in self.products([without(rows, column) for column in columns])
            ],
            starts,
            sizes,
        )
        return [(values, without(rows, vectors)) for values, vectors in found]

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Rows of one class at a time, float64, shape (n, D)."""
        for embeddings, classes in self._batches:
            check_rows(embeddings, classes)
            _check_classes(classes, self._num_classes)
            for start in range(0, len(embeddings), BLOCK):
                rows = embeddings[start : start + BLOCK].detach().cpu().double()
                kinds = classes[start : start + BLOCK].cpu()
                for c in kinds.bincount().nonzero().flatten().tolist():
                    yield c, rows[kinds == c]


def read_spectra(batches: Batches, num_classes: int | None) -> Spectra:
    """Read batches, once if the covariances fit into memory.

    Raises:
        ShapeError: shapes do not fit each other, or there are no rows.
        ConfigError: several passes are needed and the batches allow only one, or a class is not
            in [0, C).
        DataError: an embedding holds NaN or an infinite number.
    """
    moments = ClassMoments()
    for embeddings, classes in batches:
        check_rows(embeddings, classes)
        _check_classes(classes, num_classes)
        seen = max(moments.groups, default=-1) + 1
        count = max(seen, int(classes.max()) + 1 if len(classes) else 0, num_classes or 0)
        if not fits(embeddings.shape[1], count):
            return SketchedSpectra(batches, num_classes)
        moments.update(embeddings, classes)
    return spectra_of(moments, num_classes)


def _check_classes(classes: Tensor, num_classes: int | None) -> None:
    if num_classes is not None and len(classes) and int(classes.max()) >= num_classes:
        raise ConfigError(
            f"classes hold {int(classes.max())} but there are {num_classes} classes; they must "
            f"lie in [0, {num_classes})."
        )


def _no_rows() -> ShapeError:
    return ShapeError("there are no embeddings to find directions in; give at least one batch.")


def fits(dim: int, classes: int) -> bool:
    """Whether covariances of D = `dim` numbers and so many classes are computed in full."""
    return dim <= EXACT_DIM and 8 * dim * dim * classes <= EXACT_BYTES


def spectra_of(moments: ClassMoments, num_classes: int | None) -> ExactSpectra:
    """Covariances of what moments have seen.

    Raises:
        ShapeError: they have seen no rows.
    """
    if not moments.groups:
        raise _no_rows()
    return ExactSpectra(moments, max(moments.groups) + 1 if num_classes is None else num_classes)
