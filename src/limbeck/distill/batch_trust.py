"""How far to believe the teacher on rows that a student has chosen.

They were chosen because that student was unsure, and there teachers err more often than their own
margin says. So trust looks at both margins; it is fitted on validation rows, which nobody has
chosen, under the same student.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.distill.questions import AnswerBook
from limbeck.distill.round_files import Batch, Look
from limbeck.distill.trust import Trust, without_floor
from limbeck.errors import LimbeckWarning
from limbeck.trust import MarginsTrust, margin

_READ_ROWS = 4096
_NO_FLOOR = 1e-9


def trust_in_batch(
    trust: Trust,
    look: Look,
    answered: NDArray[np.int64],
    batch: Batch,
    book: AnswerBook,
    ids: NDArray[np.uint8],
) -> NDArray[np.float32]:
    """Probability that the teacher is right on each row of a batch, without a floor.

    Args:
        trust: What validation says of the teacher.
        look: What the student that chose said of validation.
        answered: Validation rows that have an answer.
        batch: The rows, with that student's margins.
        book: Reads the answers.
        ids: Questions of the batch's rows, uint8, shape (k, 16).

    Returns:
        float32, shape (k,); NaN where there is no answer.
    """
    student = torch.from_numpy(look.margins[answered])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimbeckWarning)  # the low floor is meant
        both = MarginsTrust.fit(trust.margins, student, trust.correct, lower=_NO_FLOOR)
    alpha = np.full(len(batch.rows), np.nan, np.float32)
    places = np.flatnonzero(book.known(ids))
    for start in range(0, len(places), _READ_ROWS):
        part = places[start : start + _READ_ROWS]
        teacher = margin(book.read(ids[part]).probs)
        alpha[part] = both.alpha(teacher, torch.from_numpy(batch.margins[part])).numpy()
    return alpha


def error_by_margin(
    trust: Trust, look: Look, answered: NDArray[np.int64]
) -> Callable[[Tensor], Tensor]:
    """A student's margins, (b,), to how often the teacher errs where the student is so sure."""
    right = without_floor(torch.from_numpy(look.margins[answered]), trust.correct)
    return lambda sure: 1 - right.alpha(sure)
