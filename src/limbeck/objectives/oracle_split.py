"""An upper bound for LELP: the true hidden labels inside each class as subclasses.

Source: the oracle of Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for
Few-Class Distillation", arXiv 2409.20449. The even split of other classes is a reconstruction.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.numerics.logspace import retemper
from limbeck.objectives.base import Evidence
from limbeck.objectives.projections import split_probs
from limbeck.objectives.subclasses import SubclassObjective

Lookup = Callable[[NDArray[np.uint8]], tuple[Tensor, Tensor]]
"""Question ids (n, 16) to the true class and its subclass, int64 (n,) both; -1 where unknown."""


@final
class OracleSplit(SubclassObjective):
    """Distillation of hidden labels, for benchmarks whose hidden labels are known.

    A row's own class is given to its true subclass, and every other class evenly to its own
    subclasses; a row of unknown class splits all of them evenly. It has no name in run files, since
    it must be given the labels.

    Args:
        lookup: Finds hidden labels by question id.
        sizes: S_c of each class, all >= 1.
        temperature: tau > 0, of teacher and student; outputs of a class are summed at it.
    """

    name = "oracle_split"
    needs_embeddings = False

    def __init__(self, lookup: Lookup, sizes: Sequence[int], *, temperature: float = 2.0) -> None:
        if len(sizes) < 2 or min(sizes) < 1:
            raise ConfigError(f"sizes={tuple(sizes)}: must name >= 1 subclasses for every class.")
        super().__init__(subclasses=max(sizes), temperature=temperature)
        self._lookup = lookup
        self.sizes = tuple(sizes)
        places = torch.arange(max(sizes))
        spare = places[None] >= torch.tensor(self.sizes)[:, None]
        self._even = torch.log_softmax(torch.zeros(spare.shape).masked_fill(spare, -torch.inf), 1)

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that knows how many classes there are."""
        return self.informed(len(self.sizes))

    def pseudo_probs(self, answers: Answers) -> Tensor:
        """Targets q, float32, shape (n, C, S).

        Raises:
            ConfigError: there are other classes in the answers than sizes, or a hidden label
                does not exist.
        """
        if answers.num_classes != len(self.sizes):
            raise ConfigError(
                f"oracle_split has sizes of {len(self.sizes)} classes but answers have "
                f"{answers.num_classes}; give one size a class."
            )
        classes, places = self._lookup(answers.ids)
        known = classes >= 0
        bound = torch.tensor(self.sizes)[classes.clamp(0, len(self.sizes) - 1)]
        wrong = known & ((classes >= len(self.sizes)) | (places < 0) | (places >= bound))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ConfigError(
                f"oracle_split: the lookup gives subclass {int(places[row])} of class "
                f"{int(classes[row])}, but the sizes are {self.sizes}; number each class's hidden "
                f"labels from 0."
            )
        split = self._even.expand(len(answers), *self._even.shape).clone()
        split[known, classes[known]] = -torch.inf
        split[known, classes[known], places[known]] = 0.0
        return split_probs(
            retemper(answers.probs, self.temperature), split.to(answers.probs.device)
        )
