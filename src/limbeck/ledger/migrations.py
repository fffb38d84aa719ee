"""The ledger's schema, as numbered steps: step i brings a file from version i to version i + 1.

A file carries its version in `PRAGMA user_version` and Limbeck's mark in `PRAGMA application_id`.
A step that has been released is never edited; a change of schema is a new step at the end.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from limbeck.errors import StorageError

APPLICATION_ID = 0x4C4D424B  # "LMBK"


def _first_schema(connection: sqlite3.Connection) -> None:
    """Teachers, answers, reservations with an attempt a question, and an append-only log."""
    # Answers are an ordinary table with a narrow unique index: `known` reads the index alone, and
    # wide embeddings do not thin out the tree that every look-up walks.
    for statement in (
        """CREATE TABLE teachers (
            id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, info TEXT NOT NULL,
            num_classes INTEGER, embedding_dim INTEGER) STRICT""",
        """CREATE TABLE answers (
            id INTEGER PRIMARY KEY, teacher INTEGER NOT NULL REFERENCES teachers(id),
            question BLOB NOT NULL, probs BLOB NOT NULL, embedding BLOB, raw BLOB,
            price INTEGER NOT NULL, server_version TEXT, run TEXT NOT NULL,
            at INTEGER NOT NULL) STRICT""",
        "CREATE UNIQUE INDEX answers_key ON answers(teacher, question)",
        # The counters of a reservation are recomputed from its attempts whenever those change, so
        # that what a run has spent is a sum over batches, not over questions.
        """CREATE TABLE reservations (
            id INTEGER PRIMARY KEY, run TEXT NOT NULL, teacher INTEGER NOT NULL,
            owner TEXT NOT NULL, currency TEXT NOT NULL, at INTEGER NOT NULL,
            answered INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
            in_flight INTEGER NOT NULL DEFAULT 0, unknown INTEGER NOT NULL DEFAULT 0,
            micros INTEGER NOT NULL DEFAULT 0) STRICT""",
        "CREATE INDEX reservations_run ON reservations(run)",
        "CREATE INDEX reservations_open ON reservations(in_flight) WHERE in_flight > 0",
        """CREATE TABLE attempts (
            reservation INTEGER NOT NULL REFERENCES reservations(id),
            question BLOB NOT NULL, teacher INTEGER NOT NULL, worst INTEGER NOT NULL,
            state TEXT NOT NULL DEFAULT 'reserved'
                CHECK (state IN ('reserved', 'settled', 'failed', 'unknown', 'released')),
            price INTEGER NOT NULL DEFAULT 0, failure TEXT, raw BLOB,
            PRIMARY KEY (reservation, question)) STRICT, WITHOUT ROWID""",
        # The file itself refuses to have one question in flight twice.
        """CREATE UNIQUE INDEX attempts_in_flight ON attempts(teacher, question)
            WHERE state = 'reserved'""",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, run TEXT NOT NULL,
            detail TEXT NOT NULL) STRICT""",
        """CREATE TRIGGER events_stay BEFORE UPDATE ON events
            BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
        """CREATE TRIGGER events_last BEFORE DELETE ON events
            BEGIN SELECT RAISE(ABORT, 'events are append-only'); END""",
    ):
        connection.execute(statement)


def _add_spread(connection: sqlite3.Connection) -> None:
    """The spread of each probability over a teacher's members; no answer so far has one."""
    connection.execute("ALTER TABLE answers ADD COLUMN spread BLOB")
    # As with the widths, NULL says that the teacher has not answered yet.
    connection.execute("ALTER TABLE teachers ADD COLUMN has_spread INTEGER")
    connection.execute("UPDATE teachers SET has_spread = 0 WHERE num_classes IS NOT NULL")


def _add_totals(connection: sqlite3.Connection) -> None:
    """Running totals, a limit of the ledger's own, versions of failures, names for merging."""
    counters = ("answered", "failed", "in_flight", "unknown", "micros")
    sums = ", ".join(f"SUM({name})" for name in counters)
    news = ", ".join(f"NEW.{name}" for name in counters)
    changes = ", ".join(f"NEW.{name} - OLD.{name}" for name in counters)
    adding = ", ".join(f"{name} = {name} + excluded.{name}" for name in counters)
    for statement in (
        # Where each question has a reservation of its own, a sum over them would make a run of n
        # questions take n * n steps. The file itself keeps the totals in line.
        f"""CREATE TABLE totals (
            run TEXT NOT NULL, teacher INTEGER NOT NULL, currency TEXT NOT NULL,
            {", ".join(f"{name} INTEGER NOT NULL" for name in counters)},
            PRIMARY KEY (run, teacher, currency)) STRICT, WITHOUT ROWID""",
        f"""INSERT INTO totals SELECT run, teacher, currency, {sums} FROM reservations
            GROUP BY run, teacher, currency""",
        f"""CREATE TRIGGER reservations_begin AFTER INSERT ON reservations BEGIN
            INSERT INTO totals VALUES (NEW.run, NEW.teacher, NEW.currency, {news})
            ON CONFLICT DO UPDATE SET {adding}; END""",
        f"""CREATE TRIGGER reservations_count AFTER UPDATE ON reservations BEGIN
            INSERT INTO totals VALUES (NEW.run, NEW.teacher, NEW.currency, {changes})
            ON CONFLICT DO UPDATE SET {adding}; END""",
        """CREATE TABLE limits (
            id INTEGER PRIMARY KEY CHECK (id = 1), queries INTEGER, micros INTEGER,
            currency TEXT) STRICT""",
        "ALTER TABLE attempts ADD COLUMN server_version TEXT",
        """CREATE INDEX answers_version ON answers(teacher, server_version)
            WHERE server_version IS NOT NULL""",
        # Two copies of one file must give the same name to what both of them hold.
        "ALTER TABLE reservations ADD COLUMN uid BLOB",
        "UPDATE reservations SET uid = CAST(owner || '/' || at || '/' || id AS BLOB)",
        "CREATE UNIQUE INDEX reservations_uid ON reservations(uid)",
    ):
        connection.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _first_schema,
    _add_spread,
    _add_totals,
)


def check_file(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse, without a change to it, a file that this version cannot use.

    Raises:
        StorageError: the file belongs to another program, or to a newer Limbeck.
    """
    version = _pragma(connection, "user_version")
    ours = _pragma(connection, "application_id") == APPLICATION_ID
    used = version or connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
    if used and not ours:
        raise StorageError(
            f"{path} is an SQLite file of another program, expected a Limbeck ledger; "
            f"give another path."
        )
    if version > len(MIGRATIONS):
        raise StorageError(
            f"{path} has schema version {version} but this Limbeck knows versions up to "
            f"{len(MIGRATIONS)}; update Limbeck, the file was left as it is."
        )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the open file to the newest version, inside a transaction of the caller's.

    Raises:
        StorageError: as `check_file`.
    """
    check_file(connection, path)
    for step in MIGRATIONS[_pragma(connection, "user_version") :]:
        step(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether the open file is a ledger of the newest version."""
    return _pragma(connection, "application_id") == APPLICATION_ID and _pragma(
        connection, "user_version"
    ) == len(MIGRATIONS)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
