"""Questions to people: which go out next, and what comes back.

A file of questions is an order: its questions are reserved in the ledger, inside the budget, before
the file is there, and stay so, whatever becomes of the process, until they are answered or
withdrawn. A file that comes back is checked as a whole before the first answer is recorded.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.data.ids import ID_BYTES, contains, distinct
from limbeck.distill.acquire import HUMAN, choose_pool
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import LABEL_FILE, Listener, RunFolder, ignore
from limbeck.distill.questions import AnswerBook, check_budget, check_money, questions
from limbeck.distill.run import load_teacher, run_id, stage
from limbeck.errors import ConfigError, DataError
from limbeck.ledger import Budget, SqliteLedger
from limbeck.ledger.orders import Order
from limbeck.teachers import Money
from limbeck.teachers.human import NOT_SURE, replies_of
from limbeck.teachers.imports import importable
from limbeck.teachers.sheets import Line, check_sheet, read_id, read_sheet, write_sheet

ORDERS = "orders"
_SHOWN = 5
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


def ask(
    config: DistillConfig,
    *,
    rows: int,
    path: Path | None = None,
    again: bool = False,
    agree: Callable[[Money], None] = lambda _: None,
    listener: Listener = ignore,
) -> Asked:
    """Write the next questions for people into a file, and reserve their answers.

    Validation comes first, then test, then the pool in random order, so that a pool which is
    answered in part is a fair sample of it. Equal questions go out once.

    Args:
        config: The run; `config.out` is its folder.
        rows: Most questions to write, >= 1.
        path: The file, .csv, .tsv or .jsonl. Default: `orders/<number>.csv` in the run's folder.
        again: Write those that are out already, as many of them as asked for, and reserve nothing:
            for a file that was lost.
        agree: Told of the price before anything is reserved; it raises to refuse.
        listener: Told what happens.

    Raises:
        ConfigError: the teacher is no human, or the budget cannot hold what comes before the pool.
        BudgetError: not one more question fits into the budget.
    """
    if rows < 1:
        raise ConfigError(f"rows={rows}: must be at least 1 question.")
    if path is not None:
        check_sheet(path)
    with _Desk(config, listener) as desk:
        if again:
            out = [order.reservation.ids for order in desk.orders()]
            if not out:
                raise ConfigError("no question is out with people; leave --again out.")
            return desk.write(np.concatenate(out)[:rows], path, "again", Money(0))
        return desk.order(rows, path, agree)


def tell(
    config: DistillConfig,
    files: Sequence[Path],
    *,
    keep_valid: bool = False,
    listener: Listener = ignore,
) -> Told:
    """Read labels that people have given, and record them as answers.

    One file is one person's: a question that several files answer gets the share of their votes.
    Either every line can be used, or nothing is recorded.

    Args:
        config: The run.
        files: What came back.
        keep_valid: Record the lines that can be used, and tell of the others.
        listener: Told what happens.

    Raises:
        ConfigError: the teacher is no human.
        DataError: a line cannot be used: an unknown id or class, two labels for one question. The
            message names the lines.
    """
    if not files:
        raise ConfigError("no file to read; give those that came back.")
    _check_kind(config)
    read = [(file, read_sheet(file)) for file in files]
    with _Desk(config, listener) as desk:
        votes = _Votes(desk)
        for file, lines in read:
            votes.add(file, lines)
        if votes.problems and not keep_valid:
            raise DataError(_refusal(votes.problems))
        return desk.record(votes)


def withdraw(config: DistillConfig, listener: Listener = ignore) -> int:
    """Give back everything that is out with people; what comes back later is refused.

    Returns:
        Questions that were out.
    """
    with _Desk(config, listener) as desk:
        orders = desk.orders()
        for order in orders:
            desk.ledger.release(order.reservation, unknown=False)
        return sum(len(order.reservation.ids) for order in orders)


class _Desk:
    """A run's questions to people, with its rows and its ledger open."""

    def __init__(self, config: DistillConfig, listener: Listener) -> None:
        _check_kind(config)
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

    def __enter__(self) -> "_Desk":
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

    def record(self, votes: "_Votes") -> Told:
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
        """Pool rows to ask about: as many as the budget holds beside what comes before."""
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


