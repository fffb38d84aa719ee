"""Teachers changed by wrapping them: another order of classes, a price."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.teachers.base import Head, Money, Replies, Teacher, head_of
from limbeck.teachers.local import fingerprint_of


def align_classes(teacher: Teacher, classes: Sequence[str]) -> Teacher:
    """Bring a teacher's classes into the task's order.

    Returns:
        The teacher itself when its order is the task's, else a wrapper with another fingerprint.

    Raises:
        ConfigError: the two sets of classes differ; the message names what is missing and extra.
    """
    if teacher.classes == tuple(classes):
        return teacher
    missing = sorted(set(classes) - set(teacher.classes))
    extra = sorted(set(teacher.classes) - set(classes))
    if missing or extra:
        raise ConfigError(
            f"the teacher's classes {list(teacher.classes)} are not the task's {list(classes)}: "
            f"missing {missing}, unknown to the task {extra}; use a teacher of this task or name "
            f"the classes alike."
        )
    return _Reordered(teacher, tuple(classes))


def with_price(teacher: Teacher, micros: int, *, currency: str = "USD") -> Teacher:
    """Give each answer a price, so that a budget in money can be rehearsed for nothing.

    Args:
        teacher: Whose answers they are; they and their fingerprint stay the same. What it costs
            itself is added.
        micros: Millionths of the currency an answer, >= 0; 0 gives the teacher back.
        currency: ISO 4217 code; that of the teacher's own price where it has one.
    """
    if micros < 0:
        raise ConfigError(f"price_per_answer={micros}: must be >= 0 millionths of the currency.")
    return _Priced(teacher, micros, currency) if micros else teacher


class Wrapped:
    """Passes everything on to another teacher."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    @property
    def fingerprint(self) -> str:
        return self._teacher.fingerprint

    @property
    def classes(self) -> tuple[str, ...]:
        return self._teacher.classes

    @property
    def columns(self) -> tuple[str, ...]:
        return self._teacher.columns

    @property
    def max_in_flight(self) -> int:
        return self._teacher.max_in_flight

    @property
    def keep_raw(self) -> bool:
        return self._teacher.keep_raw

    @property
    def embeds(self) -> bool | None:
        return getattr(self._teacher, "embeds", None)

    def quote(self, rows: pa.RecordBatch) -> Money:
        return self._teacher.quote(rows)

    def ask(self, ids: NDArray[np.uint8], rows: pa.RecordBatch) -> Replies:
        return self._teacher.ask(ids, rows)

    def parse(self, replies: Replies) -> tuple[Answers, NDArray[np.bool_]]:
        return self._teacher.parse(replies)

    def head(self, rows: pa.RecordBatch) -> Head | None:
        return head_of(self._teacher, rows)


class _Reordered(Wrapped):
    """The same answers with the classes in another order."""

    def __init__(self, teacher: Teacher, classes: tuple[str, ...]) -> None:
        super().__init__(teacher)
        self._classes = classes

    @property
    def fingerprint(self) -> str:
        # The ledger keeps parsed answers, whose columns are in this order.
        return fingerprint_of(self._teacher.fingerprint, *self._classes)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    def parse(self, replies: Replies) -> tuple[Answers, NDArray[np.bool_]]:
        answers, ok = self._teacher.parse(replies)
        order = [self._teacher.classes.index(name) for name in self._classes]
        spread = None if answers.spread is None else answers.spread[:, order].contiguous()
        probs = answers.probs[:, order].contiguous()
        return replace(answers, probs=probs, spread=spread), ok

    def head(self, rows: pa.RecordBatch) -> Head | None:
        found = head_of(self._teacher, rows)
        if found is None or len(found[1]) != len(self._classes):
            return found  # outputs that are no classes have no order of classes
        order = [self._teacher.classes.index(name) for name in self._classes]
        return found[0][order], found[1][order]


class _Priced(Wrapped):
    """The same answers at a price."""

    def __init__(self, teacher: Teacher, micros: int, currency: str) -> None:
        super().__init__(teacher)
        self._micros = micros
        self._currency = currency

    def quote(self, rows: pa.RecordBatch) -> Money:
        own = self._teacher.quote(rows)
        currency = own.currency if own.micros else self._currency
        return Money(own.micros + self._micros * rows.num_rows, currency)

    def ask(self, ids: NDArray[np.uint8], rows: pa.RecordBatch) -> Replies:
        replies = self._teacher.ask(ids, rows)
        # Nobody is paid for a row without an answer.
        told = np.array([raw is not None for raw in replies.raw], np.int64)
        return replace(replies, price=replies.price + told * self._micros)
