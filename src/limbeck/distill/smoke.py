"""The smoke gate: a look at a server's first answers before the rest of them is paid for.

A prompt that the model misreads, swapped class names or a server that cannot give what is asked for
show themselves in the first few answers. They cost cents there, and the whole budget later.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from limbeck.data import Dataset
from limbeck.data.ids import distinct
from limbeck.distill.questions import AnswerBook
from limbeck.engines import PurchaseReport, purchase
from limbeck.errors import TeacherError
from limbeck.ledger import Budget, Ledger
from limbeck.teachers.base import Teacher
from limbeck.teachers.remote import RemoteTeacher

FIRST = 16
"""Answers that are looked at first."""
MOST_UNREAD = 0.1
"""Share of them that may be unreadable."""
LEVEL = 0.05
"""Probability with which a teacher that guesses would pass as better than guessing."""
EARLY_LEVEL = 0.01
"""Probability with which a teacher half way between guessing and perfect is stopped early."""
_GO_ON = "teacher.endpoint.smoke_gate = false goes on all the same"
_MEND = "look at the prompt and the class names"


def has_gate(teacher: Teacher) -> bool:
    """Whether this teacher's first answers are looked at."""
    return isinstance(teacher, RemoteTeacher) and teacher.smoke_gate


def buy_first(
    teacher: Teacher,
    ledger: Ledger,
    validation: Dataset,
    ids: NDArray[np.uint8],
    *,
    run: str,
    budget: Budget,
) -> None:
    """Buy answers on a few validation rows and look at them.

    Args:
        teacher: Who is asked.
        ledger: Where answers go.
        validation: Rows with labels.
        ids: Their questions, uint8, shape (n, 16).
        run: Whose budget it is.
        budget: What the run may spend in all.

    Raises:
        TeacherError: too many cannot be read, or the readable ones are too often wrong.
    """
    first, _ = distinct(ids)
    rows = first[:FIRST].astype(np.int64)
    report = purchase(teacher, ledger, validation, rows, run=run, budget=budget)
    check_readable(report)
    book = AnswerBook(ledger, teacher.fingerprint)
    check_accuracy(book, validation, rows, ids, early=True)


def check_readable(report: PurchaseReport) -> None:
    """Refuse a server whose first answers cannot be read.

    Raises:
        TeacherError: more than `MOST_UNREAD` of them are failures, or never came.
    """
    failed = report.failed + report.unanswered + report.refused
    asked = report.bought + report.cached + failed
    if failed > MOST_UNREAD * asked:
        why = f", the first because {report.failures[0]}" if report.failures else ""
        raise TeacherError(
            f"{failed} of the first {asked} answers could not be used{why}; {_MEND} before more is "
            f"paid for, or {_GO_ON}."
        )


def check_accuracy(
    book: AnswerBook,
    validation: Dataset,
    rows: NDArray[np.int64],
    ids: NDArray[np.uint8],
    *,
    early: bool,
) -> None:
    """Refuse a teacher that is no better than guessing.

    Args:
        book: Reads its answers.
        validation: Rows with labels.
        rows: The rows to look at, int64; those without an answer are left out.
        ids: Questions of all validation rows, uint8, shape (n, 16).
        early: Whether more rows will follow: then a teacher is only refused where one that is half
            way between guessing and perfect would hardly ever be as bad.

    Raises:
        TeacherError: the answers are not significantly better than guessing.
    """
    assert validation.labels is not None
    rows = rows[book.known(ids[rows])]
    if len(rows) == 0:
        return
    answers = book.read(ids[rows])
    told = answers.probs.argmax(dim=1).numpy()
    right, count, chance = (
        int((told == validation.labels[rows]).sum()),
        len(rows),
        1 / (answers.num_classes),
    )
    if no_better_than_guessing(right, count, chance) and (
        not early or hopeless(right, count, chance)
    ):
        raise TeacherError(
            f"{right} of the {'first ' if early else ''}{count} answers on validation rows are "
            f"right, which is not significantly better than guessing one of {answers.num_classes} "
            f"classes; {_MEND} before more is paid for, or {_GO_ON}."
        )


def no_better_than_guessing(right: int, count: int, chance: float) -> bool:
    """One-sided binomial test at `LEVEL`: whether guessing would be right as often."""
    return bool(binom.sf(right - 1, count, chance) > LEVEL)


def hopeless(right: int, count: int, chance: float) -> bool:
    """Whether a teacher half way between guessing and perfect would hardly ever be so bad."""
    return bool(binom.cdf(right, count, (1 + chance) / 2) < EARLY_LEVEL)
