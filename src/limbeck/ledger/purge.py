"""Remove answers for good, and give a file's free room back."""

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import ConfigError, StorageError
from limbeck.ledger import tables
from limbeck.ledger.attempts import free_the_dead
from limbeck.ledger.codec import id_keys
from limbeck.ledger.sqlite import SqliteLedger

_PURGED = "purged"


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge came to.

    Args:
        answers: Answers that were removed.
        attempts: Attempts whose raw reply, sentence and question were removed.
    """

    answers: int
    attempts: int

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """Size of the file and its write-ahead log before and after, in bytes."""

    before: int
    after: int

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values."""
        return asdict(self)


def purge(
    ledger: SqliteLedger,
    ids: NDArray[np.uint8] | Mapping[str, NDArray[np.uint8]],
    *,
    dry_run: bool = False,
) -> Purged:
    """Remove what the ledger holds about questions: answers, raw replies, and the ids themselves.

    What was spent on them stays counted. The content is overwritten in the file, and the
    write-ahead log emptied. Copies of the file, exports and run folders are the caller's to remove.

    Args:
        ledger: Which.
        ids: Question ids, uint8, shape (n, 16): of any teacher, or of each teacher by fingerprint.
        dry_run: Count, and remove nothing.

    Raises:
        ConfigError: one of the questions is in flight.
        StorageError: the rows are removed, but another process keeps the old log open.

    Cost: one pass over the attempts, and writing the whole file anew.
    """
    if dry_run:
        with ledger.reading() as connection:
            return _count(connection, ids)
    with ledger.alone() as connection:
        connection.execute("PRAGMA secure_delete = ON")
    with ledger.writing() as connection:
        free_the_dead(connection)
        _mark(connection, ids)
        _refuse_in_flight(connection)
        answers = connection.execute(
            f"DELETE FROM answers WHERE (teacher, question) IN {_MARKED}"
        ).rowcount
        # 17 bytes are no question id, so nothing can be asked for by what is left of it.
        attempts = connection.execute(
            f"""UPDATE attempts SET raw = NULL, server_version = NULL, question = randomblob(17),
            failure = CASE WHEN failure IS NOT NULL THEN '{_PURGED}' END
            WHERE (teacher, question) IN {_MARKED}"""
        ).rowcount
        connection.execute("DROP TABLE temp.purge")
        tables.log(connection, "purge", "", answers=answers, attempts=attempts)
    vacuum(ledger)
    return Purged(answers, attempts)


def vacuum(ledger: SqliteLedger) -> Vacuumed:
    """Write the file anew without its free pages, and empty its write-ahead log.

    Raises:
        StorageError: another process keeps the old log open, or the disk is full.

    Cost: reads and writes the whole file; needs as much free disk as it holds, for a while.
    """
    before = _size(ledger)
    with ledger.alone() as connection:
        _empty_log(connection, ledger)
        connection.execute("VACUUM")
        _empty_log(connection, ledger)
    return Vacuumed(before, _size(ledger))


def read_ids(path: Path) -> NDArray[np.uint8]:
    """Read a file of question ids, 32 hexadecimal digits a line; blank lines are left out.

    Returns:
        uint8, shape (n, 16).

    Raises:
        ConfigError: there is no such file, or a line is none; the first is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as text ({error}); give a file with an id on each line."
        ) from error
    keys = []
    for number, line in enumerate(lines, 1):
        if not (word := line.strip()):
            continue
        try:
            key = bytes.fromhex(word)
        except ValueError:
            key = b""
        if len(key) != 16:
            raise ConfigError(
                f"line {number} of {path} is {word[:40]!r}, expected 32 hexadecimal digits as "
                f"limbeck ledger export writes them."
            )
        keys.append(key)
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16).copy()


_MARKED = "(SELECT teacher, question FROM temp.purge)"


def _mark(
    connection: sqlite3.Connection, ids: NDArray[np.uint8] | Mapping[str, NDArray[np.uint8]]
) -> None:
    """Put the teachers and questions to purge into a table of this connection's own."""
    connection.execute("DROP TABLE IF EXISTS temp.purge")
    connection.execute(
        "CREATE TABLE temp.purge (teacher, question, PRIMARY KEY (teacher, question))"
    )
    every = [row for (row,) in connection.execute("SELECT fingerprint FROM teachers")]
    chosen = ids if isinstance(ids, Mapping) else dict.fromkeys(every, ids)
    for fingerprint, questions in chosen.items():
        teacher = tables.find_teacher(connection, fingerprint)
        if teacher is not None:
            connection.executemany(
                "INSERT OR IGNORE INTO temp.purge VALUES (?, ?)",
                [(teacher.id, key) for key in id_keys(questions)],
            )


def _refuse_in_flight(connection: sqlite3.Connection) -> None:
    (flying,) = connection.execute(
        f"SELECT COUNT(*) FROM attempts WHERE state = 'reserved' "
        f"AND (teacher, question) IN {_MARKED}"
    ).fetchone()
    if flying:
        raise ConfigError(
            f"{flying:,} of these questions are in flight, and their answers would come after the "
            f"purge; stop the run that asks them, or withdraw them from people (limbeck ask "
            f"--withdraw), and purge again. Nothing was removed."
        )


def _count(
    connection: sqlite3.Connection, ids: NDArray[np.uint8] | Mapping[str, NDArray[np.uint8]]
) -> Purged:
    _mark(connection, ids)
    answers, attempts = (
        int(
            connection.execute(
                f"SELECT COUNT(*) FROM {table} WHERE (teacher, question) IN {_MARKED}"
            ).fetchone()[0]
        )
        for table in ("answers", "attempts")
    )
    return Purged(answers, attempts)


def _empty_log(connection: sqlite3.Connection, ledger: SqliteLedger) -> None:
    (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StorageError(
            f"the ledger {ledger.path} is in use by another process, so old content may be left in "
            f"its log; stop that process and run limbeck ledger vacuum."
        )


def _size(ledger: SqliteLedger) -> int:
    log = ledger.path.with_name(ledger.path.name + "-wal")
    return ledger.path.stat().st_size + (log.stat().st_size if os.path.exists(log) else 0)
