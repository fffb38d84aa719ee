"""What a teacher said about rows: class probabilities and, where it has them, embeddings."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import AnswerError

SUM_TOLERANCE = 1e-4
"""A row of probabilities may differ from one by this much."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A teacher's answers about n rows.

    Args:
        ids: Question ids, uint8, shape (n, 16); row i of every field is about question i.
        probs: Probabilities at temperature 1, float32, shape (n, C); rows sum to 1 within 1e-4.
        embeddings: The teacher's representation, float32, shape (n, D), or None.
        spread: Standard deviation of each probability over a teacher's members or passes, float32,
            shape (n, C), >= 0, or None for a teacher that has one opinion.
        alpha: Probability that the top answer is right, floating point, in [0, 1], shape (n,),
            where more is known of these rows than what the teacher says; None leaves it to trust.

    Raises:
        AnswerError: wrong shape, NaN, infinite or negative entries, or rows that do not sum to one.
    """

    ids: NDArray[np.uint8]
    probs: Tensor
    embeddings: Tensor | None = None
    spread: Tensor | None = None
    alpha: Tensor | None = None

    def __post_init__(self) -> None:
        check_probs(self.probs, what="answers")
        n = self.probs.shape[0]
        if self.ids.shape != (n, 16) or self.ids.dtype != np.uint8:
            raise AnswerError(
                f"answers need ids as a uint8 array of shape ({n}, 16), got {self.ids.dtype} of "
                f"shape {self.ids.shape}; hash the questions with limbeck.data.question_ids."
            )
        if self.embeddings is not None:
            _check_embeddings(self.embeddings, n)
        if self.spread is not None:
            _check_spread(self.spread, self.probs)
        if self.alpha is not None:
            _check_alpha(self.alpha, n)

    def __len__(self) -> int:
        return int(self.probs.shape[0])

    @property
    def num_classes(self) -> int:
        """C, the number of classes."""
        return int(self.probs.shape[1])


def check_probs(probs: Tensor, *, what: str, num_classes: int | None = None) -> None:
    """Refuse what is not a matrix of probability vectors.

    Args:
        probs: Candidate probabilities, shape (n, C).
        what: Name of the source, used in the message ("teacher answers", "column probs").
        num_classes: C that is expected, when known.

    Raises:
        AnswerError: names the first bad row and how to mend it.
    """
    if probs.ndim != 2 or not probs.is_floating_point():
        raise AnswerError(
            f"{what}: probabilities must be a floating-point (n, C) matrix, got {probs.dtype} of "
            f"shape {tuple(probs.shape)}; give one row of C probabilities for each question."
        )
    if num_classes is not None and probs.shape[1] != num_classes:
        raise AnswerError(
            f"{what}: {probs.shape[1]} probabilities a row but the task has {num_classes} classes; "
            f"give one column for each class, in the order of the classes."
        )
    finite = torch.isfinite(probs).all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise AnswerError(
            f"{what}: row {row} holds NaN or infinity; probabilities must be finite, in [0, 1]. "
            f"Drop the row or repair the teacher."
        )
    negative = (probs < 0).any(dim=1)
    if bool(negative.any()):
        row = int(negative.nonzero()[0])
        raise AnswerError(
            f"{what}: row {row} holds a negative value ({float(probs[row].min()):.4g}); these look "
            f"like logits, so pass softmax(logits) instead."
        )
    total = probs.double().sum(dim=1)
    off = (total - 1).abs() > SUM_TOLERANCE
    if bool(off.any()):
        row = int(off.nonzero()[0])
        raise AnswerError(
            f"{what}: row {row} sums to {float(total[row]):.4g}, expected 1 within "
            f"{SUM_TOLERANCE}; divide each row by its sum."
        )


def _check_embeddings(embeddings: Tensor, n: int) -> None:
    if embeddings.ndim != 2 or embeddings.shape[0] != n or not embeddings.is_floating_point():
        raise AnswerError(
            f"answers need embeddings as a floating-point ({n}, D) matrix, got {embeddings.dtype} "
            f"of shape {tuple(embeddings.shape)}; flatten each row's representation."
        )
    if not bool(torch.isfinite(embeddings).all()):
        raise AnswerError("answers hold NaN or infinite embeddings; repair the teacher's output.")


def _check_spread(spread: Tensor, probs: Tensor) -> None:
    if spread.shape != probs.shape or not spread.is_floating_point():
        raise AnswerError(
            f"answers need spread as a floating-point {tuple(probs.shape)} matrix, got "
            f"{spread.dtype} of shape {tuple(spread.shape)}; give one deviation a probability."
        )
    if not bool((torch.isfinite(spread) & (spread >= 0)).all()):
        raise AnswerError(
            "answers hold a spread that is negative, NaN or infinite; a standard deviation is >= 0."
        )


def _check_alpha(alpha: Tensor, n: int) -> None:
    if alpha.shape != (n,) or not alpha.is_floating_point():
        raise AnswerError(
            f"answers need alpha as floating point of shape ({n},), got {alpha.dtype} of shape "
            f"{tuple(alpha.shape)}; give one probability a row."
        )
    if not bool(((alpha >= 0) & (alpha <= 1)).all()):
        raise AnswerError("answers hold an alpha that is NaN or outside [0, 1].")
