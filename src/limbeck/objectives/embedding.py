"""Embedding regression: bring the student's last embedding to the teacher's, through a linear map.

Let h be a row's embedding, D and d the widths of the teacher's and of the student's:

    L = mean over k of (h^T_k - r(h^S)_k)^2,  r linear and learnt where d != D, else nothing.

In a sum such as soft_kd+embedding it is the embedding baseline of Loo, Iliopoulos, Hu, Vee, "Linear
projections of teacher embeddings for few-class distillation" (2024), arXiv 2409.20449, Section 4;
name and role are the paper's, the exact form is a reconstruction.
"""

from typing import final

import torch
from torch import Tensor, nn

from limbeck.objectives.checks import working
from limbeck.objectives.features import ProjectedObjective, check_embeddings, linear, project


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
class EmbeddingRegression(ProjectedObjective):
    """Squared difference of last embeddings. Pool rows do not teach the head.

    Args:
        weight: Factor of the loss of pool rows, > 0: what balances it against the rest depends on
            the size of the teacher's embeddings, so there is no usual value.
    """

    name = "embedding"

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__(weight=weight)

    def projector(self, embedding_dim: int, width: int, generator: torch.Generator) -> nn.Module:
        """The map from d to D, which changes nothing where they are equal."""
        same = width == embedding_dim
        return nn.Identity() if same else linear(embedding_dim, width, generator)

    def distance(self, module: nn.Module, embedding: Tensor, teacher: Tensor) -> Tensor:
        """As `embedding_loss`, shape (B,)."""
        return embedding_loss(project(module, embedding), teacher)
