"""Buy the answers of one split after the other, under the budget of a run."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limbeck.data import Dataset
from limbeck.data.ids import contains
from limbeck.distill.config import DistillConfig
from limbeck.distill.estimate import Estimate
from limbeck.distill.folder import Event, RunFolder
from limbeck.distill.questions import AnswerBook, worst_money
from limbeck.distill.smoke import buy_first
from limbeck.engines import PurchaseReport, purchase
from limbeck.engines.questions import gathered
from limbeck.errors import BudgetError, LimitError, WaitingError
from limbeck.ledger import Budget, Ledger, Spending
from limbeck.storage import write_text
from limbeck.teachers import Money, Teacher
from limbeck.teachers.mean import members_of

HUMAN = "human"
"""The kind of teacher that is asked in files, before and beside a run."""
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
        unanswered: Questions asked now that got no reply at all; unknown in the ledger where they
            may have been billed.
    """

    split: str
    rows: int
    questions: int
    cached: int
    bought: int
    failed: int
    seconds: float
    unanswered: int = 0

    @property
    def asked(self) -> int:
        """Questions that were asked now."""
        return self.bought + self.failed + self.unanswered


class Buyer:
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

    def buy(
        self, split: str, rows: Dataset, positions: NDArray[np.int64], *, whole: bool = True
    ) -> Tally:
        """Ask about rows that have no answer yet, once: what failed is not asked again.

        Otherwise a resumed run would learn from other rows than the one that was stopped. A pool
        that the budget ended stays open, so that more money buys the rest before training begins.

        Args:
            split: Its name, or that of a part of the pool.
            rows, positions: What is asked about.
            whole: Whether people must have answered all of it, or may have answered a part.
        """
        if self._waits:
            return self._told_by_people(split, rows, positions, whole=whole)
        if self.has_ended(split):
            return self._as_it_stands(split, rows, positions)
        began = time.perf_counter()

        reports = list(self._purchases(split, rows, positions))
        for sentence in [told for report in reports for told in report.failures][:_FAILURES]:
            self._folder.log("answers", f"{split}: no answer: {sentence}")
        bought = sum(report.bought for report in reports)
        cached = sum(report.cached for report in reports)
        failed = sum(report.failed for report in reports)
        unanswered = sum(report.unanswered for report in reports)
        silent = f", {unanswered} got no reply" if unanswered else ""
        self._folder.log(
            "answers",
            f"{split}: {bought} answers bought, {cached} were in the ledger, {failed} failed"
            f"{silent}",
            bought=bought,
            cached=cached,
            failed=failed,
            unanswered=unanswered,
        )
        self._close(split, reports, rows, positions)
        return Tally(
            split=split,
            rows=len(positions),
            questions=sum(report.questions for report in reports),
            cached=cached,
            bought=bought,
            failed=failed,
            seconds=time.perf_counter() - began,
            unanswered=unanswered,
        )

    def _close(
        self,
        split: str,
        reports: Sequence[PurchaseReport],
        rows: Dataset,
        positions: NDArray[np.int64],
    ) -> None:
        """Write down that a split is bought, or say what ended it early.

        Raises:
            BudgetError: it was ended before there was enough to go on with.
        """
        answered = reports[0].answered
        if len(reports) > 1:
            answered = gathered(self._teacher, rows, positions).which(self._book.known)
        limited = next((report.limited for report in reports if report.limited), "")
        if not any(report.exhausted for report in reports):
            told = f"{int(answered.sum())} of {len(positions)} rows answered\n"
            write_text(self._folder.selections / f"{split}.bought", told)
            return
        if limited:
            self._folder.log("answers", f"{split}: {limited}")
        if not _may_end_early(split) or not bool(answered.any()):
            raise self._too_early(split, limited)
        what = "the limit of the ledger" if limited else self._what_ended()
        self.short = (
            f"{what} ended: {int(answered.sum()):,} of {len(positions):,} pool rows that were to "
            f"be asked about have an answer"
        )
        self._folder.log("answers", self.short)

    def _too_early(self, split: str, limited: str) -> BudgetError:
        unknown = self._ledger.spent(self._run).unknown
        lost = (
            f" ({unknown} answers are unknown: their reply was lost, or a process died while they "
            f"were in flight; they may have been billed)"
            if unknown
            else ""
        )
        if limited:
            return LimitError(
                f"not all {split} rows were answered{lost}: {limited} Answers in the ledger are "
                f"free when the same command runs again."
            )
        return BudgetError(
            f"the budget ({self._limit()}) was spent before all {split} rows were answered{lost}; "
            f"raise it and run the same command again (answers in the ledger are free)."
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
        looks = [Progress(split, self._folder, self._ledger, one, rows) for one in members]
        total, before = len(members) * len(positions), 0
        for start in range(0, max(1, len(positions)), max(1, size)):
            for member, look in zip(members, looks, strict=True):

                def on_progress(
                    done: int,
                    of: int,
                    spent: Spending,
                    look: Progress = look,
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

    def _told_by_people(
        self, split: str, rows: Dataset, positions: NDArray[np.int64], *, whole: bool
    ) -> Tally:
        """The tally of what people have answered; a pool may be answered in part.

        Raises:
            WaitingError: they have more to answer first.
            BudgetError: so it is, but the budget holds no more questions.
        """
        ids = gathered(self._teacher, rows, positions)
        first = np.flatnonzero(ids.leads())
        known = self._ledger.known(self._teacher.fingerprint, ids[first])
        failed = contains(self._ledger.failed(self._run, self._teacher.fingerprint), ids[first])
        missing = int((~known & ~failed).sum())
        if missing and (whole or not known.any()):
            spending = self._ledger.spent(self._run)
            waits = f"{missing:,} of {len(first):,} {split} questions have no answer of people yet"
            if self.left() < 1 and not spending.reserved:
                raise BudgetError(
                    f"{waits}, and the budget ({self._limit()}) is spent; raise it, then write "
                    f"them into a file with `limbeck ask`."
                )
            raise WaitingError(
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


class Progress:
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


def _may_end_early(split: str) -> bool:
    """Whether a run can go on when only some rows of a split are bought: those of the pool."""
    return split not in ("validation", "test")


def has_ended(folder: RunFolder, split: str) -> bool:
    """Whether nothing more is to be bought of a split, or part of the pool, in this folder."""
    names = [split, *(["pool"] if _may_end_early(split) else [])]
    return any((folder.selections / f"{name}.bought").exists() for name in names)
