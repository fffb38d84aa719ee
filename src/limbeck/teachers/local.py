"""What teachers in this process share: how probabilities and embeddings become replies and back.

A raw reply is C float32 followed by D float16, the precision that the ledger keeps. One with a
spread begins with a byte 1 and has the spread's C float32 before the embedding; its odd length
tells it from one without. Nothing is paid. A teacher here that gives something else than
probabilities is a bug of its owner, so the first bad row stops the run with one sentence.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike, NDArray

from limbeck.answers import Answers, check_probs
from limbeck.errors import AnswerError, LimbeckError, TeacherError, one_line
from limbeck.teachers.base import Money, Replies

_FLOAT16_MAX = 65504.0
_WITH_SPREAD = 1


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What a local teacher says about n rows.

    Args:
        probs: Probabilities at temperature 1, shape (n, C).
        embeddings: Shape (n, D), or None.
        failure: One sentence for each row without an answer, else None; None when all have one.
            The row's numbers are not looked at then.
        spread: Standard deviation of each probability over members or passes, >= 0, shape (n, C),
            or None for a teacher that has one opinion.
        price: What each row has cost, millionths, int64, shape (n,), or None for nothing.
    """

    probs: ArrayLike
    embeddings: ArrayLike | None = None
    failure: Sequence[str | None] | None = None
    spread: ArrayLike | None = None
    price: NDArray[np.int64] | None = None


class LocalTeacher(ABC):
    """A teacher that answers in this process, for nothing, one batch at a time."""

    name: str
    """How messages call it."""
    fingerprint: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    embeds: bool | None = None
    """Whether answers hold embeddings; None where only an answer can tell."""

    @abstractmethod
    def say(self, rows: pa.RecordBatch) -> Said:
        """Answer rows; they hold at least `columns`."""

    @property
    def max_in_flight(self) -> int:
        """One: models use all cores already, and callables need not be safe to share."""
        return 1

    @property
    def keep_raw(self) -> bool:
        """A raw reply holds nothing that the answer does not."""
        return False

    def quote(self, rows: pa.RecordBatch) -> Money:
        """Nothing."""
        return Money(0)

    def ask(self, ids: NDArray[np.uint8], rows: pa.RecordBatch) -> Replies:
        """Answer rows.

        Raises:
            AnswerError: the answers or their spread are not an (n, C) matrix, or embeddings do not
                fit float16.
            TeacherError: the teacher raised something; the message tells it.
        """
        try:
            said = self.say(rows)
        except LimbeckError:
            raise
        except Exception as error:
            raise TeacherError(
                f"{self.name} failed on {rows.num_rows} rows with {type(error).__name__}: "
                f"{one_line(error)}; try it on a few rows by hand and repair it."
            ) from error
        failure = list(said.failure) if said.failure is not None else [None] * rows.num_rows
        packed = self._pack(said, np.array([why is None for why in failure], np.bool_))
        raw = [
            row.tobytes() if why is None else None for row, why in zip(packed, failure, strict=True)
        ]
        price = np.zeros(len(ids), np.int64) if said.price is None else said.price
        return Replies(ids, raw, price, failure)

    def parse(self, replies: Replies) -> tuple[Answers, NDArray[np.bool_]]:
        """Decode replies.

        Raises:
            AnswerError: a row is not a probability vector; the message names teacher and row.
        """
        ok = np.array([raw is not None for raw in replies.raw], np.bool_)
        rows = [raw for raw in replies.raw if raw is not None]
        wide = 4 * len(self.classes)
        data = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1 if rows else wide)
        spreads = data.shape[1] % 2  # numbers have two or four bytes, the first byte is one more
        data = data[:, spreads:]
        probs = _numbers(data[:, :wide], "<f4")
        check_probs(probs, what=f"{self.name}, a batch of {len(ok)} rows")
        spread = _numbers(data[:, wide : 2 * wide], "<f4") if spreads else None
        rest = data[:, wide * (1 + spreads) :]
        embeddings = _numbers(rest, "<f2") if rest.shape[1] else None
        return Answers(replies.ids[ok], probs, embeddings, spread), ok

    def _pack(self, said: Said, ok: NDArray[np.bool_]) -> NDArray[np.uint8]:
        n = len(ok)
        parts = [self._one_a_class(said.probs, n, "probabilities")]
        if said.spread is not None:
            spread = self._one_a_class(said.spread, n, "deviations")
            parts = [np.full((n, 1), _WITH_SPREAD, np.uint8), *parts, spread]
        if said.embeddings is not None:
            embeddings = self._matrix(said.embeddings, n, "embeddings")
            bad = ok & ~(np.abs(embeddings) <= _FLOAT16_MAX).all(axis=1)
            if bad.any():
                raise AnswerError(
                    f"{self.name}: the embedding of row {int(bad.argmax())} holds NaN or values "
                    f"beyond {_FLOAT16_MAX:.0f}, the most that float16 holds; scale it down."
                )
            halves = np.where(ok[:, None], embeddings, 0).astype("<f2")
            parts.append(halves.view(np.uint8))
        return np.concatenate(parts, axis=1)

    def _one_a_class(self, values: ArrayLike, n: int, what: str) -> NDArray[np.uint8]:
        matrix = self._matrix(values, n, what)
        if matrix.shape[1] != len(self.classes):
            raise AnswerError(
                f"{self.name} gave {matrix.shape[1]} {what} a row but the task has "
                f"{len(self.classes)} classes {list(self.classes)}; give one for each class."
            )
        return np.ascontiguousarray(matrix, "<f4").view(np.uint8)

    def _matrix(self, values: ArrayLike, n: int, what: str) -> NDArray[np.floating]:
        if isinstance(values, torch.Tensor):
            values = values.detach().float().cpu().numpy()
        try:
            matrix = np.asarray(values, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise AnswerError(
                f"{self.name} gave {what} that are no matrix of numbers ({error}); give one row "
                f"of numbers for each of the {n} rows."
            ) from error
        if matrix.ndim != 2 or len(matrix) != n:
            raise AnswerError(
                f"{self.name} gave {what} of shape {matrix.shape} for {n} rows; give one row of "
                f"numbers for each."
            )
        return matrix


def _numbers(data: NDArray[np.uint8], dtype: str) -> torch.Tensor:
    """Read the bytes of each row as numbers, float32."""
    values = np.ascontiguousarray(data).view(dtype)
    return torch.from_numpy(values.astype(np.float32))


def fingerprint_of(*parts: str | bytes) -> str:
    """Hash parts, each with its length, to 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
