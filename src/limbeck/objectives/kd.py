"""Knowledge distillation: fit the teacher's label, or its whole distribution.

Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network" (2015),
arXiv 1503.02531, Section 2.
"""

from collections.abc import Iterable
from typing import Self, final

import torch
from torch import Tensor
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.numerics.logspace import log_probs, retemper
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import check_labels, check_pair, working


def kd_loss(logits: Tensor, teacher_probs: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Divergence of the student from the teacher: tau^2 KL(p_tau || softmax(z / tau)).

    Args:
        logits: Student logits z, floating point, shape (B, C).
        teacher_probs: Teacher probabilities p at temperature 1, shape (B, C), rows sum to 1; here
            p_tau = softmax(log p / tau).
        temperature: tau > 0. The factor tau^2 keeps the size of the gradient when tau changes.

    Returns:
        Loss of each row in nats, >= 0 up to rounding, shape (B,), float32 (float64 for float64).
        At tau = 1 it is the cross-entropy with p less the entropy of p: the same gradient.

    Raises:
        ShapeError: the two shapes differ or are not 2-d.
        ConfigError: the temperature is not positive.

    Cost: O(B C).
    """
    check_pair(logits, teacher_probs)
    check_temperature(temperature)
    logits = working(logits)
    target = retemper(teacher_probs.to(logits.dtype), temperature)
    student = torch.log_softmax(logits / temperature, dim=-1)
    return temperature**2 * (target * (log_probs(target) - student)).sum(dim=-1)


def hard_kd_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the teacher's labels.

    Args:
        logits: Student logits, floating point, shape (B, C).
        labels: The teacher's classes, int64, shape (B,), in [0, C).

    Returns:
        Loss of each row in nats, >= 0, shape (B,), float32 (float64 for float64 logits).

    Raises:
        ShapeError: `labels` is not one class a row.

    Cost: O(B C).
    """
    check_labels(logits, labels)
    return functional.cross_entropy(working(logits), labels, reduction="none")


def weighted_ce(logits: Tensor, fitted: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of each row times a weight that is a constant to the gradient.

    Args:
        logits: Student logits, floating point, shape (B, C).
        fitted: Classes, int64, shape (B,), or probabilities, floating point, shape (B, C).
        weight: Of each row, floating point, shape (B,).

    Returns:
        Shape (B,), float32 (float64 for float64 logits).
    """
    logits = working(logits)
    fitted = fitted.to(logits.dtype) if fitted.is_floating_point() else fitted
    crossed = functional.cross_entropy(logits, fitted, reduction="none")
    return weight.detach().to(logits.dtype) * crossed


@final
class HardKD(Objective):
    """Cross-entropy with the teacher's most probable class."""

    name = "hard_kd"

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return itself: nothing is learnt from answers."""
        return self

    def targets(self, answers: Answers) -> Targets:
        """Give `labels`, int64, shape (B,): of equally probable classes the first."""
        return Targets({"labels": answers.probs.max(dim=1).indices})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        if targets is None:
            return self.label_loss(out, labels)
        return hard_kd_loss(out.outputs, targets["labels"])


@final
class SoftKD(Objective):
    """Divergence from the teacher's distribution.

    Args:
        temperature: tau > 0; 1 unless given.
    """

    name = "soft_kd"

    def __init__(self, *, temperature: float = 1.0) -> None:
        check_temperature(temperature)
        self.temperature = temperature

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return itself: nothing is learnt from answers."""
        return self

    def targets(self, answers: Answers) -> Targets:
        """Give `teacher_probs` as they are, float32, shape (B, C)."""
        return Targets({"teacher_probs": answers.probs})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        if targets is None:
            return self.label_loss(out, labels)
        return kd_loss(out.outputs, targets["teacher_probs"], temperature=self.temperature)


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not a positive number.

    Raises:
        ConfigError: it is zero, negative, infinite or NaN.
    """
    if not 0 < temperature < float("inf"):
        raise ConfigError(
            f"temperature={temperature}: must be a positive number; 1.0 turns softening off."
        )
