"""A control for LELP: hard subclasses by k-means on each class's embeddings.

Source: Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449, clustering controls. Sampling, and the nearest centroid for rows of
other classes, are a reconstruction.
"""

import warnings
from collections.abc import Iterable
from typing import Self, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.numerics.logspace import retemper
from limbeck.objectives.base import Evidence
from limbeck.objectives.centroids import Centroids, sample_classes
from limbeck.objectives.features import embeddings_of
from limbeck.objectives.projections import split_probs
from limbeck.objectives.subclasses import SubclassObjective, not_fitted

MAX_ROWS = 20_000
"""Rows of a class that are clustered; the rest goes to the nearest centroid."""
STARTS = 4


def kmeans(rows: NDArray[np.float32], size: int, *, seed: int) -> NDArray[np.int64]:
    """Cluster of each row, int64, shape (n,): the best of four starts of Lloyd's algorithm.

    Args:
        rows: float32, shape (n, D), n >= size.
        size: Clusters.
        seed: Of the starts.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer distinct rows than clusters: those that are left empty are dropped afterwards.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(size, n_init=STARTS, random_state=seed % 2**32).fit_predict(rows)
    return np.asarray(found, np.int64)


@final
class KMeansSplit(SubclassObjective):
    """Distillation of subclasses that are clusters of the teacher's embeddings.

    Rows are grouped by the teacher's most probable class.

    Args:
        subclasses: S of each class; 0 is 8 for two classes, else max(2, 16 // C).
        temperature: tau > 0, of teacher and student; outputs of a class are summed at it.
        seed: Of the sample and of the starts.
    """

    name = "kmeans_split"

    def __init__(self, *, subclasses: int = 0, temperature: float = 2.0, seed: int = 0) -> None:
        super().__init__(subclasses=subclasses, temperature=temperature)
        self.seed = seed
        self.centroids: Centroids | None = None

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy with centroids of up to `MAX_ROWS` rows of each class.

        Raises:
            ConfigError: answers hold no embeddings.
            ShapeError: there are no answers.
        """
        samples = sample_classes(answers, MAX_ROWS, name=self.name, seed=self.seed)
        fitted = self.informed(len(samples))
        fitted.centroids = Centroids.fit(
            samples,
            fitted.size(len(samples)),
            lambda rows, size: kmeans(rows, size, seed=self.seed),
            name=self.name,
        )
        return fitted

    def pseudo_probs(self, answers: Answers) -> Tensor:
        """Targets q: each class's probability at its nearest centroid, shape (n, C, S)."""
        if self.centroids is None:
            raise not_fitted(self.name)
        split = self.centroids.log_split(embeddings_of(self.name, answers))
        return split_probs(retemper(answers.probs, self.temperature), split)
