"""Buy answers: validation first, then test, then as many pool rows as the budget holds.

Validation comes first because trust is worth nothing without it. Which pool rows will be asked is
drawn uniformly, by distinct question, and written down before the first of them is paid for, so a
resumed run buys the same rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.data import Dataset, Splits
from limbeck.data.ids import distinct
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import Event, RunFolder
from limbeck.engines import ask_about, purchase
from limbeck.errors import BudgetError, ConfigError, TeacherError
from limbeck.ledger import Budget, Ledger, Spending
from limbeck.storage import atomic_path
from limbeck.teachers import Money, Teacher

_READ_BATCH = 4096
_SAMPLE_ROWS = 512
SELECTION = "pool.parquet"


class AnswerBook:
    """Reads one teacher's answers back from the ledger."""

    def __init__(self, ledger: Ledger, fingerprint: str) -> None:
        self._ledger = ledger
        self._fingerprint = fingerprint

    def known(self, ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which questions have an answer."""
        return self._ledger.known(self._fingerprint, ids)

    def read(self, ids: NDArray[np.uint8]) -> Answers:
        """Answers in the order of `ids`, repeats allowed."""
        return self._ledger.answers(self._fingerprint, ids)

    def batches(self, ids: NDArray[np.uint8]) -> Iterator[Answers]:
        """All answers, a few thousand at a time."""
        for start in range(0, len(ids), _READ_BATCH):
            yield self.read(ids[start : start + _READ_BATCH])


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Question ids of every row of a split, uint8, shape (n, 16)."""

    validation: NDArray[np.uint8]
    test: NDArray[np.uint8]
    pool: NDArray[np.uint8]


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
    """

    book: AnswerBook
    validation_rows: NDArray[np.int64]
    validation: Answers
    test: Answers | None
    pool_rows: NDArray[np.int64]
    pool_ids: NDArray[np.uint8]
    cached: int
    spending: Spending


def questions(splits: Splits, teacher: Teacher) -> Questions:
    """Hash what the teacher would see of every row."""
    assert splits.pool is not None
    return Questions(
        _all_ids(teacher, splits.validation),
        _all_ids(teacher, splits.test),
        _all_ids(teacher, splits.pool),
    )


def content_questions(splits: Splits) -> Questions:
    """Questions of a teacher that sees all inputs."""
    assert splits.pool is not None
    return Questions(
        splits.validation.content_ids, splits.test.content_ids, splits.pool.content_ids
    )


def check_budget(config: DistillConfig, asked: Questions, book: AnswerBook | None) -> None:
    """Refuse a budget that cannot hold validation, test and one pool row.

    Raises:
        ConfigError: names the smallest budget that would do.
    """
    validation, test = _before_the_pool(config, asked, book)
    if config.budget <= validation + test:
        what = f"{validation} validation rows" + (f" and {test} test rows" if test else "")
        hint = "or set ask_test = false" if test else "or validate on fewer rows"
        raise ConfigError(
            f"budget={config.budget} is smaller than what comes before the pool: {what} need "
            f"answers too; raise it above {validation + test}, {hint}."
        )


def check_money(
    config: DistillConfig,
    splits: Splits,
    teacher: Teacher,
    asked: Questions,
    book: AnswerBook | None,
) -> None:
    """Refuse a budget in money that cannot hold validation, test and one pool row.

    Raises:
        ConfigError: names the price that comes before the pool, at worst.
    """
    if not config.money:
        return
    validation, test = _before_the_pool(config, asked, book)
    price = _worst(teacher, splits.validation, validation) + _worst(teacher, splits.test, test)
    if price >= round(config.money * 1e6):
        raise ConfigError(
            f"money={config.money:g} {config.teacher.currency} is less than what comes before the "
            f"pool: {validation} validation and {test} test rows may cost "
            f"{Money(price, config.teacher.currency)}; raise money or ask about fewer rows."
        )


def _before_the_pool(
    config: DistillConfig, asked: Questions, book: AnswerBook | None
) -> tuple[int, int]:
    test = unanswered(asked.test, book) if config.ask_test else 0
    return unanswered(asked.validation, book), test


def _worst(teacher: Teacher, rows: Dataset, count: int) -> int:
    """Worst price of `count` questions of a split, in millionths, by the mean of a sample."""
    if count == 0:
        return 0
    sample = rows.take(np.arange(min(_SAMPLE_ROWS, len(rows))))
    size = int(sample.num_rows)
    return -(-teacher.quote(sample).micros * count // size)


def unanswered(ids: NDArray[np.uint8], book: AnswerBook | None) -> int:
    """How many distinct questions have no answer yet."""
    first, _ = distinct(ids)
    return len(first) if book is None else int((~book.known(ids[first])).sum())


def acquire(
    config: DistillConfig,
    splits: Splits,
    teacher: Teacher,
    ledger: Ledger,
    folder: RunFolder,
    run_id: str,
) -> Acquired:
    """Buy what the run needs, and nothing that the ledger holds.

    Raises:
        ConfigError: the budget is too small, or the teacher knows other classes.
        TeacherError: no validation row or no pool row was answered.
        BudgetError: the budget was spent before the pool was reached.
    """
    assert splits.pool is not None
    asked = questions(splits, teacher)
    book = AnswerBook(ledger, teacher.fingerprint)
    buyer = _Buyer(config, teacher, ledger, folder, run_id)
    if not buyer.started():
        check_budget(config, asked, book)
        check_money(config, splits, teacher, asked, book)
    buyer.buy("validation", splits.validation, np.arange(len(splits.validation)))
    if config.ask_test:
        buyer.buy("test", splits.test, np.arange(len(splits.test)))
    rows = _selected(config, asked.pool, book, buyer, folder)
    buyer.buy("pool", splits.pool, rows)

    validation_rows = np.flatnonzero(book.known(asked.validation))
    rows = rows[book.known(asked.pool[rows])]
    _require(len(validation_rows), "validation")
    _require(len(rows), "pool")
    spending = ledger.spent(run_id)
    used = [asked.validation[validation_rows], asked.pool[rows]]
    used += [asked.test[book.known(asked.test)]] if config.ask_test else []
    first, _ = distinct(np.concatenate(used))
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
        cached=max(0, len(first) - spending.answered),
        spending=spending,
    )


class _Buyer:
    """Buys rows of one run under its budget."""

    def __init__(
        self,
        config: DistillConfig,
        teacher: Teacher,
        ledger: Ledger,
        folder: RunFolder,
        run_id: str,
    ) -> None:
        money = Money(round(config.money * 1e6), config.teacher.currency) if config.money else None
        self._budget = Budget(config.budget, money)
        self._teacher = teacher
        self._ledger = ledger
        self._folder = folder
        self._run = run_id

    def started(self) -> bool:
        """Whether this run has spent anything before."""
        return self._ledger.spent(self._run).queries > 0

    def left(self) -> int:
        """Answers that may still be bought."""
        return self._budget.queries - self._ledger.spent(self._run).queries

    def _limit(self) -> str:
        money = self._budget.money
        return f"{self._budget.queries} answers" + (f", {money}" if money else "")

    def buy(self, split: str, rows: Dataset, positions: NDArray[np.int64]) -> None:
        """Ask about rows that have no answer yet."""

        def on_progress(done: int, total: int, spent: Spending) -> None:
            detail = {"bought": spent.answered}
            self._folder.tell(Event(f"answers on {split}", "asking", done, total, detail))

        report = purchase(
            self._teacher,
            self._ledger,
            rows,
            positions,
            run=self._run,
            budget=self._budget,
            on_progress=on_progress,
        )
        for sentence in report.failures:
            self._folder.log("answers", f"{split}: no answer: {sentence}")
        self._folder.log(
            "answers",
            f"{split}: {report.bought} answers bought, {report.cached} were in the ledger, "
            f"{report.failed} failed",
            bought=report.bought,
            cached=report.cached,
            failed=report.failed,
        )
        if report.exhausted and split != "pool":
            raise BudgetError(
                f"the budget ({self._limit()}) was spent before all {split} rows were answered; "
                f"raise it and run the same command in another folder (answers in the ledger are "
                f"free)."
            )


def read_selection(folder: RunFolder) -> NDArray[np.int64] | None:
    """Pool rows that were chosen to be asked about, ascending; None before that."""
    path = folder.selections / SELECTION
    if not path.exists():
        return None
    rows: NDArray[np.int64] = pq.read_table(path).column("row").to_numpy()
    return rows


def _selected(
    config: DistillConfig,
    ids: NDArray[np.uint8],
    book: AnswerBook,
    buyer: _Buyer,
    folder: RunFolder,
) -> NDArray[np.int64]:
    """Pool rows to ask about, ascending; drawn once and read back ever after."""
    kept = read_selection(folder)
    if kept is not None:
        return kept
    rows, share = _draw(ids, book, buyer.left(), config.seed)
    table = pa.table({"row": rows, "inclusion_probability": np.full(len(rows), share)})
    with atomic_path(folder.selections / SELECTION) as temporary:
        pq.write_table(table, temporary)
    return rows


def _draw(
    ids: NDArray[np.uint8], book: AnswerBook, budget: int, seed: int
) -> tuple[NDArray[np.int64], float]:
    """Walk through distinct questions in random order until the budget is reached.

    Questions met on the way that are answered already cost nothing, so a ledger of earlier runs
    makes the same budget reach further; the sample stays uniform.
    """
    first, _ = distinct(ids)
    order = np.random.default_rng(seed).permutation(first)
    costs = np.cumsum(~book.known(ids[order]))
    count = int(np.searchsorted(costs, budget, side="right"))
    return np.sort(order[:count]).astype(np.int64), count / len(first)


def _all_ids(teacher: Teacher, rows: Dataset) -> NDArray[np.uint8]:
    return ask_about(teacher, rows, np.arange(len(rows)))


def _require(count: int, split: str) -> None:
    if count == 0:
        raise TeacherError(
            f"the teacher answered no {split} row; look at its failures in the ledger, mend it and "
            f"run the same command again."
        )
