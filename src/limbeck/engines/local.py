"""Buying answers in this process: reserve, ask, record, a batch at a time, several in flight.

Only this module's own thread touches the ledger; worker threads do nothing but ask. Whatever
happens, when `purchase` ends each question is recorded, given back, or marked unknown.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.data.dataset import Dataset
from limbeck.data.ids import GatheredIds, Places, contains
from limbeck.engines.asynchronous import AsyncBuyer
from limbeck.engines.questions import gathered
from limbeck.engines.task import Progress, Task
from limbeck.errors import BudgetError, ConfigError, LimbeckError, LimitError, WorkerLostError
from limbeck.ledger.base import Budget, Ledger, Reservation, Spending
from limbeck.teachers.base import Money, Replies, Teacher, worst_prices
from limbeck.teachers.remote import RemoteTeacher

INTERRUPT_GRACE_SECONDS = 5.0
"""How long Ctrl-C waits for replies in flight; any other error waits until they come."""

_EXAMPLES = 5
_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 600.0  # for questions that another process has in flight


@dataclass(frozen=True, slots=True, eq=False)
class PurchaseReport:
    """What came of a purchase.

    Args:
        keys: Question of each row, gathered where it is needed.
        answered: Which rows have an answer in the ledger now, bool, shape (n,).
        questions: Distinct questions among the rows.
        cached: Questions that the ledger held before: they cost nothing.
        bought: Questions answered by this purchase.
        failed: Questions asked by this purchase whose reply is no answer, or says that there will
            be none.
        unanswered: Questions asked by this purchase that got no reply, all tries spent. Where they
            may have been billed the ledger calls each try unknown, else it has given them back.
        refused: Questions that this run has paid for before without an answer: not asked again.
        failures: Sentences of the first few failures.
        exhausted: Whether the budget ended before the questions did.
        stopped: Whether `stop` ended the purchase.
        spent: What the run has spent in all.
        limited: What the ledger said when its own limit, for all runs together, was reached.
    """

    keys: GatheredIds
    answered: NDArray[np.bool_]
    questions: int
    cached: int
    bought: int
    failed: int
    failures: tuple[str, ...]
    exhausted: bool
    stopped: bool
    spent: Spending
    limited: str = ""
    refused: int = 0
    unanswered: int = 0

    @property
    def ids(self) -> NDArray[np.uint8]:
        """Question of each row, uint8, shape (n, 16): the key of its answer in the ledger."""
        return self.keys[:]


def purchase(
    teacher: Teacher,
    ledger: Ledger,
    dataset: Dataset,
    rows: NDArray[np.int64],
    *,
    run: str,
    budget: Budget,
    batch_size: int = 256,
    on_progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> PurchaseReport:
    """See to it that rows have answers in the ledger, as far as the budget goes.

    Questions that the ledger holds are free, equal questions are asked once, rows are asked about
    in the order given. Calling it again goes on where it ended, and does not ask what this run has
    paid for without an answer; failures that cost nothing are asked again.

    Args:
        teacher: Who is asked, `teacher.max_in_flight` batches at a time; a `RemoteTeacher` is asked
            single questions, as many at a time as its limits allow.
        ledger: Where answers go, and whose budget holds.
        dataset: Where the rows are.
        rows: Positions, int64, shape (n,), repeats allowed.
        run: Whose budget it is.
        budget: What the run may spend in all.
        batch_size: Questions put at a time, >= 1.
        on_progress: Called after each batch with questions done, questions in all, and spending.
        stop: Asked before each batch; true ends the purchase after what is in flight.

    Raises:
        ConfigError: `batch_size` is below 1.
        TeacherError, AnswerError: the teacher broke; what came back before is recorded.

    Guarantee: the budget is never passed, and no question with a recorded answer is asked again,
    nor one whose reply to this run could not be read.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: must be >= 1; 256 is usual.")
    ids = gathered(teacher, dataset, rows)
    leads = ids.leads()
    questions = int(leads.sum())
    info = {"classes": list(teacher.classes), "columns": list(teacher.columns)}
    ledger.describe(teacher.fingerprint, info)

    def known(some: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return ledger.known(teacher.fingerprint, some)

    rest = ids.without(leads, known)
    unreadable = ledger.unreadable(run, teacher.fingerprint)
    refused = 0
    if len(unreadable):
        wanted = ids.without(rest, partial(contains, unreadable))
        refused, rest = int(rest.sum() - wanted.sum()), wanted
    missing = Places(rest)
    buyer: _Buyer | AsyncBuyer
    task = Task(
        ledger=ledger,
        dataset=dataset,
        rows=rows,
        ids=ids,
        run=run,
        budget=budget,
        on_progress=on_progress,
        stop=stop,
        questions=questions - refused,
    )
    cached = questions - refused - len(missing)
    if isinstance(teacher, RemoteTeacher):
        grace = INTERRUPT_GRACE_SECONDS
        buyer = AsyncBuyer(teacher=teacher, task=task, cached=cached, interrupt_grace_seconds=grace)
    else:
        buyer = _Buyer(teacher=teacher, task=task, cached=cached, batch_size=batch_size)
    buyer.buy(missing)
    return PurchaseReport(
        keys=ids,
        answered=ids.which(known),
        questions=questions,
        cached=buyer.cached,
        bought=buyer.bought,
        failed=buyer.failed,
        failures=tuple(buyer.failures),
        exhausted=buyer.exhausted,
        stopped=buyer.stopped,
        spent=ledger.spent(run),
        limited=buyer.limited,
        refused=refused,
        unanswered=buyer.unanswered,
    )


@dataclass(slots=True, kw_only=True, eq=False)
class _Buyer:
    """One purchase while it runs. Positions are positions in `ids`, one for each question."""

    teacher: Teacher
    task: Task
    batch_size: int
    cached: int
    bought: int = 0
    failed: int = 0
    unanswered: int = 0
    failures: list[str] = field(default_factory=list)
    exhausted: bool = False
    limited: str = ""
    stopped: bool = False
    elsewhere: list[NDArray[np.int64]] = field(default_factory=list)
    """Not granted: in flight in another process, or not affordable."""
    lost: list[NDArray[np.int64]] = field(default_factory=list)
    """Batches whose worker died: they are put again as they were."""
    in_flight: dict[Future[Replies], tuple[Reservation, NDArray[np.int64]]] = field(
        default_factory=dict
    )

    def buy(self, missing: Places) -> None:
        """Ask about all questions that have no answer; leave nothing reserved, whatever happens."""
        self._tell()
        if not len(missing):
            return
        pool = ThreadPoolExecutor(self.teacher.max_in_flight, thread_name_prefix="limbeck-ask")
        try:
            self._ask_all(pool, missing)
            self._wait_for_others(pool)
        except BaseException as error:
            self._give_up(None if isinstance(error, Exception) else INTERRUPT_GRACE_SECONDS)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask_all(self, pool: ThreadPoolExecutor, positions: Places | NDArray[np.int64]) -> None:
        starts = deque(range(0, len(positions), self.batch_size))
        again: deque[NDArray[np.int64]] = deque()
        exhausted = False
        while again or starts or self.in_flight:
            room = len(self.in_flight) < self.teacher.max_in_flight
            if (again or starts) and room and not self._must_end():
                if again:
                    batch = again.popleft()
                else:
                    start = starts.popleft()
                    batch = positions[start : start + self.batch_size]
                self._start(pool, batch)
                continue
            if not self.in_flight:
                break
            self._collect()
            if self.lost:  # what they held of the budget was given back, and is theirs
                exhausted, self.exhausted = exhausted or self.exhausted, False
                again.extend(self.lost)
                self.lost = []
        self.exhausted = self.exhausted or exhausted

    def _must_end(self) -> bool:
        self.stopped = self.stopped or (self.task.stop is not None and self.task.stop())
        return self.exhausted or self.stopped

    def _tell(self) -> None:
        if self.task.on_progress is not None:
            done = self.cached + self.bought + self.failed + self.unanswered
            self.task.on_progress(done, self.task.questions, self.task.ledger.spent(self.task.run))

    def _start(self, pool: ThreadPoolExecutor, batch: NDArray[np.int64]) -> None:
        """Reserve what can be reserved of a batch and put the questions."""
        granted = self._reserve(batch)
        if granted is None:
            return
        reservation, positions = granted
        try:
            rows = self.task.dataset.take(self.task.rows[positions])
            future = pool.submit(self.teacher.ask, reservation.ids, rows)
        except BaseException:
            self.task.ledger.release(reservation, unknown=False)
            raise
        self.in_flight[future] = reservation, positions

    def _reserve(self, batch: NDArray[np.int64]) -> tuple[Reservation, NDArray[np.int64]] | None:
        """Reserve a batch, or the part of it that is free and affordable; None: nothing is."""
        # A price a question, so that the budget of money holds for dear ones too.
        shares, currency = worst_prices(self.teacher, self.task.dataset.take(self.task.rows[batch]))
        worst = Money(int(shares.sum()), currency)
        ids, fingerprint = self.task.ids[batch], self.teacher.fingerprint
        try:
            reservation = self.task.ledger.reserve(
                self.task.run, fingerprint, ids, worst, self.task.budget, shares=shares
            )
        except BudgetError as error:
            self.exhausted = True
            self.limited = str(error) if isinstance(error, LimitError) else ""
            return None
        granted = _members(ids, reservation.ids)
        if not granted.all():
            self.elsewhere.append(batch[~granted])
        return (reservation, batch[granted]) if granted.any() else None

    def _collect(self) -> None:
        """Record the batches that have come back; wait for one if none has."""
        done, _ = wait(self.in_flight, return_when=FIRST_COMPLETED)
        for future in done:
            self._record(future)
        self._tell()

    def _record(self, future: Future[Replies]) -> None:
        reservation, positions = self.in_flight[future]
        try:
            replies = future.result()  # another exception of `ask` leaves the reservation in flight
        except WorkerLostError:
            del self.in_flight[future]
            # What cannot cost anything cannot have been billed either.
            self.task.ledger.release(reservation, unknown=reservation.worst.micros > 0)
            self.lost.append(positions)
            return
        try:
            answers, _ = self.teacher.parse(replies)
        except LimbeckError as error:
            if reservation.worst.micros > 0:
                self._record_unreadable(reservation, replies, str(error))
                del self.in_flight[future]
            raise
        self.task.ledger.record(reservation, replies, answers, self.teacher.keep_raw)
        del self.in_flight[future]
        if len(replies.ids) < len(reservation.ids):
            self.task.ledger.release(reservation, unknown=True)
        self.bought += len(answers)
        self.failed += len(replies.ids) - len(answers)
        self.unanswered += len(reservation.ids) - len(replies.ids)
        told = [sentence for sentence in replies.failure if sentence is not None]
        self.failures += told[: _EXAMPLES - len(self.failures)]

    def _record_unreadable(self, reservation: Reservation, replies: Replies, sentence: str) -> None:
        """Settle what was billed for replies that the parser broke on; their raw text is kept."""
        failed = Replies(replies.ids, replies.raw, replies.price, [sentence] * len(replies.ids))
        nothing = Answers(replies.ids[:0], torch.zeros(0, len(self.teacher.classes)))
        self.task.ledger.record(reservation, failed, nothing, self.teacher.keep_raw)

    def _wait_for_others(self, pool: ThreadPoolExecutor) -> None:
        """Take the answers that another process buys; buy what it gives back."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while self.elsewhere and time.monotonic() < end and not self._must_end():
            waiting, self.elsewhere = np.concatenate(self.elsewhere), []
            known = self.task.ledger.known(self.teacher.fingerprint, self.task.ids[waiting])
            self.cached += int(known.sum())
            tried = self.bought + self.failed + self.unanswered
            self._ask_all(pool, waiting[~known])
            if self.elsewhere and self.bought + self.failed + self.unanswered == tried:
                time.sleep(_POLL_SECONDS)

    def _give_up(self, grace_seconds: float | None) -> None:
        """Record what came back, and give the rest back."""
        for future in list(self.in_flight):
            if future.cancel():  # never started
                self.task.ledger.release(self.in_flight.pop(future)[0], unknown=False)
        wait(self.in_flight, timeout=grace_seconds)
        for future, (reservation, _) in list(self.in_flight.items()):
            if future.done() and future.exception() is None:
                # The error that brought us here is the one to tell; it is raised after this.
                with contextlib.suppress(Exception):
                    self._record(future)
            if future in self.in_flight:
                self.task.ledger.release(reservation, unknown=reservation.worst.micros > 0)


def _members(ids: NDArray[np.uint8], granted: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of `ids` were granted; granted ids come in the same order."""
    if len(ids) == len(granted):
        return np.ones(len(ids), np.bool_)
    keys = {bytes(key) for key in granted}
    return np.array([bytes(key) in keys for key in ids], np.bool_)
