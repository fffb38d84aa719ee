"""What the ledger does to its tables, each inside a transaction of the caller's."""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from limbeck.answers import Answers
from limbeck.errors import AnswerError, ConfigError
from limbeck.ledger.base import Budget, Reservation, Spending
from limbeck.ledger.codec import id_keys, key_ids, pack_embeddings, pack_probs
from limbeck.ledger.owners import is_alive, this_process
from limbeck.teachers.base import Money, Replies

CHUNK = 1024
"""Questions in one SELECT ... IN (...)."""

Packed = tuple[bytes, bytes, bytes | None, bytes | None]
"""An answer as it lies in the file: question, probabilities, embedding, spread."""


class TeacherRow(NamedTuple):
    """A teacher as the ledger knows it; all but the id are None before its first answer."""

    id: int
    num_classes: int | None
    embedding_dim: int | None
    has_spread: int | None


class Outcome(NamedTuple):
    """How one attempt ended."""

    key: bytes
    price: int
    raw: bytes | None
    failure: str | None
    answer: int | None
    """Row of the answer, or None when there is none."""


def find_teacher(connection: sqlite3.Connection, fingerprint: str) -> TeacherRow | None:
    """Look a teacher up."""
    row = connection.execute(
        "SELECT id, num_classes, embedding_dim, has_spread FROM teachers WHERE fingerprint = ?",
        (fingerprint,),
    ).fetchone()
    return None if row is None else TeacherRow(*row)


def add_teacher(connection: sqlite3.Connection, fingerprint: str) -> TeacherRow:
    """Look a teacher up, or make its row."""
    connection.execute(
        "INSERT INTO teachers (fingerprint, info) VALUES (?, '{}') ON CONFLICT DO NOTHING",
        (fingerprint,),
    )
    found = find_teacher(connection, fingerprint)
    assert found is not None  # it was inserted above, in the same transaction
    return found


def answered(connection: sqlite3.Connection, teacher: int, keys: Sequence[bytes]) -> set[bytes]:
    """Which of these questions have an answer; reads nothing but the index."""
    found: set[bytes] = set()
    for marks, chunk in _chunks(keys):
        rows = connection.execute(
            f"SELECT question FROM answers WHERE teacher = ? AND question IN ({marks})",
            (teacher, *chunk),
        )
        found.update(key for (key,) in rows)
    return found


def read_answers(
    connection: sqlite3.Connection, teacher: int, keys: Sequence[bytes]
) -> dict[bytes, Packed]:
    """The answer to each of these distinct questions that has one."""
    found: dict[bytes, Packed] = {}
    for marks, chunk in _chunks(keys):
        rows = connection.execute(
            "SELECT question, probs, embedding, spread FROM answers "
            f"WHERE teacher = ? AND question IN ({marks})",
            (teacher, *chunk),
        )
        found |= {row[0]: row for row in rows}
    return found


def free_questions(
    connection: sqlite3.Connection, teacher: int, keys: Sequence[bytes]
) -> list[bytes]:
    """The questions, in order, that have no answer and are not in flight."""
    taken = answered(connection, teacher, keys)
    for marks, chunk in _chunks(keys):
        rows = connection.execute(
            "SELECT question FROM attempts WHERE state = 'reserved' AND teacher = ? "
            f"AND question IN ({marks})",
            (teacher, *chunk),
        )
        taken.update(key for (key,) in rows)
    return [key for key in keys if key not in taken]


def equal_shares(worst: Money, n: int) -> list[int]:
    """Split a worst price over n questions; the odd millionths fall on the first."""
    share, odd = divmod(worst.micros, max(n, 1))
    return [share + (i < odd) for i in range(n)]


def how_many_fit(shares: Sequence[int], budget: Budget, spent: Spending) -> int:
    """The longest run of questions, from the first, that the budget still holds."""
    fit = min(len(shares), max(0, budget.queries - spent.queries))
    if budget.money is not None:
        room = budget.money.micros - spent.money.micros
        # The sums never fall, so the insertion point counts the ones that are at most `room`.
        fit = int(np.searchsorted(np.cumsum(shares[:fit], dtype=np.int64), room, side="right"))
    return fit


def check_currency(run: str, worst: Money, budget: Budget, spent: Spending) -> None:
    """Refuse to add up money of different currencies."""
    others = [budget.money] if budget.money is not None else []
    if spent.queries:
        others.append(spent.money)
    for other in others:
        if other.currency != worst.currency:
            raise ConfigError(
                f"run {run!r}: the teacher is paid in {worst.currency} but the budget or earlier "
                f"spending is in {other.currency}; give both in one currency."
            )


def insert_reservation(
    connection: sqlite3.Connection,
    run: str,
    teacher: int,
    *,
    keys: Sequence[bytes],
    shares: Sequence[int],
    currency: str,
) -> Reservation:
    """Write a reservation and its attempts; without questions nothing is written."""
    worst = Money(sum(shares), currency)
    if not keys:
        return Reservation(0, key_ids(keys), worst)
    cursor = connection.execute(
        "INSERT INTO reservations (run, teacher, owner, currency, at) VALUES (?, ?, ?, ?, ?)",
        (run, teacher, this_process(), currency, now()),
    )
    key = cursor.lastrowid
    assert key is not None  # the row was just inserted
    connection.executemany(
        "INSERT INTO attempts (reservation, question, teacher, worst) VALUES (?, ?, ?, ?)",
        [(key, question, teacher, share) for question, share in zip(keys, shares, strict=True)],
    )
    recount(connection, key)
    log(connection, "reserve", run, reservation=key, questions=len(keys), worst=worst.micros)
    return Reservation(key, key_ids(keys), worst)


