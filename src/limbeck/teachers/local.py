"""What teachers in this process share: how probabilities and embeddings become replies and back.

A raw reply is C float32 followed by D float16, the precision that the ledger keeps. Nothing is
paid. A teacher here that gives something else than probabilities is a bug of its owner, so the
first bad row stops the run with one sentence.
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
from limbeck.errors import AnswerError, LimbeckError, TeacherError
from limbeck.teachers.base import Money, Replies

_FLOAT16_MAX = 65504.0


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What a local teacher says about n rows.

    Args:
        probs: Probabilities at temperature 1, shape (n, C).
        embeddings: Shape (n, D), or None.
        failure: One sentence for each row without an answer, else None; None when all have one.
            The row's numbers are not looked at then.
    """

    probs: ArrayLike
    embeddings: ArrayLike | None = None
    failure: Sequence[str | None] | None = None


class LocalTeacher(ABC):
    """A teacher that answers in this process, for nothing, one batch at a time."""

    name: str
    """How messages call it."""
    fingerprint: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]

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
            AnswerError: the answers are not an (n, C) matrix, or embeddings do not fit float16.
            TeacherError: the teacher raised something; the message tells it.
        """
        try:
            said = self.say(rows)
        except LimbeckError:
            raise
        except Exception as error:
            raise TeacherError(
                f"{self.name} failed on {rows.num_rows} rows with {type(error).__name__}: {error}; "
                f"try it on a few rows by hand and repair it."
            ) from error
        failure = list(said.failure) if said.failure is not None else [None] * rows.num_rows
        packed = self._pack(said, np.array([why is None for why in failure], np.bool_))
        raw = [
            row.tobytes() if why is None else None for row, why in zip(packed, failure, strict=True)
        ]
        return Replies(ids, raw, np.zeros(len(ids), np.int64), failure)

    def parse(self, replies: Replies) -> tuple[Answers, NDArray[np.bool_]]:
        """Decode replies.

        Raises:
            AnswerError: a row is not a probability vector; the message names teacher and row.
        """
        ok = np.array([raw is not None for raw in replies.raw], np.bool_)
        rows = [raw for raw in replies.raw if raw is not None]
        wide = 4 * len(self.classes)
        data = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1 if rows else wide)
        probs = torch.from_numpy(np.ascontiguousarray(data[:, :wide]).view("<f4").astype("f4"))
        check_probs(probs, what=f"{self.name}, a batch of {len(ok)} rows")
        embeddings = None
        if data.shape[1] > wide:
            halves = np.ascontiguousarray(data[:, wide:]).view("<f2")
            embeddings = torch.from_numpy(halves.astype(np.float32))
        return Answers(replies.ids[ok], probs, embeddings), ok

    def _pack(self, said: Said, ok: NDArray[np.bool_]) -> NDArray[np.uint8]:
        n = len(ok)
        probs = self._matrix(said.probs, n, "probabilities")
        if probs.shape[1] != len(self.classes):
            raise AnswerError(
                f"{self.name} gave {probs.shape[1]} probabilities a row but the task has "
                f"{len(self.classes)} classes {list(self.classes)}; give one for each class."
            )
        parts = [np.ascontiguousarray(probs, "<f4").view(np.uint8)]
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


def fingerprint_of(*parts: str | bytes) -> str:
    """Hash parts, each with its length, to 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
