"""Trust: how far to believe the teacher at each row, fitted once on validation answers."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from limbeck.data import Splits
from limbeck.distill.acquire import Acquired
from limbeck.distill.config import DistillConfig
from limbeck.errors import LimbeckWarning
from limbeck.objectives.base import Evidence, TeacherHead
from limbeck.teachers import Teacher
from limbeck.teachers.base import head_of
from limbeck.trust import (
    ClassTrust,
    IsotonicTrust,
    NeighbourTrust,
    choose_lower,
    margin,
    top_k,
)

NAMES_ONLY = 1 - 1e-6
"""A teacher whose margins are all above this gives class names, not probabilities."""
_TRIED_ROWS = 8


@dataclass(frozen=True, slots=True, eq=False)
class Trust:
    """What validation says about the teacher.

    Args:
        curve: alpha as a function of the margin, not below `lower`.
        free: Teacher probabilities to trust without a floor, shape (B, C) to (B,): what the
            teacher's accuracy really looks like.
        evidence: The same for objectives.
        margins: Of the validation rows, float32, shape (V,).
        correct: Whether the teacher's top class was right there, bool, shape (V,).
        lower: Floor of `curve`.
    """

    curve: IsotonicTrust
    free: Callable[[Tensor], Tensor]
    evidence: Evidence
    margins: Tensor
    correct: Tensor
    lower: float

    @property
    def accuracy(self) -> float:
        """The teacher's accuracy on validation."""
        return float(self.correct.float().mean())

    def summary(self) -> str:
        """One line for the log."""
        return (
            f"trust: the teacher is right on {self.accuracy:.1%} of {len(self.correct)} validation "
            f"rows; alpha is at least {self.lower:g}, k = {self.evidence.k}"
        )


def fit_trust(config: DistillConfig, splits: Splits, acquired: Acquired, teacher: Teacher) -> Trust:
    """Fit alpha and k on the validation rows that have an answer.

    The evidence for objectives holds the teacher's last layer too, where the teacher knows it. A
    teacher that only names a class has margin 1 everywhere. Its trust is the accuracy of each
    class that it names, and the truth may be any other class.
    """
    probs = acquired.validation.probs
    assert splits.validation.labels is not None
    labels = torch.from_numpy(splits.validation.labels[acquired.validation_rows])
    margins = margin(probs)
    correct = probs.argmax(dim=1) == labels
    head = teacher_head(splits, acquired, teacher)
    if bool((margins > NAMES_ONLY).all()):
        return _by_class(config, probs, labels, margins, correct, head)
    generator = torch.Generator().manual_seed(config.seed)
    lower = config.objective.trust_lower or choose_lower(
        margins, correct, folds=min(5, len(correct)), generator=generator
    )
    curve = IsotonicTrust.fit(margins, correct, lower=lower)
    free = without_floor(margins, correct)
    k = top_k(probs, labels, threshold=config.objective.top_k_threshold)
    evidence = Evidence(
        probs,
        labels,
        lambda answers: curve.alpha(margin(answers)),
        k,
        _neighbours(probs, labels),
        head,
    )
    return Trust(
        curve, lambda answers: free.alpha(margin(answers)), evidence, margins, correct, lower
    )


def teacher_head(splits: Splits, acquired: Acquired, teacher: Teacher) -> TeacherHead | None:
    """The layer behind the teacher's embeddings; None where it, or the embeddings, are unknown."""
    embeddings = acquired.validation.embeddings
    if embeddings is None or not len(embeddings):
        return None
    found = head_of(teacher, splits.validation.take(np.arange(_TRIED_ROWS) % len(embeddings)))
    # An embedding of another width is not this layer's input, whoever says so.
    if found is None or found[0].shape[1] != embeddings.shape[1]:
        return None
    return TeacherHead(*found)


def _by_class(
    config: DistillConfig,
    probs: Tensor,
    labels: Tensor,
    margins: Tensor,
    correct: Tensor,
    head: TeacherHead | None,
) -> Trust:
    lower = config.objective.trust_lower or 0.5
    num_classes = probs.shape[1]
    by_class = ClassTrust.fit(probs.argmax(dim=1), labels, num_classes=num_classes, lower=1e-9)

    def free(answers: Tensor) -> Tensor:
        return by_class.alpha(answers.argmax(dim=1)).to(answers.dtype)

    evidence = Evidence(
        probs,
        labels,
        lambda a: free(a).clamp_min(lower),
        max(2, num_classes),
        _neighbours(probs, labels),
        head,
    )
    curve = IsotonicTrust.fit(margins, correct, lower=lower)
    return Trust(curve, free, evidence, margins, correct, lower)


def _neighbours(probs: Tensor, labels: Tensor) -> Callable[[Tensor], NeighbourTrust]:
    """Validation rows to compare pool rows with, once the student has said something of them."""
    return lambda log_probs: NeighbourTrust.fit(probs, log_probs, labels)


def without_floor(margins: Tensor, correct: Tensor) -> IsotonicTrust:
    """What the teacher's accuracy really looks like; its low floor is meant, so no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimbeckWarning)
        return IsotonicTrust.fit(margins, correct, lower=1e-9)
