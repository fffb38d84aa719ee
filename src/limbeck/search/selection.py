"""Which kept candidate LayerNAS extends next: every rule can choose every candidate.

A rule that could not would end a sweep before all that is kept has been extended.

Source: that promising candidates are preferred is from the public reviews of Fan et al., arXiv
2304.11517; the law of the source was not recovered, and the four here are ours.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Literal

from limbeck.search.base import pick
from limbeck.search.costs import Bounds
from limbeck.search.kept import Candidate

Select = Literal["rank", "uniform", "softmax", "near_limit"]
Rule = Callable[[Sequence[Candidate], Bounds, random.Random], int]
"""Position of the chosen one. Candidates come best first; the bounds are the cheapest architecture
and the limit (or the dearest architecture, where that is less)."""

_SHARE = 0.25
_DEEPEST = 50.0  # exp(-50) is small, and still a probability


def by_rank(candidates: Sequence[Candidate], bounds: Bounds, rng: random.Random) -> int:
    """Weight exp(-4 j / n) for the j-th best of n, j = 0..n-1."""
    n = len(candidates)
    # The geometric law, cut off after n: by its inverse, without n weights.
    j = -_SHARE * n * math.log1p(-rng.random() * -math.expm1(-1 / _SHARE))
    return min(n - 1, int(j))


def uniform(candidates: Sequence[Candidate], bounds: Bounds, rng: random.Random) -> int:
    """All alike."""
    return pick(rng, len(candidates))


def softmax(candidates: Sequence[Candidate], bounds: Bounds, rng: random.Random) -> int:
    """Weight exp(reward / tau), tau the standard deviation of the candidates' rewards."""
    rewards = [one.reward for one in candidates]
    mean = sum(rewards) / len(rewards)
    tau = math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    if tau == 0:
        return pick(rng, len(candidates))
    return _draw([(rewards[0] - r) / tau for r in rewards], rng)


def near_limit(candidates: Sequence[Candidate], bounds: Bounds, rng: random.Random) -> int:
    """Weight exp(-4 |cost - limit| / (limit - cheapest)), by the cost of the completed network."""
    room = bounds.high - bounds.low
    if not 0 < room < math.inf:
        return pick(rng, len(candidates))
    return _draw([abs(one.cost - bounds.high) / (_SHARE * room) for one in candidates], rng)


def _draw(depths: Sequence[float], rng: random.Random) -> int:
    """A position with weights exp(-depth)."""
    weights = [math.exp(-min(depth, _DEEPEST)) for depth in depths]
    left = rng.random() * sum(weights)
    for i, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return i
    return len(weights) - 1


SELECT: dict[str, Rule] = {
    "rank": by_rank,
    "uniform": uniform,
    "softmax": softmax,
    "near_limit": near_limit,
}
