"""The protocol of a ledger: every answer paid for, kept before it is used.

A purchase is reserve -> ask -> record. `reserve` takes queries and worst-case money out of the
budget in one atomic step; `record` writes replies and answers and settles the real price in one
transaction; only then may anyone read the answers. Failures are recorded and never served.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.ledger.history import History
from limbeck.teachers.base import Money, Replies


@dataclass(frozen=True, slots=True)
class Budget:
    """What one run may spend.

    Args:
        queries: Answers that may be bought, >= 0.
        money: Most that they may cost, or None for no limit.
    """

    queries: int
    money: Money | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """What all runs of a ledger may spend together; it is kept in the ledger itself.

    Args:
        queries: Answers that may be bought, >= 0, or None for no limit.
        money: Most that they may cost, or None for no limit.
    """

    queries: int | None = None
    money: Money | None = None


@dataclass(frozen=True, slots=True)
class Spending:
    """What one run, or all runs of a ledger, have spent.

    Args:
        answered: Answers that were paid for and can be read.
        failed: Questions that were paid for, or tried, without an answer.
        reserved: Questions in flight.
        unknown: Questions whose reply was lost, or that were in flight when a process died: they
            may have been billed.
        money: Settled price plus what is still reserved.
    """

    answered: int
    failed: int
    reserved: int
    unknown: int
    money: Money

    @property
    def queries(self) -> int:
        """What counts against the budget of queries."""
        return self.answered + self.failed + self.reserved + self.unknown


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """A place in the budget for these questions.

    Args:
        key: Names the reservation in the ledger.
        ids: Questions that were granted, uint8, shape (m, 16), distinct, none answered already.
        worst: The most that they can cost: what is held of the budget.
        uid: Its name for ever: the key of a reservation that was undone is given out again.
    """

    key: int
    ids: NDArray[np.uint8]
    worst: Money
    uid: bytes


class Ledger(Protocol):
    """Where answers live. One implementation keeps them in SQLite."""

    def describe(self, fingerprint: str, info: Mapping[str, object]) -> None:
        """Keep plain JSON facts about a teacher (its classes, its columns) beside its answers."""

    def known(self, fingerprint: str, ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of these questions have an answer, bool, shape (n,). Costs nothing."""

    def reserve(
        self,
        run: str,
        fingerprint: str,
        ids: NDArray[np.uint8],
        worst: Money,
        budget: Budget,
        *,
        shares: NDArray[np.int64] | None = None,
    ) -> Reservation:
        """Reserve distinct unanswered questions, at most `worst` in all.

        `shares` are the worst prices of single questions, int64 of shape (n,) that add up to
        `worst`; without them each question counts for an equal share.

        Raises:
            BudgetError: not even one more question fits into the budget.
        """

    def record(
        self, reservation: Reservation, replies: Replies, answers: Answers, keep_raw: bool
    ) -> None:
        """Write replies and answers and settle their price, in one transaction."""

    def release(
        self, reservation: Reservation, *, unknown: bool, ids: NDArray[np.uint8] | None = None
    ) -> None:
        """Give back what was not recorded; `unknown` marks questions that may have been billed.

        With `ids` only those questions of the reservation end, and the others stay in flight.
        """

    def together(self) -> AbstractContextManager[None]:
        """Make all changes in the block one transaction: real, and on the disk, when it ends."""

    def answers(self, fingerprint: str, ids: NDArray[np.uint8]) -> Answers:
        """Read answers in the order of `ids`, repeats allowed.

        Raises:
            LimbeckError: a question has no answer.
        """

    def history(self, fingerprint: str) -> History:
        """What a teacher's last questions have cost, and how long they took."""

    def versions(self, fingerprint: str) -> Mapping[str, int]:
        """Answers of a teacher under each version string that its server gave."""

    def failed(self, run: str, fingerprint: str) -> NDArray[np.uint8]:
        """Questions that a run has asked a teacher without getting an answer, uint8, (n, 16)."""

    def unreadable(self, run: str, fingerprint: str) -> NDArray[np.uint8]:
        """Those of them that were answered with something that is no answer, or paid for."""

    def spent(self, run: str) -> Spending:
        """What a run has spent so far."""
