"""BADGE: gradients that are large and differ from each other.

Source: Ash, Zhang, Krishnamurthy, Langford, Agarwal, "Deep batch active learning by diverse,
uncertain gradient lower bounds", ICLR 2020, Algorithm 1: k-means++ seeding over the last layer's
gradients at the most probable class, (f - onehot) outer h.
"""

from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from limbeck.errors import ConfigError, ShapeError
from limbeck.select.base import Candidates, Selection, Selector, batch_size, chosen
from limbeck.select.gains import check_probs


def badge_rows(probs: Tensor, embeddings: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k-means++ seeds over gradients: the first has the largest norm, each next one is drawn in
    proportion to its squared distance to the nearest before it.

    The gradient a outer h is never built: <a outer h, b outer g> = <a, b> <h, g>.

    Args:
        probs: Student probabilities, shape (n, C).
        embeddings: Inputs of the student's last layer, shape (n, D).
        k: Rows to choose, in [0, n].
        generator: Source of randomness, on the CPU.

    Returns:
        Rows in the order chosen, int64, shape (k,), no row twice.

    Raises:
        ShapeError: probabilities and embeddings are of different rows.
        ConfigError: k is out of range, or rows are no probabilities.

    Cost: O(n (C + D) k) time in matrix-vector products, O(n (C + D)) memory.
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
    if k == 0:
        return torch.zeros(0, dtype=torch.int64)
    a = f - functional.one_hot(f.argmax(dim=1), f.shape[1])
    norms = a.square().sum(dim=1) * h.square().sum(dim=1)
    gap = torch.full((n,), torch.inf)
    free = torch.ones(n, dtype=torch.bool)
    picks = torch.empty(k, dtype=torch.int64)
    row = int(norms.argmax())
    for i in range(k):
        picks[i], free[row] = row, False
        distance = norms + norms[row] - 2 * (a @ a[row]) * (h @ h[row])
        gap = torch.minimum(gap, distance.clamp_min_(0)).masked_fill_(~free, 0)
        if i + 1 < k:
            row = _draw(gap, free, generator)
    return picks


def _draw(weight: Tensor, free: Tensor, generator: torch.Generator) -> int:
    """A free place in proportion to its weight; any free one when all weights are 0."""
    total = weight.double().cumsum(0)
    if float(total[-1]) <= 0:
        places = free.nonzero()[:, 0]
        return int(places[torch.randint(len(places), (), generator=generator)])
    u = torch.rand((), dtype=torch.float64, generator=generator) * total[-1]
    at = int(torch.searchsorted(total, u, right=True).clamp_max(len(total) - 1))
    # u may have been rounded up to the end, behind the last place with a weight.
    return at if bool(weight[at] > 0) else int(weight.nonzero()[-1, 0])


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
