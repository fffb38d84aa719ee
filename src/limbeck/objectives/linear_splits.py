"""Two ablations of LELP: principal components as they are, and random projections.

Source: Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449, which compares with both. That both are taken from the whole space
of the embeddings, and not from the null space, is a reconstruction.
"""

import copy
from collections.abc import Iterable
from typing import ClassVar, Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.numerics.logspace import retemper
from limbeck.objectives.answer_projections import project_answers
from limbeck.objectives.base import Evidence
from limbeck.objectives.directions import Directions
from limbeck.objectives.features import embeddings_of
from limbeck.objectives.projections import LinearProjections, check_beta, split_probs
from limbeck.objectives.subclasses import SubclassObjective, not_fitted


class _LinearSplit(SubclassObjective):
    """A softmax of projections in the whole space, without rotation.

    Args:
        subclasses: S of each class; 0 is 8 for two classes, else max(2, 16 // C).
        beta: Softness of the split, > 0.
        temperature: tau > 0, of teacher and student; outputs of a class are summed at it.
        seed: Of what is drawn: random directions, or a sketch of embeddings wider than 4,096.
    """

    directions: ClassVar[Directions]

    def __init__(
        self, *, subclasses: int = 0, beta: float = 3.0, temperature: float = 2.0, seed: int = 0
    ) -> None:
        super().__init__(subclasses=subclasses, temperature=temperature)
        check_beta(beta)
        self.beta = beta
        self.seed = seed
        self.projections: LinearProjections | None = None

    @final
    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy with directions and scales; see `project_answers`."""
        fitted = copy.copy(self)
        fitted.projections = project_answers(
            answers,
            None,
            self.size,
            name=self.name,
            without_weights="none",
            generator=torch.Generator().manual_seed(self.seed),
            settings={
                "null_space": "none",
                "rotation": "none",
                "directions": self.directions,
                "absorb_empty": True,
            },
        )
        return fitted.informed(len(fitted.projections.num_subclasses))

    @final
    def pseudo_probs(self, answers: Answers) -> Tensor:
        """Targets q, float32, shape (n, C, S)."""
        if self.projections is None:
            raise not_fitted(self.name)
        split = self.projections.log_split(embeddings_of(self.name, answers), self.beta)
        return split_probs(retemper(answers.probs, self.temperature), split)


@final
class PcaSplit(_LinearSplit):
    """LELP without null space and rotation: each class's largest principal components."""

    name = "pca_split"
    directions = "pca"


@final
class RandomProjections(_LinearSplit):
    """LELP with random directions instead of principal ones, in the whole space."""

    name = "random_projections"
    directions = "random"
