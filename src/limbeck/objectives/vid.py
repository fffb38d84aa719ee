"""VID: make the teacher's embedding likely, given the student's, under a Gaussian that is learnt.

Let h be a row's embedding and D the width of the teacher's. A lower bound of the information that
the two share is, up to a constant, minus

    L = mean over k of 1/2 [(h^T_k - mu_k(h^S))^2 / v_k + log v_k],

with mu a network of three layers, d -> D -> D -> D with ReLU between them and no biases, and one
variance for each number of the embedding, v = softplus(u) + 1e-5, which starts at 5.

Source: Ahn, Hu, Damianou, Lawrence, Dai, "Variational information distillation for knowledge
transfer", CVPR 2019, arXiv 1904.05835, Section 2; the network and its start are those of the public
code, whose 1 x 1 convolutions are linear layers on embeddings.
"""

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.checks import working
from limbeck.objectives.features import ProjectedObjective, check_embeddings, linear, project

FLOOR = 1e-5
"""Smallest variance: a number that the teacher never changes would drive it to 0."""


def vid_loss(mean: Tensor, teacher_embeddings: Tensor, variance: Tensor) -> Tensor:
    """Negative log-likelihood of the teacher's embedding under a Gaussian, per number.

    Args:
        mean: What the student predicts, floating point, shape (B, D).
        teacher_embeddings: Floating point, shape (B, D).
        variance: v > 0, floating point, shape (D,).

    Returns:
        Nats for each of the D numbers, less log(2 pi) / 2, shape (B,), float32 (float64 for
        float64). It may be negative.

    Raises:
        ShapeError: shapes do not fit each other.

    Cost: O(B D). Least in v at the mean of squared differences over all rows.
    """
    check_embeddings(mean, teacher_embeddings, same_width=True)
    if variance.shape != mean.shape[1:] or not variance.is_floating_point():
        raise ShapeError(
            f"variance must be floating point of shape ({mean.shape[1]},), one for each number of "
            f"the embedding, got {variance.dtype} of shape {tuple(variance.shape)}."
        )
    mean = working(mean)
    variance = variance.to(mean.dtype)
    gap = mean - teacher_embeddings.to(mean.dtype)
    return 0.5 * (gap.square() / variance + variance.log()).mean(dim=1)


def variance_of(raw: Tensor) -> Tensor:
    """v = softplus(u) + `FLOOR` of raw numbers u."""
    return functional.softplus(raw) + FLOOR


class _Gaussian(nn.Module):
    """The network that predicts the mean, and the raw numbers u of the variances."""

    def __init__(self, mean: nn.Sequential, raw: Tensor) -> None:
        super().__init__()
        self.mean = mean
        self.raw = nn.Parameter(raw)


@final
class Vid(ProjectedObjective):
    """The variational bound as an objective. Pool rows do not teach the head.

    Args:
        weight: Factor of the loss of pool rows, > 0.
        start: Variance before training, > 1e-5.
    """

    name = "vid"

    def __init__(self, *, weight: float = 1.0, start: float = 5.0) -> None:
        super().__init__(weight=weight)
        if not FLOOR < start < math.inf:
            raise ConfigError(f"start={start}: must be a finite variance > {FLOOR:g}.")
        self.start = start

    def projector(self, embedding_dim: int, width: int, generator: torch.Generator) -> nn.Module:
        """Network and variances: D (d + 2 D + 1) numbers."""
        first, second, third = (
            linear(inputs, width, generator, bias=False) for inputs in (embedding_dim, width, width)
        )
        above = self.start - FLOOR
        raw = above + math.log(-math.expm1(-above))  # softplus(raw) = above, also for large ones
        mean = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        return _Gaussian(mean, torch.full((width,), raw))

    def distance(self, module: nn.Module, embedding: Tensor, teacher: Tensor) -> Tensor:
        """As `vid_loss`, shape (B,)."""
        assert isinstance(module, _Gaussian)
        return vid_loss(project(module.mean, embedding), teacher, variance_of(module.raw))

    @property
    def variance(self) -> Tensor:
        """v, float32, shape (D,); empty before `attach`."""
        return variance_of(getattr(self._module, "raw", torch.zeros(0)))
