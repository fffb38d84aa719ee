"""What a run would ask, what of it is known, and whether the budget can hold it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.data import Dataset, Splits
from limbeck.data.ids import GatheredIds, contains
from limbeck.distill.config import DistillConfig
from limbeck.engines.questions import gathered
from limbeck.errors import ConfigError
from limbeck.ledger import Ledger
from limbeck.ledger.history import History
from limbeck.teachers import MeanTeacher, Money, Teacher, mean_of
from limbeck.teachers.mean import members_of

_SAMPLE_ROWS = 512


class AnswerBook:
    """Reads a teacher's answers back from the ledger.

    Args:
        ledger: Where they are.
        fingerprint: The teacher's.
        members: The teachers of an ensemble, whose answers are averaged when they are read.
        run: Whose failures are not asked about again; empty: nobody's.
    """

    def __init__(
        self,
        ledger: Ledger,
        fingerprint: str,
        *,
        members: "Members | None" = None,
        run: str = "",
    ) -> None:
        self._ledger = ledger
        self._fingerprint = fingerprint
        self._members = members
        self._run = run

    def known(self, ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which questions have an answer, in an ensemble one of every teacher."""
        complete = np.ones(len(ids), np.bool_)
        for fingerprint, own in self._asked(ids):
            complete &= self._ledger.known(fingerprint, own)
        return complete

    def settled(self, ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which questions one teacher is not asked: answered, or paid for in vain by the run."""
        known = self._ledger.known(self._fingerprint, ids)
        if not self._run:
            return known
        unreadable = self._ledger.unreadable(self._run, self._fingerprint)
        return known | contains(unreadable, ids) if len(unreadable) else known

    def costs(self, ids: GatheredIds, places: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Answers that are to be bought for the questions at some places.

        Args:
            ids: m questions.
            places: Which of them, bool, shape (m,).

        Returns:
            uint8, shape (m,), 0 at other places.
        """
        costs = ids.without(places, partial(self._known_by, 0)).view(np.uint8)
        for member in range(1, self.members):
            costs += ids.without(places, partial(self._known_by, member))
        return costs

    @property
    def members(self) -> int:
        """Teachers that are asked about each question."""
        return 1 if self._members is None else len(self._members.fingerprints)

    def _known_by(self, member: int, ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
        fingerprint, own = self._asked(ids)[member]
        return self._ledger.known(fingerprint, own)

    def known_at(self, ids: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which questions `ids[rows]` have an answer; they are not gathered all at once."""
        return GatheredIds(ids, rows).which(self.known)

    def read(self, ids: NDArray[np.uint8]) -> Answers:
        """Answers in the order of `ids`, repeats allowed."""
        found = [self._ledger.answers(fingerprint, own) for fingerprint, own in self._asked(ids)]
        return found[0] if self._members is None else replace(mean_of(found), ids=ids)

    def history(self) -> History:
        """How the teacher's last questions went, in an ensemble those of every teacher."""
        if self._members is None:
            return self._ledger.history(self._fingerprint)
        found = [self._ledger.history(one) for one in self._members.fingerprints]
        # One that has not been asked may be dear or slow, whatever the others were.
        return History.joined(found) if all(map(len, found)) else History.empty()

    def member(self, number: int) -> "AnswerBook":
        """The book of one teacher of an ensemble, counted from 0; itself where there is none."""
        if self._members is None:
            return self
        return AnswerBook(self._ledger, self._members.fingerprints[number], run=self._run)

    def _asked(self, ids: NDArray[np.uint8]) -> list[tuple[str, NDArray[np.uint8]]]:
        """Who is asked, and what each of them is asked about."""
        if self._members is None:
            return [(self._fingerprint, ids)]
        return self._members.asked(ids)


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Question ids of every row of a split, uint8, shape (n, 16).

    Args:
        validation, test, pool: Of each split.
        members: What each teacher of an ensemble is asked about the same rows.
    """

    validation: NDArray[np.uint8]
    test: NDArray[np.uint8]
    pool: NDArray[np.uint8]
    members: "tuple[Questions, ...]" = ()

    def to_buy(
        self, book: AnswerBook | None, split: str, rows: NDArray[np.int64] | None = None
    ) -> tuple[int, ...]:
        """Distinct questions of a split to be asked, for each teacher that is asked.

        Those without an answer, but for what the run of `book` has paid for in vain.

        Args:
            book: Tells which have one; None: none has.
            split: Its name.
            rows: Rows of the split. Default: all.
        """
        return self._count(book, split, rows, again=False)

    def unanswered(
        self, book: AnswerBook | None, split: str, rows: NDArray[np.int64] | None = None
    ) -> int:
        """Distinct questions of a split without an answer, of all teachers that are asked."""
        return sum(self._count(book, split, rows, again=True))

    def _count(
        self,
        book: AnswerBook | None,
        split: str,
        rows: NDArray[np.int64] | None,
        *,
        again: bool,
    ) -> tuple[int, ...]:
        counts = []
        for number, own in enumerate(self.members or (self,)):
            ids = GatheredIds(getattr(own, split), rows)
            left = ids.leads()
            if book is not None:
                member = book.member(number)
                left = ids.without(left, member.known if again else member.settled)
            counts.append(int(left.sum()))
        return tuple(counts)


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The teachers of an ensemble, and what each is asked where the ensemble has a question.

    Args:
        fingerprints: One a teacher.
        keys: Questions of the ensemble, sorted; None where all teachers see the same columns and
            so have its questions for their own.
        ids: For each teacher its own questions in the order of `keys`, uint8, shape (m, 16).
    """

    fingerprints: tuple[str, ...]
    keys: NDArray[np.void] | None = None
    ids: tuple[NDArray[np.uint8], ...] = ()

    @classmethod
    def of(cls, teacher: MeanTeacher, asked: Sequence[Questions]) -> Self:
        """Look up what runs ask.

        Cost: nothing where all teachers see the same columns, else 16 bytes of memory a question
        and teacher.
        """
        prints = tuple(member.fingerprint for member in teacher.members)
        if all(member.pool is one.pool for one in asked for member in one.members):
            return cls(prints)
        first = np.flatnonzero(GatheredIds(_everything(asked)).leads())
        keys = _as_void(_everything(asked)[first])
        order = np.argsort(keys)
        each = [
            _everything([one.members[member] for one in asked])[first][order]
            for member in range(len(prints))
        ]
        return cls(prints, keys[order], tuple(each))

    def asked(self, ids: NDArray[np.uint8]) -> list[tuple[str, NDArray[np.uint8]]]:
        """Who is asked, and what each of them is asked about."""
        if self.keys is None:
            return [(one, ids) for one in self.fingerprints]
        places = np.searchsorted(self.keys, _as_void(ids))
        return [(one, own[places]) for one, own in zip(self.fingerprints, self.ids, strict=True)]


def open_book(ledger: Ledger, teacher: Teacher, *asked: Questions, run: str = "") -> AnswerBook:
    """Open a teacher's answers.

    Args:
        ledger: Where they are.
        teacher: Whose.
        asked: What runs ask: for an ensemble only their questions can be looked up.
        run: Whose failures are not asked about again; empty: nobody's.
    """
    members = Members.of(teacher, asked) if isinstance(teacher, MeanTeacher) else None
    return AnswerBook(ledger, teacher.fingerprint, members=members, run=run)


def questions(splits: Splits, teacher: Teacher) -> Questions:
    """Hash what the teacher would see of every row."""
    assert splits.pool is not None
    asked = Questions(
        _all_ids(teacher, splits.validation),
        _all_ids(teacher, splits.test),
        _all_ids(teacher, splits.pool),
    )
    if not isinstance(teacher, MeanTeacher):
        return asked
    everything = set(teacher.columns)
    members = tuple(
        asked if set(member.columns) == everything else questions(splits, member)
        for member in teacher.members
    )
    return replace(asked, members=members)


def content_questions(splits: Splits) -> Questions:
    """Questions of a teacher that sees all inputs."""
    assert splits.pool is not None
    return Questions(
        splits.validation.content_ids, splits.test.content_ids, splits.pool.content_ids
    )


def check_budget(config: DistillConfig, asked: Questions, book: AnswerBook | None) -> None:
    """Refuse a budget that cannot hold validation, test and one pool row.

    Raises:
        ConfigError: names the smallest budget that would do.
    """
    validation, test = (sum(counts) for counts in _before_the_pool(config, asked, book))
    if config.budget < validation + test + _least_of_the_pool(asked, book):
        rows = "answers on {} rows" if asked.members else "{} rows"
        what = f"{validation} {rows.format('validation')}"
        what += f" and {test} {rows.format('test')}" if test else ""
        least = _least_of_the_pool(asked, book)
        hint = "or set ask_test = false" if test else "or validate on fewer rows"
        raise ConfigError(
            f"budget={config.budget} is smaller than what comes before the pool: {what} need "
            f"answers too; raise it above {validation + test + least - 1}, {hint}."
        )


def check_money(
    config: DistillConfig,
    splits: Splits,
    teacher: Teacher,
    asked: Questions,
    book: AnswerBook | None,
) -> None:
    """Refuse a budget in money that cannot hold validation, test and one pool row.

    Raises:
        ConfigError: names the price that comes before the pool, at worst.
    """
    if not config.money:
        return
    validation, test = _before_the_pool(config, asked, book)
    price = worst_money(teacher, splits.validation, validation).micros
    price += worst_money(teacher, splits.test, test).micros
    if price >= round(config.money * 1e6):
        raise ConfigError(
            f"money={config.money:g} {config.teacher.currency} is less than what comes before the "
            f"pool: {sum(validation)} validation and {sum(test)} test answers may cost "
            f"{Money(price, config.teacher.currency)}; raise money or ask about fewer rows."
        )


def _least_of_the_pool(asked: Questions, book: AnswerBook | None) -> int:
    """Answers that the cheapest pool row takes: one, or one of each teacher that lacks it."""
    if not asked.members or not len(asked.pool):
        return 1
    if book is None:
        return len(asked.members)
    ids = GatheredIds(asked.pool)
    return max(1, int(book.costs(ids, np.ones(len(ids), np.bool_)).min()))


def _before_the_pool(
    config: DistillConfig, asked: Questions, book: AnswerBook | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    test = asked.to_buy(book, "test") if config.ask_test else ()
    return asked.to_buy(book, "validation"), test


def worst_money(teacher: Teacher, rows: Dataset, counts: Sequence[int]) -> Money:
    """Worst price of questions of a split, by the mean of a sample.

    Args:
        teacher: Who is asked.
        rows: The split.
        counts: Questions for each of `members_of(teacher)`; fewer where there are none.
    """
    sample = rows.take(np.arange(min(_SAMPLE_ROWS, len(rows) if any(counts) else 0)))
    size = max(1, sample.num_rows)
    quotes = [member.quote(sample) for member in members_of(teacher)[: len(counts)]]
    micros = sum(
        -(-quote.micros * count // size) for quote, count in zip(quotes, counts, strict=True)
    )
    return Money(micros, teacher.quote(sample).currency)


def count_distinct(ids: NDArray[np.uint8] | GatheredIds) -> int:
    """How many distinct questions there are."""
    lazy = ids if isinstance(ids, GatheredIds) else GatheredIds(ids)
    return int(lazy.leads().sum())


def _all_ids(teacher: Teacher, rows: Dataset) -> NDArray[np.uint8]:
    return gathered(teacher, rows)[:]  # a view, not a copy


def _everything(asked: Sequence[Questions]) -> NDArray[np.uint8]:
    return np.concatenate([ids for one in asked for ids in (one.validation, one.test, one.pool)])


def _as_void(ids: NDArray[np.uint8]) -> NDArray[np.void]:
    """View ids of shape (n, 16) as n values that compare byte by byte."""
    return np.ascontiguousarray(ids).view("V16")[:, 0]
