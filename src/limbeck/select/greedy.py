"""The most informative rows, by the student of now or by the mean over all students so far.

Greedy by the margin is margin sampling: Roth and Small, "Margin-based active learning for
structured output spaces", ECML 2006. The running mean is the honest rival of every rule with a
memory: under noise that does not change it is hard to beat.
"""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from limbeck.errors import ShapeError
from limbeck.select.base import Candidates, Selection, Selector, batch_size, surely
from limbeck.select.gains import check_gains
from limbeck.select.scoring import Score, gains_of


def top_rows(gains: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Places of the k largest gains, equal ones at random.

    Args:
        gains: Shape (n,).
        k: In [0, n].
        generator: Breaks ties.

    Returns:
        int64, shape (k,), the largest first.

    Cost: O(n), and O(m log m) for the m rows with a gain of at least the k-th largest.
    """
    if k == 0:
        return torch.zeros(0, dtype=torch.int64)
    rows = (gains >= gains.topk(k).values[-1]).nonzero()[:, 0]
    order = rows[torch.randperm(len(rows), generator=generator)]
    return order[gains[order].sort(descending=True, stable=True).indices[:k]]


@final
class Greedy(Selector):
    """The k candidates of largest gain, equal ones at random.

    Args:
        measure: What is informative; see `limbeck.select.gains`.
    """

    name = "greedy"

    def __init__(self, *, measure: Score = "margin") -> None:
        self.measure = measure

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows."""
        k = batch_size(candidates, k)
        return surely(candidates, top_rows(gains_of(candidates, self.measure), k, generator))


@final
class AveragedGreedy(Selector):
    """The k candidates with the largest mean gain over all rounds observed, this one included.

    Args:
        measure: What is informative; see `limbeck.select.gains`.
    """

    name = "averaged_greedy"
    needs = frozenset({"probs", "history"})

    def __init__(self, *, measure: Score = "margin") -> None:
        self.measure = measure
        self._sum = torch.zeros(0, dtype=torch.float64)
        self._count = torch.zeros(0, dtype=torch.float64)

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows; a row that was never observed counts with its gain of now."""
        k = batch_size(candidates, k)
        self._grow(candidates.pool_size)
        total, count = self._sum[candidates.rows], self._count[candidates.rows]
        mean = total / count.clamp_min(1)
        if bool((count == 0).any()):
            mean = torch.where(count > 0, mean, gains_of(candidates, self.measure).double())
        return surely(candidates, top_rows(mean, k, generator))

    def observe(self, rows: Tensor, gains: Tensor) -> None:
        """Take the gains into the mean."""
        if rows.shape != gains.shape:
            raise ShapeError(f"{len(rows)} rows but {len(gains)} gains; give one for each row.")
        check_gains(gains)
        self._grow(int(rows.max()) + 1 if len(rows) else 0)
        self._sum[rows] += gains.double()
        self._count[rows] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Sums and counts."""
        return {"sum": self._sum.clone(), "count": self._count.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Remember sums and counts."""
        self._sum, self._count = state["sum"].clone(), state["count"].clone()

    def _grow(self, n: int) -> None:
        missing = n - len(self._sum)
        if missing > 0:
            more = self._sum.new_zeros(missing)
            self._sum, self._count = torch.cat([self._sum, more]), torch.cat([self._count, more])
