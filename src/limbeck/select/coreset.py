"""Core-set: rows such that every candidate lies near one that is labelled or chosen.

Source: Sener and Savarese, "Active learning for convolutional neural networks: a core-set
approach", ICLR 2018, Algorithm 1 (k-center greedy); the traversal is Gonzalez's (1985).
"""

from typing import final

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError
from limbeck.select.base import Candidates, Selection, Selector, batch_size, surely
from limbeck.select.gains import check_embeddings

_NEAR = 2048
"""Rows, those that lie farthest, among which picks are sought before all are looked at again."""
_PICKS = 256
"""Picks, or centers, that all rows are compared with at once."""
_ROWS = 2048
"""Rows of one matrix product: its result stays in the cache."""


def k_center(x: Tensor, k: int, *, centers: Tensor | None = None) -> Tensor:
    """Choose k rows by farthest-first traversal: each is the one farthest from all before it.

    A row comes no nearer to the picks than it was, so the farthest of a few far rows is the
    farthest of all as long as it is farther than the rest were when all were looked at. Picks are
    sought among those few, and all rows are compared with many picks by one matrix product.

    Args:
        x: Features, floating point, shape (n, d); distances are Euclidean.
        k: Rows to choose, in [0, n].
        centers: Features of rows that are taken already, shape (l, d). Without any, row 0 is first.

    Returns:
        Rows in the order chosen, int64, shape (k,), no row twice; of equal distances the first.

    Raises:
        ShapeError: `x` or `centers` is no matrix of that width.
        ConfigError: k is out of range, or features are NaN or infinite.

    Cost: O(n d (k + l)) time in matrix products, O(n) memory beside `x`.
    Guarantee: the largest distance of a row to a center is at most twice the smallest possible one.
    """
    _check(x, k, centers)
    squares = x.square().sum(dim=1)
    gap = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)  # squared, to nearest
    if centers is not None and len(centers):
        centers = centers.to(x)
        for start in range(0, len(centers), _PICKS):
            gap = _nearer(gap, x, squares, centers[start : start + _PICKS])
    picks = torch.empty(k, dtype=torch.int64, device=x.device)
    done = 0
    while done < k:
        new = _farthest(x, squares, gap, min(k - done, _PICKS))
        picks[done : done + len(new)] = new
        done += len(new)
        gap = _nearer(gap, x, squares, x[new])
        # Rows that repeat a pick have gap 0 as well: without the mark it could be picked again.
        gap[picks[:done]] = -torch.inf
    return picks


def _farthest(x: Tensor, squares: Tensor, gap: Tensor, most: int) -> Tensor:
    """The next picks, one at least: as many as can be told from the rows that lie farthest now."""
    first = int(gap.argmax())
    far = gap.topk(min(_NEAR, len(gap)))
    bound = float(far.values[-1]) if len(far.values) < len(gap) else -torch.inf
    marked = torch.zeros_like(gap, dtype=torch.bool).index_fill_(0, far.indices, True)
    marked[first] = True
    rows = marked.nonzero()[:, 0]
    near, own, left = x[rows], squares[rows], gap[rows]
    at = int(torch.searchsorted(rows, first))
    found = []
    while True:
        found.append(at)
        if len(found) == most:
            break
        # |x - c|^2 by one matrix-vector product; rounding may bring it just below 0.
        left = torch.minimum(left, (own + own[at] - 2 * (near @ near[at])).clamp_min_(0))
        left[at] = -torch.inf
        at = int(left.argmax())
        if not float(left[at]) > bound:  # a row that was left out may be as far
            break
    picked: Tensor = rows[found]
    return picked


def _nearer(gap: Tensor, x: Tensor, squares: Tensor, centers: Tensor) -> Tensor:
    """Squared distances to the nearest of what `gap` stands for and some centers."""
    own = centers.square().sum(dim=1)
    out = torch.empty_like(gap)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        nearest = torch.addmm(own, x[rows], centers.T, alpha=-2).amin(dim=1)
        out[rows] = torch.minimum(gap[rows], (nearest + squares[rows]).clamp_min_(0))
    return out


def _check(x: Tensor, k: int, centers: Tensor | None) -> None:
    if x.ndim != 2 or not x.is_floating_point():
        raise ShapeError(f"k_center needs features (n, d), got {x.dtype} of {tuple(x.shape)}.")
    if not 0 <= k <= len(x):
        raise ConfigError(f"k={k}: must be in [0, {len(x)}] rows.")
    if centers is not None and len(centers) and centers.shape[1:] != x.shape[1:]:
        raise ShapeError(
            f"centers have shape {tuple(centers.shape)} but features are {x.shape[1]} wide."
        )
    check_embeddings(x)
    if centers is not None:
        check_embeddings(centers)


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
