"""A control for LELP: hard subclasses by agglomerative clustering of each class's embeddings.

Source: Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449, clustering controls. Ward's linkage, sampling, and the nearest
centroid for all other rows are a reconstruction.
"""

from collections.abc import Iterable
from typing import Self, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.numerics.logspace import retemper
from limbeck.objectives.base import Evidence
from limbeck.objectives.centroids import Centroids, sample_classes
from limbeck.objectives.features import embeddings_of
from limbeck.objectives.projections import split_probs
from limbeck.objectives.subclasses import SubclassObjective, not_fitted


def ward(rows: NDArray[np.float32], size: int) -> NDArray[np.int64]:
    """Cluster of each row, int64, shape (n,), by Ward's linkage cut at so many clusters.

    Args:
        rows: float32, shape (n, D), n >= size.
        size: Clusters.

    Cost: O(n^2 D) time, O(n^2) memory.
    """
    from sklearn.cluster import AgglomerativeClustering

    return np.asarray(AgglomerativeClustering(size).fit_predict(rows), np.int64)


@final
class AgglomerativeSplit(SubclassObjective):
    """Distillation of subclasses that are clusters of the teacher's embeddings, found bottom-up.

    Rows are grouped by the teacher's most probable class.

    Args:
        subclasses: S of each class; 0 is 8 for two classes, else max(2, 16 // C).
        temperature: tau > 0, of teacher and student; outputs of a class are summed at it.
        max_rows: Rows of a class that are clustered, >= 1; the rest, and rows of other classes, go
            to the nearest of the clusters' centroids.
        seed: Of the sample.
    """

    name = "agglomerative_split"

    def __init__(
        self,
        *,
        subclasses: int = 0,
        temperature: float = 2.0,
        max_rows: int = 3000,
        seed: int = 0,
    ) -> None:
        super().__init__(subclasses=subclasses, temperature=temperature)
        if type(max_rows) is not int or max_rows < 1:
            raise ConfigError(f"max_rows={max_rows!r}: must be an integer >= 1.")
        self.max_rows = max_rows
        self.seed = seed
        self.centroids: Centroids | None = None

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy with centroids of up to `max_rows` rows of each class.

        Raises:
            ConfigError: answers hold no embeddings.
            ShapeError: there are no answers.
        """
        samples = sample_classes(answers, self.max_rows, name=self.name, seed=self.seed)
        fitted = self.informed(len(samples))
        size = fitted.size(len(samples))
        fitted.centroids = Centroids.fit(samples, size, ward, name=self.name)
        return fitted

    def pseudo_probs(self, answers: Answers) -> Tensor:
        """Targets q: each class's probability at its nearest centroid, shape (n, C, S)."""
        if self.centroids is None:
            raise not_fitted(self.name)
        split = self.centroids.log_split(embeddings_of(self.name, answers))
        return split_probs(retemper(answers.probs, self.temperature), split)
