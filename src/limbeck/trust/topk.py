"""How many of the teacher's best guesses hold the truth.

Source: Kontonis et al., "SLaM", NeurIPS 2023, arXiv 2302.03806; the threshold rule is a
reconstruction from memory of the paper.
"""

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError


def top_k(teacher_probs: Tensor, labels: Tensor, *, threshold: float = 0.9) -> int:
    """Find the smallest k >= 2 with top-k accuracy of at least `threshold` on validation rows.

    Args:
        teacher_probs: The teacher's probabilities, floating point, shape (n, C), n >= 1, C >= 2. Of
            equal ones the lower class ranks first.
        labels: True classes, int64, shape (n,), in [0, C).
        threshold: Share of rows whose truth must be among the first k, in (0, 1].

    Returns:
        k in [2, C].

    Raises:
        ShapeError: shapes do not fit, or there is no row.
        ConfigError: the threshold or a label is out of range.

    Cost: O(n C).
    """
    check_labelled(teacher_probs, labels, what="top_k")
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold={threshold}: must lie in (0, 1]; 0.9 is usual.")
    probs = teacher_probs.float()
    n, count = probs.shape
    own = probs.gather(1, labels[:, None])
    before = torch.arange(count, device=probs.device) < labels[:, None]
    rank = ((probs > own) | ((probs == own) & before)).sum(dim=1)
    found = torch.bincount(rank, minlength=count).cumsum(0).tolist()
    for k in range(2, count):
        if found[k - 1] >= threshold * n - 1e-9:  # 0.9 * 30 is above 27 in binary
            return k
    return count


def check_labelled(scores: Tensor, labels: Tensor, *, what: str) -> None:
    """Refuse scores (n, C) and labels (n,) that do not belong together.

    Raises:
        ShapeError: wrong shapes or dtypes, no row, or fewer than two classes.
        ConfigError: a label is outside of [0, C).
    """
    if scores.ndim != 2 or scores.shape[1] < 2 or not scores.is_floating_point():
        raise ShapeError(
            f"{what} needs a floating-point (n, C) matrix with C >= 2, got {scores.dtype} of shape "
            f"{tuple(scores.shape)}; give one row of C numbers for each validation row."
        )
    check_classes(labels, rows=scores.shape[0], num_classes=scores.shape[1], what=what)


def check_classes(labels: Tensor, *, rows: int, num_classes: int, what: str) -> None:
    """Refuse labels that are not `rows` >= 1 classes in [0, num_classes).

    Raises:
        ShapeError: wrong shape or dtype, or no row.
        ConfigError: a label is out of range.
    """
    if labels.shape != (rows,) or labels.dtype != torch.long or rows == 0:
        raise ShapeError(
            f"{what} needs at least one row and int64 labels of shape ({rows},), got "
            f"{labels.dtype} of shape {tuple(labels.shape)}; give one true class for each "
            f"validation row."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ConfigError(
            f"{what}: labels lie in [{low}, {high}] but there are {num_classes} classes; labels "
            f"must be in [0, {num_classes - 1}]."
        )
