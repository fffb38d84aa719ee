"""Buy answers: validation first, then test, then as many pool rows as the budget holds.

Validation comes first because trust is worth nothing without it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.data import Splits
from limbeck.data.ids import GatheredIds, contains
from limbeck.distill.buying import HUMAN, Buyer, Tally, has_ended
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import WARNING, RunFolder
from limbeck.distill.pool_choice import choose_pool
from limbeck.distill.questions import (
    AnswerBook,
    Questions,
    check_budget,
    check_money,
    count_distinct,
    open_book,
    questions,
)
from limbeck.distill.round_files import RoundHistory
from limbeck.distill.smoke import check_accuracy, has_gate
from limbeck.errors import TeacherError
from limbeck.ledger import Ledger, Spending
from limbeck.storage import write_text
from limbeck.teachers import Teacher
from limbeck.teachers.mean import members_of


@dataclass(frozen=True, slots=True, eq=False)
class Purchased:
    """What was bought.

    Args:
        book: Reads the answers.
        asked: Questions of every row.
        validation_rows, pool_rows: Rows that have an answer, int64, ascending.
        tallies: What it came to, a split each.
        spending: What this run has spent, earlier calls included.
        short: What ended before all chosen pool rows were asked about, and how many have an
            answer; empty where nothing did.
    """

    book: AnswerBook
    asked: Questions
    validation_rows: NDArray[np.int64]
    pool_rows: NDArray[np.int64]
    tallies: tuple[Tally, ...]
    spending: Spending
    short: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Acquired:
    """What is known of the teacher after the purchase.

    Args:
        book: Reads the answers.
        validation_rows: Validation rows that have an answer, int64.
        validation: Their answers.
        test: Answers of all test rows, or None when they were not asked, or not all answered.
        pool_rows: Pool rows that have an answer, int64, ascending.
        pool_ids: Their question ids.
        cached: Answers that were in the ledger before and cost nothing.
        spending: What this run has spent.
        short: As in `Purchased`.
        alpha: Probability that the teacher's top answer is right on each pool row, float32, where
            rows were chosen by what a student said; None leaves it to trust.
        history: What happened in the rounds; None for one purchase of rows drawn at random.
    """

    book: AnswerBook
    validation_rows: NDArray[np.int64]
    validation: Answers
    test: Answers | None
    pool_rows: NDArray[np.int64]
    pool_ids: NDArray[np.uint8]
    cached: int
    spending: Spending
    short: str = ""
    alpha: Tensor | None = None
    history: RoundHistory | None = None


def _anything(_: Answers) -> None:
    """Refuse no answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Acquisition:
    """Whose answers are bought for which rows, and where they and their price are kept.

    Args:
        config, splits, teacher, ledger, folder: Of the run.
        run_id: The run's name in the ledger.
        asked: `questions(splits, teacher)`, where it is known already.
        accept: Told a validation answer before test and pool are paid for; raises where the run
            has no use for such answers.
    """

    config: DistillConfig
    splits: Splits
    teacher: Teacher
    ledger: Ledger
    folder: RunFolder
    run_id: str
    asked: Questions | None = None
    accept: Callable[[Answers], None] = _anything

    def spent(self) -> Spending:
        """What the run has spent so far."""
        return self.ledger.spent(self.run_id)


def acquire(task: Acquisition, *, within: NDArray[np.int64] | None = None) -> Acquired:
    """Buy what the run needs, and nothing that the ledger holds; then training may begin.

    From then on nothing more is bought in this folder, also where the pool ended early: a resumed
    run must learn from the same rows as the one that was stopped.

    Args:
        task: Whose answers, for which rows, under which budget.
        within: Pool rows that may be chosen, int64; None for all.

    Raises:
        ConfigError: the budget is too small, or the teacher knows other classes.
        TeacherError: no validation row or no pool row was answered.
        BudgetError: the budget was spent before the pool was reached.
    """
    bought = buy_answers(task, within=within)
    if task.config.teacher.kind != HUMAN:
        end_pool(task.folder, bought)
    return read_back(task.config, bought, task.folder)


def read_back(config: DistillConfig, bought: Purchased, folder: RunFolder) -> Acquired:
    """What is known of the teacher when nothing more is bought."""
    spending, rows = bought.spending, bought.pool_rows
    if spending.unknown:
        folder.log(
            WARNING,
            f"{spending.unknown} answers are unknown: their reply was lost, or a process died "
            f"while they were in flight; they may have been billed and count against the budget, "
            f"so the pool has {len(rows)} answers.",
        )
    return known_of(config, bought)


def known_of(config: DistillConfig, bought: Purchased) -> Acquired:
    """What is known of the teacher so far, read from the ledger."""
    book, asked, spending = bought.book, bought.asked, bought.spending
    validation_rows, rows = bought.validation_rows, bought.pool_rows
    before = [asked.validation[validation_rows]]
    before += [asked.test[book.known(asked.test)]] if config.ask_test else []
    first = np.concatenate(before)
    # Pool rows are distinct by question: they were chosen so.
    again = GatheredIds(asked.pool, rows).which(lambda ids: contains(first, ids))
    used = book.members * (count_distinct(first) + int((~again).sum()))
    test = None
    if config.ask_test and bool(book.known(asked.test).all()):
        test = book.read(asked.test)
    return Acquired(
        book=book,
        validation_rows=validation_rows,
        validation=book.read(asked.validation[validation_rows]),
        test=test,
        pool_rows=rows,
        pool_ids=asked.pool[rows],
        # Not what was found in the ledger: a resumed run finds there what it has paid for itself.
        cached=max(0, used - spending.answered),
        spending=spending,
        short=bought.short,
    )


