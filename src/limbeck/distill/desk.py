"""A run's questions to people while its rows and its ledger are open: out, written, recorded."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.data.ids import ID_BYTES, contains, distinct
from limbeck.distill.buying import HUMAN
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import LABEL_FILE, Listener, RunFolder
from limbeck.distill.pool_choice import choose_pool
from limbeck.distill.questions import AnswerBook, check_budget, check_money, questions
from limbeck.distill.round_files import rows_of_rounds
from limbeck.distill.run import load_teacher, run_id
from limbeck.distill.staging import stage
from limbeck.errors import ConfigError
from limbeck.ledger import Budget, SqliteLedger
from limbeck.ledger.orders import Order
from limbeck.teachers import Money
from limbeck.teachers.human import NOT_SURE, replies_of
from limbeck.teachers.imports import importable
from limbeck.teachers.sheets import write_sheet

if TYPE_CHECKING:
    from limbeck.distill.votes import Votes

ORDERS = "orders"
_SPLITS = ("validation", "test", "pool")


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions that went out.

    Args:
        path: The file, or None when there was nothing to ask.
        run: Folder of the run.
        rows: Questions of each split in it.
        out: Questions that are out with people now, earlier files included.
        unasked: Questions that could go out next.
        price: Most that the answers in this file can cost.
    """

    path: Path | None
    run: Path
    rows: dict[str, int]
    out: int
    unasked: int
    price: Money

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; money in millionths of the currency."""
        return {
            "path": None if self.path is None else str(self.path),
            "run": str(self.run),
            "rows": self.rows,
            "out": self.out,
            "unasked": self.unasked,
            "price": self.price.micros,
            "currency": self.price.currency,
        }

    def text(self) -> str:
        """A few lines for a person."""
        if self.path is None:
            return f"nothing to ask: {self.out:,} questions are out with people, none is left"
        parts = ", ".join(f"{n:,} {name}" for name, n in self.rows.items() if n)
        return "\n".join(
            [
                f"wrote     {self.path}",
                f"rows      {sum(self.rows.values()):,} ({parts}); {self.out:,} are out in all, "
                f"{self.unasked:,} are left to ask",
                *([f"price     at most {self.price}"] if self.price.micros else []),
                f"next      fill in the column label, or write {NOT_SURE} there; then",
                f"          limbeck tell {self.run / LABEL_FILE} {self.path}",
            ]
        )


@dataclass(frozen=True, slots=True)
class Told:
    """Answers that came back.

    Args:
        answered: Questions that have an answer now and had none before.
        not_sure: Questions that nobody could tell.
        empty: Lines without a label; their questions are still out.
        before: Questions that were told before, with the same label.
        left_out: What was wrong with lines that were left out, at the user's word.
        out: Questions that are still out with people.
        price: What the answers have cost.
    """

    answered: int
    not_sure: int
    empty: int
    before: int
    left_out: tuple[str, ...]
    out: int
    price: Money

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; money in millionths of the currency."""
        return {
            "answered": self.answered,
            "not_sure": self.not_sure,
            "empty": self.empty,
            "before": self.before,
            "left_out": list(self.left_out),
            "out": self.out,
            "price": self.price.micros,
            "currency": self.price.currency,
        }

    def text(self) -> str:
        """A few lines for a person."""
        return "\n".join(
            [
                f"answers   {self.answered:,} recorded, {self.not_sure:,} not sure, "
                f"{self.before:,} told before",
                *(f"left out  {sentence}" for sentence in self.left_out),
                f"out       {self.out:,} questions are still out with people "
                f"({self.empty:,} lines were empty)",
                *([f"price     {self.price}"] if self.price.micros else []),
            ]
        )


