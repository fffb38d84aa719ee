"""When to stop buying: what validation says of the teacher and of the students so far."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limbeck.distill.buy_config import BuyConfig

LEVEL = 0.05


def reason_to_stop(
    right: Sequence[NDArray[np.bool_]],
    teacher_right: NDArray[np.bool_],
    answered: NDArray[np.int64],
    buy: BuyConfig,
) -> str:
    """Why the next round is not worth its price; empty where it may be.

    Args:
        right: For the student before each round, in order, whether it is right on each validation
            row, shape (V,) each.
        teacher_right: Whether the teacher is, on the validation rows that have an answer.
        answered: Their positions.
        buy: Patience, and the gain that counts.

    Returns:
        One sentence.
    """
    if not buy.stop or len(right) < 2:
        return ""
    student = right[-1][answered]
    if teacher_is_worse(teacher_right, student):
        return (
            f"the teacher is right on {teacher_right.mean():.1%} of the validation rows and the "
            f"student on {student.mean():.1%}, more than chance explains: its answers teach nothing"
        )
    accuracies = [float(one.mean()) for one in right]
    if has_flattened(accuracies, patience=buy.patience, min_gain=buy.min_gain):
        best = max(accuracies[: -buy.patience])
        return (
            f"the last {buy.patience} rounds have brought no student that is better than "
            f"{best:.1%} on validation by {100 * buy.min_gain:g} points"
        )
    return ""


def teacher_is_worse(teacher_right: NDArray[np.bool_], student_right: NDArray[np.bool_]) -> bool:
    """Whether the student beats the teacher, by McNemar's exact one-sided test at 5 %.

    Args:
        teacher_right, student_right: Who is right on the same rows, shape (V,).
    """
    from scipy.stats import binomtest

    wins = int((student_right & ~teacher_right).sum())
    losses = int((teacher_right & ~student_right).sum())
    if wins <= losses:
        return False
    return bool(binomtest(wins, wins + losses, alternative="greater").pvalue < LEVEL)


def has_flattened(accuracies: Sequence[float], *, patience: int, min_gain: float) -> bool:
    """Whether none of the last `patience` students is better than the best one before them.

    Args:
        accuracies: Of the student before each round, in order.
        patience: Rounds to wait, >= 1.
        min_gain: By how much a student must be better to count.
    """
    if len(accuracies) <= patience:
        return False
    return max(accuracies[-patience:]) < max(accuracies[:-patience]) + min_gain
