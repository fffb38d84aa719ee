"""A control for LELP: a random subclass for every row, so more outputs and no more information.

It is not in Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449: this control is ours.
"""

from collections.abc import Iterable
from typing import Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.numerics.logspace import retemper
from limbeck.objectives.base import Evidence
from limbeck.objectives.centroids import one_hot_logs
from limbeck.objectives.hashing import drawn, hashed
from limbeck.objectives.projections import split_probs
from limbeck.objectives.subclasses import SubclassObjective


def random_subclasses(
    ids: NDArray[np.uint8], num_classes: int, num_subclasses: int, *, seed: int
) -> Tensor:
    """Draw a subclass of every class for each question: always the same one for a question.

    Args:
        ids: Question ids, uint8, shape (n, 16).
        num_classes: C.
        num_subclasses: S.
        seed: Another seed draws anew.

    Returns:
        int64, shape (n, C), uniform over [0, S).

    Cost: O(n C).
    """
    keys, size = hashed(ids, seed), np.uint64(num_subclasses)
    columns = [(drawn(keys, c) % size).astype(np.int64) for c in range(num_classes)]
    return torch.from_numpy(np.stack(columns, axis=1))


@final
class RandomSplit(SubclassObjective):
    """Distillation of random subclasses: what a head of C S outputs does by itself.

    Args:
        subclasses: S of each class; 0 is 8 for two classes, else max(2, 16 // C).
        temperature: tau > 0, of teacher and student; outputs of a class are summed at it.
        seed: Of the draw.
    """

    name = "random_split"
    needs_embeddings = False

    def __init__(self, *, subclasses: int = 0, temperature: float = 2.0, seed: int = 0) -> None:
        super().__init__(subclasses=subclasses, temperature=temperature)
        self.seed = seed

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that knows how many classes there are, if the evidence tells."""
        return self.informed(evidence)

    def pseudo_probs(self, answers: Answers) -> Tensor:
        """Targets q: each class's probability at the row's own subclass, shape (n, C, S)."""
        size = self.size(answers.num_classes)
        places = random_subclasses(answers.ids, answers.num_classes, size, seed=self.seed)
        split = one_hot_logs(places.to(answers.probs.device), size)
        return split_probs(retemper(answers.probs, self.temperature), split)
