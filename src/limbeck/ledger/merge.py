"""Take another ledger's answers and spending into this one, once, however often it is merged."""

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from limbeck.errors import AnswerError, ConfigError, StorageError
from limbeck.ledger import tables
from limbeck.ledger.attempts import recount
from limbeck.ledger.connections import ledger_errors
from limbeck.ledger.facts import SHORT
from limbeck.ledger.migrations import check_file, is_current, migrate
from limbeck.ledger.sqlite import SqliteLedger

_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge came to.

    Args:
        teachers: Teachers that are new here.
        answers: Answers that are new here.
        replaced: Answers that an older one of the other ledger has taken the place of.
        reservations: Purchases that are new here: their spending is counted from now on.
        updated: Purchases known from an earlier merge whose end is known by now.
    """

    teachers: int
    answers: int
    replaced: int
    reservations: int
    updated: int

    def to_dict(self) -> dict[str, int]:
        """Plain JSON values."""
        return asdict(self)


def merge(ledger: SqliteLedger, other: Path) -> Merged:
    """Take teachers, answers and attempts of another ledger into this one, in one transaction.

    Where both have an answer, the one recorded first stays. Spending is counted under the names of
    its runs, once: a purchase that came with an earlier merge, or from here, is known again.
    Questions in flight there count here as unknown, until a later merge tells how they ended. The
    other ledger stays as it is; its limit and its events do not come along.

    Args:
        ledger: Which one grows.
        other: File of the other one, of any version up to this one.

    Raises:
        ConfigError: both are one file.
        AnswerError: a teacher's answers have another form there than here.
        StorageError: the other file cannot be read.

    Cost: about 20 microseconds an answer.
    """
    if not other.is_file():
        raise StorageError(f"there is no ledger {other}; give the path of one.")
    if other.samefile(ledger.path):
        raise ConfigError(f"{other} is this ledger itself; give another one.")
    with _opened(other) as source, ledger.writing() as connection:
        teachers, new_teachers = _teachers(source, connection)
        answers, replaced = _answers(source, connection, teachers)
        new, updated = _reservations(source, connection, teachers)
        merged = Merged(new_teachers, answers, replaced, new, updated)
        if any(merged.to_dict().values()):
            tables.log(connection, "merge", "", **merged.to_dict())
    return merged


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """One state of a ledger, read without a change to it; an older version is read from a copy."""
    with ledger_errors(path), closing(_read_only(path)) as source:
        check_file(source, path)
        if is_current(source):
            source.execute("BEGIN")
            yield source
            return
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(sqlite3.connect(Path(folder) / "copy.sqlite", isolation_level=None)) as copy,
        ):
            source.backup(copy)
            migrate(copy, path)
            yield copy


def _read_only(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.resolve()))}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _teachers(
    source: sqlite3.Connection, connection: sqlite3.Connection
) -> tuple[dict[int, int], int]:
    """The row here of each teacher there, and how many are new."""
    rows, new = {}, 0
    for key, fingerprint, info, *form in source.execute(
        "SELECT id, fingerprint, info, num_classes, embedding_dim, has_spread FROM teachers"
    ):
        before = tables.find_teacher(connection, fingerprint)
        here = before or tables.add_teacher(connection, fingerprint)
        rows[key] = here.id
        if before is None:
            connection.execute("UPDATE teachers SET info = ? WHERE id = ?", (info, here.id))
        if form[0] is not None and here.num_classes is None:
            connection.execute(
                "UPDATE teachers SET num_classes = ?, embedding_dim = ?, has_spread = ? "
                "WHERE id = ?",
                (*form, here.id),
            )
        elif form[0] is not None and list(here[1:]) != form:
            raise AnswerError(
                f"teacher {fingerprint[:SHORT]} has {form[0]} probabilities, an embedding of "
                f"{form[1] or 'no'} values and {'a' if form[2] else 'no'} spread there but another "
                f"form here; nothing was merged."
            )
        new += before is None
    return rows, new


def _answers(
    source: sqlite3.Connection, connection: sqlite3.Connection, teachers: dict[int, int]
) -> tuple[int, int]:
    """Insert or replace answers; give how many are new and how many were replaced."""
    before = _count(connection)
    written = 0
    for rows in _batches(
        source,
        """SELECT teacher, question, probs, embedding, spread, raw, price, server_version, run, at
        FROM answers ORDER BY id""",
    ):
        written += connection.executemany(
            """INSERT INTO answers (teacher, question, probs, embedding, spread, raw, price,
                server_version, run, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (teacher, question) DO UPDATE SET probs = excluded.probs,
                embedding = excluded.embedding, spread = excluded.spread, raw = excluded.raw,
                price = excluded.price, server_version = excluded.server_version,
                run = excluded.run, at = excluded.at
            WHERE excluded.at < answers.at""",
            [(teachers[teacher], *rest) for teacher, *rest in rows],
        ).rowcount
    new = _count(connection) - before
    return new, written - new


def _reservations(
    source: sqlite3.Connection, connection: sqlite3.Connection, teachers: dict[int, int]
) -> tuple[int, int]:
    """Take purchases over by their names; give how many are new and how many have news."""
    new = updated = 0
    for key, run, teacher, owner, currency, at, uid in source.execute(
        "SELECT id, run, teacher, owner, currency, at, uid FROM reservations ORDER BY id"
    ):
        attempts = _attempts(source, key)
        here = connection.execute("SELECT id FROM reservations WHERE uid = ?", (uid,)).fetchone()
        if here is None:
            cursor = connection.execute(
                "INSERT INTO reservations (run, teacher, owner, currency, at, uid) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (run, teachers[teacher], owner, currency, at, uid),
            )
            connection.executemany(
                """INSERT INTO attempts (reservation, question, teacher, worst, state, price,
                failure, raw, server_version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
                [
                    (cursor.lastrowid, question, teachers[teacher], *rest)
                    for question, *rest in attempts
                ],
            )
            assert cursor.lastrowid is not None  # the row was just inserted
            recount(connection, cursor.lastrowid)
            new += 1
        elif _update(connection, here[0], attempts):
            recount(connection, here[0])
            updated += 1
    return new, updated


_Attempt = tuple[bytes, int, str, int, str | None, bytes | None, str | None]


def _attempts(source: sqlite3.Connection, reservation: int) -> list[_Attempt]:
    """Attempts of a purchase; nobody here can record what is in flight there."""
    rows = source.execute(
        """SELECT question, worst, CASE WHEN state <> 'reserved' THEN state
            WHEN worst > 0 THEN 'unknown' ELSE 'released' END,
            price, failure, raw, server_version FROM attempts WHERE reservation = ?""",
        (reservation,),
    )
    return rows.fetchall()


def _update(connection: sqlite3.Connection, reservation: int, attempts: Sequence[_Attempt]) -> bool:
    """Tell how questions ended that were in flight when the purchase came here."""
    changed = connection.executemany(
        """UPDATE attempts SET state = ?, price = ?, failure = ?, raw = ?, server_version = ?
        WHERE reservation = ? AND question = ? AND state IN ('unknown', 'released')
            AND state <> ?""",
        [
            (state, price, failure, raw, version, reservation, question, state)
            for question, _, state, price, failure, raw, version in attempts
            if state != "unknown"
        ],
    ).rowcount
    return changed > 0


def _batches(source: sqlite3.Connection, query: str) -> Iterator[list[tuple[int, object]]]:
    cursor = source.execute(query)
    while rows := cursor.fetchmany(_BATCH):
        yield rows


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COUNT(*) FROM answers").fetchone()[0])
