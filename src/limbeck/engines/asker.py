"""The thread that asks a server: an event loop, one task a question, limits and further tries.

It knows nothing of the ledger. What comes of each question goes into a queue, and only whoever
reads the queue can let the question be asked again where money may have been spent on it.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Literal, Self

from limbeck.engines.limits import Clock, Gate, Sleep
from limbeck.engines.retry import PATIENCE_SECONDS, Backoff
from limbeck.errors import TeacherError
from limbeck.ledger.base import Reservation
from limbeck.teachers.remote import Connection, Denied, Lost, Refused, Rejected, RemoteTeacher

_LIFE_SIGN_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Question:
    """One question while it is being asked.

    Args:
        key: Its id, 16 bytes.
        row: The columns that the teacher sees.
        worst: The most that it can cost, in millionths of the currency.
        tokens: The most tokens that one request of it can use, or 0 where nothing limits them.
        reservation: Its place in the budget.
        replies: What came back so far, oldest first.
        earlier: How many of them came back in earlier places, which account for them.
        price: What the others cost.
        version: What the server called itself.
        tries: Tries that got no reply.
        refusal: Of a busy server, not yet counted.
        refusals: Refusals of a busy server in a row, in which nobody got a reply.
        replies_before: Replies that anybody had got when they were last counted, or at first.
        wait_seconds: How long to wait before the next try.
        sent: Whether a request is on its way.
    """

    key: bytes
    row: Mapping[str, object]
    worst: int
    tokens: int
    reservation: Reservation | None = None
    replies: list[bytes] = field(default_factory=list)
    earlier: int = 0
    price: int = 0
    version: str | None = None
    tries: int = 0
    refusal: Refused | None = None
    refusals: int = 0
    replies_before: int | None = None
    wait_seconds: float = 0.0
    sent: bool = False

    def enter(self, reservation: Reservation) -> None:
        """Take a place in the budget. What came back before is not accounted for in it again."""
        self.reservation = reservation
        self.earlier, self.price = len(self.replies), 0


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How a question ended, for now.

    Args:
        question: The question.
        end: replied: it has all its replies. failed: it will get no more. refused: the last try was
            not done. lost: a request may have been billed; it may be asked again in a new place
            of the budget. returned: it was not sent. denied: nobody will get a reply. broken: the
            teacher has a bug.
        message: Why, in a few words.
        most: What a lost request may have cost, or None where it is not known.
    """

    question: Question
    end: Literal["replied", "failed", "refused", "lost", "returned", "denied", "broken"]
    message: str = ""
    most: int | None = None

    @property
    def price(self) -> int:
        """What the replies cost, and a lost request at its most, in millionths of the currency.

        Never more than the place holds, unless the replies alone cost more.
        """
        question = self.question
        if self.end != "lost":
            return question.price
        most = question.worst if self.most is None else self.most
        return max(question.price, min(question.price + most, question.worst))


