"""Core-set: rows such that every candidate lies near one that is labelled or chosen.

Source: Sener and Savarese, "Active learning for convolutional neural networks: a core-set
approach", ICLR 2018, Algorithm 1 (k-center greedy); the traversal is Gonzalez's (1985).
"""

from typing import final

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError
from limbeck.select.base import Candidates, Selection, Selector, batch_size, surely

_BLOCK = 1024


def k_center(x: Tensor, k: int, *, centers: Tensor | None = None) -> Tensor:
    """Choose k rows by farthest-first traversal: each is the one farthest from all before it.

    Args:
        x: Features, floating point, shape (n, d); distances are Euclidean.
        k: Rows to choose, in [0, n].
        centers: Features of rows that are taken already, shape (l, d). Without any, row 0 is first.

    Returns:
        Rows in the order chosen, int64, shape (k,), no row twice; of equal distances the first.

    Raises:
        ShapeError: `x` or `centers` is no matrix of that width.
        ConfigError: k is out of range, or features are NaN or infinite.

    Cost: O(n d (k + l)) time in matrix-vector products, O(n) memory beside `x`.
    Guarantee: the largest distance of a row to a center is at most twice the smallest possible one.
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ShapeError(f"k_center needs features (n, d), got {x.dtype} of {tuple(x.shape)}.")
    n = len(x)
    if not 0 <= k <= n:
        raise ConfigError(f"k={k}: must be in [0, {n}] rows.")
    if n and not bool(x.isfinite().all()):
        raise ConfigError("features hold NaN or infinite values; look at the student's embeddings.")
    squares = x.square().sum(dim=1)
    gap = torch.full((n,), torch.inf, dtype=x.dtype, device=x.device)  # squared, to the nearest
    if centers is not None and len(centers):
        gap = _to_nearest(x, squares, centers.to(x))
    picks = torch.empty(k, dtype=torch.int64, device=x.device)
    row = 0 if centers is None or not len(centers) else int(gap.argmax()) if n else 0
    for i in range(k):
        picks[i] = row
        # |x - c|^2 by one matrix-vector product; rounding may bring it just below 0.
        gap = torch.minimum(gap, (squares + squares[row] - 2 * (x @ x[row])).clamp_min_(0))
        # Rows that repeat a pick have gap 0 as well: without the mark it could be picked again.
        gap[row] = -torch.inf
        row = int(gap.argmax())
    return picks


def _to_nearest(x: Tensor, squares: Tensor, centers: Tensor) -> Tensor:
    """Squared distance to the nearest center, centers a block at a time."""
    if centers.ndim != 2 or centers.shape[1] != x.shape[1]:
        raise ShapeError(
            f"centers have shape {tuple(centers.shape)} but features are {x.shape[1]} wide."
        )
    gap = torch.full_like(squares, torch.inf)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        near = torch.cdist(x[rows], centers).square().amin(dim=1)
        gap[rows] = near
    return gap


@final
class Coreset(Selector):
    """k-center greedy over the student's embeddings, from the rows that are labelled or bought."""

    name = "coreset"
    needs = frozenset({"embeddings"})

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows; nothing is drawn."""
        k = batch_size(candidates, k)
        x = candidates.embeddings().detach().float()
        return surely(candidates, k_center(x, k, centers=candidates.known_embeddings()))
