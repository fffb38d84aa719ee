"""How a prefix is completed before it is evaluated: the default tail of LayerNAS.

While layer l is searched, the layers behind it have options that nobody has chosen yet. The method
as published gives them their default, "e.g. the most expensive one" (`max`, `default`), so that
under a tight limit many evaluated networks are out of range. `fit`, ours, takes the dearest tail
that is in range, so that every evaluated network is a legal answer.

Source: Fan et al., arXiv 2304.11517, Section 4 (its first paragraph, as its public reviews cite
it). `fit`, `min` and `incumbent` are ours.
"""

from collections.abc import Callable
from functools import lru_cache

from limbeck.search.costs import Cost, Limit
from limbeck.search.space import Architecture, LayerwiseSpace

Feasible = Callable[[Architecture], bool]
"""Whether a finished architecture may be an answer."""

Reachable = Callable[[Architecture], bool]
"""Whether some completion of a prefix may be an answer, as far as bounds can tell."""

_LEVELS = 8
_LOOKS = 2_000


@lru_cache(maxsize=256)
def _rank(level: int, k: int) -> int:
    """round(f (K - 1)) for f = level / 8, halves up."""
    return int(level * (k - 1) / _LEVELS + 0.5)


def level_options(cost: Cost, level: int) -> Architecture:
    """For every layer its option of cost rank round(f (K - 1)), f = level / 8."""
    orders = (cost.order(i) for i in range(len(cost.space)))
    return tuple(order[_rank(level, len(order))] for order in orders)


class Fit:
    """The dearest completion in range among uniform levels of cost; else one found by search.

    Args:
        cost: Gives the order of the options.
        limit: Range of the cost.
        feasible: Whether a finished architecture may be an answer (limits, validity).
        reachable: Whether a prefix may still become one.
    """

    def __init__(self, cost: Cost, limit: Limit, feasible: Feasible, reachable: Reachable) -> None:
        self.cost, self.limit = cost, limit
        self.feasible, self.reachable = feasible, reachable
        self.levels = list(dict.fromkeys(level_options(cost, f) for f in range(_LEVELS, -1, -1)))

    def __call__(self, prefix: Architecture) -> Architecture | None:
        """A completed architecture that is in range, or None where there is none.

        The search looks at 2,000 prefixes at most, so in spaces whose costs are not additive, or
        whose range is narrow, None may also mean that none was found.
        """
        n = len(prefix)
        for level in self.levels:
            whole = prefix + level[n:]
            if self.feasible(whole):
                return whole
        return self._searched(prefix)

    def _searched(self, prefix: Architecture) -> Architecture | None:
        """Depth first, dear options first, without the branches that bounds exclude."""
        space, looks = self.cost.space, 0
        stack = [prefix]
        while stack and looks < _LOOKS:
            looks += 1
            at = stack.pop()
            if len(at) == len(space):
                if self.feasible(at):
                    return at
                continue
            order = self.cost.order(len(at))
            children = [(*at, s) for s in order if space.allows(at, s)]
            stack += [child for child in children if self.reachable(child)]
        return None


class Fixed:
    """The same options behind every prefix: `max`, `min`, `default`, or those of an incumbent.

    Where a rule of the space forbids one of them, the nearest tail that is allowed stands in.
    """

    def __init__(self, space: LayerwiseSpace, options: Architecture) -> None:
        self.space, self.options = space, options

    def __call__(self, prefix: Architecture) -> Architecture | None:
        """A completed architecture, in range or not; None where no completion is valid."""
        whole = prefix + self.options[len(prefix) :]
        return whole if self.space.valid(whole) else self._allowed(prefix)

    def _allowed(self, prefix: Architecture) -> Architecture | None:
        looks, stack = 0, [prefix]
        while stack and looks < _LOOKS:
            looks += 1
            at = stack.pop()
            if len(at) == len(self.space):
                return at
            wanted = self.options[len(at)]
            ranked = sorted((-abs(s - wanted), s) for s in range(self.space.sizes[len(at)]))
            stack += [(*at, s) for _, s in ranked if self.space.allows(at, s)]
        return None