def buy_answers(task: Acquisition, *, within: NDArray[np.int64] | None = None) -> Purchased:
    """Buy answers on validation, test and pool, in this order, and read none of them.

    Args:
        task, within: As for `acquire`.

    Raises:
        ConfigError, TeacherError, BudgetError: as `acquire`.
    """
    assert task.splits.pool is not None
    opened = open_purchase(task)
    rows = choose_pool(
        task.config,
        opened.asked.pool,
        opened.book,
        task.folder,
        left=opened.buyer.left(),
        within=within,
    )
    tally = opened.buyer.buy("pool", task.splits.pool, rows, whole=False)
    return opened.purchased(rows, (tally,))


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A purchase that has come to the pool.

    Args:
        task: Whose answers for which rows.
        buyer: Buys the rest.
        book: Reads the answers.
        asked: Questions of every row.
        tallies: What validation and test came to.
    """

    task: Acquisition
    buyer: Buyer
    book: AnswerBook
    asked: Questions
    tallies: tuple[Tally, ...]

    def so_far(self, rows: NDArray[np.int64], tallies: Sequence[Tally] = ()) -> Purchased:
        """What was bought, of these pool rows those that have an answer; there may be none."""
        there = self.book.known_at(self.asked.pool, rows)
        return Purchased(
            book=self.book,
            asked=self.asked,
            validation_rows=np.flatnonzero(self.book.known(self.asked.validation)),
            pool_rows=rows if there.all() else rows[there],
            tallies=(*self.tallies, *tallies),
            spending=self.task.spent(),
            short=self.buyer.short or read_end(self.task.folder),
        )

    def purchased(self, rows: NDArray[np.int64], tallies: Sequence[Tally]) -> Purchased:
        """The same at the end.

        Raises:
            TeacherError: no validation row or no pool row was answered.
        """
        bought = self.so_far(rows, tallies)
        _require(len(bought.validation_rows), "validation")
        _require(len(bought.pool_rows), "pool")
        return bought


def open_purchase(task: Acquisition) -> Opened:
    """Buy answers on validation and test, or find them bought.

    Raises:
        ConfigError, TeacherError, BudgetError: as `acquire`.
    """
    config, splits, teacher = task.config, task.splits, task.teacher
    asked = task.asked or questions(splits, teacher)
    book = open_book(task.ledger, teacher, asked)
    buyer = Buyer(config, teacher, book, task.ledger, task.folder, task.run_id)
    if not buyer.started():
        check_budget(config, asked, book)
        check_money(config, splits, teacher, asked, book)
    members = zip(members_of(teacher), asked.members or (asked,), strict=True)
    gated = [
        (member, book.member(number), own.validation)
        for number, (member, own) in enumerate(members)
        if has_gate(member)
    ]
    for member, _, ids in gated:
        if not buyer.has_ended("validation"):
            buyer.buy_first(member, splits.validation, ids)
    everything = np.arange(len(splits.validation))
    tallies = [buyer.buy("validation", splits.validation, everything)]
    for _, own_book, ids in gated:
        check_accuracy(own_book, splits.validation, everything, ids, early=False)
    first = asked.validation[np.flatnonzero(book.known(asked.validation))[:1]]
    if len(first):
        task.accept(book.read(first))
    if config.ask_test:
        tallies.append(buyer.buy("test", splits.test, np.arange(len(splits.test))))
    return Opened(task, buyer, book, asked, tuple(tallies))


def end_pool(folder: RunFolder, bought: Purchased) -> None:
    """Buy nothing more for the pool in this folder; write down what ended it early."""
    if not has_ended(folder, "pool"):
        text = f"{len(bought.pool_rows)} rows answered\n{bought.short}\n"
        write_text(folder.selections / "pool.bought", text)


def read_end(folder: RunFolder) -> str:
    """What ended the pool early; empty where nothing did, or more may be bought."""
    path = folder.selections / "pool.bought"
    lines = path.read_text().splitlines() if path.exists() else []
    return lines[1] if len(lines) > 1 else ""


def check_spending(
    config: DistillConfig,
    splits: Splits,
    teacher: Teacher | None,
    asked: Questions,
    ledger: Ledger,
) -> None:
    """Refuse a budget that does not reach the pool, for a run that has not spent anything.

    Raises:
        ConfigError: the budget in answers or in money is too small.
    """
    if teacher is None:
        check_budget(config, asked, None)
        return
    book = open_book(ledger, teacher, asked)
    check_budget(config, asked, book)
    check_money(config, splits, teacher, asked, book)


def _require(count: int, split: str) -> None:
    if count == 0:
        raise TeacherError(
            f"the teacher answered no {split} row; look at its failures with `limbeck ledger "
            f"stats`, mend it and choose another folder with --out (this run asks for nothing "
            f"twice that it has paid for)."
        )
