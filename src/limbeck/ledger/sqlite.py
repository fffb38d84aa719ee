"""A ledger in one SQLite file, shared by any number of runs, threads and processes.

An answer is found by what was asked (question id) and whom (teacher fingerprint). Every change is
one transaction that is on the disk when the call returns, so a kill or a power cut at any moment
leaves either all of it or nothing of it.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import BudgetError, DataError, StorageError
from limbeck.ledger import tables
from limbeck.ledger.base import Budget, Reservation, Spending
from limbeck.ledger.codec import id_keys, unpack
from limbeck.ledger.connections import Connections, ledger_errors
from limbeck.ledger.history import History, read_history
from limbeck.storage import storage_errors
from limbeck.teachers.base import Money, Replies


class SqliteLedger:
    """Answers, reservations and what each run has spent, in one file.

    Args:
        path: The file; it is made when it does not exist.

    Raises:
        StorageError: full disk, read-only folder, damaged file, file of a newer Limbeck.

    Cost: about 4 C + 2 D + 200 bytes an answer on the disk, 4 C more with a spread; 32 MiB of cache
    a thread at most.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._connections = Connections(path)
        try:
            with self._transaction() as connection:
                tables.free_the_dead(connection)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._connections.close()

    def describe(self, fingerprint: str, info: Mapping[str, object]) -> None:
        """Keep plain JSON facts about a teacher (its classes, its columns) beside its answers."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE teachers SET info = ? WHERE id = ?",
                (json.dumps(dict(info)), tables.add_teacher(connection, fingerprint).id),
            )

    def known(self, fingerprint: str, ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of these questions have an answer.

        Args:
            fingerprint: The teacher's.
            ids: Question ids, uint8, shape (n, 16), repeats allowed.

        Returns:
            bool, shape (n,).

        Cost: O(n log m) for m answers; about 20 bytes of memory a question.
        """
        found = np.zeros(len(ids), dtype=np.bool_)
        with ledger_errors(self.path):
            connection = self._connections.get()
            teacher = tables.find_teacher(connection, fingerprint)
            if teacher is None:
                return found
            # In the order of the index, neighbours share its pages.
            order = np.argsort(np.ascontiguousarray(ids).view(">u8")[:, 0])
            for start in range(0, len(ids), tables.CHUNK):
                chunk = order[start : start + tables.CHUNK]
                keys = id_keys(ids[chunk])
                answered = tables.answered(connection, teacher.id, keys)
                found[chunk] = [key in answered for key in keys]
        return found

    def reserve(
        self, run: str, fingerprint: str, ids: NDArray[np.uint8], worst: Money, budget: Budget
    ) -> Reservation:
        """Take distinct unanswered questions out of the budget, in order, as many as fit.

        Questions that have an answer, or are in flight in a live process, are left out.

        Args:
            run: Whose budget it is.
            fingerprint: The teacher's.
            ids: Question ids, uint8, shape (n, 16), distinct.
            worst: The most that asking all of them can cost; each counts for an equal share.
            budget: What the run may spend in all, earlier spending included.

        Returns:
            The questions granted; none when all are answered or in flight.

        Raises:
            BudgetError: some question could be asked but not even one more fits.
            ConfigError: the currency is not that of the budget or of the run's earlier spending.
        """
        with self._transaction() as connection:
            tables.free_the_dead(connection)
            teacher = tables.add_teacher(connection, fingerprint).id
            free = tables.free_questions(connection, teacher, id_keys(ids))
            before = tables.spending(connection, run)
            tables.check_currency(run, worst, budget, before)
            shares = tables.equal_shares(worst, len(ids))[: len(free)]
            fit = tables.how_many_fit(shares, budget, before)
            if free and fit == 0:
                raise BudgetError(
                    f"run {run!r} has spent {before.queries} of {budget.queries} queries and "
                    f"{before.money} of {budget.money or 'unlimited money'}, so not one of "
                    f"{len(free)} more questions fits; raise the budget to go on."
                )
            return tables.insert_reservation(
                connection,
                run,
                teacher,
                keys=free[:fit],
                shares=shares[:fit],
                currency=worst.currency,
            )

    def record(
        self, reservation: Reservation, replies: Replies, answers: Answers, keep_raw: bool
    ) -> None:
        """Write replies and answers and settle their price, in one transaction.

        Questions of `replies` that `answers` lacks are recorded as failures. Recording a question
        twice changes nothing; a reply that comes after its reservation was released still counts.

        Raises:
            AnswerError: the answers have another width than the teacher's earlier ones.
            ConfigError: a reply belongs to no question of the reservation.
        """
        if len(reservation.ids) == 0:
            return
        with self._transaction() as connection:
            run, teacher = tables.owner_of(connection, reservation)
            news = tables.outcomes(connection, reservation, replies, answers, keep_raw)
            tables.check_width(connection, teacher, answers)
            tables.write_answers(connection, run, teacher, answers, news)
            tables.settle(connection, reservation.key, news)
            failed = sum(new.failure is not None for new in news)
            tables.log(
                connection,
                "record",
                run,
                reservation=reservation.key,
                answered=len(news) - failed,
                failed=failed,
                price=sum(new.price for new in news),
            )

    def release(self, reservation: Reservation, *, unknown: bool) -> None:
        """Give back what was not recorded; `unknown` marks questions that may have been billed.

        Unknown questions stay counted, at their worst price, but may be asked again.
        """
        if len(reservation.ids) == 0:
            return
        with self._transaction() as connection:
            run, _ = tables.owner_of(connection, reservation)
            tables.close_attempts(connection, reservation.key, run, unknown=unknown)

    def answers(self, fingerprint: str, ids: NDArray[np.uint8]) -> Answers:
        """Read answers in the order of `ids`, repeats allowed.

        Args:
            fingerprint: The teacher's.
            ids: Question ids, uint8, shape (n, 16).

        Returns:
            Probabilities float32 (n, C); embeddings float32 (n, D) read from float16, or None;
            spread float32 (n, C), or None.

        Raises:
            DataError: a question has no answer.
            StorageError: the file is damaged.

        Cost: about 10 microseconds a row in batches of 256 to 1,024.
        """
        keys = id_keys(ids)
        with ledger_errors(self.path):
            connection = self._connections.get()
            teacher = tables.find_teacher(connection, fingerprint)
            distinct = list(dict.fromkeys(keys))
            found = tables.read_answers(connection, teacher.id, distinct) if teacher else {}
        if missing := next((key for key in keys if key not in found), None):
            raise DataError(
                f"question {missing.hex()} has no answer of teacher {fingerprint[:16]} in "
                f"{self.path}; buy it before reading it."
            )
        rows = [found[key] for key in keys]
        try:
            parts = _unpacked(rows, teacher or tables.TeacherRow(0, 0, None, None))
        except (ValueError, TypeError) as error:
            raise StorageError(
                f"the ledger {self.path} holds an answer of the wrong length; the file is damaged, "
                f"put a copy back or choose another path."
            ) from error
        return Answers(ids, *parts)

    def history(self, fingerprint: str) -> History:
        """What a teacher's last questions have cost, and how long they took; whoever asked them."""
        with ledger_errors(self.path):
            connection = self._connections.get()
            teacher = tables.find_teacher(connection, fingerprint)
            return History.empty() if teacher is None else read_history(connection, teacher.id)

    def spent(self, run: str) -> Spending:
        """What a run has spent so far; unknown questions count at their worst price."""
        with ledger_errors(self.path):
            return tables.spending(self._connections.get(), run)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write everything in the block, or nothing of it."""
        with ledger_errors(self.path):
            connection = self._connections.get()
            # IMMEDIATE takes the writer's place before reading, so two processes cannot both see
            # the same room in a budget.
            try:
                # Inside: Ctrl-C may come when the lock is there but this call has not returned.
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                self._commit(connection)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _commit(self, connection: sqlite3.Connection) -> None:
        """The one place where a change becomes real; tests put their faults here."""
        connection.execute("COMMIT")


def _unpacked(
    rows: Sequence[tables.Packed], teacher: tables.TeacherRow
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
