"""Which trial is the answer, and which are the best of their cost."""

import math
from collections.abc import Sequence

from limbeck.report.search import SearchTrial
from limbeck.search import Architecture


def best_of(trials: Sequence[SearchTrial]) -> SearchTrial | None:
    """The answer: greatest reward in range, then the cheaper, then the smaller options."""
    found = [one for one in trials if one.in_range and one.reward is not None]
    return min(found, key=_rank, default=None)


def front_of(trials: Sequence[SearchTrial]) -> tuple[int, ...]:
    """Numbers of the trials that are beaten by nothing as cheap, ascending in cost."""
    best, found = -math.inf, []
    rewarded = [one for one in trials if one.reward is not None]
    for one in sorted(rewarded, key=lambda one: (one.cost, *_rank(one))):
        assert one.reward is not None
        if one.reward > best:
            best = one.reward
            found.append(one.number)
    return tuple(found)


def _rank(one: SearchTrial) -> tuple[float, float, Architecture]:
    assert one.reward is not None
    return (-one.reward, one.cost, one.options)
