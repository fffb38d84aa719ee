"""What is trained: a student, an objective, and the rows of each kind."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.distill.config import TrainConfig
from limbeck.objectives.base import Objective, Targets
from limbeck.students.base import Ragged, Student
from limbeck.students.store import Store


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Encoded rows with true labels (int64, shape (n,))."""

    rows: Store
    labels: Tensor

    def __len__(self) -> int:
        return len(self.rows)


class Pool(Protocol):
    """Encoded pool rows together with what the objective wants of them."""

    def __len__(self) -> int: ...

    def take(self, rows: NDArray[np.int64]) -> tuple[Ragged, Targets]:
        """Rows by position and their targets."""

    def answers(self, rows: NDArray[np.int64]) -> Answers:
        """The teacher's answers of rows by position."""

    @property
    def encoded(self) -> Store:
        """The rows without their targets."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One student to train.

    Args:
        name: Shown while it trains.
        student: Freshly initialised; its module is trained in place.
        objective: Fitted.
        labelled: Rows with true labels, or None.
        pool: Rows with answers, or None for an objective that needs none.
        held_out: Rows on which the best step is chosen, or None to keep the last step.
        train: Steps, batches, rates.
        steps: Length of the schedule.
        stop_at: Step to stop at, at most `steps`.
        learning_rate: Peak of the schedule.
        seed: Seeds order and dropout.
        evidence: Validation rows that the objective was fitted on, in its order, for an objective
            that refreshes; else None.
    """

    name: str
    student: Student
    objective: Objective
    labelled: Labelled | None
    pool: Pool | None
    held_out: Labelled | None
    train: TrainConfig
    steps: int
    stop_at: int
    learning_rate: float
    seed: int
    evidence: Store | None = None