class _Votes:
    """What files say, and what is wrong with them."""

    def __init__(self, desk: _Desk) -> None:
        self.of: dict[bytes, Counter[str]] = {}
        self.problems: list[str] = []
        self.empty = self.before = 0
        self._desk = desk
        self._classes = desk.teacher.classes
        self._people = desk.config.teacher.people
        self._out = {bytes(key) for key in desk.out()}

    def add(self, file: Path, lines: Sequence[Line]) -> None:
        """Take one person's file."""
        said: dict[bytes, tuple[int, str]] = {}
        bad: set[bytes] = set()
        keys = [read_id(line.question) for line in lines]
        asked = self._desk.of_run({key for key in keys if key is not None})
        for line, key in zip(lines, keys, strict=True):
            where = f"{file.name}, line {line.number}"
            if key is None or key not in asked:
                self.problems.append(f"{where}: {line.question[:40]!r} is no question of this run")
                continue
            label = self._meant(line.label)
            if label is None:
                self.problems.append(f"{where}: {line.label!r} is no class{self._near(line.label)}")
                bad.add(key)
            elif label == "":
                self.empty += 1
            elif key in said and said[key][1] != label:
                self.problems.append(
                    f"{where}: the question is labelled {label!r} here and {said[key][1]!r} in "
                    f"line {said[key][0]}"
                )
                bad.add(key)
            else:
                said.setdefault(key, (line.number, label))
        for key, (number, label) in said.items():
            if key not in bad:
                self._count(f"{file.name}, line {number}", key, label)

    def _count(self, where: str, key: bytes, label: str) -> None:
        if key not in self._out:
            self._told_before(where, key, label)
            return
        votes = self.of.setdefault(key, Counter())
        if label == NOT_SURE:
            return
        if votes.total() >= self._people:
            self.problems.append(
                f"{where}: more people label the question than teacher.people={self._people}"
            )
            return
        votes[label] += 1

    def _told_before(self, where: str, key: bytes, label: str) -> None:
        """A question that is not out: told before, or never asked."""
        ids = np.frombuffer(key, np.uint8)[None]
        desk = self._desk
        if desk.book.known(ids)[0]:
            shares = desk.book.read(ids).probs[0]
            before = {name for name, share in zip(self._classes, shares, strict=True) if share > 0}
            if label in before or label == NOT_SURE:
                self.before += 1
            else:
                self.problems.append(
                    f"{where}: {label!r} comes too late, the question was answered with "
                    f"{' and '.join(sorted(before))!r}"
                )
        elif contains(desk.ledger.failed(desk.run, desk.teacher.fingerprint), ids)[0]:
            if label == NOT_SURE:
                self.before += 1
            else:
                self.problems.append(
                    f"{where}: {label!r} comes too late, nobody was sure of the question before"
                )
        else:
            self.problems.append(
                f"{where}: the question is not out (it was never asked, or was withdrawn)"
            )

    def _meant(self, label: str) -> str | None:
        """The class that is meant, "" for none, NOT_SURE, or None where it is no class."""
        if label == "" or label in self._classes:
            return label
        if label.lower() == NOT_SURE:
            return NOT_SURE
        # A spreadsheet turns the class 3 into 3.0 where some cells are empty.
        whole = label.removesuffix(".0")
        same = [name for name in self._classes if name.lower() == label.lower()]
        return whole if whole in self._classes else same[0] if len(same) == 1 else None

    def _near(self, label: str) -> str:
        found = difflib.get_close_matches(label, self._classes, n=1, cutoff=0.4)
        if found:
            return f" (did you mean {found[0]!r}?)"
        return f" (expected one of {', '.join(self._classes)}, or {NOT_SURE})"


def _check_kind(config: DistillConfig) -> None:
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


def _refusal(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    lines = "1 line" if len(problems) == 1 else f"{len(problems)} lines"
    return (
        f"{lines} cannot be used, so nothing was recorded: {'; '.join(problems[:_SHOWN])}{more}. "
        f"Correct the file, or record the rest of it with --keep-valid."
    )
