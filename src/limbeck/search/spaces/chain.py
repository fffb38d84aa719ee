"""A cost of a chain: every layer's share depends on its option and on the width before it.

Multiply-adds and parameters of networks whose blocks have searched widths are like this. Bounds are
exact, by dynamic programming over the width that goes into the rest of the chain (the principle of
optimality: what the rest costs at least depends on the prefix through this width alone).
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property

from limbeck.errors import ShapeError
from limbeck.search.costs import Bounds, Cost, Limit, order_at_default
from limbeck.search.space import Architecture, LayerwiseSpace

_Ends = dict[int, Bounds]


class ChainCost(Cost):
    """Base, the term of each layer, and the term of what follows the last width.

    Args:
        space: The space; a rule of its own (`is_valid`) makes the bounds wider than need be.
        first: Width into the first layer.
        widths: Width that each option of each layer leaves: `widths[l][s]`.
        term: Share of a layer, finite: `term(l, width before it, s)`.
        last: Share of what follows the chain, by the last width.
        base: What every architecture costs besides.

    Cost: terms are computed once, when they are first needed, sum_l W_(l-1) K_l of them (W: number
    of distinct widths); after that a total or a pair of bounds is L look-ups.
    """

    def __init__(
        self,
        space: LayerwiseSpace,
        *,
        first: int,
        widths: Sequence[Sequence[int]],
        term: Callable[[int, int, int], float],
        last: Callable[[int], float],
        base: float = 0.0,
    ) -> None:
        sizes = [len(row) for row in widths]
        if sizes != list(space.sizes):
            raise ShapeError(
                f"widths of {sizes} options for layers of {list(space.sizes)}; give one width for "
                f"each option of each layer."
            )
        self.space = space
        self.first, self.base = first, float(base)
        self.widths = [tuple(row) for row in widths]
        self._term, self._last = term, last
        self._orders: dict[int, tuple[int, ...]] = {}

    def total(self, architecture: Architecture) -> float:
        """Base, layers from the first to the last, and what follows."""
        spent, width = self._walk(architecture)
        return spent + self._rest[-1][width].low

    def bounds(self, prefix: Architecture) -> Bounds:
        """Exact up to the rounding of sums, unless a rule of the space forbids the completion."""
        spent, width = self._walk(prefix)
        low, high = self._rest[len(prefix)][width]
        return Bounds(spent + low, spent + high)

    def key_range(self, length: int, limit: Limit) -> Bounds:
        """Least and greatest cost with the cheapest completion, over what can meet the limit.

        The lower end may be too low where the limit has one.
        """
        rest = self._rest[length]
        low = self.base + self._rest[0][self.first].low
        high = max(most + rest[width].low for width, most in self._most[length].items())
        widest = max(rest[width].high - rest[width].low for width in self._most[length])
        return Bounds(max(low, limit.low - widest), min(high, limit.high))

    def order(self, layer: int) -> tuple[int, ...]:
        """By the cost of the default architecture with one option changed."""
        if layer not in self._orders:
            self._orders[layer] = order_at_default(self, layer)
        return self._orders[layer]

    def _walk(self, prefix: Architecture) -> tuple[float, int]:
        """What a prefix has spent, and the width that it leaves."""
        spent, width = self.base, self.first
        for terms, widths, s in zip(self._terms, self.widths, prefix, strict=False):
            spent += terms[width][s]
            width = widths[s]
        return spent, width

    @cached_property
    def _terms(self) -> list[dict[int, list[float]]]:
        """Share of each option by the width before it, layer by layer."""
        before = [{self.first}, *(set(row) for row in self.widths[:-1])]
        return [
            {width: [float(self._term(i, width, s)) for s in range(k)] for width in widths}
            for i, (widths, k) in enumerate(zip(before, self.space.sizes, strict=True))
        ]

    @cached_property
    def _rest(self) -> list[_Ends]:
        """What layers l+1..L and the end cost at least and at most, by the width before them."""
        found: list[_Ends] = [{}] * len(self.space)
        ends = {width: float(self._last(width)) for width in set(self.widths[-1])}
        found.append({width: Bounds(cost, cost) for width, cost in ends.items()})
        for i in reversed(range(len(self.space))):
            after, widths = found[i + 1], self.widths[i]
            found[i] = {
                width: Bounds(
                    min(c + after[w].low for c, w in zip(costs, widths, strict=True)),
                    max(c + after[w].high for c, w in zip(costs, widths, strict=True)),
                )
                for width, costs in self._terms[i].items()
            }
        return found

    @cached_property
    def _most(self) -> list[dict[int, float]]:
        """What the first l layers cost at most, base included, by the width that they leave."""
        found = [{self.first: self.base}]
        for terms, widths in zip(self._terms, self.widths, strict=True):
            most = dict.fromkeys(widths, -math.inf)
            for width, spent in found[-1].items():
                for cost, after in zip(terms[width], widths, strict=True):
                    most[after] = max(most[after], spent + cost)
            found.append(most)
        return found
