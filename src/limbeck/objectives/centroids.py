"""Hard subclasses by nearest centroids of clusters, found class by class on a sample of the rows.

Source: the clustering controls of Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher
Embeddings for Few-Class Distillation", arXiv 2409.20449: clusters of each class's embeddings as
subclasses. Nearest centroids for rows of other classes and sampling are a reconstruction.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import LimbeckWarning, ShapeError
from limbeck.objectives.features import embeddings_of
from limbeck.objectives.hashing import hashed
from limbeck.objectives.mixing import first_max

Cluster = Callable[[NDArray[np.float32], int], NDArray[np.int64]]
"""Rows (n, D) and a number of clusters <= n to the cluster of each row."""


@dataclass(frozen=True, slots=True, eq=False)
class Centroids:
    """Fitted centroids of subclasses.

    Args:
        points: float32, shape (C, S, D), less `centre`.
        centre: float32, shape (D,); taken out of embeddings so that large means cost no digits.
        num_subclasses: S_c of each class, in [1, S]; the rest of `points` is not used.
    """

    points: Tensor
    centre: Tensor
    num_subclasses: tuple[int, ...]

    @classmethod
    def fit(cls, samples: list[Tensor], size: int, cluster: Cluster, *, name: str) -> Self:
        """Cluster a sample of each class's embeddings.

        A class with fewer rows, or fewer clusters, than asked for gets as many as it has, with a
        warning; one without rows stays whole.

        Args:
            samples: Embeddings of each class, float32, shape (n_c, D).
            size: S.
            cluster: Finds clusters in one class.
            name: Of the split, for messages.
        """
        dim = max(rows.shape[1] for rows in samples)
        centre = torch.cat([rows for rows in samples if len(rows)]).double().mean(dim=0).float()
        points, sizes = torch.zeros(len(samples), size, dim), []
        for c, rows in enumerate(samples):
            wanted = min(size, max(1, len(rows)))
            kinds = np.zeros(len(rows), np.int64)
            if wanted > 1:
                kinds = cluster((rows - centre).numpy(), wanted)
            found = np.unique(kinds)
            for s, kind in enumerate(found):
                points[c, s] = rows[torch.from_numpy(kinds == kind)].mean(dim=0) - centre
            sizes.append(max(1, len(found)))
            if sizes[-1] < size:
                warnings.warn(
                    f"{name}: class {c} has {len(rows)} rows in {len(found)} clusters but {size} "
                    f"subclasses were asked for; it gets {sizes[-1]}.",
                    LimbeckWarning,
                    stacklevel=2,
                )
        return cls(points, centre, tuple(sizes))

    def log_split(self, embeddings: Tensor) -> Tensor:
        """Log of w: 0 for the nearest centroid of every class, else -inf; float32, (n, C, S).

        Raises:
            ShapeError: the embeddings are of another width.

        Cost: O(n C S D).
        """
        classes, size, dim = self.points.shape
        if embeddings.ndim != 2 or embeddings.shape[1] != dim:
            raise ShapeError(
                f"embeddings have shape {tuple(embeddings.shape)} but centroids were found for "
                f"{dim} numbers a row; pass embeddings of the same teacher."
            )
        points = self.points.flatten(0, 1).to(embeddings.device)
        rows = embeddings.float() - self.centre.to(embeddings.device)
        # |h - m|^2 / 2 less what all centroids share.
        gaps = torch.addmm(points.square().sum(dim=1) / 2, rows, points.T, alpha=-1)
        gaps = gaps.view(-1, classes, size)
        for c, own in enumerate(self.num_subclasses):
            gaps[:, c, own:] = torch.inf
        return one_hot_logs(gaps.argmin(dim=2), size)


def one_hot_logs(subclasses: Tensor, size: int) -> Tensor:
    """Log of a hard split: 0 at the subclass, else -inf.

    Args:
        subclasses: int64, shape (n, C), in [0, S).
        size: S.

    Returns:
        float32, shape (n, C, S).
    """
    out = torch.full((*subclasses.shape, size), -torch.inf, device=subclasses.device)
    return out.scatter_(2, subclasses[:, :, None], 0.0)


def sample_classes(
    answers: Iterable[Answers], max_rows: int, *, name: str, seed: int
) -> list[Tensor]:
    """Draw up to so many embeddings of each class, grouped by the teacher's most probable class.

    Which rows are drawn depends on their question ids and the seed alone, not on batches.

    Args:
        answers: Batches with embeddings; read once.
        max_rows: Most rows of a class.
        name: Of the objective, for messages.
        seed: Of the draw.

    Returns:
        Embeddings of each class, float32, shape (n_c, D), n_c <= max_rows.

    Raises:
        ConfigError: answers hold no embeddings.
        ShapeError: there are no answers.

    Cost: O(N D) time; memory for 2 max_rows rows of each class.
    """
    held: list[tuple[NDArray[np.uint64], Tensor]] = []
    for batch in answers:
        rows, kinds = embeddings_of(name, batch), first_max(batch.probs)
        keys = hashed(batch.ids, seed)
        if not held:
            empty = (np.empty(0, np.uint64), rows.new_empty(0, rows.shape[1]).float())
            held = [empty] * batch.num_classes
        for c in kinds.bincount().nonzero().flatten().tolist():
            own = kinds == c
            held[c] = (
                np.concatenate([held[c][0], keys[own.numpy()]]),
                torch.cat([held[c][1], rows[own].float()]),
            )
            if len(held[c][0]) > 2 * max_rows:
                held[c] = _smallest(held[c], max_rows)
    if not held:
        raise ShapeError(f"{name}: there are no answers to split classes by; give one batch.")
    return [_smallest(pair, max_rows)[1] for pair in held]


def _smallest(
    pair: tuple[NDArray[np.uint64], Tensor], count: int
) -> tuple[NDArray[np.uint64], Tensor]:
    """The rows with the smallest keys."""
    keys, rows = pair
    order = np.argsort(keys, kind="stable")[:count]
    return keys[order], rows[torch.from_numpy(order)]
