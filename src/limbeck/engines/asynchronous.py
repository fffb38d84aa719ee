"""Buying answers from a server: many questions in flight, one thread that writes the ledger.

A question holds its place among those in flight until its answer is on the disk, and places in the
budget are taken only for questions that can be sent at once. So a process that is killed leaves no
more questions unknown than may be in flight. What has come back since the last transaction is
recorded in the next one, together with the places for the questions that follow.
"""

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.data.ids import Places
from limbeck.engines.asker import Asker, Outcome, Question
from limbeck.engines.task import Task
from limbeck.engines.watch import Watch
from limbeck.errors import BudgetError, LimbeckError, LimitError, TeacherError
from limbeck.ledger.base import Reservation
from limbeck.teachers.base import Money, Replies
from limbeck.teachers.remote import RemoteTeacher

_BLOCK = 256
_EXAMPLES = 5
_LINGER_SECONDS = 0.01
_LINGERS = 4
_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 600.0  # for questions that another process has in flight
_TELL_SECONDS = 0.1
_ABANDON_SECONDS = 5.0


@dataclass(slots=True, kw_only=True, eq=False)
class AsyncBuyer:
    """One purchase from a server while it runs."""

    teacher: RemoteTeacher
    task: Task
    cached: int
    interrupt_grace_seconds: float
    bought: int = 0
    failed: int = 0
    unanswered: int = 0
    """Given up without a reply: unknown in the ledger where they may have been billed, else given
    back, so that a server which is not there uses up no budget."""
    failures: list[str] = field(default_factory=list)
    exhausted: bool = False
    limited: str = ""
    stopped: bool = False
    watch: Watch = field(default_factory=Watch)
    currency: str = ""
    again: deque[Question] = field(default_factory=deque)
    """To be asked before all others: a second time, or because the budget had no room."""
    elsewhere: list[Question] = field(default_factory=list)
    """In flight in another process."""
    granted: list[Question] = field(default_factory=list)
    """With a place in the budget, not yet sent."""
    in_flight: dict[bytes, Question] = field(default_factory=dict)
    outcomes: list[tuple[Reservation, Outcome]] = field(default_factory=list)
    """What came back and is not on the disk yet, with the place in the budget that it had."""
    told_at: float = 0.0

    def buy(self, missing: Places) -> None:
        """Ask about all questions that have no answer; leave nothing reserved, whatever happens."""
        self.watch = Watch(self.task.ledger.versions(self.teacher.fingerprint))
        self.currency = self.teacher.quote(self.task.dataset.take(self.task.rows[:0])).currency
        with Asker(self.teacher) as asker:
            try:
                self._tell(always=True)
                self._buy(asker, self._load(missing))
                self._tell(always=True)
            except BaseException as error:
                grace = None if isinstance(error, Exception) else self.interrupt_grace_seconds
                self._give_up(asker, grace)
                raise

    def _buy(self, asker: Asker, fresh: Iterator[Question]) -> None:
        patience = time.monotonic() + _PATIENCE_SECONDS
        while True:
            # One wait for the disk: what has come back, and places for what follows.
            with self.task.ledger.together():
                problem = self._record()
                if not problem and not self._must_end():
                    self._reserve(fresh)
            self.outcomes = []
            if problem:
                raise TeacherError(problem)
            self._send(asker)
            if self.in_flight:
                self._collect(asker)
                patience = time.monotonic() + _PATIENCE_SECONDS
            elif self._must_end() or not self.elsewhere or time.monotonic() > patience:
                return
            else:
                time.sleep(_POLL_SECONDS)
                self._look_elsewhere()
            self._tell()

    def _send(self, asker: Asker) -> None:
        granted, self.granted = self.granted, []
        self.in_flight |= {question.key: question for question in granted}
        asker.ask(granted)

    def _collect(self, asker: Asker) -> None:
        """Wait for something to come back, and a moment longer for what comes with it."""
        # A transaction costs about as much as an answer, so an eighth of them share it; but
        # a server that takes its time is not kept waiting for that.
        enough = len(self.in_flight) // 8
        self._take(asker.take())
        for _ in range(_LINGERS):
            if len(self.outcomes) >= enough or not self.in_flight:
                return
            time.sleep(_LINGER_SECONDS)
            self._take(asker.take(0.0))

    def _take(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            place = outcome.question.reservation
            assert place is not None  # nothing is sent without one
            # Noted here: a lost question may get another place, in a transaction that is undone.
            self.outcomes.append((place, outcome))
            del self.in_flight[outcome.question.key]

    def _must_end(self) -> bool:
        self.stopped = self.stopped or (self.task.stop is not None and self.task.stop())
        return self.exhausted or self.stopped

    def _tell(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if self.task.on_progress is not None and (always or now - self.told_at > _TELL_SECONDS):
            self.told_at = now
            done = self.cached + self.bought + self.failed + self.unanswered
            self.task.on_progress(done, self.task.questions, self.task.ledger.spent(self.task.run))

    def _load(self, positions: Places) -> Iterator[Question]:
        """Questions at positions of `ids`, a block at a time."""
        columns = list(self.teacher.columns)
        for start in range(0, len(positions), _BLOCK):
            part = positions[start : start + _BLOCK]
            batch = self.task.dataset.take(self.task.rows[part]).select(columns)
            worst = self.teacher.quote_each(batch).tolist()
            tokens = self._tokens(batch)
            keys = [bytes(key) for key in self.task.ids[part]]
            yield from map(Question, keys, batch.to_pylist(), worst, tokens)

    def _tokens(self, batch: pa.RecordBatch) -> list[int]:
        """What a limit of tokens counts of each row; writing all prompts for none is waste."""
        limited = self.teacher.limits.tokens_per_minute > 0
        return self.teacher.tokens_each(batch).tolist() if limited else [0] * batch.num_rows

    def _reserve(self, fresh: Iterator[Question]) -> None:
        """Take places in the budget for as many questions as can be sent."""
        free = self.teacher.limits.concurrency - len(self.in_flight)
        while (room := free - len(self.granted)) > 0:
            wanted = [self.again.popleft() for _ in range(min(room, len(self.again)))]
            wanted += islice(fresh, room - len(wanted))
            if not wanted:
                return
            shares = np.array([question.worst for question in wanted], np.int64)
            worst = Money(int(shares.sum()), self.currency)
            ids, teacher = _ids(wanted), self.teacher.fingerprint
            try:
                reservation = self.task.ledger.reserve(
                    self.task.run, teacher, ids, worst, self.task.budget, shares=shares
                )
            except BudgetError as error:
                self.limited = str(error) if isinstance(error, LimitError) else ""
                self.again.extendleft(reversed(wanted))
                # What is in flight holds its worst price, and may leave something when it settles.
                self.exhausted = not self.in_flight and not self.granted
                return
            self._grant(wanted, reservation)

    def _grant(self, wanted: Sequence[Question], reservation: Reservation) -> None:
        keys = {bytes(key) for key in reservation.ids}
        has_place = [question.key in keys for question in wanted]
        # Those behind the last one with a place may only have been too dear: they are tried again.
        last = max((i for i, has in enumerate(has_place) if has), default=len(wanted))
        self.again.extendleft(reversed(wanted[last + 1 :]))
        for question, has in zip(wanted[: last + 1], has_place, strict=False):
            if has:
                question.enter(reservation)
                self.granted.append(question)
            else:
                self.elsewhere.append(question)

    def _look_elsewhere(self) -> None:
        """Take the answers that another process has bought; ask for what it gave back."""
        waiting, self.elsewhere = self.elsewhere, []
        known = self.task.ledger.known(self.teacher.fingerprint, _ids(waiting))
        self.cached += int(known.sum())
        self.again.extend(one for one, has in zip(waiting, known, strict=True) if not has)

    def _record(self) -> str:
        """Write down what came back; why the purchase must end, or an empty string."""
        problems = [
            self._record_group(reservation, group)
            for reservation, group in _by_reservation(self.outcomes)
        ]
        return next(filter(None, problems), "")

    def _record_group(self, reservation: Reservation, group: Sequence[Outcome]) -> str:
        told: list[Outcome] = []
        lost: list[Outcome] = []
        returned: list[Outcome] = []
        for outcome in group:
            question = outcome.question
            if outcome.end in ("replied", "failed") or self._given_up(outcome):
                told.append(outcome)
            # A question that is stopped half way is not a failure, which its run would not ask
            # about again.
            elif outcome.end == "lost" or question.sent or len(question.replies) > question.earlier:
                lost.append(outcome)
            else:
                returned.append(outcome)
        problem = self._write(reservation, told) if told else ""
        if lost:
            self.task.ledger.release(reservation, unknown=True, ids=_ids(_questions(lost)))
            problem = self._ask_again([one for one in lost if one.end == "lost"]) or problem
        if returned:
            self.task.ledger.release(reservation, unknown=False, ids=_ids(_questions(returned)))
        for outcome in returned:
            if outcome.end == "refused":
                problem = self._give_up_on(outcome) or problem
        for outcome in group:
            if outcome.end == "denied":
                problem = self.watch.denied(outcome.message)
            if outcome.end == "broken":
                problem = self.watch.broken(outcome.message)
        return problem

    def _given_up(self, outcome: Outcome) -> bool:
        """Whether a question has had its last try, and has replies that were paid for."""
        question = outcome.question
        spent = question.tries > self.teacher.limits.retries
        ended = outcome.end == "refused" or (outcome.end == "lost" and spent)
        return ended and bool(question.replies)

    def _write(self, reservation: Reservation, told: Sequence[Outcome]) -> str:
        """Record replies and failures; why the purchase must end, or an empty string."""
        questions = _questions(told)
        replies = Replies(
            _ids(questions),
            [b"\n".join(one.replies) if one.replies else None for one in questions],
            np.array([outcome.price for outcome in told], np.int64),
            [None if outcome.end == "replied" else outcome.message for outcome in told],
            [one.version for one in questions],
        )
        problem = ""
        try:
            answers, ok = self.teacher.parse(replies)
        except LimbeckError as error:
            problem = str(error)
            answers, ok = self._nothing(), np.zeros(len(told), np.bool_)
        failure = [
            self._why(outcome, raw, problem) if not right else None
            for outcome, raw, right in zip(told, replies.raw, ok, strict=True)
        ]
        replies = replace(replies, failure=failure)
        self.task.ledger.record(reservation, replies, answers, self.teacher.keep_raw)
        self.bought += len(answers)
        self.failed += len(told) - len(answers)
        for outcome, why in zip(told, failure, strict=True):
            self._note(why)
            seen = (
                self.watch.reply(outcome.question, why)
                if outcome.question.replies and outcome.end != "lost"
                else self.watch.no_reply(why or "")
            )
            problem = problem or seen
        return problem

    def _why(self, outcome: Outcome, raw: bytes | None, problem: str) -> str:
        """Why a question has no answer."""
        if outcome.end == "lost":
            came = len(outcome.question.replies)
            return (
                f"{outcome.message}, when {came} of the question's replies had come; they are "
                f"kept, and the lost request is priced at the most it can cost"
            )
        if outcome.end != "replied" or raw is None:
            return outcome.message or "there was no reply"
        return problem or self.teacher.explain(outcome.question.key, raw)

    def _ask_again(self, lost: Sequence[Outcome]) -> str:
        """Put questions without a reply back, or give them up when all tries are spent."""
        problem = ""
        for outcome in lost:
            question = outcome.question
            if question.tries <= self.teacher.limits.retries:
                self.again.append(question)
            else:
                problem = self._give_up_on(outcome) or problem
        return problem

    def _give_up_on(self, outcome: Outcome) -> str:
        """Count a question that gets no reply; why the purchase must end, or an empty string."""
        self.unanswered += 1
        self._note(outcome.message)
        return self.watch.no_reply(outcome.message)

    def _note(self, failure: str | None) -> None:
        if failure is not None and len(self.failures) < _EXAMPLES:
            self.failures.append(failure)

    def _nothing(self) -> Answers:
        return Answers(np.empty((0, 16), np.uint8), torch.zeros(0, len(self.teacher.classes)))

    def _give_up(self, asker: Asker, grace_seconds: float | None) -> None:
        """Record what comes back, and give the rest back."""
        # The error that brought us here is the one to tell; it is raised after this.
        with contextlib.suppress(Exception):
            asker.hold()
            self._await(asker, grace_seconds)
            asker.abandon()
            self._await(asker, _ABANDON_SECONDS)
        for reservation, group in _by_reservation(self.outcomes):
            with contextlib.suppress(Exception):
                self._record_group(reservation, group)
        rest = [(one, False) for one in self.granted]
        rest += [(one, one.worst > 0) for one in self.in_flight.values()]
        for question, unknown in rest:
            with contextlib.suppress(Exception):
                assert question.reservation is not None
                self.task.ledger.release(
                    question.reservation, unknown=unknown, ids=_ids([question])
                )

    def _await(self, asker: Asker, seconds: float | None) -> None:
        """Wait until nothing is in flight, but no longer than so many seconds."""
        end = None if seconds is None else time.monotonic() + seconds
        while self.in_flight and (end is None or time.monotonic() < end):
            self._take(asker.take(None if end is None else end - time.monotonic()))


def _by_reservation(
    outcomes: Sequence[tuple[Reservation, Outcome]],
) -> list[tuple[Reservation, list[Outcome]]]:
    groups: dict[bytes, tuple[Reservation, list[Outcome]]] = {}
    for reservation, outcome in outcomes:
        groups.setdefault(reservation.uid, (reservation, []))[1].append(outcome)
    return list(groups.values())


def _ids(questions: Sequence[Question]) -> NDArray[np.uint8]:
    keys = b"".join(question.key for question in questions)
    return np.frombuffer(keys, np.uint8).reshape(len(questions), -1)


def _questions(outcomes: Sequence[Outcome]) -> list[Question]:
    return [outcome.question for outcome in outcomes]
