"""Attempts: questions reserved, how each of them ended, and what dead processes left behind."""

import os
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.ledger.base import Reservation
from limbeck.ledger.codec import id_keys, key_ids
from limbeck.ledger.owners import is_alive, this_process
from limbeck.ledger.tables import answered, chunks, log, now
from limbeck.teachers.base import Money, Replies


class Outcome(NamedTuple):
    """How one attempt ended."""

    key: bytes
    price: int
    raw: bytes | None
    failure: str | None
    answer: int | None
    """Row of the answer, or None when there is none."""
    version: str | None
    """What the server called its own version."""
    over: int
    """How far the price lies beyond the worst that was reserved, >= 0."""


def free_questions(
    connection: sqlite3.Connection, teacher: int, keys: Sequence[bytes]
) -> list[bytes]:
    """The questions, in order, that have no answer and are not in flight."""
    taken = answered(connection, teacher, keys)
    for marks, chunk in chunks(keys):
        rows = connection.execute(
            "SELECT question FROM attempts WHERE state = 'reserved' AND teacher = ? "
            f"AND question IN ({marks})",
            (teacher, *chunk),
        )
        taken.update(key for (key,) in rows)
    return [key for key in keys if key not in taken]


def insert_reservation(
    connection: sqlite3.Connection,
    run: str,
    teacher: int,
    *,
    keys: Sequence[bytes],
    shares: Sequence[int],
    currency: str,
    owner: str = "",
) -> Reservation:
    """Write a reservation and its attempts; without questions nothing is written."""
    worst = Money(sum(shares), currency)
    uid = os.urandom(16)
    if not keys:
        return Reservation(0, key_ids(keys), worst, uid)
    cursor = connection.execute(
        "INSERT INTO reservations (run, teacher, owner, currency, at, uid) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (run, teacher, owner or this_process(), currency, now(), uid),
    )
    key = cursor.lastrowid
    assert key is not None  # the row was just inserted
    connection.executemany(
        "INSERT INTO attempts (reservation, question, teacher, worst) VALUES (?, ?, ?, ?)",
        [(key, question, teacher, share) for question, share in zip(keys, shares, strict=True)],
    )
    recount(connection, key)
    log(connection, "reserve", run, reservation=key, questions=len(keys), worst=worst.micros)
    return Reservation(key, key_ids(keys), worst, uid)


def owner_of(connection: sqlite3.Connection, reservation: Reservation) -> tuple[str, int]:
    """Run and teacher of a reservation."""
    row = connection.execute(
        "SELECT run, teacher FROM reservations WHERE id = ? AND uid = ?",
        (reservation.key, reservation.uid),
    ).fetchone()
    if row is None:
        raise ConfigError(
            f"reservation {reservation.key} is not in this ledger; record and release with the "
            f"ledger that reserved."
        )
    return str(row[0]), int(row[1])


def outcomes(
    connection: sqlite3.Connection,
    reservation: Reservation,
    replies: Replies,
    answers: Answers,
    keep_raw: bool,
) -> list[Outcome]:
    """What is new in some replies; attempts that were settled or failed before are left out."""
    keys = id_keys(replies.ids)
    attempts = _attempts(connection, reservation.key, keys)
    versions = replies.server_version or [None] * len(keys)
    rows = {key: i for i, key in enumerate(id_keys(answers.ids))}
    news: dict[bytes, Outcome] = {}
    for i, key in enumerate(keys):
        if key not in attempts:
            raise ConfigError(
                f"a reply about question {key.hex()} belongs to no question of reservation "
                f"{reservation.key}; record only what was reserved."
            )
        state, worst = attempts[key]
        if state not in ("settled", "failed") and key not in news:
            failure = None if key in rows else replies.failure[i] or "the reply could not be read"
            raw, price = replies.raw[i] if keep_raw else None, int(replies.price[i])
            over = max(0, price - worst)
            news[key] = Outcome(key, price, raw, failure, rows.get(key), versions[i], over)
    return list(news.values())


def _attempts(
    connection: sqlite3.Connection, reservation: int, keys: Sequence[bytes]
) -> dict[bytes, tuple[str, int]]:
    """State and worst price of those of these questions that the reservation holds."""
    found: dict[bytes, tuple[str, int]] = {}
    for marks, chunk in chunks(keys):
        rows = connection.execute(
            "SELECT question, state, worst FROM attempts "
            f"WHERE reservation = ? AND question IN ({marks})",
            (reservation, *chunk),
        )
        found |= {key: (state, worst) for key, state, worst in rows}
    return found


def settle(connection: sqlite3.Connection, reservation: int, news: list[Outcome]) -> None:
    """Write down how attempts ended. The raw reply of a failure stays here, for a better parser."""
    connection.executemany(
        "UPDATE attempts SET state = ?, price = ?, failure = ?, raw = ?, server_version = ? "
        "WHERE reservation = ? AND question = ?",
        [
            ("settled", new.price, None, None, None, reservation, new.key)
            if new.failure is None
            else ("failed", new.price, new.failure, new.raw, new.version, reservation, new.key)
            for new in news
        ],
    )
    recount(connection, reservation)


def close_attempts(
    connection: sqlite3.Connection,
    reservation: int,
    run: str,
    *,
    unknown: bool,
    keys: Sequence[bytes] | None = None,
) -> None:
    """End what is still in flight of a reservation, or of these questions of it.

    Raises:
        ConfigError: the reservation does not hold one of the questions.
    """
    state = "unknown" if unknown else "released"
    update = "UPDATE attempts SET state = ? WHERE reservation = ? AND state = 'reserved'"
    if keys is None:
        closed = connection.execute(update, (state, reservation)).rowcount
    else:
        held = _attempts(connection, reservation, keys)
        if stray := next((key for key in keys if key not in held), None):
            raise ConfigError(
                f"question {stray.hex()} is not one of reservation {reservation}; release only "
                f"what was reserved."
            )
        closed = connection.executemany(
            f"{update} AND question = ?", [(state, reservation, key) for key in keys]
        ).rowcount
    if closed > 0:  # -1 where there was no question
        recount(connection, reservation)
        log(connection, state, run, reservation=reservation, questions=closed)


def free_the_dead(connection: sqlite3.Connection) -> None:
    """Close what processes that have died left in flight.

    Their questions become unknown, unless they cannot cost anything: then nobody can have been
    billed and they are simply given back.
    """
    open_reservations = connection.execute(
        "SELECT id, run, owner, at FROM reservations WHERE in_flight > 0 AND owner <> ?",
        (this_process(),),
    ).fetchall()
    for key, run, owner, at in open_reservations:
        if not is_alive(owner, (now() - at) / 1000):
            (worst,) = connection.execute(
                "SELECT SUM(worst) FROM attempts WHERE reservation = ?", (key,)
            ).fetchone()
            close_attempts(connection, key, run, unknown=worst > 0)


def recount(connection: sqlite3.Connection, reservation: int) -> None:
    """Bring a reservation's counters in line with its attempts."""
    connection.execute(
        """UPDATE reservations SET (answered, failed, in_flight, unknown, micros) = (
            SELECT SUM(state = 'settled'), SUM(state = 'failed'), SUM(state = 'reserved'),
                SUM(state = 'unknown'),
                SUM(CASE WHEN state IN ('reserved', 'unknown') THEN worst ELSE price END)
            FROM attempts WHERE reservation = ?1) WHERE id = ?1""",
        (reservation,),
    )