class Desk:
    """A run's questions to people, with its rows and its ledger open."""

    def __init__(self, config: DistillConfig, listener: Listener) -> None:
        check_kind(config)
        self.config = config
        self.folder = RunFolder(config.out, listener)
        self.folder.check(config)
        with importable(config.code), self.folder.collecting_warnings():
            self.splits = stage(config, self.folder)
            self.teacher = load_teacher(config, self.splits, self.folder)
        self.asked = questions(self.splits, self.teacher)
        self.ledger = SqliteLedger(config.ledger)
        self.book = AnswerBook(self.ledger, self.teacher.fingerprint)
        self.run = run_id(self.folder)

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close()

    def orders(self) -> list[Order]:
        """What is out."""
        return self.ledger.orders(self.run, self.teacher.fingerprint)

    def out(self) -> NDArray[np.uint8]:
        """Questions that are out, (n, 16)."""
        none = np.zeros((0, 16), np.uint8)
        return np.concatenate([none, *(order.reservation.ids for order in self.orders())])

    def order(self, rows: int, path: Path | None, agree: Callable[[Money], None]) -> Asked:
        """Reserve the next questions and write them."""
        if self.ledger.spent(self.run).queries == 0:
            check_budget(self.config, self.asked, self.book)
            check_money(self.config, self.splits, self.teacher, self.asked, self.book)
        if path is not None and path.exists():
            raise ConfigError(f"{path} exists, perhaps with labels in it; give another file.")
        self.folder.claim(self.config, file=LABEL_FILE)
        queue = self._unasked()
        wanted = queue[:rows]
        if not len(wanted):
            return Asked(None, self.config.out, {}, len(self.out()), 0, Money(0))
        worst = self.teacher.quote(self._rows(self._places(wanted)))
        agree(worst)
        money = self.config.money
        limit = Money(round(money * 1e6), self.config.teacher.currency) if money else None
        info = {"classes": list(self.teacher.classes), "columns": list(self.teacher.columns)}
        self.ledger.describe(self.teacher.fingerprint, info)
        made = self.ledger.reserve(
            self.run,
            self.teacher.fingerprint,
            wanted,
            worst,
            Budget(self.config.budget, limit),
            order=True,
        )
        if not len(made.ids):
            raise ConfigError(
                "another command has just asked these questions; run the same command again."
            )
        return self.write(made.ids, path, str(made.key), made.worst)

    def write(self, ids: NDArray[np.uint8], path: Path | None, name: str, price: Money) -> Asked:
        """Write questions into a file."""
        path = path or _fresh(self.config.out / ORDERS / f"{name}.csv")
        schema = self.splits.schema
        places = self._places(ids)
        write_sheet(
            path,
            ids,
            self._rows(places),
            columns=self.teacher.columns,
            images=schema.image,
            question=self.config.teacher.question,
            classes=schema.classes,
        )
        counts = Counter(_SPLITS[split] for split, _ in places)
        rows = {name: counts[name] for name in _SPLITS}
        out = len(self.out())
        self.folder.log("people", f"{len(ids)} questions written to {path}", out=out)
        return Asked(path, self.config.out, rows, out, len(self._unasked()), price)

    def record(self, votes: "Votes") -> Told:
        """Record votes as answers, all in one transaction."""
        price = self.config.teacher.price_per_answer
        answered, spent = 0, 0
        with self.ledger.together():
            for order in self.orders():
                own = [key for key in order.reservation.ids if bytes(key) in votes.of]
                if not own:
                    continue
                ids = np.stack(own)
                counts = [votes.of[bytes(key)] for key in ids]
                replies = replies_of(ids, counts, price=price)
                answers, ok = self.teacher.parse(replies)
                self.ledger.record(order.reservation, replies, answers, keep_raw=True)
                answered += int(ok.sum())
                spent += int(replies.price.sum())
        told = Told(
            answered=answered,
            not_sure=len(votes.of) - answered,
            empty=votes.empty,
            before=votes.before,
            left_out=tuple(votes.problems),
            out=len(self.out()),
            price=Money(spent, self.config.teacher.currency),
        )
        self.folder.log("people", f"{told.answered} answers read, {told.out} questions are out")
        return told

    def _unasked(self) -> NDArray[np.uint8]:
        """Distinct questions that can go out next, in their order, (n, 16)."""
        ids = self._queue()
        first, _ = distinct(ids)
        ids = ids[first]
        gone = self.book.known(ids) | contains(self.out(), ids)
        gone |= contains(self.ledger.failed(self.run, self.teacher.fingerprint), ids)
        return ids[~gone]

    def _queue(self) -> NDArray[np.uint8]:
        """Questions of the run in the order in which they go out, answered ones among them."""
        before = [self.asked.validation, *([self.asked.test] if self.config.ask_test else [])]
        pool = self.asked.pool[self._pool_rows(np.concatenate(before))]
        # Drawn rows are in the order of the file, of which the first part is no fair sample.
        shuffled = np.random.default_rng(self.config.seed).permutation(len(pool))
        return np.concatenate([*before, pool[shuffled]])

    def _pool_rows(self, before: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Pool rows to ask about: those chosen in rounds so far, or as many as the budget holds."""
        if self.config.buy.in_rounds:
            return rows_of_rounds(self.folder)
        first, _ = distinct(before)
        ids = before[first]
        gone = self.book.known(ids) | contains(self.out(), ids)
        gone |= contains(self.ledger.failed(self.run, self.teacher.fingerprint), ids)
        left = self.config.budget - self.ledger.spent(self.run).queries - int((~gone).sum())
        return choose_pool(self.config, self.asked.pool, self.book, self.folder, left=max(left, 0))

    def _places(self, ids: NDArray[np.uint8]) -> list[tuple[int, int]]:
        found = self.of_run([bytes(key) for key in ids])
        return [found[bytes(key)] for key in ids]

    def of_run(self, keys: Collection[bytes]) -> dict[bytes, tuple[int, int]]:
        """Split and row of those of these questions that the run has; the first row of several."""
        wanted = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, ID_BYTES)
        found: dict[bytes, tuple[int, int]] = {}
        for split, ids in enumerate((self.asked.validation, self.asked.test, self.asked.pool)):
            for row in np.flatnonzero(contains(wanted, ids)).tolist():
                found.setdefault(bytes(ids[row]), (split, row))
        return found

    def _rows(self, places: Sequence[tuple[int, int]]) -> pa.RecordBatch:
        """Rows by split and position, in their order."""
        assert self.splits.pool is not None
        sets = (self.splits.validation, self.splits.test, self.splits.pool)
        columns = list(self.teacher.columns)
        single = [sets[split].take(np.array([row])).select(columns) for split, row in places]
        return pa.Table.from_batches(single).combine_chunks().to_batches()[0]


def check_kind(config: DistillConfig) -> None:
    """Refuse a teacher that the run itself asks.

    Raises:
        ConfigError: the teacher is no person.
    """
    if config.teacher.kind != HUMAN:
        raise ConfigError(
            f"teacher.kind={config.teacher.kind!r} is asked by the run itself; only "
            f"teacher.kind='human' goes out in files."
        )


def _fresh(path: Path) -> Path:
    """A path like this one at which there is no file, which may hold somebody's labels."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free
