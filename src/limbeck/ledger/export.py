"""A teacher's answers as a table in a file, for other tools and for the teacher `table`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from limbeck.data.results import check_ending, write_rows
from limbeck.ledger.codec import unpack
from limbeck.ledger.facts import TeacherFacts, choose_teacher
from limbeck.ledger.show import utc
from limbeck.ledger.sqlite import SqliteLedger

_BATCH = 4096
_Row = tuple[int, bytes, bytes, int, str | None, str, int]


def export(ledger: SqliteLedger, path: Path, *, teacher: str = "") -> int:
    """Write a teacher's answers to a file that appears whole or not at all.

    The columns are `question` (its id, 32 hexadecimal digits), `prob_<class>` for every class,
    `price_micros` (millionths of the currency), `currency`, `server_version`, `run` and
    `recorded_at`, in the order in which answers were recorded.

    Args:
        ledger: Where the answers are.
        path: File ending in .csv, .jsonl or .parquet.
        teacher: Beginning of its fingerprint; may be empty where only one has answers.

    Returns:
        Answers written.

    Raises:
        ConfigError: the ending is none that can be written, or the teacher is not one.
        StorageError: the file cannot be written.

    Cost: memory for 4,096 answers.
    """
    check_ending(path, what="answers")
    with ledger.reading() as connection:
        chosen = choose_teacher(connection, teacher)
    written = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal written
        for batch in _batches(ledger, chosen):
            written += batch.num_rows
            yield batch

    write_rows(counted(), path, what="answers")
    return written


def _names(teacher: TeacherFacts) -> list[str]:
    probs = [f"prob_{name}" for name in teacher.classes]
    end = ["price_micros", "currency", "server_version", "run", "recorded_at"]
    return ["question", *probs, *end]


def _batches(ledger: SqliteLedger, teacher: TeacherFacts) -> Iterator[pa.RecordBatch]:
    last, empty = 0, True
    while True:
        with ledger.reading() as connection:
            rows: list[_Row] = connection.execute(
                """SELECT id, question, probs, price, server_version, run, at FROM answers
                WHERE teacher = ? AND id > ? ORDER BY id LIMIT ?""",
                (teacher.id, last, _BATCH),
            ).fetchall()
        if rows or empty:  # a file without answers has its columns all the same
            yield _table(teacher, rows)
        if not rows:
            return
        last, empty = rows[-1][0], False


def _table(teacher: TeacherFacts, rows: Sequence[_Row]) -> pa.RecordBatch:
    probs = unpack([row[2] for row in rows], "<f4", len(teacher.classes)).numpy()
    arrays = [pa.array([row[1].hex() for row in rows], pa.string())]
    arrays += [pa.array(probs[:, i].astype(np.float64)) for i in range(probs.shape[1])]
    arrays += [
        pa.array([row[3] for row in rows], pa.int64()),
        pa.array([teacher.currency] * len(rows), pa.string()),
        pa.array([row[4] for row in rows], pa.string()),
        pa.array([row[5] for row in rows], pa.string()),
        pa.array([utc(row[6]) for row in rows], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(arrays, names=_names(teacher))