class Asker:
    """Asks questions in a thread of its own, from `__enter__` to `__exit__`.

    Args:
        teacher: Who is asked.
        clock: Seconds that never go back.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        teacher: RemoteTeacher,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        limits = teacher.limits
        self._teacher = teacher
        self._retries = limits.retries
        self._sleep = sleep
        self._gate = Gate(
            limits.requests_per_minute, limits.tokens_per_minute, clock=clock, sleep=sleep
        )
        self._backoff = Backoff(limits.seed)
        self._replies = 0
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._tasks: dict[asyncio.Task[None], Question] = {}
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="limbeck-ask", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        self._check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._call(self._ended.set)
        self._thread.join()

    def ask(self, questions: Iterable[Question]) -> None:
        """Begin to ask; `take` gives what comes of it."""
        todo = list(questions)
        self._call(lambda: self._begin(todo))

    def take(self, seconds: float | None = None) -> list[Outcome]:
        """All outcomes since the last call; waits for one, but no longer than `seconds`.

        Raises:
            TeacherError: the thread has died.
        """
        end = None if seconds is None else time.monotonic() + seconds
        found: list[Outcome] = []
        while not found:
            left = _LIFE_SIGN_SECONDS if end is None else end - time.monotonic()
            try:
                found.append(self._outcomes.get(timeout=min(max(left, 0.0), _LIFE_SIGN_SECONDS)))
            except Empty:
                self._check()
                if end is not None and time.monotonic() >= end:
                    return found
        while True:
            try:
                found.append(self._outcomes.get_nowait())
            except Empty:
                return found

    def hold(self) -> None:
        """Send no more requests: questions that wait come back as returned."""
        self._call(lambda: self._cancel(sent_too=False))

    def abandon(self) -> None:
        """Wait for no more replies: questions on their way come back as lost."""
        self._call(lambda: self._cancel(sent_too=True))

    def _call(self, function: Callable[[], object]) -> None:
        """Call something in the thread of the loop; a loop that has closed needs no telling."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def _check(self) -> None:
        if self._error is not None:
            raise TeacherError(
                f"the connection to the teacher failed with {type(self._error).__name__}: "
                f"{self._error}; run the same command again."
            ) from None

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._live())
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _live(self) -> None:
        async with self._teacher.connect() as connection:
            self._connection: Connection = connection
            self._ready.set()
            await self._ended.wait()
            self._cancel(sent_too=True)
            while self._tasks:
                await asyncio.wait(self._tasks)

    def _begin(self, questions: Iterable[Question]) -> None:
        for question in questions:
            task = self._loop.create_task(self._ask(question))
            self._tasks[task] = question
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        question = self._tasks.pop(task)
        if task.cancelled():  # before its first step, so `_ask` could not tell
            self._outcomes.put(Outcome(question, "returned", "the run was stopped"))

    def _cancel(self, *, sent_too: bool) -> None:
        for task, question in list(self._tasks.items()):
            if sent_too or not question.sent:
                task.cancel()

    async def _ask(self, question: Question) -> None:
        try:
            outcome = await self._outcome(question)
        except asyncio.CancelledError:
            # Cancelled by `hold`, `abandon` or the end alone: nothing else knows of this task.
            end: Literal["lost", "returned"] = "lost" if question.sent else "returned"
            outcome = Outcome(question, end, "the run was stopped")
        except Exception as error:
            outcome = Outcome(question, "broken", f"{type(error).__name__}: {error}")
        self._outcomes.put(outcome)

    async def _outcome(self, question: Question) -> Outcome:
        question.sent = False
        if question.wait_seconds:
            await self._sleep(question.wait_seconds)
        while True:
            taken = await self._gate.enter(question.tokens)
            if (spent := self._count_refusal(question)) is not None:
                self._gate.leave(taken, question.tokens, None)
                return Outcome(question, "refused", str(spent))
            question.sent = True
            try:
                reply = await self._connection.send(question.key, question.row, question.replies)
            except Refused as refusal:
                question.sent = False
                self._gate.leave(taken, question.tokens, None)
                refused = await self._wait_again(question, refusal)
                if refused is not None:
                    return refused
                continue
            except Lost as loss:
                question.tries += 1
                if (why := _too_long(loss)) is not None:
                    return Outcome(question, "denied", why, loss.most)
                question.wait_seconds = self._backoff.seconds(question.tries, loss.retry_after)
                return Outcome(question, "lost", str(loss), loss.most)
            except Rejected as rejection:
                return Outcome(question, "failed", str(rejection))
            except Denied as denial:
                question.sent = False
                return Outcome(question, "denied", str(denial))
            question.sent = False
            self._gate.leave(taken, question.tokens, reply.tokens)
            self._replies += 1
            question.replies.append(reply.raw)
            question.price += reply.price
            question.version = reply.version
            if reply.complete:
                return Outcome(question, "replied")

    def _count_refusal(self, question: Question) -> Refused | None:
        """Count a busy server's refusal as a try; gives it when there is none left.

        A server that is busy but answers others will come to this question too, so a reply to
        anybody starts the count anew. Whether there was one is known after the wait: the reply to
        a request that was sent together with the refused one may come later than the refusal.
        """
        refusal, question.refusal = question.refusal, None
        if question.replies_before != self._replies:
            question.refusals = 0
        elif refusal is not None:
            question.refusals += 1
        question.replies_before = self._replies
        return refusal if question.tries + question.refusals > self._retries else None

    async def _wait_again(self, question: Question, refusal: Refused) -> Outcome | None:
        """Wait before the next try of a question that was refused; an outcome: there is none."""
        if refusal.busy:
            question.refusal = refusal  # counted after the wait, by `_count_refusal`
        else:
            question.tries += 1
            if question.tries > self._retries:
                return Outcome(question, "refused", str(refusal))
        if (why := _too_long(refusal)) is not None:
            return Outcome(question, "denied", why)
        seconds = self._backoff.seconds(
            max(1, question.tries + question.refusals), refusal.retry_after
        )
        if refusal.busy:
            self._gate.pause(seconds)
        else:
            await self._sleep(seconds)
        return None


def _too_long(error: Refused | Lost) -> str | None:
    """Why nobody waits as long as the server asks to, or None."""
    if error.retry_after is None or error.retry_after <= PATIENCE_SECONDS:
        return None
    return f"{error} (it asks to wait {error.retry_after / 60:,.0f} minutes)"
