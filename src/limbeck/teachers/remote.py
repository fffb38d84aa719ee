"""What a teacher behind a network offers to the engine that asks it.

Such a teacher knows how one request is written, sent and priced, and what an error of its server
means. When to send, how often to try again and how long to wait is the engine's business.

A request can end in five ways, and money depends on telling them apart: a `Reply`, or one of

- `Refused`: it was not done and not billed, and may be sent again (busy server, no connection);
- `Lost`: it may have been done and billed, but no reply came (time-out, reset, half a reply);
- `Rejected`: not billed, and this question will never be answered (too long, filtered);
- `Denied`: not billed, and no question will ever be answered (wrong key, no such model).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa
from numpy import int64
from numpy.typing import NDArray

from limbeck.teachers.base import Teacher


class Refused(Exception):
    """The server did not do it and bills nothing.

    Args:
        message: What happened, in a few words.
        retry_after: Seconds that the server asks to wait, or None.
        busy: Whether other requests should wait too.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, busy: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.busy = busy


class Lost(Exception):
    """No reply came, but the request may have been billed.

    Args:
        message: What happened, in a few words.
        most: The most that this request can have cost, in millionths of the currency, or None where
            it is not known: then it counts as all that the question may cost.
        retry_after: Seconds that the server asks to wait, or None.
    """

    def __init__(
        self, message: str, *, most: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.most = most
        self.retry_after = retry_after


class Rejected(Exception):
    """The server will never answer this question, and bills nothing."""


class Denied(Exception):
    """The server will answer no question, and bills nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How a server may be asked.

    Args:
        concurrency: Questions in flight at most, >= 1.
        requests_per_minute: 0 for no limit.
        tokens_per_minute: Tokens of prompts and replies, 0 for no limit.
        retries: Further tries of a question that got no reply, >= 0.
        timeout_seconds: How long one request may take.
        seed: Seeds the waits between tries.
    """

    concurrency: int
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    retries: int = 6
    timeout_seconds: float = 60.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one request.

    Args:
        raw: The reply as one line of text, without secrets.
        price: What it cost, in millionths of the currency.
        tokens: Tokens that it used, of prompt and reply.
        version: What the server calls its own version, or None.
        complete: Whether the question has all the replies that it needs.
    """

    raw: bytes
    price: int
    tokens: int
    version: str | None
    complete: bool


class Connection(Protocol):
    """A way to the server, open in one event loop."""

    async def send(
        self, question: bytes, row: Mapping[str, object], before: Sequence[bytes]
    ) -> Reply:
        """Send the next request of a question.

        Args:
            question: Its id, 16 bytes.
            row: The columns that the teacher sees.
            before: Replies that this question has had, oldest first.

        Raises:
            Refused, Lost, Rejected, Denied: there is no reply; see the module.
        """


@runtime_checkable
class RemoteTeacher(Teacher, Protocol):
    """A teacher that is asked one question at a time, many at once.

    The raw reply of a question, as the ledger keeps it, is its replies joined by line feeds.
    """

    @property
    def limits(self) -> Limits:
        """How the server may be asked."""

    @property
    def smoke_gate(self) -> bool:
        """Whether the first answers should be looked at before more are bought."""

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """Open a way to the server in the running event loop."""

    def quote_each(self, rows: pa.RecordBatch) -> NDArray[int64]:
        """The most that each row can cost, in millionths of the currency, int64, shape (n,)."""

    def tokens_each(self, rows: pa.RecordBatch) -> NDArray[int64]:
        """The most tokens that each row can use, int64, shape (n,)."""

    def explain(self, question: bytes, raw: bytes) -> str:
        """Why a raw reply cannot be read, in one sentence."""
