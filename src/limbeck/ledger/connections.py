"""SQLite connections that threads and forked processes can share a ledger through."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.errors import StorageError
from limbeck.ledger.migrations import check_file, is_current, migrate

BUSY_SECONDS = 60.0
_CACHE_KIB = 32 * 1024

# A connection must not be used, nor even closed, in a forked child: these are kept out of reach.
_inherited: list[sqlite3.Connection] = []

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and run the same command again",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only; choose another folder",
    sqlite3.SQLITE_PERM: "permission is denied; choose another folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its folder exists and is writable",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; put a copy back or choose another path",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite file or is damaged; choose another path",
    sqlite3.SQLITE_IOERR: "reading or writing failed; check the disk and its free space",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; run the same command again later",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked; run the same command again later",
}
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def ledger_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says about `path` into one clear sentence.

    Raises:
        StorageError: full disk, read-only folder, damaged file, file locked for a minute.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        if code not in _ADVICE:
            raise
        kept = "" if code in _BROKEN else "; every answer recorded before is kept"
        raise StorageError(
            f"the ledger {path} could not be used: {_ADVICE[code]}{kept}."
        ) from error


class Connections:
    """One connection a thread, opened when first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = os.getpid()
        self._open: dict[int, sqlite3.Connection] = {}
        self._closed = False

    def get(self) -> sqlite3.Connection:
        """Give this thread's connection.

        Raises:
            StorageError: the ledger was closed, or cannot be opened.
        """
        if self._closed:
            raise StorageError(f"the ledger {self._path} was closed; open it again to use it.")
        if self._pid != os.getpid():
            _inherited.extend(self._open.values())
            self._open, self._pid = {}, os.getpid()
        # A thread that has ended leaves its connection to the next one with the same number.
        connection = self._open.get(threading.get_ident())
        if connection is None:
            connection = _connect(self._path)
            self._open[threading.get_ident()] = connection
        return connection

    def close(self) -> None:
        """Close every connection of this process; closing twice is fine."""
        if self._pid == os.getpid():
            for connection in self._open.values():
                connection.close()
        else:
            _inherited.extend(self._open.values())
        self._open, self._closed = {}, True


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        # FULL: in WAL mode the default would let a power cut take back what has been paid for.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA foreign_keys = ON")
        if not is_current(connection):
            check_file(connection, path)
            _use_wal(connection)
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection, path)
            connection.execute("COMMIT")
    except BaseException:  # Ctrl-C too must not leave the file locked
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to a write-ahead log, however many processes do so at the same moment.

    SQLite does not wait for the lock of this one change: it says at once that the file is busy.
    """
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.02)
