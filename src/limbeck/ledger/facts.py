"""What the ledger knows of its teachers besides their answers."""

import json
import sqlite3
from dataclasses import dataclass

from limbeck.errors import ConfigError

SHORT = 12
"""Digits of a fingerprint that people are shown; any unique beginning of one is understood."""


@dataclass(frozen=True, slots=True)
class TeacherFacts:
    """A teacher in the ledger.

    Args:
        id: Its row.
        fingerprint: Half of the key of its answers.
        classes: Class names, one for each probability; numbers where no names were kept.
        columns: Columns that it sees, as far as they are known.
        num_classes: Probabilities an answer; None before its first answer.
        embedding_dim: Values of an embedding, or None.
        has_spread: Whether its answers have a spread.
        answers: How many there are.
        currency: What it is paid in.
    """

    id: int
    fingerprint: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    num_classes: int | None
    embedding_dim: int | None
    has_spread: bool
    answers: int
    currency: str


def teachers_of(connection: sqlite3.Connection) -> list[TeacherFacts]:
    """All teachers, in the order in which they came.

    Cost: one pass over the index of answers, 0.1 s for 2,000,000.
    """
    counts: dict[int, int] = dict(
        connection.execute("SELECT teacher, COUNT(*) FROM answers GROUP BY teacher").fetchall()
    )
    currencies: dict[int, str] = dict(
        connection.execute(
            """SELECT teacher, COALESCE(MIN(currency) FILTER (WHERE micros > 0), MIN(currency))
            FROM totals GROUP BY teacher"""
        ).fetchall()
    )
    rows = connection.execute(
        """SELECT id, fingerprint, info, num_classes, embedding_dim, has_spread
        FROM teachers ORDER BY id"""
    )
    return [
        TeacherFacts(
            key,
            fingerprint,
            _classes(info, width),
            tuple(json.loads(info).get("columns", ())),
            width,
            dim,
            bool(spread),
            counts.get(key, 0),
            currencies.get(key, "USD"),
        )
        for key, fingerprint, info, width, dim, spread in rows
    ]


def choose_teacher(connection: sqlite3.Connection, prefix: str) -> TeacherFacts:
    """The teacher whose fingerprint begins so; the only one with answers where nothing is given.

    Raises:
        ConfigError: there is none, or more than one.
    """
    found = [
        teacher
        for teacher in teachers_of(connection)
        if (teacher.fingerprint.startswith(prefix) if prefix else teacher.answers)
    ]
    if len(found) == 1:
        return found[0]
    have = ", ".join(t.fingerprint[:SHORT] for t in teachers_of(connection)) or "none"
    what = f"begins with {prefix!r}" if prefix else "has answers"
    raise ConfigError(
        f"{len(found)} teachers of this ledger have a fingerprint that {what}, expected one; "
        f"choose one with --teacher (it has: {have})."
    )


def _classes(info: str, width: int | None) -> tuple[str, ...]:
    names = tuple(json.loads(info).get("classes", ()))
    if width is not None and len(names) != width:
        return tuple(str(i) for i in range(width))
    return names
