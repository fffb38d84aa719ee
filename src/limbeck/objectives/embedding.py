"""Embedding regression: bring the student's last embedding to the teacher's, through a linear map.

Let h be a row's embedding, D and d the widths of the teacher's and of the student's:

    L = mean over k of (h^T_k - r(h^S)_k)^2,  r linear and learnt where d != D, else nothing.

In a sum such as soft_kd+embedding it is the embedding baseline of Loo, Iliopoulos, Hu, Vee, "Linear
projections of teacher embeddings for few-class distillation" (2024), arXiv 2409.20449, Section 4;
name and role are the paper's, the exact form is a reconstruction.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Self, final

import torch
from torch import Tensor, nn

from limbeck.answers import Answers
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


def embedding_loss(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Mean squared difference of two embeddings.

    Args:
        embeddings: Of the student, mapped to the teacher's width, floating point, shape (B, D).
        teacher_embeddings: Floating point, shape (B, D).

    Returns:
        Shape (B,), >= 0, in squared units of the teacher's embedding; float32 (float64 for
        float64).

    Raises:
        ShapeError: the shapes differ or are not 2-d.

    Cost: O(B D).
    """
    check_embeddings(embeddings, teacher_embeddings, same_width=True)
    student = working(embeddings)
    return (student - teacher_embeddings.to(student.dtype)).square().mean(dim=1)


@final
class EmbeddingRegression(Objective):
    """Squared difference of last embeddings. Pool rows do not teach the head.

    Args:
        weight: Factor of the loss of pool rows, > 0: what balances it against the rest depends on
            the size of the teacher's embeddings, so there is no usual value.
    """

    name = "embedding"
    needs_embeddings = True
    uses_outputs = False

    def __init__(self, *, weight: float = 1.0) -> None:
        check_factor("weight", weight)
        self.weight = weight
        self._width: int | None = None
        self._map: nn.Module | None = None

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that knows D; only the first answers are read.

        Raises:
            ConfigError: there are no answers, or they hold no embeddings.
        """
        fitted = copy.copy(self)
        fitted._width = embedding_width(self.name, answers)
        return fitted

    def attach(self, embedding_dim: int, generator: torch.Generator) -> Self:
        """Return a copy with the map from d to D, which changes nothing where they are equal.

        Raises:
            ConfigError: the objective has not been fitted.
        """
        width, attached = fitted_width(self.name, self._width), copy.copy(self)
        same = width == embedding_dim
        attached._map = nn.Identity() if same else linear(embedding_dim, width, generator)
        return attached

    def targets(self, answers: Answers) -> Targets:
        """Give `embeddings` as they are, float32, shape (B, D)."""
        return Targets({"embeddings": embeddings_of(self.name, answers)})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Shape (B,): of pool rows as `embedding_loss`, of labelled rows cross-entropy in nats.

        Raises:
            ConfigError: nothing has been attached.
        """
        if targets is None:
            return self.label_loss(out, labels)
        if self._map is None:
            raise not_attached(self.name)
        mapped = project(self._map, out.embedding)
        return self.weight * embedding_loss(mapped, targets["embeddings"])

    def parameters(self) -> Iterator[nn.Parameter]:
        """Weight and bias of the map; none where the widths are equal."""
        return iter(()) if self._map is None else self._map.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """Weight and bias of the map."""
        return {} if self._map is None else self._map.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        if self._map is None:
            raise not_attached(self.name)
        self._map.load_state_dict(dict(state))
