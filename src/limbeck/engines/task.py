"""What is to be bought, for whom, and who is told: the same for every way of asking."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limbeck.data.dataset import Dataset
from limbeck.data.ids import GatheredIds
from limbeck.ledger.base import Budget, Ledger, Spending

Progress = Callable[[int, int, Spending], None]
"""Is told of questions done, questions in all, and spending."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """One purchase before it begins.

    Args:
        ledger: Where answers go, and whose budget holds.
        dataset: Where the rows are.
        rows: Positions, int64, shape (n,).
        ids: Their questions.
        run: Whose budget it is.
        budget: What the run may spend in all.
        on_progress: Told after each batch.
        stop: Asked before each batch.
        questions: Distinct questions among the rows.
    """

    ledger: Ledger
    dataset: Dataset
    rows: NDArray[np.int64]
    ids: GatheredIds
    run: str
    budget: Budget
    on_progress: Progress | None
    stop: Callable[[], bool] | None
    questions: int
