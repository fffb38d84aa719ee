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

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import check_factor, working
from limbeck.objectives.features import (
    check_embeddings,
    embedding_width,
    embeddings_of,
    fitted_width,
    linear,
    not_attached,
    project,
)

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


@final
class Vid(Objective):
    """The variational bound as an objective. Pool rows do not teach the head.

    Args:
        weight: Factor of the loss of pool rows, > 0.
        start: Variance before training, > 1e-5.
    """

    name = "vid"
    needs_embeddings = True
    uses_outputs = False

    def __init__(self, *, weight: float = 1.0, start: float = 5.0) -> None:
        check_factor("weight", weight)
        if not FLOOR < start < math.inf:
            raise ConfigError(f"start={start}: must be a finite variance > {FLOOR:g}.")
        self.weight = weight
        self.start = start
        self._width: int | None = None
        self._mean: nn.Sequential | None = None
        self._raw = nn.Parameter(torch.zeros(0))

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that knows D; only the first answers are read.

        Raises:
            ConfigError: there are no answers, or they hold no embeddings.
        """
        fitted = copy.copy(self)
        fitted._width = embedding_width(self.name, answers)
        return fitted

    def attach(self, embedding_dim: int, generator: torch.Generator) -> Self:
        """Return a copy with network and variances: D (d + 2 D + 1) numbers.

        Raises:
            ConfigError: the objective has not been fitted.
        """
        width, attached = fitted_width(self.name, self._width), copy.copy(self)
        first, second, third = (
            linear(inputs, width, generator, bias=False) for inputs in (embedding_dim, width, width)
        )
        attached._mean = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        above = self.start - FLOOR
        raw = above + math.log(-math.expm1(-above))  # softplus(raw) = above, also for large ones
        attached._raw = nn.Parameter(torch.full((width,), raw))
        return attached

    def targets(self, answers: Answers) -> Targets:
        """Give `embeddings` as they are, float32, shape (B, D)."""
        return Targets({"embeddings": embeddings_of(self.name, answers)})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Shape (B,), in nats: of pool rows as `vid_loss`, of labelled rows cross-entropy.

        Raises:
            ConfigError: nothing has been attached.
        """
        if targets is None:
            return self.label_loss(out, labels)
        if self._mean is None:
            raise not_attached(self.name)
        mean = project(self._mean, out.embedding)
        return self.weight * vid_loss(mean, targets["embeddings"], self.variance)

    @property
    def variance(self) -> Tensor:
        """v, float32, shape (D,); empty before `attach`."""
        return variance_of(self._raw)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Weights of the network, and u."""
        if self._mean is not None:
            yield from self._mean.parameters()
            yield self._raw

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of the network, and u."""
        if self._mean is None:
            return {}
        return {**self._mean.state_dict(), "raw": self._raw.detach()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        if self._mean is None:
            raise not_attached(self.name)
        self._mean.load_state_dict({name: t for name, t in state.items() if name != "raw"})
        with torch.no_grad():
            self._raw.copy_(state["raw"])
