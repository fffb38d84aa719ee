"""Rows at random: the baseline that every other rule must beat."""

from typing import final

import torch

from limbeck.select.base import Candidates, Selection, Selector, batch_size, chosen


@final
class Uniform(Selector):
    """k candidates, each equally likely, without replacement."""

    name = "uniform"
    needs = frozenset()

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows; each has the inclusion probability min(k, n) / n."""
        n, k = len(candidates.rows), batch_size(candidates, k)
        at = torch.randperm(n, generator=generator)[:k]
        return chosen(candidates, at, torch.full((n,), k / max(n, 1), dtype=torch.float64))
