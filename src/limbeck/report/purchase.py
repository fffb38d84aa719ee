"""What a run that bought in rounds has chosen, and what that says of the pool.

Accuracies and shares are in [0, 1]; accuracies of students are on validation rows.
"""

from dataclasses import dataclass

from limbeck.numerics.intervals import Interval

Beside = tuple[int, float, float, float]
"""Answers, accuracy, and its interval's two ends."""
Drawn = tuple[float, float, float]
"""Gain, inclusion probability, round."""


@dataclass(frozen=True, slots=True)
class RoundView:
    """A student, and the batch that was chosen by it.

    Args:
        number: From 1.
        answers: Pool answers that had been bought when this student was trained.
        accuracy: Of the student, with its 95 % interval.
        chosen: Rows of the batch, the audited among them; 0 after the last purchase.
        audit: Rows of the batch that were drawn uniformly.
        candidates: Rows that were not chosen before.
        support: Candidates to which the rule gave a chance, or None where it has no such thing.
        wrong: Share of the batch's answers that were expected to be wrong, or None.
    """

    number: int
    answers: int
    accuracy: Interval
    chosen: int
    audit: int
    candidates: int
    support: int | None
    wrong: float | None


@dataclass(frozen=True, slots=True)
class PoolEstimate:
    """A share of the whole pool, estimated from the chosen rows and their probabilities."""

    name: str
    estimate: Interval


@dataclass(frozen=True, slots=True)
class Purchase:
    """How the answers were bought.

    Args:
        rule: That chose the rows.
        measure: The gain that it looked at; empty for a rule that looks at none.
        rounds: In order; the last one tells of the student after the last purchase.
        beside: The same from rows chosen uniformly, each (answers, accuracy, low, high); empty
            where they were not bought.
        points: Chosen rows, each (gain, inclusion probability, round): some hundreds at most.
        estimates: Shares of the pool.
        teacher_accuracy: Of the teacher, on validation rows.
        wrong_uniform: Share of wrong answers expected among rows chosen uniformly, or None.
        stopped: Why the purchase ended before all rounds, a sentence; empty where it did not.
        unbought: Answers that were therefore not bought.
        saved: What they would have cost, millionths of the currency.
    """

    rule: str
    measure: str
    rounds: tuple[RoundView, ...]
    beside: tuple[Beside, ...]
    points: tuple[Drawn, ...]
    estimates: tuple[PoolEstimate, ...]
    teacher_accuracy: float
    wrong_uniform: float | None
    stopped: str
    unbought: int
    saved: int

    @property
    def batches(self) -> tuple[RoundView, ...]:
        """The rounds in which something was chosen."""
        return tuple(each for each in self.rounds if each.chosen)

    @property
    def supported(self) -> bool:
        """Whether the rule of any batch had a support."""
        return any(each.support is not None for each in self.batches)

    @property
    def bought(self) -> int:
        """Rows chosen in all rounds together."""
        return sum(each.chosen for each in self.rounds)

    @property
    def audited(self) -> int:
        """Those of them that were drawn uniformly."""
        return sum(each.audit for each in self.rounds)
