"""Informative rows by chance: in proportion to a power of the gain, without replacement.

Source: Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron, Gal, "Stochastic batch
acquisition: a simple baseline for deep active learning", TMLR 2023, the "power" distribution.
"""

from typing import final

import torch
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.select.base import Candidates, Selection, Selector, batch_size, chosen
from limbeck.select.scoring import Score, gains_of


def power_sample(gains: Tensor, k: int, beta: float, generator: torch.Generator) -> Tensor:
    """k distinct places, drawn one after the other in proportion to gain^beta.

    Args:
        gains: >= 0, shape (n,). Rows without gain come last, at random.
        k: In [0, n].
        beta: >= 0; 0 is uniform, a large one greedy.
        generator: Source of randomness.

    Returns:
        int64, shape (k,), in the order drawn.

    Cost: O(n log k): the largest k of beta log g plus Gumbel noise.
    """
    u = torch.rand(len(gains), dtype=torch.float64, generator=generator)
    gumbel = -(-u.clamp_min(torch.finfo(u.dtype).tiny).log()).log()
    floor = torch.finfo(torch.float64).tiny
    return (beta * gains.double().clamp_min(floor).log() + gumbel).topk(k).indices


@final
class Power(Selector):
    """Draw candidates in proportion to gain^beta; the inclusion probabilities have no closed form.

    Args:
        measure: What is informative; see `limbeck.select.gains`.
        beta: >= 0. Default: the source's 1.
    """

    name = "power"

    def __init__(self, *, measure: Score = "margin", beta: float = 1.0) -> None:
        if not 0 <= beta < float("inf"):
            raise ConfigError(f"beta={beta}: must be >= 0 and finite; 1 is the source's.")
        self.measure = measure
        self.beta = beta

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows."""
        k = batch_size(candidates, k)
        at = power_sample(gains_of(candidates, self.measure), k, self.beta, generator)
        return chosen(candidates, at, None)
