"""Cluster-Margin: unsure rows, spread over clusters of the pool.

Source: Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh, Kumar, "Batch active
learning at scale", NeurIPS 2021, Algorithm 1. Its clusters are cut from an average-linkage tree of
the whole pool; beyond 2,000 rows we build the tree over k-means centroids instead, which is ours.
"""

import warnings
from collections.abc import Mapping
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.select.base import Candidates, Selection, Selector, batch_size, chosen
from limbeck.select.gains import check_embeddings, groups_of
from limbeck.select.greedy import top_rows
from limbeck.select.scoring import gains_of

LEAVES = 2_000
"""Rows that average linkage is given; more are first gathered around as many centroids."""


def average_linkage(x: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """Cut an average-linkage tree of rows into clusters.

    Args:
        x: Features, shape (n, d).
        clusters: Clusters to cut, >= 1.
        seed: Of the k-means that gathers more than 2,000 rows around 2,000 centroids first.

    Returns:
        Cluster of each row, int64, shape (n,).

    Raises:
        ConfigError: `clusters` is below 1, or features are NaN or infinite.

    Cost: O(min(n, 2000)^2) memory; k-means in minibatches beyond 2,000 rows.
    """
    if clusters < 1:
        raise ConfigError(f"clusters={clusters}: must be >= 1.")
    check_embeddings(x)
    features = x.detach().float().cpu().numpy()
    if len(features) <= LEAVES:
        return torch.from_numpy(_cut(features, clusters))
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(LEAVES, random_state=seed, n_init=1, batch_size=4 * LEAVES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than centroids are no mistake here
        leaf = means.fit_predict(features)
    return torch.from_numpy(_cut(means.cluster_centers_, clusters)[leaf])


def _cut(features: NDArray[np.float32], clusters: int) -> NDArray[np.int64]:
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(features) < 2:
        return np.zeros(len(features), np.int64)
    tree = linkage(features, "average")
    return np.asarray(fcluster(tree, clusters, "maxclust"), np.int64) - 1


def round_robin(clusters: Tensor, order: Tensor, k: int) -> Tensor:
    """Take one row from each cluster in turn, from the smallest cluster to the largest.

    Of clusters of one size the one whose first row comes first in `order` is first: what clusters
    are called does not matter.

    Args:
        clusters: Cluster of each row, int64, shape (n,).
        order: Rows that may be taken, in the order in which a cluster gives them, int64, (m,).
        k: Rows to take, in [0, m].

    Returns:
        int64, shape (k,).

    Cost: O(m log m).
    """
    mine = clusters[order]
    group, sizes = groups_of(mine)
    by_group = group.sort(stable=True).indices
    starts = sizes.cumsum(0) - sizes
    turn = torch.empty_like(group)
    turn[by_group] = torch.arange(len(group)) - starts[group[by_group]]
    # Turn first, then size of the cluster; of equal sizes the one whose first row comes first.
    by_first = by_group[starts].sort().indices
    rank = torch.empty_like(sizes)
    rank[by_first[sizes[by_first].sort(stable=True).indices]] = torch.arange(len(sizes))
    return order[(turn * len(sizes) + rank[group]).sort(stable=True).indices[:k]]


@final
class ClusterMargin(Selector):
    """The `factor` k candidates of smallest margin, taken from clusters in turn.

    The clusters are cut once, from the embeddings of the first round's candidates.

    Args:
        factor: Candidates by margin for each row wanted, >= 1. Ours; the source's is 1.25 to 10.
        clusters: Clusters to cut; 0 stands for the first batch's size.
    """

    name = "cluster_margin"
    needs = frozenset({"probs", "embeddings", "history"})

    def __init__(self, *, factor: float = 10.0, clusters: int = 0) -> None:
        if factor < 1:
            raise ConfigError(f"factor={factor}: must be >= 1 candidates for each row wanted.")
        if clusters < 0:
            raise ConfigError(f"clusters={clusters}: must be >= 1, or 0 for the batch's size.")
        self.factor = factor
        self.clusters = clusters
        self._of = torch.zeros(0, dtype=torch.int64)

    def select(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Choose min(k, n) rows; equal margins at random."""
        k = batch_size(candidates, k)
        n = len(candidates.rows)
        if k == 0:
            return chosen(candidates, torch.zeros(0, dtype=torch.int64), None)
        if len(self._of) == 0:
            cut = average_linkage(candidates.embeddings(), self.clusters or k)
            self._of = torch.full((candidates.pool_size,), -1, dtype=torch.int64)
            self._of[candidates.rows] = cut
        many = min(n, max(k, round(self.factor * k)))
        order = top_rows(gains_of(candidates, "margin"), many, generator)
        at = round_robin(self._of[candidates.rows], order, k)
        return chosen(candidates, at, None)

    def state_dict(self) -> dict[str, Tensor]:
        """Cluster of each pool row."""
        return {"clusters": self._of.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Remember the clusters."""
        self._of = state["clusters"].clone()
