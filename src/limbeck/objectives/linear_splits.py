"""Two ablations of LELP: principal components as they are, and random projections.

Source: Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449, which compares with both. That both are taken from the whole space
of the embeddings, and not from the null space, is a reconstruction.
"""

import copy
from collections.abc import Iterable
from typing import Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.numerics.logspace import retemper
from limbeck.objectives.answer_projections import project_answers
from limbeck.objectives.base import Evidence
from limbeck.objectives.directions import Directions
from limbeck.objectives.projections import LinearProjections, check_beta, split_probs
from limbeck.objectives.subclasses import SubclassObjective, embeddings_of, not_fitted


@final
class PcaSplit(SubclassObjective):
    """LELP without null space and rotation: each class's largest principal components.

    Args:
        subclasses: S of each class; 0 is 8 for two classes, else max(2, 16 // C).
        beta: Softness of the split, > 0.
        temperature: tau > 0, of teacher and student; outputs of a class are summed at it.
        seed: Used where embeddings are wider than 4,096 numbers.
    """

    name = "pca_split"

    def __init__(
        self, *, subclasses: int = 0, beta: float = 3.0, temperature: float = 2.0, seed: int = 0
    ) -> None:
        super().__init__(subclasses=subclasses, temperature=temperature)
        check_beta(beta)
        self.beta = beta
        self.seed = seed
        self.projections: LinearProjections | None = None

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy with the components; see `project_answers`."""
        fitted = copy.copy(self)
        fitted.projections = _project(self, answers, "pca", self.seed)
        return fitted.informed(len(fitted.projections.num_subclasses))

    def pseudo_probs(self, answers: Answers) -> Tensor:
        """Targets q, float32, shape (n, C, S)."""
        return _pseudo_probs(self, answers, self.projections, self.beta)


@final
class RandomProjections(SubclassObjective):
    """LELP with random directions instead of principal ones, in the whole space.

    Args:
        subclasses: S of each class; 0 is 8 for two classes, else max(2, 16 // C).
        beta: Softness of the split, > 0.
        temperature: tau > 0, of teacher and student; outputs of a class are summed at it.
        seed: Of the directions.
    """

    name = "random_projections"

    def __init__(
        self, *, subclasses: int = 0, beta: float = 3.0, temperature: float = 2.0, seed: int = 0
    ) -> None:
        super().__init__(subclasses=subclasses, temperature=temperature)
        check_beta(beta)
        self.beta = beta
        self.seed = seed
        self.projections: LinearProjections | None = None

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy with directions, and scales learnt from the answers."""
        fitted = copy.copy(self)
        fitted.projections = _project(self, answers, "random", self.seed)
        return fitted.informed(len(fitted.projections.num_subclasses))

    def pseudo_probs(self, answers: Answers) -> Tensor:
        """Targets q, float32, shape (n, C, S)."""
        return _pseudo_probs(self, answers, self.projections, self.beta)


def _project(
    objective: SubclassObjective, answers: Iterable[Answers], directions: Directions, seed: int
) -> LinearProjections:
    return project_answers(
        answers,
        None,
        objective.size,
        name=objective.name,
        without_weights="none",
        generator=torch.Generator().manual_seed(seed),
        settings={
            "null_space": "none",
            "rotation": "none",
            "directions": directions,
            "absorb_empty": True,
        },
    )


def _pseudo_probs(
    objective: SubclassObjective,
    answers: Answers,
    projections: LinearProjections | None,
    beta: float,
) -> Tensor:
    if projections is None:
        raise not_fitted(objective.name)
    split = projections.log_split(embeddings_of(answers, objective.name), beta)
    return split_probs(retemper(answers.probs, objective.temperature), split)
