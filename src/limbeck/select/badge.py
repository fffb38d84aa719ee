"""BADGE: gradients that are large and differ from each other.

Source: Ash, Zhang, Krishnamurthy, Langford, Agarwal, "Deep batch active learning by diverse,
uncertain gradient lower bounds", ICLR 2020, Algorithm 1: k-means++ seeding over the last layer's
gradients at the most probable class, (f - onehot) outer h.
"""

from typing import final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from limbeck.errors import ConfigError, ShapeError
from limbeck.select.base import Candidates, Selection, Selector, batch_size, chosen
from limbeck.select.gains import check_embeddings, check_probs

_DRAWS = 64
"""Rows that are drawn at once, before all rows are compared with those that are kept."""
_ROWS = 2048
"""Rows of one matrix product: its result stays in the cache."""


def badge_rows(probs: Tensor, embeddings: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k-means++ seeds over gradients: the first has the largest norm, each next one is drawn in
    proportion to its squared distance to the nearest before it.

    The gradient a outer h is never built: <a outer h, b outer g> = <a, b> <h, g>. Rows are drawn
    many at a time by distances of a while ago, and one that has come nearer since is kept with the
    probability (distance now) / (distance then): each kept row has the distribution of one that is
    drawn by distances of now.

    Args:
        probs: Student probabilities, shape (n, C).
        embeddings: Inputs of the student's last layer, shape (n, D).
        k: Rows to choose, in [0, n].
        generator: Source of randomness, on the CPU.

    Returns:
        Rows in the order chosen, int64, shape (k,), no row twice.

    Raises:
        ShapeError: probabilities and embeddings are of different rows.
        ConfigError: k is out of range, rows are no probabilities, or embeddings are not finite.

    Cost: O(n (C + D) k) time in matrix products, O(n (C + D)) memory.
    """
    if probs.ndim != 2 or embeddings.ndim != 2 or len(probs) != len(embeddings):
        raise ShapeError(
            f"badge needs probabilities (n, C) and embeddings (n, D) of the same rows, got "
            f"{tuple(probs.shape)} and {tuple(embeddings.shape)}."
        )
    n = len(probs)
    if not 0 <= k <= n:
        raise ConfigError(f"k={k}: must be in [0, {n}] rows.")
    f, h = probs.detach().float(), embeddings.detach().float()
    check_probs(f)
    check_embeddings(h)
    if k == 0:
        return torch.zeros(0, dtype=torch.int64)
    a = f - functional.one_hot(f.argmax(dim=1), f.shape[1])
    norms = a.square().sum(dim=1) * h.square().sum(dim=1)
    picks = torch.empty(k, dtype=torch.int64)
    picks[0] = norms.argmax()
    gap = _nearer(torch.full((n,), torch.inf), a, h, norms, picks[:1])
    done = 1
    while done < k:
        gap[picks[:done]] = 0
        total = gap.double().cumsum(0)
        if not float(total[-1]) > 0:  # what is left repeats what is picked
            free = torch.ones(n, dtype=torch.bool).index_fill_(0, picks[:done], False).nonzero()
            picks[done:] = free[torch.randperm(len(free), generator=generator)[: k - done], 0]
            break
        new = _drawn(gap, total, a, h, norms, generator)[: k - done]
        picks[done : done + len(new)] = new
        done += len(new)
        gap = _nearer(gap, a, h, norms, new)
    return picks


def _drawn(
    gap: Tensor, total: Tensor, a: Tensor, h: Tensor, norms: Tensor, generator: torch.Generator
) -> Tensor:
    """The next picks, one at least: draws by `gap`, thinned out by what the kept ones change."""
    u = torch.rand(2, _DRAWS, dtype=torch.float64, generator=generator)
    at = torch.searchsorted(total, u[0] * total[-1], right=True).clamp_max_(len(total) - 1)
    # A product may have been rounded up to the end, behind the last place with a weight.
    rows = torch.where(gap[at] > 0, at, gap.nonzero()[-1, 0])
    apart = norms[rows, None] + norms[rows] - 2 * (a[rows] @ a[rows].T) * (h[rows] @ h[rows].T)
    apart.clamp_min_(0).masked_fill_(rows[:, None] == rows, 0)
    left, chance = gap[rows].numpy(), (u[1] * gap[rows]).numpy()
    kept = []
    for i, distances in enumerate(apart.numpy()):
        if chance[i] < left[i]:
            kept.append(i)
            np.minimum(left, distances, out=left)
    return rows[kept]


def _nearer(gap: Tensor, a: Tensor, h: Tensor, norms: Tensor, picks: Tensor) -> Tensor:
    """Squared distances to the nearest of what `gap` stands for and some more picks."""
    out = torch.empty_like(gap)
    for start in range(0, len(gap), _ROWS):
        rows = slice(start, start + _ROWS)
        inner = (a[rows] @ a[picks].T).mul_(h[rows] @ h[picks].T)
        nearest = torch.add(norms[picks], inner, alpha=-2).amin(dim=1)
        out[rows] = torch.minimum(gap[rows], (nearest + norms[rows]).clamp_min_(0))
    return out


@final
class Badge(Selector):
    """k-means++ seeds over the candidates' gradients; inclusion has no closed form."""

    name = "badge"
    needs = frozenset({"probs", "embeddings"})

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows."""
        k = batch_size(candidates, k)
        blocks = [b.mean(dim=0) if b.ndim == 3 else b for b in candidates.probs()]
        if not blocks or k == 0:
            return chosen(candidates, torch.zeros(0, dtype=torch.int64), None)
        probs, embeddings = torch.cat(blocks), candidates.embeddings()
        return chosen(candidates, badge_rows(probs, embeddings, k, generator), None)
