"""What a run would ask, what of it is known, and whether the budget can hold it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.data import Dataset, Splits
from limbeck.data.ids import GatheredIds
from limbeck.distill.config import DistillConfig
from limbeck.engines.questions import gathered
from limbeck.errors import ConfigError
from limbeck.ledger import Ledger
from limbeck.ledger.history import History
from limbeck.teachers import Money, Teacher

_READ_BATCH = 4096
_SAMPLE_ROWS = 512


class AnswerBook:
    """Reads one teacher's answers back from the ledger."""

    def __init__(self, ledger: Ledger, fingerprint: str) -> None:
        self._ledger = ledger
        self._fingerprint = fingerprint

    def known(self, ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which questions have an answer."""
        return self._ledger.known(self._fingerprint, ids)

    def known_at(self, ids: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which questions `ids[rows]` have an answer; they are not gathered all at once."""
        return GatheredIds(ids, rows).which(self.known)

    def read(self, ids: NDArray[np.uint8]) -> Answers:
        """Answers in the order of `ids`, repeats allowed."""
        return self._ledger.answers(self._fingerprint, ids)

    def history(self) -> History:
        """How the teacher's last questions went."""
        return self._ledger.history(self._fingerprint)

    def batches(self, ids: NDArray[np.uint8]) -> Iterable[Answers]:
        """All answers, a few thousand at a time; they can be read again from the beginning."""
        return _Batches(self, ids)


@dataclass(frozen=True, slots=True, eq=False)
class _Batches:
    book: AnswerBook
    ids: NDArray[np.uint8]

    def __iter__(self) -> Iterator[Answers]:
        for start in range(0, len(self.ids), _READ_BATCH):
            yield self.book.read(self.ids[start : start + _READ_BATCH])


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Question ids of every row of a split, uint8, shape (n, 16)."""

    validation: NDArray[np.uint8]
    test: NDArray[np.uint8]
    pool: NDArray[np.uint8]


def questions(splits: Splits, teacher: Teacher) -> Questions:
    """Hash what the teacher would see of every row."""
    assert splits.pool is not None
    return Questions(
        _all_ids(teacher, splits.validation),
        _all_ids(teacher, splits.test),
        _all_ids(teacher, splits.pool),
    )


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
    validation, test = _before_the_pool(config, asked, book)
    if config.budget <= validation + test:
        what = f"{validation} validation rows" + (f" and {test} test rows" if test else "")
        hint = "or set ask_test = false" if test else "or validate on fewer rows"
        raise ConfigError(
            f"budget={config.budget} is smaller than what comes before the pool: {what} need "
            f"answers too; raise it above {validation + test}, {hint}."
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
            f"pool: {validation} validation and {test} test rows may cost "
            f"{Money(price, config.teacher.currency)}; raise money or ask about fewer rows."
        )


def _before_the_pool(
    config: DistillConfig, asked: Questions, book: AnswerBook | None
) -> tuple[int, int]:
    test = unanswered(asked.test, book) if config.ask_test else 0
    return unanswered(asked.validation, book), test


def worst_money(teacher: Teacher, rows: Dataset, count: int) -> Money:
    """Worst price of `count` questions of a split, by the mean of a sample."""
    sample = rows.take(np.arange(min(_SAMPLE_ROWS, len(rows) if count else 0)))
    quote = teacher.quote(sample)
    return Money(-(-quote.micros * count // max(1, sample.num_rows)), quote.currency)


def count_distinct(ids: NDArray[np.uint8] | GatheredIds) -> int:
    """How many distinct questions there are."""
    return int(_lazy(ids).leads().sum())


def unanswered(ids: NDArray[np.uint8] | GatheredIds, book: AnswerBook | None) -> int:
    """How many distinct questions have no answer yet."""
    lazy = _lazy(ids)
    leads = lazy.leads()
    return int((leads if book is None else lazy.without(leads, book.known)).sum())


def _lazy(ids: NDArray[np.uint8] | GatheredIds) -> GatheredIds:
    return ids if isinstance(ids, GatheredIds) else GatheredIds(ids)


def _all_ids(teacher: Teacher, rows: Dataset) -> NDArray[np.uint8]:
    return gathered(teacher, rows)[:]  # a view, not a copy
