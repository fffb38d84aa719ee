"""What a rule for choosing rows is, and what it may look at.

A rule knows nothing of a trainer, a teacher or a file: it sees candidates, gives rows, and is told
what became of them. Rows are positions in a pool that stays as it is for a whole run.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError


class Candidates(Protocol):
    """Rows that may be chosen now: n of a pool of N."""

    @property
    def rows(self) -> Tensor:
        """Positions in the pool, int64, shape (n,), ascending and distinct."""

    @property
    def pool_size(self) -> int:
        """N."""

    @property
    def teacher_error(self) -> float | Tensor | None:
        """Share of rows that the teacher gets wrong, by its answers on validation rows; or an
        estimate of the probability that it is wrong at each of `rows`, in [0, 1], shape (n,)."""

    def probs(self) -> Iterator[Tensor]:
        """Student probabilities in evaluation mode, in blocks (b, C), or (M, b, C) of M members."""

    def embeddings(self, at: Tensor | None = None) -> Tensor:
        """Inputs of the student's last layer of `rows[at]`, or of all rows: (len(at), D)."""

    def known_embeddings(self) -> Tensor:
        """The same of rows that are labelled or bought already, shape (l, D)."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """Candidates whose numbers lie in memory.

    Args:
        rows: Positions in the pool, int64, shape (n,), ascending.
        probabilities: Student probabilities of these rows, shape (n, C), or (M, n, C).
        embedding: Inputs of the student's last layer, shape (n, D), or None.
        known: The same of rows that are labelled or bought already, shape (l, D), or None.
        pool_size: N. Default: the last row's position and one.
        teacher_error: Share of rows that the teacher gets wrong, in [0, 1]; or the probability that
            it is wrong at each of these rows, shape (n,); or None.
    """

    rows: Tensor
    probabilities: Tensor
    embedding: Tensor | None = None
    known: Tensor | None = None
    pool_size: int = 0
    teacher_error: float | Tensor | None = None

    def __post_init__(self) -> None:
        n = self.rows.shape[0]
        if self.rows.ndim != 1 or self.rows.dtype != torch.int64:
            raise ShapeError(f"rows must be int64 of shape (n,), got {self.rows.dtype}.")
        if n > 1 and not bool((self.rows[1:] > self.rows[:-1]).all()):
            raise ConfigError("rows must be ascending and distinct; sort them, with their numbers.")
        if self.probabilities.shape[-2] != n:
            raise ShapeError(
                f"{n} rows but probabilities of shape {tuple(self.probabilities.shape)}."
            )
        if self.embedding is not None and len(self.embedding) != n:
            raise ShapeError(f"{n} rows but {len(self.embedding)} embeddings; give one for each.")
        if isinstance(self.teacher_error, Tensor) and self.teacher_error.shape != (n,):
            raise ShapeError(
                f"{n} rows but errors of shape {tuple(self.teacher_error.shape)}; give one for "
                f"each row, or one number for all."
            )
        if not self.pool_size:
            object.__setattr__(self, "pool_size", int(self.rows[-1]) + 1 if n else 0)

    def probs(self) -> Iterator[Tensor]:
        """All probabilities in one block."""
        yield self.probabilities

    def embeddings(self, at: Tensor | None = None) -> Tensor:
        """Embeddings of some rows, or of all."""
        if self.embedding is None:
            raise ConfigError(
                "this rule looks at embeddings but the candidates have none; give the inputs of "
                "the student's last layer, or choose a rule that needs probabilities only."
            )
        return self.embedding if at is None else self.embedding[at]

    def known_embeddings(self) -> Tensor:
        """Embeddings of rows that are labelled or bought; none unless given."""
        if self.known is not None:
            return self.known
        return self.embeddings(torch.zeros(0, dtype=torch.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """A batch of rows.

    Args:
        rows: Positions in the pool, int64, shape (k,), ascending and distinct.
        inclusion_probs: Probability with which each of them was to be in the batch, given what the
            rule knew, float64, shape (k,): 1 for a rule that draws nothing. None for a rule whose
            probabilities have no closed form.
        candidate_probs: The same of every candidate, in their order, float64, shape (n,), sum k.
    """

    rows: Tensor
    inclusion_probs: Tensor | None
    candidate_probs: Tensor | None = None

    @property
    def support(self) -> int | None:
        """Candidates that could have been chosen; None where that has no closed form."""
        return None if self.candidate_probs is None else int((self.candidate_probs > 0).sum())


class Selector(ABC):
    """A rule. Those with a memory learn in `observe` and keep it in `state_dict`."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset({"probs"})
    """What it looks at: of "probs", "embeddings", "history"."""

    @abstractmethod
    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows.

        Args:
            candidates: Rows that may be chosen.
            k: Rows wanted, >= 0.
            generator: Source of all randomness, on the CPU.
        """

    def observe(self, rows: Tensor, gains: Tensor) -> None:  # noqa: B027 # most rules forget
        """Learn from the gains of a round's candidates under the student that came out of it.

        Args:
            rows: Positions in the pool of all candidates of the round, those chosen among them.
            gains: In [0, 1], shape (len(rows),).
        """

    def state_dict(self) -> dict[str, Tensor]:
        """What it remembers; empty for a rule without a memory."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 # as above
        """Remember what `state_dict` gave."""


def batch_size(candidates: Candidates, k: int) -> int:
    """How many rows are chosen.

    Raises:
        ConfigError: k is negative.
    """
    if k < 0:
        raise ConfigError(f"k={k}: must be >= 0 rows.")
    return min(k, len(candidates.rows))


def chosen(candidates: Candidates, at: Tensor, probs: Tensor | None) -> Selection:
    """A selection of candidates by their place; `probs` are those of all candidates, (n,)."""
    at = at.sort().values
    return Selection(candidates.rows[at], None if probs is None else probs[at], probs)


def surely(candidates: Candidates, at: Tensor) -> Selection:
    """A selection in which nothing was drawn."""
    probs = torch.zeros(len(candidates.rows), dtype=torch.float64).index_fill_(0, at, 1)
    return chosen(candidates, at, probs)