def owner_of(connection: sqlite3.Connection, reservation: Reservation) -> tuple[str, int]:
    """Run and teacher of a reservation."""
    row = connection.execute(
        "SELECT run, teacher FROM reservations WHERE id = ?", (reservation.key,)
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
    states: dict[bytes, str] = dict(
        connection.execute(
            "SELECT question, state FROM attempts WHERE reservation = ?", (reservation.key,)
        )
    )
    rows = {key: i for i, key in enumerate(id_keys(answers.ids))}
    news = []
    for i, key in enumerate(id_keys(replies.ids)):
        if key not in states:
            raise ConfigError(
                f"a reply about question {key.hex()} belongs to no question of reservation "
                f"{reservation.key}; record only what was reserved."
            )
        if states[key] not in ("settled", "failed"):
            failure = None if key in rows else replies.failure[i] or "the reply could not be read"
            raw = replies.raw[i] if keep_raw else None
            news.append(Outcome(key, int(replies.price[i]), raw, failure, rows.get(key)))
    return news


def check_width(connection: sqlite3.Connection, teacher: int, answers: Answers) -> None:
    """Keep the form of a teacher's first answers and refuse later ones of another form."""
    if len(answers) == 0:
        return
    dim = None if answers.embeddings is None else int(answers.embeddings.shape[1])
    spread = int(answers.spread is not None)
    fingerprint, *before = connection.execute(
        "SELECT fingerprint, num_classes, embedding_dim, has_spread FROM teachers WHERE id = ?",
        (teacher,),
    ).fetchone()
    if before[0] is None:
        connection.execute(
            "UPDATE teachers SET num_classes = ?, embedding_dim = ?, has_spread = ? WHERE id = ?",
            (answers.num_classes, dim, spread, teacher),
        )
    elif before[:2] != [answers.num_classes, dim]:
        raise AnswerError(
            f"teacher {fingerprint[:16]} gave {answers.num_classes} probabilities and an embedding "
            f"of {dim or 'no'} values but earlier {before[0]} and {before[1] or 'no'}; a teacher "
            f"that answers otherwise needs another fingerprint."
        )
    elif before[2] != spread:
        this, earlier = ("a", "none") if spread else ("no", "one")
        raise AnswerError(
            f"teacher {fingerprint[:16]} gave {this} spread of its probabilities but earlier "
            f"{earlier}; a teacher that answers otherwise needs another fingerprint."
        )


def write_answers(
    connection: sqlite3.Connection, run: str, teacher: int, answers: Answers, news: list[Outcome]
) -> None:
    """Insert answers; one that another process wrote meanwhile stays."""
    probs = list(pack_probs(answers.probs))
    embeddings: list[bytes] | list[None] = [None] * len(probs)
    if answers.embeddings is not None:
        embeddings = list(pack_embeddings(answers.embeddings, what="teacher answers"))
    spread: list[bytes] | list[None] = [None] * len(probs)
    if answers.spread is not None:
        spread = list(pack_probs(answers.spread))
    at = now()
    connection.executemany(
        "INSERT INTO answers (teacher, question, probs, embedding, spread, raw, price, run, at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            (teacher, new.key, probs[i], embeddings[i], spread[i], new.raw, new.price, run, at)
            for new in news
            if (i := new.answer) is not None
        ],
    )


def settle(connection: sqlite3.Connection, reservation: int, news: list[Outcome]) -> None:
    """Write down how attempts ended. The raw reply of a failure stays here, for a better parser."""
    connection.executemany(
        "UPDATE attempts SET state = ?, price = ?, failure = ?, raw = ? "
        "WHERE reservation = ? AND question = ?",
        [
            ("settled", new.price, None, None, reservation, new.key)
            if new.failure is None
            else ("failed", new.price, new.failure, new.raw, reservation, new.key)
            for new in news
        ],
    )
    recount(connection, reservation)


def close_attempts(
    connection: sqlite3.Connection, reservation: int, run: str, *, unknown: bool
) -> None:
    """End what is still in flight of a reservation."""
    state = "unknown" if unknown else "released"
    closed = connection.execute(
        "UPDATE attempts SET state = ? WHERE reservation = ? AND state = 'reserved'",
        (state, reservation),
    ).rowcount
    recount(connection, reservation)
    log(connection, state, run, reservation=reservation, questions=closed)


def free_the_dead(connection: sqlite3.Connection) -> None:
    """Close what processes that have died left in flight.

    Their questions become unknown, unless they cannot cost anything: then nobody can have been
    billed and they are simply given back.
    """
    open_reservations = connection.execute(
        "SELECT id, run, owner, at FROM reservations WHERE in_flight > 0"
    ).fetchall()
    for key, run, owner, at in open_reservations:
        if owner != this_process() and not is_alive(owner, (now() - at) / 1000):
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


def spending(connection: sqlite3.Connection, run: str) -> Spending:
    """Add up a run's reservations."""
    answered, failed, in_flight, unknown, micros, currency = connection.execute(
        """SELECT TOTAL(answered), TOTAL(failed), TOTAL(in_flight), TOTAL(unknown), TOTAL(micros),
            COALESCE(MIN(currency), 'USD') FROM reservations WHERE run = ?""",
        (run,),
    ).fetchone()
    money = Money(int(micros), currency)
    return Spending(int(answered), int(failed), int(in_flight), int(unknown), money)


def log(connection: sqlite3.Connection, kind: str, run: str, **detail: int) -> None:
    """Append an event."""
    connection.execute(
        "INSERT INTO events (at, kind, run, detail) VALUES (?, ?, ?, ?)",
        (now(), kind, run, json.dumps(detail)),
    )


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _chunks(keys: Sequence[bytes]) -> Iterator[tuple[str, Sequence[bytes]]]:
    """Keys in chunks, each with as many question marks."""
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        yield ",".join("?" * len(chunk)), chunk
