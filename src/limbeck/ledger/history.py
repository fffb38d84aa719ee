"""How a teacher's last questions went: what each has cost, and how long they took."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

LAST = 2048
"""Questions to look back at: enough for an interval of a few per cent, read in milliseconds."""
_MILLISECONDS = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """The last questions of a teacher, whoever asked them.

    Args:
        prices: Settled price of each, failures included, millionths, int64, shape (n,).
        currency: ISO 4217 code.
        counts: Answers that were recorded together, int64, shape (b,), oldest first.
        seconds: Wall-clock time that each of these took, float64, shape (b,): since the ones before
            were recorded, or since the question was reserved, whichever came later, so that
            neither pauses count nor questions that were in flight at the same time count twice.
    """

    prices: NDArray[np.int64]
    currency: str
    counts: NDArray[np.int64]
    seconds: NDArray[np.float64]

    @classmethod
    def empty(cls) -> Self:
        """Of a teacher that has not been asked."""
        nothing = np.zeros(0, np.int64)
        return cls(nothing, "USD", nothing, np.zeros(0))

    @classmethod
    def joined(cls, histories: "Sequence[History]") -> Self:
        """Of several teachers that are asked one after the other."""
        paid = [one for one in histories if one.prices.any()] or list(histories)
        return cls(
            np.concatenate([one.prices for one in histories]),
            paid[0].currency,
            np.concatenate([one.counts for one in histories]),
            np.concatenate([one.seconds for one in histories]),
        )

    def __len__(self) -> int:
        return len(self.prices)


def read_history(connection: sqlite3.Connection, teacher: int) -> History:
    """Look back at the last questions of a teacher (its row in the ledger).

    Cost: about 10 microseconds a question, of 2,048 at most and those of one reservation more.
    """
    reservations = _last_reservations(connection, teacher)
    if not reservations:
        return History.empty()
    marks = ",".join("?" * len(reservations))
    rows = connection.execute(
        f"""SELECT r.at, a.at, t.price FROM attempts t
            JOIN reservations r ON r.id = t.reservation
            LEFT JOIN answers a ON t.state = 'settled' AND a.teacher = t.teacher
                AND a.question = t.question
            WHERE t.reservation IN ({marks}) AND t.state IN ('settled', 'failed')""",
        reservations,
    ).fetchall()
    (currency,) = connection.execute(
        "SELECT currency FROM reservations WHERE id = ?", reservations[:1]
    ).fetchone()
    prices = np.array([price for _, _, price in rows], np.int64)
    times = np.array([(at, began) for began, at, _ in rows if at is not None], np.int64)
    counts, seconds = _blocks(times.reshape(-1, 2))
    return History(prices, currency, counts, seconds)


def _last_reservations(connection: sqlite3.Connection, teacher: int) -> list[int]:
    found: list[int] = []
    questions = 0
    rows = connection.execute(
        """SELECT id, answered + failed FROM reservations
            WHERE teacher = ? AND answered + failed > 0 ORDER BY id DESC LIMIT ?""",
        (teacher, LAST),
    )
    for key, count in rows:
        found.append(int(key))
        questions += int(count)
        if questions >= LAST:
            break
    rows.close()
    return found


def _blocks(times: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count answers by the moment they were recorded, and time each of these moments.

    Args:
        times: When each answer was recorded and when it was reserved, milliseconds, shape (n, 2).
    """
    if not len(times):
        return np.zeros(0, np.int64), np.zeros(0)
    ordered = times[np.lexsort((times[:, 1], times[:, 0]))]
    recorded, first, counts = np.unique(ordered[:, 0], return_index=True, return_counts=True)
    began = ordered[first, 1]  # the earliest of the block
    before = np.concatenate([began[:1], recorded[:-1]])
    # A clock that was set back must not give time back.
    seconds = np.maximum(recorded - np.maximum(before, began), 0) / _MILLISECONDS
    return counts.astype(np.int64), seconds
