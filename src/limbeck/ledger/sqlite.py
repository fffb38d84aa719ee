"""A ledger in one SQLite file, shared by any number of runs, threads and processes.

An answer is found by what was asked (question id) and whom (teacher fingerprint). Every change is
one transaction that is on the disk when the call returns, so a kill or a power cut at any moment
leaves either all of it or nothing of it.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.errors import ConfigError, DataError, StorageError
from limbeck.ledger import attempts, budgets, tables
from limbeck.ledger.base import Budget, Limit, Reservation, Spending
from limbeck.ledger.codec import id_keys
from limbeck.ledger.connections import Connections, ledger_errors
from limbeck.ledger.history import History, read_history
from limbeck.ledger.orders import Order, failed_questions, open_orders
from limbeck.ledger.owners import ORDER
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
            with self.writing() as connection:
                attempts.free_the_dead(connection)
        except BaseException:
            self.close()
            raise

    @classmethod
    def existing(cls, path: Path) -> Self:
        """Open a ledger that is there.

        Raises:
            StorageError: there is none, the file is empty, or as for opening.
        """
        if not path.is_file():
            raise StorageError(f"there is no ledger {path}; give the path of one.")
        if path.stat().st_size == 0:
            raise StorageError(
                f"{path} is empty, expected a ledger; put a copy back, or remove the file."
            )
        return cls(path)

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
        with self.writing() as connection:
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

        Cost: O(n log m) for m answers; about a byte of memory a question, and 6 MB.
        """
        found = np.zeros(len(ids), dtype=np.bool_)
        with ledger_errors(self.path):
            connection = self._connections.get()
            teacher = tables.find_teacher(connection, fingerprint)
            if teacher is None:
                return found
            for chunk in tables.in_order(ids):
                keys = id_keys(ids[chunk])
                answered = tables.answered(connection, teacher.id, keys)
                found[chunk] = [key in answered for key in keys]
        return found

    def reserve(
        self,
        run: str,
        fingerprint: str,
        ids: NDArray[np.uint8],
        worst: Money,
        budget: Budget,
        *,
        shares: NDArray[np.int64] | None = None,
        order: bool = False,
    ) -> Reservation:
        """Take distinct unanswered questions out of the budget, in order, as many as fit.

        Questions that have an answer, or are in flight in a live process, are left out. The limit
        of the ledger holds too.

        Args:
            run: Whose budget it is.
            fingerprint: The teacher's.
            ids: Question ids, uint8, shape (n, 16), distinct.
            worst: The most that asking all of them can cost.
            budget: What the run may spend in all, earlier spending included.
            shares: The most that each of them can cost, in millionths, int64, shape (n,), `worst`
                in all; without it each counts for an equal share.
            order: The reservation waits for people: it stays when this process ends, until it is
                recorded or released.

        Returns:
            The questions granted; none when all are answered or in flight.

        Raises:
            BudgetError: some question could be asked but not even one more fits.
            ConfigError: the currency is not that of the budget or of the run's earlier spending,
                or `shares` do not add up to `worst`.
        """
        keys = id_keys(ids)
        each = budgets.worst_shares(worst, shares, len(keys))
        with self.writing() as connection:
            attempts.free_the_dead(connection)
            teacher = tables.add_teacher(connection, fingerprint).id
            free = attempts.free_questions(connection, teacher, keys)
            # Equal shares fall on the first free questions, others stay with their own.
            held = each[: len(free)] if shares is None else budgets.shares_of(free, keys, each)
            fit = budgets.check_fit(
                connection, run, shares=held, currency=worst.currency, budget=budget
            )
            return attempts.insert_reservation(
                connection,
                run,
                teacher,
                keys=free[:fit],
                shares=held[:fit],
                currency=worst.currency,
                owner=ORDER + run if order else "",
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
        with self.writing() as connection:
            run, teacher = attempts.owner_of(connection, reservation)
            news = attempts.outcomes(connection, reservation, replies, answers, keep_raw)
            tables.check_width(connection, teacher, answers)
            tables.write_answers(connection, run, teacher, answers, news)
            attempts.settle(connection, reservation.key, news)
            failed = sum(new.failure is not None for new in news)
            tables.log(
                connection,
                "record",
                run,
                reservation=reservation.key,
                answered=len(news) - failed,
                failed=failed,
                price=sum(new.price for new in news),
                over=sum(new.over for new in news),
            )

    def release(
        self, reservation: Reservation, *, unknown: bool, ids: NDArray[np.uint8] | None = None
    ) -> None:
        """Give back what was not recorded; `unknown` marks questions that may have been billed.

        Unknown questions stay counted, at their worst price, but may be asked again, under a new
        reservation. With `ids`, uint8 of shape (m, 16), only those questions end.

        Raises:
            ConfigError: one of `ids` is no question of the reservation.
        """
        if len(reservation.ids) == 0:
            return
        with self.writing() as connection:
            run, _ = attempts.owner_of(connection, reservation)
            keys = None if ids is None else id_keys(ids)
            attempts.close_attempts(connection, reservation.key, run, unknown=unknown, keys=keys)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make all changes of this thread in the block one transaction, with one wait for the disk.

        Use nothing of it before the block has ended: an exception that leaves the block undoes all
        of it. A call that fails inside, and whose exception is caught inside, undoes itself alone.
        Do not wait for anything in the block: other writers wait for its end.
        """
        with self.writing() as connection:
            yield
            if not connection.in_transaction:
                raise StorageError(
                    f"the ledger {self.path} gave up a transaction after an error of the disk; "
                    f"nothing of it was written, run the same command again."
                )

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
            parts = tables.unpacked(rows, teacher or tables.TeacherRow(0, 0, None, None))
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

    def versions(self, fingerprint: str) -> dict[str, int]:
        """Answers under each version string that the teacher's server gave, oldest string first."""
        with ledger_errors(self.path):
            return tables.versions_of(self._connections.get(), fingerprint)

    def orders(self, run: str, fingerprint: str) -> list[Order]:
        """What a run has out with people of this teacher, oldest first."""
        with ledger_errors(self.path):
            return open_orders(self._connections.get(), run, fingerprint)

    def failed(self, run: str, fingerprint: str) -> NDArray[np.uint8]:
        """Questions that a run has asked this teacher without getting an answer, (n, 16)."""
        with ledger_errors(self.path):
            return failed_questions(self._connections.get(), run, fingerprint)

    def unreadable(self, run: str, fingerprint: str) -> NDArray[np.uint8]:
        """Those of `failed` that had a reply which is no answer, or a price, (n, 16).

        Asking them once more would be paid for once more; what never cost anything is not here.
        """
        with ledger_errors(self.path):
            return failed_questions(self._connections.get(), run, fingerprint, paid=True)

    def spent(self, run: str) -> Spending:
        """What a run has spent so far; unknown questions count at their worst price."""
        with ledger_errors(self.path):
            return budgets.spending(self._connections.get(), run)

    def limit(self) -> Limit:
        """What all runs of this ledger may spend together."""
        with ledger_errors(self.path):
            return budgets.ledger_limit(self._connections.get())

    def set_limit(self, limit: Limit) -> None:
        """Keep another limit for all runs together; `Limit()` takes it away.

        It may be below what has been spent: then nothing more is granted.

        Raises:
            ConfigError: a number is below 0.
        """
        with self.writing() as connection:
            budgets.set_ledger_limit(connection, limit)
            micros = -1 if limit.money is None else limit.money.micros
            queries = -1 if limit.queries is None else limit.queries
            tables.log(connection, "limit", "", queries=queries, micros=micros)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read one state of the file in the block, whatever others write meanwhile."""
        with ledger_errors(self.path):
            connection = self._connections.get()
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")  # nothing was written

    @contextmanager
    def alone(self) -> Iterator[sqlite3.Connection]:
        """Give this thread's connection outside a transaction, for what SQLite does on its own.

        Raises:
            ConfigError: a transaction of this thread is open.
        """
        with ledger_errors(self.path):
            connection = self._connections.get()
            if connection.in_transaction:
                raise ConfigError("this cannot be a part of `together`; do it before or after.")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write everything in the block, or nothing of it; inside another, as a part of that."""
        with ledger_errors(self.path):
            connection = self._connections.get()
            # Only this thread uses the connection, so an open transaction is a block around this.
            part = connection.in_transaction
            # IMMEDIATE takes the writer's place before reading, so two processes cannot both see
            # the same room in a budget.
            try:
                # Inside: Ctrl-C may come when the lock is there but this call has not returned.
                connection.execute("SAVEPOINT part" if part else "BEGIN IMMEDIATE")
                yield connection
                if part:
                    connection.execute("RELEASE part")
                else:
                    self._commit(connection)
            except BaseException:
                if connection.in_transaction and not part:
                    connection.execute("ROLLBACK")
                elif connection.in_transaction:
                    # Ctrl-C may come before the part has begun; then its whole is undone.
                    with suppress(sqlite3.OperationalError):
                        connection.execute("ROLLBACK TO part")
                        connection.execute("RELEASE part")
                raise

    def _commit(self, connection: sqlite3.Connection) -> None:
        """The one place where a change becomes real; tests put their faults here."""
        connection.execute("COMMIT")
