"""Teachers, their answers and the log of events, each inside a transaction of the caller's."""

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import AnswerError
from limbeck.ledger.codec import pack_embeddings, pack_probs, unpack

if TYPE_CHECKING:
    from limbeck.ledger.attempts import Outcome

CHUNK = 1024
"""Questions in one SELECT ... IN (...)."""
_SORTED = 262_144
"""Questions that are sorted before they are looked up: all of them would take memory."""

Packed = tuple[bytes, bytes, bytes | None, bytes | None]
"""An answer as it lies in the file: question, probabilities, embedding, spread."""


class TeacherRow(NamedTuple):
    """A teacher as the ledger knows it; all but the id are None before its first answer."""

    id: int
    num_classes: int | None
    embedding_dim: int | None
    has_spread: int | None


def find_teacher(connection: sqlite3.Connection, fingerprint: str) -> TeacherRow | None:
    """Look a teacher up."""
    row = connection.execute(
        "SELECT id, num_classes, embedding_dim, has_spread FROM teachers WHERE fingerprint = ?",
        (fingerprint,),
    ).fetchone()
    return None if row is None else TeacherRow(*row)


def add_teacher(connection: sqlite3.Connection, fingerprint: str) -> TeacherRow:
    """Look a teacher up, or make its row."""
    if teacher := find_teacher(connection, fingerprint):
        return teacher
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
    for marks, chunk in chunks(keys):
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
    for marks, chunk in chunks(keys):
        rows = connection.execute(
            "SELECT question, probs, embedding, spread FROM answers "
            f"WHERE teacher = ? AND question IN ({marks})",
            (teacher, *chunk),
        )
        found |= {row[0]: row for row in rows}
    return found


def unpacked(
    rows: Sequence[Packed], teacher: TeacherRow
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Probabilities, embeddings and spread of a teacher's rows; ValueError where one is missing."""
    classes = teacher.num_classes or 0
    probs = unpack([row[1] for row in rows], "<f4", classes)
    embeddings = spread = None
    if teacher.embedding_dim is not None:
        embeddings = unpack([row[2] or b"" for row in rows], "<f2", teacher.embedding_dim)
    if teacher.has_spread:
        spread = unpack([row[3] or b"" for row in rows], "<f4", classes)
    return probs, embeddings, spread


def versions_of(connection: sqlite3.Connection, fingerprint: str) -> dict[str, int]:
    """Answers of a teacher under each version string, oldest string first."""
    rows = connection.execute(
        """SELECT server_version, COUNT(*) FROM answers WHERE server_version IS NOT NULL
        AND teacher = (SELECT id FROM teachers WHERE fingerprint = ?)
        GROUP BY server_version ORDER BY MIN(id)""",
        (fingerprint,),
    )
    return dict(rows.fetchall())


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
    connection: sqlite3.Connection, run: str, teacher: int, answers: Answers, news: "list[Outcome]"
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
        "INSERT INTO answers (teacher, question, probs, embedding, spread, raw, price, "
        "server_version, run, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            (
                teacher,
                new.key,
                probs[i],
                embeddings[i],
                spread[i],
                new.raw,
                new.price,
                new.version,
                run,
                at,
            )
            for new in news
            if (i := new.answer) is not None
        ],
    )


def log(connection: sqlite3.Connection, kind: str, run: str, **detail: int) -> None:
    """Append an event."""
    connection.execute(
        "INSERT INTO events (at, kind, run, detail) VALUES (?, ?, ?, ?)",
        (now(), kind, run, json.dumps(detail)),
    )


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def chunks(keys: Sequence[bytes]) -> Iterator[tuple[str, Sequence[bytes]]]:
    """Keys in chunks, each with as many question marks."""
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        yield ",".join("?" * len(chunk)), chunk


def in_order(ids: NDArray[np.uint8]) -> Iterator[NDArray[np.int64]]:
    """Places of a thousand questions after another, sorted: neighbours share pages of the index."""
    for begin in range(0, len(ids), _SORTED):
        block = np.ascontiguousarray(ids[begin : begin + _SORTED])
        order = begin + np.argsort(block.view(">u8")[:, 0])
        for start in range(0, len(order), CHUNK):
            yield order[start : start + CHUNK]
