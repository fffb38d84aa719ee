"""Read raw replies again with a better parser: answers that were paid for cost nothing more."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from limbeck.answers import Answers
from limbeck.errors import AnswerError, ConfigError
from limbeck.ledger import tables
from limbeck.ledger.attempts import Outcome, recount
from limbeck.ledger.codec import id_keys, key_ids, pack_embeddings, pack_probs
from limbeck.ledger.facts import SHORT, teachers_of
from limbeck.ledger.sqlite import SqliteLedger
from limbeck.teachers.base import Replies, Teacher

_BATCH = 1024
_Raw = tuple[int, bytes, bytes, int, str | None]
"""Row or reservation, question, raw reply, price, version."""


@dataclass(frozen=True, slots=True)
class Reparsed:
    """What reading again came to.

    Args:
        read: Raw replies that were read, those of failures included.
        changed: Answers that are others now.
        recovered: Failures that are answers now.
        unreadable: Answers whose reply this parser cannot read; they stay as they were.
    """

    read: int
    changed: int
    recovered: int
    unreadable: int

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(slots=True)
class _News:
    """What has to be written."""

    read: int = 0
    unreadable: int = 0
    changed: list[tuple[bytes, bytes | None, bytes | None, int, bytes]] = field(
        default_factory=list
    )
    recovered: list[tuple[int, Answers, bytes, int, str | None]] = field(default_factory=list)


def reparse(ledger: SqliteLedger, teacher: Teacher, *, dry_run: bool = False) -> Reparsed:
    """Read every raw reply of a teacher again; nobody is asked.

    Answers that change are replaced and failures that can be read now become answers, all in one
    transaction. Prices and the budget stay as they are.

    Args:
        ledger: Where the replies are.
        teacher: Whose `parse` reads them; its fingerprint says whose replies.
        dry_run: Count, and write nothing.

    Raises:
        ConfigError: the ledger does not know the teacher, or keeps no raw reply of it.
        AnswerError: the parser gives answers of another form than before.

    Cost: what `parse` takes; memory for the answers that change.
    """
    news = _News()
    with ledger.reading() as connection:
        row = tables.find_teacher(connection, teacher.fingerprint)
        if row is None:
            have = ", ".join(t.fingerprint[:SHORT] for t in teachers_of(connection)) or "none"
            raise ConfigError(
                f"the ledger {ledger.path} holds nothing of teacher {teacher.fingerprint[:SHORT]} "
                f"(it has: {have}); give the run file whose answers they are, with a teacher of "
                f"the same settings."
            )
        _read_answers(connection, row, teacher, news)
        _read_failures(connection, row, teacher, news)
    if news.read == 0:
        raise ConfigError(
            f"the ledger {ledger.path} keeps no raw reply of teacher "
            f"{teacher.fingerprint[:SHORT]}, so there is nothing to read again."
        )
    changed, recovered = len(news.changed), len(news.recovered)
    if not dry_run and (changed or recovered):
        with ledger.writing() as connection:
            changed, recovered = _write(connection, row, news)
    return Reparsed(news.read, changed, recovered, news.unreadable)


def _read_answers(
    connection: sqlite3.Connection, row: tables.TeacherRow, teacher: Teacher, news: _News
) -> None:
    query = """SELECT id, question, raw, price, server_version FROM answers
        WHERE teacher = ? AND raw IS NOT NULL ORDER BY id"""
    for rows in _batches(connection, query, row.id):
        answers = _parsed(rows, teacher, row)
        news.read += len(rows)
        news.unreadable += len(rows) - len(answers)
        old = tables.read_answers(connection, row.id, [key for _, key, *_ in rows])
        ids = {key: key_row for key_row, key, *_ in rows}
        for key, *packed in _packed(answers):
            if tuple(packed) != old[key][1:]:
                news.changed.append((packed[0] or b"", packed[1], packed[2], ids[key], key))


def _read_failures(
    connection: sqlite3.Connection, row: tables.TeacherRow, teacher: Teacher, news: _News
) -> None:
    query = """SELECT reservation, question, raw, price, server_version FROM attempts
        WHERE teacher = ? AND state = 'failed' AND raw IS NOT NULL AND length(question) = 16
        ORDER BY reservation"""
    taken: set[bytes] = set()
    for rows in _batches(connection, query, row.id):
        news.read += len(rows)
        taken |= tables.answered(connection, row.id, [key for _, key, *_ in rows])
        # A question may have failed more than once; its first reply that can be read counts.
        for single in _distinct(rows, taken):
            answers = _parsed(single, teacher, row)
            where = {key: i for i, key in enumerate(id_keys(answers.ids))}
            for reservation, key, raw, price, version in single:
                if key in where:
                    taken.add(key)
                    part = _one(answers, where[key])
                    news.recovered.append((reservation, part, raw, price, version))


def _distinct(rows: Sequence[_Raw], taken: set[bytes]) -> Iterator[list[_Raw]]:
    """Rows in rounds without a repeated question; later rounds see what is taken by then."""
    left = list(rows)
    while left:
        single: dict[bytes, _Raw] = {}
        rest: list[_Raw] = []
        for row in left:
            if row[1] in taken:
                continue
            if row[1] in single:
                rest.append(row)
            else:
                single[row[1]] = row
        if single:
            yield list(single.values())
        left = rest


def _parsed(rows: Sequence[_Raw], teacher: Teacher, row: tables.TeacherRow) -> Answers:
    replies = Replies(
        key_ids([key for _, key, *_ in rows]),
        [raw for _, _, raw, *_ in rows],
        np.array([price for *_, price, _ in rows], np.int64),
        [None] * len(rows),
        [version for *_, version in rows],
    )
    answers, _ = teacher.parse(replies)
    dim = None if answers.embeddings is None else int(answers.embeddings.shape[1])
    form = (answers.num_classes, dim, int(answers.spread is not None))
    if len(answers) and row.num_classes is not None and form != tuple(row[1:]):
        raise AnswerError(
            f"the parser gives {form[0]} probabilities, an embedding of {dim or 'no'} values and "
            f"{'a' if form[2] else 'no'} spread, but the answers in the ledger are of another "
            f"form; a teacher that answers otherwise needs another fingerprint."
        )
    return answers


def _packed(answers: Answers) -> Iterator[tuple[bytes, bytes, bytes | None, bytes | None]]:
    """Question, probabilities, embedding and spread, as they lie in the file."""
    none: list[bytes | None] = [None] * len(answers)
    embeddings = spread = none
    if answers.embeddings is not None:
        embeddings = list(pack_embeddings(answers.embeddings, what="replies read again"))
    if answers.spread is not None:
        spread = list(pack_probs(answers.spread))
    return zip(id_keys(answers.ids), pack_probs(answers.probs), embeddings, spread, strict=True)


def _one(answers: Answers, i: int) -> Answers:
    one = slice(i, i + 1)
    embeddings = None if answers.embeddings is None else answers.embeddings[one]
    spread = None if answers.spread is None else answers.spread[one]
    return Answers(answers.ids[one], answers.probs[one], embeddings, spread)


def _write(connection: sqlite3.Connection, row: tables.TeacherRow, news: _News) -> tuple[int, int]:
    """Write what is still so; give how many answers changed and how many came."""
    # Row and question: a purge meanwhile may have freed the row for another answer.
    changed = connection.executemany(
        "UPDATE answers SET probs = ?, embedding = ?, spread = ? WHERE id = ? AND question = ?",
        news.changed,
    ).rowcount
    recovered = 0
    for reservation, answers, raw, price, version in news.recovered:
        (key,) = id_keys(answers.ids)
        settled = connection.execute(
            """UPDATE attempts SET state = 'settled', failure = NULL, raw = NULL,
            server_version = NULL WHERE reservation = ? AND question = ? AND state = 'failed'""",
            (reservation, key),
        ).rowcount
        if settled:
            (run,) = connection.execute(
                "SELECT run FROM reservations WHERE id = ?", (reservation,)
            ).fetchone()
            outcome = Outcome(key, price, raw, None, 0, version, 0)
            tables.check_width(connection, row.id, answers)
            tables.write_answers(connection, run, row.id, answers, [outcome])
            recount(connection, reservation)
            recovered += 1
    tables.log(connection, "reparse", "", changed=max(changed, 0), recovered=recovered)
    return max(changed, 0), recovered


def _batches(connection: sqlite3.Connection, query: str, teacher: int) -> Iterator[list[_Raw]]:
    cursor = connection.execute(query, (teacher,))
    while rows := cursor.fetchmany(_BATCH):
        yield rows
