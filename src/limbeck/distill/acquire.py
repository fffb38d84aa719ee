"""Buy answers: validation first, then test, then as many pool rows as the budget holds.

Validation comes first because trust is worth nothing without it. Which pool rows will be asked is
drawn uniformly, by distinct question, and written down before the first of them is paid for, so a
resumed run buys the same rows.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.data import Dataset, Splits
from limbeck.data.ids import GatheredIds, contains
from limbeck.distill.config import DistillConfig
from limbeck.distill.estimate import Estimate
from limbeck.distill.folder import WARNING, Event, RunFolder
from limbeck.distill.questions import (
    AnswerBook,
    Questions,
    check_budget,
    check_money,
    count_distinct,
    open_book,
    questions,
    worst_money,
)
from limbeck.distill.smoke import buy_first, check_accuracy, has_gate
from limbeck.engines import PurchaseReport, purchase
from limbeck.engines.questions import gathered
from limbeck.errors import BudgetError, ConfigError, LimitError, TeacherError
from limbeck.ledger import Budget, Ledger, Spending
from limbeck.storage import atomic_path, write_text
from limbeck.teachers import Money, Teacher
from limbeck.teachers.mean import members_of

SELECTION = "pool.parquet"
TO_ENCODE = "encoded.parquet"
HUMAN = "human"
"""The kind of teacher that is asked in files, before and beside a run."""
_GROUP_ROWS = 65_536
_BLOCK = 2048
"""Rows about which the teachers of an ensemble are asked one after the other."""
_FAILURES = 5
_LOOK_SECONDS = 5.0
_FIRST_LOOK_SECONDS = 0.2
"""Between two estimates of the rest, and between attempts at the first one."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What buying the answers of one split came to.

    Args:
        split: Its name.
        rows: Rows asked about.
        questions: Distinct questions among them.
        cached: Questions that the ledger held before, free.
        bought, failed: Questions asked now, with and without an answer.
        seconds: Wall-clock time.
    """

    split: str
    rows: int
    questions: int
    cached: int
    bought: int
    failed: int
    seconds: float


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


def acquire(
    config: DistillConfig,
    splits: Splits,
    teacher: Teacher,
    ledger: Ledger,
    folder: RunFolder,
    run_id: str,
    *,
    asked: Questions | None = None,
    within: NDArray[np.int64] | None = None,
) -> Acquired:
    """Buy what the run needs, and nothing that the ledger holds; then training may begin.

    From then on nothing more is bought in this folder, also where the pool ended early: a resumed
    run must learn from the same rows as the one that was stopped.

    Args:
        config, splits, teacher, ledger, folder: Of the run.
        run_id: The run's name in the ledger.
        asked: `questions(splits, teacher)`, where it is known already.
        within: Pool rows that may be chosen, int64; None for all.

    Raises:
        ConfigError: the budget is too small, or the teacher knows other classes.
        TeacherError: no validation row or no pool row was answered.
        BudgetError: the budget was spent before the pool was reached.
    """
    bought = buy_answers(
        config, splits, teacher, ledger, folder, run_id, asked=asked, within=within
    )
    if config.teacher.kind != HUMAN:
        end_pool(folder, bought)
    book, asked, spending = bought.book, bought.asked, bought.spending
    validation_rows, rows = bought.validation_rows, bought.pool_rows
    if spending.unknown:
        folder.log(
            WARNING,
            f"{spending.unknown} answers are unknown: their reply was lost, or a process died "
            f"while they were in flight; they may have been billed and count against the budget, "
            f"so the pool has {len(rows)} answers.",
        )
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


def buy_answers(
    config: DistillConfig,
    splits: Splits,
    teacher: Teacher,
    ledger: Ledger,
    folder: RunFolder,
    run_id: str,
    *,
    asked: Questions | None = None,
    within: NDArray[np.int64] | None = None,
) -> Purchased:
    """Buy answers on validation, test and pool, in this order, and read none of them.

    Args:
        config, splits, teacher, ledger, folder, run_id, asked, within: As for `acquire`.

    Raises:
        ConfigError, TeacherError, BudgetError: as `acquire`.
    """
    assert splits.pool is not None
    asked = asked or questions(splits, teacher)
    book = open_book(ledger, teacher, asked)
    buyer = _Buyer(config, teacher, book, ledger, folder, run_id)
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
    if config.ask_test:
        tallies.append(buyer.buy("test", splits.test, np.arange(len(splits.test))))
    rows = choose_pool(config, asked.pool, book, folder, left=buyer.left(), within=within)
    tallies.append(buyer.buy("pool", splits.pool, rows))
    validation_rows = np.flatnonzero(book.known(asked.validation))
    there = book.known_at(asked.pool, rows)
    rows = rows if there.all() else rows[there]
    _require(len(validation_rows), "validation")
    _require(len(rows), "pool")
    return Purchased(
        book=book,
        asked=asked,
        validation_rows=validation_rows,
        pool_rows=rows,
        tallies=tuple(tallies),
        spending=ledger.spent(run_id),
        short=buyer.short or read_end(folder),
    )


class _Buyer:
    """Buys rows of one run under its budget."""

    def __init__(
        self,
        config: DistillConfig,
        teacher: Teacher,
        book: AnswerBook,
        ledger: Ledger,
        folder: RunFolder,
        run_id: str,
    ) -> None:
        money = Money(round(config.money * 1e6), config.teacher.currency) if config.money else None
        self._budget = Budget(config.budget, money)
        self._waits = config.teacher.kind == HUMAN
        self._teacher = teacher
        self._book = book
        self._ledger = ledger
        self._folder = folder
        self._run = run_id
        self.short = ""

    def started(self) -> bool:
        """Whether this run has spent anything before."""
        return self._ledger.spent(self._run).queries > 0

    def left(self) -> int:
        """Answers that may still be bought."""
        return self._budget.queries - self._ledger.spent(self._run).queries

    def _limit(self) -> str:
        money = self._budget.money
        return f"{self._budget.queries} answers" + (f", {money}" if money else "")

    def _what_ended(self) -> str:
        """What of the budget the next question does not fit into."""
        money = self._budget.money
        if money is None or self.left() < 1:
            return f"the budget of {self._budget.queries:,} answers"
        return f"the money ({money})"

    def has_ended(self, split: str) -> bool:
        """Whether nothing more is to be bought of a split."""
        return has_ended(self._folder, split)

    def buy_first(self, teacher: Teacher, validation: Dataset, ids: NDArray[np.uint8]) -> None:
        """Look at the first answers of a server before the others are paid for."""
        buy_first(teacher, self._ledger, validation, ids, run=self._run, budget=self._budget)

    def buy(self, split: str, rows: Dataset, positions: NDArray[np.int64]) -> Tally:
        """Ask about rows that have no answer yet, once: what failed is not asked again.

        Otherwise a resumed run would learn from other rows than the one that was stopped. A pool
        that the budget ended stays open, so that more money buys the rest before training begins.
        """
        if self._waits:
            return self._told_by_people(split, rows, positions)
        ended = self._folder.selections / f"{split}.bought"
        if ended.exists():
            return self._as_it_stands(split, rows, positions)
        began = time.perf_counter()

        reports = list(self._purchases(split, rows, positions))
        for sentence in [told for report in reports for told in report.failures][:_FAILURES]:
            self._folder.log("answers", f"{split}: no answer: {sentence}")
        bought = sum(report.bought for report in reports)
        cached = sum(report.cached for report in reports)
        failed = sum(report.failed for report in reports)
        self._folder.log(
            "answers",
            f"{split}: {bought} answers bought, {cached} were in the ledger, {failed} failed",
            bought=bought,
            cached=cached,
            failed=failed,
        )
        exhausted = any(report.exhausted for report in reports)
        limited = next((report.limited for report in reports if report.limited), "")
        if exhausted and limited:
            self._folder.log("answers", f"{split}: {limited}")
        unknown = self._ledger.spent(self._run).unknown
        answered = reports[0].answered
        if len(reports) > 1:
            answered = gathered(self._teacher, rows, positions).which(self._book.known)
        if not exhausted:
            write_text(ended, f"{int(answered.sum())} of {len(positions)} rows answered\n")
        elif split == "pool" and bool(answered.any()):
            what = "the limit of the ledger" if limited else self._what_ended()
            self.short = (
                f"{what} ended: {int(answered.sum()):,} of {len(positions):,} pool rows that were "
                f"to be asked about have an answer"
            )
            self._folder.log("answers", self.short)
        else:
            lost = (
                f" ({unknown} answers are unknown: their reply was lost, or a process died while "
                f"they were in flight; they may have been billed)"
                if unknown
                else ""
            )
            if limited:
                raise LimitError(
                    f"not all {split} rows were answered{lost}: {limited} Answers in the "
                    f"ledger are free when the same command runs again."
                )
            raise BudgetError(
                f"the budget ({self._limit()}) was spent before all {split} rows were answered"
                f"{lost}; raise it and run the same command again (answers in the ledger are free)."
            )
        return Tally(
            split=split,
            rows=len(positions),
            questions=sum(report.questions for report in reports),
            cached=cached,
            bought=bought,
            failed=failed,
            seconds=time.perf_counter() - began,
        )

    def _purchases(
        self, split: str, rows: Dataset, positions: NDArray[np.int64]
    ) -> Iterator[PurchaseReport]:
        """Ask everyone who is to be asked; ends with the budget.

        The teachers of an ensemble are asked block by block: where money ends early, few rows have
        the answers of some of them only.
        """
        members = members_of(self._teacher)
        size = len(positions) if len(members) == 1 else _BLOCK
        looks = [_Progress(split, self._folder, self._ledger, one, rows) for one in members]
        total, before = len(members) * len(positions), 0
        for start in range(0, max(1, len(positions)), max(1, size)):
            for member, look in zip(members, looks, strict=True):

                def on_progress(
                    done: int,
                    of: int,
                    spent: Spending,
                    look: _Progress = look,
                    offset: int = before,
                ) -> None:
                    left = self._budget.queries - spent.queries
                    look.tell(offset + done, of if len(members) == 1 else total, left)

                report = purchase(
                    member,
                    self._ledger,
                    rows,
                    positions[start : start + size],
                    run=self._run,
                    budget=self._budget,
                    on_progress=on_progress,
                )
                before += report.questions
                yield report
                if report.exhausted:
                    return

    def _told_by_people(self, split: str, rows: Dataset, positions: NDArray[np.int64]) -> Tally:
        """The tally of what people have answered; a pool may be answered in part.

        Raises:
            ConfigError: they have more to answer first.
            BudgetError: so it is, but the budget holds no more questions.
        """
        ids = gathered(self._teacher, rows, positions)
        first = np.flatnonzero(ids.leads())
        known = self._ledger.known(self._teacher.fingerprint, ids[first])
        failed = contains(self._ledger.failed(self._run, self._teacher.fingerprint), ids[first])
        missing = int((~known & ~failed).sum())
        if missing and (split != "pool" or not known.any()):
            spending = self._ledger.spent(self._run)
            waits = f"{missing:,} of {len(first):,} {split} questions have no answer of people yet"
            if self.left() < 1 and not spending.reserved:
                raise BudgetError(
                    f"{waits}, and the budget ({self._limit()}) is spent; raise it, then write "
                    f"them into a file with `limbeck ask`."
                )
            raise ConfigError(
                f"{waits} ({spending.reserved:,} questions are out with people in all); write them "
                f"into a file with `limbeck ask`, have it filled in, read it back with `limbeck "
                f"tell`, and run the same command again."
            )
        self._folder.log(
            "answers", f"{split}: people have answered {int(known.sum()):,} of {len(first):,}"
        )
        return self._as_it_stands(split, rows, positions)

    def _as_it_stands(self, split: str, rows: Dataset, positions: NDArray[np.int64]) -> Tally:
        """The tally of a purchase that has ended before: all there is comes from the ledger."""
        ids = gathered(self._teacher, rows, positions)
        leads = ids.leads()
        count = self._book.members * int(leads.sum())
        missing = int(self._book.costs(ids, leads).sum(dtype=np.int64))
        return Tally(
            split=split,
            rows=len(positions),
            questions=count,
            cached=count - missing,
            bought=0,
            failed=0,
            seconds=0.0,
        )


class _Progress:
    """Tells how a purchase goes, and what the rest of it will probably cost and take."""

    def __init__(
        self, split: str, folder: RunFolder, ledger: Ledger, teacher: Teacher, rows: Dataset
    ) -> None:
        self._split = split
        self._folder = folder
        self._ledger = ledger
        self._teacher = teacher
        self._rows = rows
        self._worst: Money | None = None  # of a thousand questions
        self._due = 0.0
        self._note = ""

    def tell(self, done: int, total: int, left: int) -> None:
        """Tell of `done` questions of `total`, with `left` in the budget."""
        rest = min(total - done, left)
        if done and rest > 0 and time.monotonic() >= self._due:
            self._look(rest)
        self._folder.tell(
            Event(
                f"answers on {self._split}",
                "asking",
                done,
                total,
                {"left in the budget": left},
                self._note if rest > 0 else "",
            )
        )

    def _look(self, rest: int) -> None:
        """Estimate anew, every few seconds; the first estimate is told in a line of its own."""
        if self._worst is None:
            self._worst = worst_money(self._teacher, self._rows, (1000,))
        worst = Money(-(-self._worst.micros * rest // 1000), self._worst.currency)
        first = not self._note
        self._note = Estimate.of(self._ledger.history(self._teacher.fingerprint), rest, worst).rest
        self._due = time.monotonic() + (_LOOK_SECONDS if self._note else _FIRST_LOOK_SECONDS)
        if first and self._note:
            self._folder.tell(Event("answers", f"{self._split}: {self._note}"))


def has_ended(folder: RunFolder, split: str) -> bool:
    """Whether nothing more is to be bought of a split in this folder."""
    return (folder.selections / f"{split}.bought").exists()


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


def read_selection(folder: RunFolder) -> NDArray[np.int64] | None:
    """Pool rows that were chosen to be asked about, ascending; None before that."""
    path = folder.selections / SELECTION
    if not path.exists():
        return None
    with pq.ParquetFile(path) as file:
        rows = np.empty(file.metadata.num_rows, np.int64)
        start = 0
        for batch in file.iter_batches(_GROUP_ROWS, columns=["row"]):
            rows[start : start + len(batch)] = batch.column(0).to_numpy()
            start += len(batch)
    return rows


def write_selection(folder: RunFolder, rows: NDArray[np.int64], share: float) -> None:
    """Write down pool rows to ask about, ascending, each of them drawn with probability `share`."""
    schema = pa.schema({"row": pa.int64(), "inclusion_probability": pa.float64()})
    with (
        atomic_path(folder.selections / SELECTION) as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
    ):
        for start in range(0, len(rows), _GROUP_ROWS):
            part = rows[start : start + _GROUP_ROWS]
            columns = [pa.array(part), pa.array(np.full(len(part), share))]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


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


def rows_to_encode(
    config: DistillConfig,
    asked: Questions,
    teacher: Teacher | None,
    ledger: Ledger,
    folder: RunFolder,
) -> NDArray[np.int64]:
    """Pool rows that the run may come to ask about, ascending; no other is ever chosen.

    They are those that the budget would reach if validation and test cost nothing: a longer
    beginning of the same random order. They are written down, so that a resumed run, whose ledger
    knows more, has the same ones; unless its budget was raised meanwhile.
    """
    path, kept = folder.selections / TO_ENCODE, read_selection(folder)
    if folder.claimed and path.exists():
        table = pq.read_table(path)
        rows: NDArray[np.int64] = table.column("row").to_numpy()
        same = table.schema.metadata[b"budget"] == str(config.budget).encode()
        if same if kept is None else np.isin(kept, rows).all():
            return rows
    if kept is not None:
        return kept
    if config.teacher.kind == "fit":
        # Its answers cost nothing, and which of them are known shows when it is trained.
        rows = np.flatnonzero(GatheredIds(asked.pool).leads())
    else:
        assert teacher is not None
        book = open_book(ledger, teacher, asked)
        rows, _ = _draw(asked.pool, book.costs, config.budget, config.seed)
    with atomic_path(path) as temporary:
        table = pa.table({"row": rows}).replace_schema_metadata({"budget": str(config.budget)})
        pq.write_table(table, temporary)
    return rows


def draw_pool(
    config: DistillConfig, asked: Questions, book: AnswerBook | None, *, left: int
) -> NDArray[np.int64]:
    """Pool rows that a run would choose now, ascending; without a book no answer is known.

    Args:
        config: The seed.
        asked: Questions of all splits.
        book: Tells which are answered.
        left: Answers that may be bought for the pool.
    """

    def all_new(_: GatheredIds, places: NDArray[np.bool_]) -> NDArray[np.uint8]:
        return places.view(np.uint8) * np.uint8(len(asked.members) or 1)

    costs = all_new if book is None else book.costs
    return _draw(asked.pool, costs, left, config.seed)[0]


def draw_as_if_new(config: DistillConfig, asked: Questions) -> tuple[NDArray[np.int64], float]:
    """Draw pool rows for the whole budget as if the ledger were empty.

    A run alone gets more pool rows where its ledger knows some already. Runs that are compared
    must not: the second would learn from more rows than the first, and how many would depend on
    which of them was quicker.

    Args:
        config: Budget and seed.
        asked: Questions of all splits.

    Returns:
        Pool rows, ascending, and the share of distinct questions that they are.
    """
    before = [asked.validation, *([asked.test] if config.ask_test else [])]
    first = np.concatenate(before)
    each = len(asked.members) or 1
    left = config.budget - each * count_distinct(first)

    def costs(ids: GatheredIds, places: NDArray[np.bool_]) -> NDArray[np.uint8]:
        new = ids.without(places, lambda block: contains(first, block))
        return new.view(np.uint8) * np.uint8(each)

    return _draw(asked.pool, costs, left, config.seed)


def choose_pool(
    config: DistillConfig,
    ids: NDArray[np.uint8],
    book: AnswerBook,
    folder: RunFolder,
    *,
    left: int,
    within: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Choose pool rows to ask about; drawn once and read back ever after.

    Args:
        config: The seed.
        ids: Questions of all pool rows, uint8, shape (n, 16).
        book: Tells which are answered already.
        folder: Where the choice is written down.
        left: Answers that may still be bought for the pool.
        within: Rows to choose from, int64. Default: all.

    Returns:
        Positions in the pool, int64, ascending.
    """
    kept = read_selection(folder)
    if kept is not None:
        return kept
    rows, share = _draw(ids, book.costs, left, config.seed)
    if within is not None:
        # More only where another run has bought answers meanwhile. What is left is the shorter of
        # two beginnings of one random order, so it is as uniform a sample.
        share *= np.isin(rows, within).mean()
        rows = rows[np.isin(rows, within)]
    write_selection(folder, rows, share)
    return rows


def _draw(
    ids: NDArray[np.uint8],
    costs: Callable[[GatheredIds, NDArray[np.bool_]], NDArray[np.uint8]],
    budget: int,
    seed: int,
) -> tuple[NDArray[np.int64], float]:
    """Walk through distinct questions in random order until the budget is reached.

    Questions met on the way that are answered already cost nothing, so a ledger of earlier runs
    makes the same budget reach further; the sample stays uniform.
    """
    lazy = GatheredIds(ids)
    leads = lazy.leads()
    cost = costs(lazy, leads)
    order = np.flatnonzero(leads)
    np.random.default_rng(seed).shuffle(order)
    count = len(order)
    if int(cost.sum(dtype=np.int64)) > budget:
        total = np.cumsum(cost[order], dtype=np.int32)
        count = int(np.searchsorted(total, budget, side="right"))
    chosen = order if count == len(order) else order[:count].copy()
    chosen.sort()
    return chosen, count / len(order)


def _require(count: int, split: str) -> None:
    if count == 0:
        raise TeacherError(
            f"the teacher answered no {split} row; look at its failures with `limbeck ledger "
            f"stats`, mend it and choose another folder with --out (this run asks for nothing "
            f"twice that it has paid for)."
        )
