"""Choose the test rows that teach most about a student: where it and others part ways.

Four kinds, in turns, each by falling confidence of whoever is wrong: a mixture that shows what
distillation lost, what it resisted, what it broke, and where everyone is sure and mistaken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import ArrayLike, NDArray

from limbeck.report.record import Disagreement

LOST = "student wrong, teacher right"
RESISTED = "teacher wrong, student right"
BROKEN = "student wrong, labels-only right"
SURE = "confident error"
_LONGEST_TEXT = 600


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What everyone says about n test rows of C classes.

    Args:
        classes: C class names.
        labels: True classes, int, shape (n,).
        student_probs, labels_only_probs: float, shape (n, C); calibrated where that is known.
        teacher_probs: float, shape (n, C), or None when it was not asked.
        alpha: Trust in the teacher on each row, float, shape (n,), or None.
    """

    classes: Sequence[str]
    labels: ArrayLike
    student_probs: ArrayLike
    labels_only_probs: ArrayLike
    teacher_probs: ArrayLike | None = None
    alpha: ArrayLike | None = None


def pick_disagreements(
    rows: Scored, *, text: Callable[[int], str], count: int = 20
) -> tuple[Disagreement, ...]:
    """Choose up to `count` rows, none twice, and write them down.

    Args:
        rows: All test rows.
        text: What a row says, by its position; called for the chosen rows only.
        count: Most rows to choose, >= 0.

    Returns:
        In the order in which they were chosen: one of each kind in turn.

    Cost: O(n C + n log n) time.
    """
    labels = np.asarray(rows.labels)
    student, sure = _top(rows.student_probs)
    alone, alone_sure = _top(rows.labels_only_probs)
    taught = None if rows.teacher_probs is None else _top(rows.teacher_probs)
    trust = None if rows.alpha is None else np.asarray(rows.alpha)
    return tuple(
        Disagreement(
            row=row,
            why=why,
            text=_short(text(row)),
            truth=rows.classes[labels[row]],
            student=rows.classes[student[row]],
            student_probability=float(sure[row]),
            labels_only=rows.classes[alone[row]],
            labels_only_probability=float(alone_sure[row]),
            teacher=None if taught is None else rows.classes[taught[0][row]],
            teacher_probability=None if taught is None else float(taught[1][row]),
            alpha=None if trust is None else float(trust[row]),
        )
        for row, why in _choose(rows, labels, count).items()
    )


def _choose(rows: Scored, labels: NDArray[np.int64], count: int) -> dict[int, str]:
    student, sure = _top(rows.student_probs)
    alone, _ = _top(rows.labels_only_probs)
    wrong = student != labels
    kinds: list[tuple[str, NDArray[np.int64]]] = []
    if rows.teacher_probs is not None:
        teacher, teacher_sure = _top(rows.teacher_probs)
        kinds.append((LOST, _surest(wrong & (teacher == labels), sure)))
        kinds.append((RESISTED, _surest(~wrong & (teacher != labels), teacher_sure)))
    kinds.append((BROKEN, _surest(wrong & (alone == labels), sure)))
    kinds.append((SURE, _surest(wrong, sure)))
    picked: dict[int, str] = {}
    for turn in zip_longest(*(found for _, found in kinds)):
        for (kind, _), row in zip(kinds, turn, strict=True):
            if row is not None and len(picked) < count:
                picked.setdefault(int(row), kind)
    return picked


def _top(probs: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    values = np.asarray(probs, np.float64)
    return values.argmax(axis=1), values.max(axis=1)


def _surest(mask: NDArray[np.bool_], confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    rows = np.flatnonzero(mask)
    return rows[np.argsort(-confidence[rows], kind="stable")]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
