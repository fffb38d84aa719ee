"""What every loss does with its inputs first: refuse wrong shapes, leave half precision."""

import torch
from torch import Tensor

from limbeck.errors import ShapeError


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
