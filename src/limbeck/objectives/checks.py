"""What every loss does with its inputs first: refuse wrong shapes, leave half precision."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError

Target = Literal["soft", "hard"]
"""The teacher's whole distribution, or its most probable class."""


def check_pair(logits: Tensor, teacher_probs: Tensor) -> None:
    """Refuse student logits and teacher probabilities that are not two (B, C) matrices.

    Only shapes are looked at: reading values would make a GPU wait in every step.

    Raises:
        ShapeError: a shape is wrong, or there are fewer than two classes.
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        raise ShapeError(
            f"logits must be a floating-point (B, C) matrix with C >= 2, got {logits.dtype} of "
            f"shape {tuple(logits.shape)}; give one row of C class scores for each example."
        )
    if teacher_probs.shape != logits.shape or not teacher_probs.is_floating_point():
        raise ShapeError(
            f"teacher_probs are {teacher_probs.dtype} of shape {tuple(teacher_probs.shape)} but "
            f"the logits have shape {tuple(logits.shape)}; pass probabilities of the same rows "
            f"and classes."
        )


def working(logits: Tensor) -> Tensor:
    """Logits in the precision that losses are computed in: float64 stays, all else is float32.

    Half precision, which autocast gives, has no digits left for log(1 - f) when f is near 0 or 1.
    """
    return logits if logits.dtype == torch.float64 else logits.float()


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Refuse labels that are not one class for each row of a (B, C) matrix of logits.

    Raises:
        ShapeError: a shape or the dtype is wrong.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.dtype != torch.long:
        raise ShapeError(
            f"the loss needs logits (B, C) and int64 labels (B,), got {tuple(logits.shape)} "
            f"and {labels.dtype} of shape {tuple(labels.shape)}; take teacher_probs.argmax(dim=1)."
        )


def check_target(target: str) -> None:
    """Refuse a target that is neither "soft" nor "hard".

    Raises:
        ConfigError: it is something else.
    """
    if target not in ("soft", "hard"):
        raise ConfigError(f"target={target!r}: must be 'soft' or 'hard'.")


def check_alpha(alpha: Tensor, rows: int) -> None:
    """Refuse an alpha that is not one probability in (0, 1] for each of some rows.

    Values are looked at on the CPU only: a GPU would have to wait for them in each step.

    Raises:
        ShapeError: it is not floating point of shape (rows,).
        ConfigError: a value lies outside of (0, 1].
    """
    if alpha.shape != (rows,) or not alpha.is_floating_point():
        raise ShapeError(
            f"alpha must be floating point of shape ({rows},), got {alpha.dtype} of shape "
            f"{tuple(alpha.shape)}; give one number a row, alpha.expand({rows}) for a constant."
        )
    if rows and alpha.device.type == "cpu":
        low, high = (float(bound) for bound in alpha.detach().aminmax())
        if not (low > 0 and high <= 1):
            raise ConfigError(
                f"alpha lies in [{low:.4g}, {high:.4g}] but is a probability in (0, 1]; pass what "
                f"limbeck.trust has fitted."
            )


def count_classes(answers: Iterable[Answers]) -> int:
    """C of the first answers, 0 where there are none; the rest is not read."""
    return next((part.probs.shape[1] for part in answers), 0)


def check_factor(name: str, factor: float, *, zero: bool = False) -> None:
    """Refuse a factor of a loss that is not a finite number > 0, or >= 0 where `zero` is allowed.

    Raises:
        ConfigError: it is something else.
    """
    if not (factor >= 0 if zero else factor > 0) or factor == float("inf"):
        bound = ">= 0" if zero else "> 0"
        raise ConfigError(f"{name}={factor}: must be a finite number {bound}.")
