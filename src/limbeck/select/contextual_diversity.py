"""Contextual diversity: predictions that differ from each other.

Source: Agarwal, Arora, Anand, Arora, "Contextual diversity for active learning", ECCV 2020:
farthest first under the symmetric Kullback-Leibler divergence of class probabilities.
"""

from typing import final

import torch
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.select.base import Candidates, Selection, Selector, batch_size, surely
from limbeck.select.gains import check_probs

_FLOOR = 1e-7


def diverse_rows(probs: Tensor, k: int) -> Tensor:
    """Farthest-first traversal under KL(p | q) + KL(q | p), from the row of largest entropy.

    Args:
        probs: Class probabilities, shape (n, C); those below 1e-7 count as that.
        k: Rows to choose, in [0, n].

    Returns:
        Rows in the order chosen, int64, shape (k,), no row twice; of equal ones the first.

    Cost: O(n C k) time in matrix-vector products, O(n C) memory.
    """
    if not 0 <= k <= len(probs):
        raise ConfigError(f"k={k}: must be in [0, {len(probs)}] rows.")
    check_probs(probs)
    p = probs.detach().double().clamp_min(_FLOOR)
    p = p / p.sum(dim=1, keepdim=True)
    logs = p.log()
    own = (p * logs).sum(dim=1)
    gap = torch.full((len(p),), torch.inf, dtype=p.dtype, device=p.device)
    picks = torch.empty(k, dtype=torch.int64, device=p.device)
    row = int(own.argmin()) if len(p) else 0
    for i in range(k):
        picks[i] = row
        gap = torch.minimum(gap, own + own[row] - p @ logs[row] - logs @ p[row])
        gap[row] = -torch.inf
        row = int(gap.argmax())
    return picks


@final
class ContextualDiversity(Selector):
    """Candidates whose class probabilities differ most from each other."""

    name = "contextual_diversity"

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows; nothing is drawn."""
        k = batch_size(candidates, k)
        blocks = [b.mean(dim=0) if b.ndim == 3 else b for b in candidates.probs()]
        if not blocks:
            return surely(candidates, torch.zeros(0, dtype=torch.int64))
        return surely(candidates, diverse_rows(torch.cat(blocks), k))
