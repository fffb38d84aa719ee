"""What a ledger's teachers have cost, how they failed, which versions answered, how fast."""

import sqlite3
from dataclasses import asdict, dataclass

import numpy as np

from limbeck.ledger.facts import SHORT, TeacherFacts, teachers_of
from limbeck.ledger.history import read_history
from limbeck.ledger.sqlite import SqliteLedger
from limbeck.teachers.base import Money

SENTENCES = 10
"""Kinds of failure that are told, the most frequent ones."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What single questions have cost, failures included, in millionths of the currency.

    Args:
        questions: How many were settled or failed.
        total: In all.
        mean, median, high, most: Of a question; `high` is the 95 % quantile.
    """

    questions: int
    total: int
    mean: float
    median: int
    high: int
    most: int


@dataclass(frozen=True, slots=True)
class TeacherStats:
    """How a teacher has done.

    Args:
        teacher: Which one.
        prices: What its questions have cost.
        failed: Questions that failed.
        failures: The most frequent sentences, with their counts.
        unknown: Questions that may have been billed without a reply.
        versions: Answers under each version string that its server gave.
        per_second: Answers a second over the last 2,048; None where nothing tells.
    """

    teacher: TeacherFacts
    prices: Prices
    failed: int
    failures: dict[str, int]
    unknown: int
    versions: dict[str, int]
    per_second: float | None

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; money in millionths of the currency."""
        return asdict(self)

    def text(self) -> str:
        """A paragraph for a person."""
        prices, currency = self.prices, self.teacher.currency
        lines = [
            f"teacher   {self.teacher.fingerprint[:SHORT]}",
            f"answers   {self.teacher.answers:,}",
            f"price     {Money(prices.total, currency)} for {prices.questions:,} questions: mean "
            f"{prices.mean / 1e6:.6f}, median {prices.median / 1e6:.6f}, 95 % below "
            f"{prices.high / 1e6:.6f}, most {prices.most / 1e6:.6f}",
            f"rate      {_rate(self.per_second)}",
            f"failed    {self.failed:,}, and {self.unknown:,} without a reply",
        ]
        lines += [f"{count:12,}  {sentence}" for sentence, count in self.failures.items()]
        lines += [f"version   {name}: {count:,}" for name, count in self.versions.items()]
        return "\n".join(lines)


def stats(ledger: SqliteLedger) -> list[TeacherStats]:
    """How each teacher of a ledger has done.

    Cost: a few passes over the attempts, about 2 s for 2,000,000.
    """
    with ledger.reading() as connection:
        return [
            TeacherStats(
                teacher,
                _prices(connection, teacher.id),
                _count(connection, teacher.id, "failed"),
                _failures(connection, teacher.id),
                _count(connection, teacher.id, "unknown"),
                ledger.versions(teacher.fingerprint),
                _per_second(connection, teacher.id),
            )
            for teacher in teachers_of(connection)
        ]


def _prices(connection: sqlite3.Connection, teacher: int) -> Prices:
    rows = connection.execute(
        """SELECT price, COUNT(*) FROM attempts
        WHERE teacher = ? AND state IN ('settled', 'failed') GROUP BY price ORDER BY price""",
        (teacher,),
    ).fetchall()
    if not rows:
        return Prices(0, 0, 0.0, 0, 0, 0)
    values, counts = np.array(rows, np.int64).T
    upto, questions = np.cumsum(counts), int(counts.sum())
    median, high = (int(values[np.searchsorted(upto, q * questions)]) for q in (0.5, 0.95))
    total = int((values * counts).sum())
    return Prices(questions, total, total / questions, median, high, int(values[-1]))


def _count(connection: sqlite3.Connection, teacher: int, column: str) -> int:
    query = f"SELECT TOTAL({column}) FROM totals WHERE teacher = ?"
    return int(connection.execute(query, (teacher,)).fetchone()[0])


def _failures(connection: sqlite3.Connection, teacher: int) -> dict[str, int]:
    rows = connection.execute(
        """SELECT failure, COUNT(*) FROM attempts WHERE teacher = ? AND state = 'failed'
        GROUP BY failure ORDER BY 2 DESC, 1 LIMIT ?""",
        (teacher, SENTENCES),
    )
    return dict(rows.fetchall())


def _per_second(connection: sqlite3.Connection, teacher: int) -> float | None:
    history = read_history(connection, teacher)
    seconds = float(history.seconds.sum())
    return float(history.counts.sum()) / seconds if seconds > 0 else None


def _rate(per_second: float | None) -> str:
    return "unknown" if per_second is None else f"{per_second:,.3g} answers a second lately"
