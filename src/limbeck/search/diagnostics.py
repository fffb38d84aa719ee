"""Whether the assumption of LayerNAS holds on a problem, and what its grouping can have lost.

LayerNAS takes it that a good prefix stays good: that what is best for the layers behind does not
depend on those before. `validity` measures this on the trials of the search itself.

Source: the assumption is Assumption 4.1 of Fan et al., arXiv 2304.11517; its measure is ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from limbeck.search.base import Found, Status
from limbeck.search.kept import Kept
from limbeck.search.space import Architecture

_FEWEST = 4


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What a search says of itself.

    Args:
        status: Of the search.
        swept: Whether nothing that is kept has an untried option.
        trials, failed, pending: Counts.
        out_of_range: Share of the trials that could not be the answer, in [0, 1].
        validity: For each layer but the last, Spearman correlation over the prefixes kept there
            between the reward that a prefix was kept for and the best reward in range of any
            architecture that begins with it, in [-1, 1]; None where fewer than four prefixes, or
            equal rewards, tell nothing. Low values of the first layers mean that prefixes are
            chosen on poor evidence.
        kept: Prefixes kept of each layer but the last.
        widths: Widest group of each of these layers, in the unit of the cost.
        loss_of_limit: Sum of `widths`: with additive rewards and costs and a fixed tail the answer
            of a finished sweep is at least as good as the best architecture under the limit less
            this.
    """

    status: Status
    swept: bool
    trials: int
    failed: int
    pending: int
    out_of_range: float
    validity: tuple[float | None, ...]
    kept: tuple[int, ...]
    widths: tuple[float, ...]

    @property
    def loss_of_limit(self) -> float:
        """In the unit of the cost."""
        return math.fsum(self.widths)


def prefix_validity(table: Sequence[Kept], found: Sequence[Found]) -> tuple[float | None, ...]:
    """Correlation, by layer, of what prefixes were kept for with what became of them.

    Args:
        table: Kept prefixes of 0, 1, ..., L - 1 layers.
        found: Evaluated architectures in range.

    Returns:
        A value for each of 1, ..., L - 1 layers.
    """
    return tuple(_validity(kept, found, n) for n, kept in enumerate(table) if n)


def _validity(kept: Kept, found: Sequence[Found], length: int) -> float | None:
    best: dict[Architecture, float] = {}
    for one in found:
        prefix = one.architecture[:length]
        best[prefix] = max(best.get(prefix, -math.inf), one.reward)
    pairs = [(one.reward, best[one.prefix]) for one in kept if one.prefix in best]
    if len(pairs) < _FEWEST:
        return None
    return spearman([a for a, _ in pairs], [b for _, b in pairs])


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Rank correlation, ties at their mean rank; None where one side is constant."""
    from scipy.stats import rankdata

    ranks = np.stack([np.asarray(rankdata(a)), np.asarray(rankdata(b))])
    if (np.ptp(ranks, axis=1) == 0).any():
        return None
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
