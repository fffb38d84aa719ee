"""Is a ledger whole: the file, its counters, its answers, and what belongs to what."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import torch

from limbeck.answers import SUM_TOLERANCE
from limbeck.errors import StorageError
from limbeck.ledger.codec import unpack
from limbeck.ledger.facts import SHORT, TeacherFacts, teachers_of
from limbeck.ledger.sqlite import SqliteLedger

_BATCH = 4096
_SENTENCES = 20

# Every count must be 0. A purge leaves attempts with a name of 17 bytes, which stands for nothing.
_COUNTS = {
    "reservations whose counters differ from their attempts": """
        SELECT COUNT(*) FROM reservations r LEFT JOIN (
            SELECT reservation, SUM(state = 'settled') a, SUM(state = 'failed') b,
                SUM(state = 'reserved') c, SUM(state = 'unknown') d,
                SUM(CASE WHEN state IN ('reserved', 'unknown') THEN worst ELSE price END) e
            FROM attempts GROUP BY reservation) t ON t.reservation = r.id
        WHERE (r.answered, r.failed, r.in_flight, r.unknown, r.micros) IS NOT (a, b, c, d, e)""",
    "totals of runs that differ from their reservations": """
        WITH sums AS (
            SELECT run, teacher, currency, SUM(answered), SUM(failed), SUM(in_flight),
                SUM(unknown), SUM(micros) FROM reservations GROUP BY run, teacher, currency)
        SELECT (SELECT COUNT(*) FROM (SELECT * FROM sums EXCEPT SELECT * FROM totals)) +
            (SELECT COUNT(*) FROM (SELECT * FROM totals EXCEPT SELECT * FROM sums))""",
    "answers of a teacher that is not there": """
        SELECT COUNT(*) FROM answers WHERE teacher NOT IN (SELECT id FROM teachers)""",
    "reservations for a teacher that is not there": """
        SELECT COUNT(*) FROM reservations WHERE teacher NOT IN (SELECT id FROM teachers)""",
    "attempts of a reservation that is not there": """
        SELECT COUNT(*) FROM attempts WHERE reservation NOT IN (SELECT id FROM reservations)""",
    "attempts of another teacher than their reservation's": """
        SELECT COUNT(*) FROM attempts a JOIN reservations r ON r.id = a.reservation
        WHERE a.teacher <> r.teacher""",
    "questions that were settled but have no answer": """
        SELECT COUNT(*) FROM (
            SELECT teacher, question FROM attempts WHERE state = 'settled' AND length(question) = 16
            EXCEPT SELECT teacher, question FROM answers)""",
    "answers that no attempt has settled": """
        SELECT COUNT(*) FROM (SELECT teacher, question FROM answers
            EXCEPT SELECT teacher, question FROM attempts WHERE state = 'settled')""",
    "answers whose question is not 16 bytes long": """
        SELECT COUNT(*) FROM answers WHERE length(question) <> 16""",
    "answers whose probabilities, embedding or spread have a wrong length": """
        SELECT COUNT(*) FROM answers a JOIN teachers t ON t.id = a.teacher
        WHERE length(probs) IS NOT 4 * num_classes OR length(embedding) IS NOT 2 * embedding_dim
            OR length(spread) IS NOT CASE WHEN has_spread THEN 4 * num_classes END""",
}


def verify(path: Path) -> list[str]:
    """Look for damage in a ledger; nothing is mended.

    Args:
        path: The file.

    Returns:
        A sentence for each kind of damage; none when the ledger is whole.

    Raises:
        StorageError: there is no such file, or it cannot be opened at all.

    Cost: a few passes over the file, about half a minute for 2,000,000 answers.
    """
    try:
        with SqliteLedger.existing(path) as ledger, ledger.reading() as connection:
            if damage := list(_damage(connection)):
                return damage
            found = [
                f"{count:,} {what}."
                for what, query in _COUNTS.items()
                if (count := connection.execute(query).fetchone()[0])
            ]
            for teacher in teachers_of(connection):
                found += _bad_rows(connection, teacher)
            return found
    except StorageError as error:
        if isinstance(error.__cause__, sqlite3.DatabaseError) and "damaged" in str(error):
            return [str(error)]
        raise


def _damage(connection: sqlite3.Connection) -> Iterator[str]:
    """What SQLite itself finds; without its word nothing else can be trusted."""
    rows = connection.execute(f"PRAGMA integrity_check({_SENTENCES})").fetchall()
    yield from (f"the file is damaged: {told}." for (told,) in rows if told != "ok")


def _bad_rows(connection: sqlite3.Connection, teacher: TeacherFacts) -> list[str]:
    """Probabilities that do not sum to 1, and values that are no numbers."""
    if teacher.num_classes is None:
        return []
    widths = (teacher.num_classes, teacher.embedding_dim or 0)
    sums = values = 0
    cursor = connection.execute(
        "SELECT probs, COALESCE(embedding, x''), COALESCE(spread, x'') FROM answers "
        "WHERE teacher = ? AND length(probs) = 4 * ?",
        (teacher.id, teacher.num_classes),
    )
    while rows := cursor.fetchmany(_BATCH):
        probs = unpack([row[0] for row in rows], "<f4", widths[0])
        good = torch.isfinite(probs).all(1) & (probs >= 0).all(1)
        sums += int((good & ((probs.sum(1) - 1).abs() > SUM_TOLERANCE)).sum())
        whole = [row[1] for row in rows if len(row[1]) == 2 * widths[1]]
        spread = [row[2] for row in rows if len(row[2]) == 4 * widths[0]]
        values += int((~good).sum())
        values += int((~torch.isfinite(unpack(whole, "<f2", widths[1])).all(1)).sum())
        values += int((~torch.isfinite(unpack(spread, "<f4", widths[0])).all(1)).sum())
    name = teacher.fingerprint[:SHORT]
    found = []
    if sums:
        found.append(f"{sums:,} answers of teacher {name} do not sum to 1 within {SUM_TOLERANCE}.")
    if values:
        found.append(f"{values:,} answers of teacher {name} hold what is no number in its range.")
    return found
