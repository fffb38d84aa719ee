"""AdaProd+ as a rule for choosing rows."""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from limbeck.errors import ShapeError
from limbeck.numerics.rounding import dependent_rounding
from limbeck.select.base import Candidates, Selection, Selector, batch_size, chosen
from limbeck.select.gains import check_gains
from limbeck.select.scoring import Score, gains_of
from limbeck.select.sleeping import SleepingExperts


@final
class AdaProd(Selector):
    """Every pool row is an expert; its predicted loss is 1 - its gain under the student of now.

    A row that is no candidate any more has fallen asleep. Without `observe` nothing is learnt.

    Args:
        measure: What is informative; see `limbeck.select.gains`.
    """

    name = "adaprod"
    needs = frozenset({"probs", "history"})

    def __init__(self, *, measure: Score = "margin") -> None:
        self.measure = measure
        self._experts: SleepingExperts | None = None

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows by dependent rounding, with their exact inclusion probabilities."""
        k = batch_size(candidates, k)
        if len(candidates.rows) == 0:
            return chosen(candidates, torch.zeros(0, dtype=torch.int64), None)
        if self._experts is None:
            self._experts = SleepingExperts(candidates.pool_size)
        n = len(self._experts)
        awake = torch.zeros(n, dtype=torch.bool)
        awake[candidates.rows] = True
        losses = torch.zeros(n, dtype=torch.float64)
        losses[candidates.rows] = 1 - gains_of(candidates, self.measure).double()
        self._experts.predict(awake, losses)
        p = self._experts.inclusion(k)
        rows = dependent_rounding(p, generator)
        return Selection(rows, p[rows], p[candidates.rows])

    def observe(self, rows: Tensor, gains: Tensor) -> None:
        """End the round: gains of its candidates under the student that came out of it."""
        if rows.shape != gains.shape:
            raise ShapeError(f"{len(rows)} rows but {len(gains)} gains; give one for each row.")
        check_gains(gains)
        if self._experts is None or not self._experts.in_round:
            return  # gains from before the first round: they come again as its prediction
        losses = torch.full((len(self._experts),), torch.nan, dtype=torch.float64)
        losses[rows] = 1 - gains.double()
        self._experts.update(losses)

    def state_dict(self) -> dict[str, Tensor]:
        """The state of all experts; none before the first round."""
        return {} if self._experts is None else self._experts.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Remember the state of all experts."""
        self._experts = SleepingExperts.from_state(state) if state else None
