"""What an architecture costs, and what any completion of a prefix can cost at least and at most.

Bounds carry a limit on the whole network back to its first layers (assumption A2 of LayerNAS: a
limit after layer l is a limit after layer l-1 less the cost of the option of layer l). A bound that
is not proven must not prune: where a cost has none, only the finished network is checked.

Source: Fan et al., arXiv 2304.11517, Section 4 (the split of the limit); the bounds of costs that
are not additive are ours.
"""

import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add, getitem
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from limbeck.errors import ConfigError, ShapeError
from limbeck.search.space import Architecture, LayerwiseSpace

_SAMPLE = 256
_ROUNDING = 1e-12


class Bounds(NamedTuple):
    """Least and greatest cost of any completion of a prefix, both ends included."""

    low: float
    high: float


class Limit(NamedTuple):
    """Admissible range of the cost of a finished architecture, both ends included."""

    low: float
    high: float

    def holds(self, cost: float) -> bool:
        """Whether a cost is in range."""
        return self.low <= cost <= self.high

    def meets(self, bounds: Bounds) -> bool:
        """Whether some cost between two bounds can be in range.

        Bounds and costs are sums in another order, so what rounding may hide is not excluded.
        """
        low, high = bounds
        slack = _ROUNDING * (abs(low) if math.isfinite(low) else 0.0)
        if low - slack > self.high:
            return False
        slack = _ROUNDING * (abs(high) if math.isfinite(high) else 0.0)
        return high + slack >= self.low


class Cost(ABC):
    """A cost that is known without training: multiply-adds, parameters, milliseconds, bytes."""

    space: LayerwiseSpace
    proven: bool = True
    """Whether `bounds` hold for every completion, so that they may prune."""

    @abstractmethod
    def total(self, architecture: Architecture) -> float:
        """Cost of a finished architecture."""

    @abstractmethod
    def bounds(self, prefix: Architecture) -> Bounds:
        """Bounds of the cost of all its completions; -inf and inf where nothing is known."""

    @abstractmethod
    def key_range(self, length: int, limit: Limit) -> Bounds:
        """Range of `key` over the prefixes of a length from which the limit can be met."""

    @abstractmethod
    def order(self, layer: int) -> tuple[int, ...]:
        """Options of a layer from the cheapest to the dearest."""

    def key(self, prefix: Architecture) -> float:
        """What prefixes are grouped by: the cost with the cheapest completion."""
        return self.bounds(prefix).low


class AdditiveCost(Cost):
    """A sum over layers: parameters and multiply-adds of most cells, a table of latencies.

    Args:
        space: The space.
        table: Cost of each option of each layer, finite: `table[l][s]`.
        base: What every architecture costs besides (stem, head, start of a call).
    """

    def __init__(
        self, space: LayerwiseSpace, table: Sequence[Sequence[float]], *, base: float = 0.0
    ) -> None:
        sizes = [len(row) for row in table]
        if sizes != list(space.sizes):
            raise ShapeError(
                f"a table of {sizes} costs for layers of {list(space.sizes)} options; give one "
                f"cost for each option of each layer."
            )
        self.space = space
        self.base = float(base)
        self.table = [[float(c) for c in row] for row in table]
        if not all(math.isfinite(c) for row in self.table for c in (*row, self.base)):
            raise ConfigError("a cost in the table is not finite; leave out options without one.")
        self._orders = [tuple(sorted(range(len(row)), key=row.__getitem__)) for row in self.table]
        self._least = _suffix_sums([min(row) for row in self.table])
        self._most = _suffix_sums([max(row) for row in self.table])

    def total(self, architecture: Architecture) -> float:
        """The sum, from the first layer to the last."""
        return self.spent(architecture)

    def spent(self, prefix: Architecture) -> float:
        """Base and the layers of a prefix."""
        # From left to right, which sum() does not promise; the shorter of the two ends it.
        return reduce(add, map(getitem, self.table, prefix), self.base)

    def bounds(self, prefix: Architecture) -> Bounds:
        """Exact up to the rounding of sums, unless a rule of the space forbids the completion."""
        spent, n = self.spent(prefix), len(prefix)
        return Bounds(spent + self._least[n], spent + self._most[n])

    def key_range(self, length: int, limit: Limit) -> Bounds:
        """By suffix sums: what the first layers can cost, and what the limit leaves them."""
        least, most = self._least[length], self._most[length]
        low = self.base + self._least[0]
        high = self.base + (self._most[0] - most) + least
        return _clip(low, high, limit.low - most + least, limit.high)

    def order(self, layer: int) -> tuple[int, ...]:
        """By the table."""
        return self._orders[layer]


class MonotoneCost(Cost):
    """A function that never falls when one layer takes a later option of its order.

    Widths of a chain of convolutions are like this: multiply-adds hold products of neighbours.

    Args:
        space: The space.
        function: Cost of a finished architecture.
        orders: For each layer its options from the cheapest to the dearest. Default: as they are.
    """

    def __init__(
        self,
        space: LayerwiseSpace,
        function: Callable[[Architecture], float],
        *,
        orders: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.space = space
        self.function = function
        self._orders = _checked_orders(space, orders)
        self._cheap = tuple(order[0] for order in self._orders)
        self._dear = tuple(order[-1] for order in self._orders)
        self._known: dict[Architecture, Bounds] = {}

    def total(self, architecture: Architecture) -> float:
        """What the function says."""
        return float(self.function(architecture))

    def bounds(self, prefix: Architecture) -> Bounds:
        """With the cheapest and with the dearest option of every later layer."""
        if prefix not in self._known:
            n = len(prefix)
            low = self.total(prefix + self._cheap[n:])
            high = low if n == len(self.space) else self.total(prefix + self._dear[n:])
            self._known[prefix] = Bounds(low, high)
        return self._known[prefix]

    def key_range(self, length: int, limit: Limit) -> Bounds:
        """From the cheapest prefix to the dearest one, each with the cheapest completion."""
        low = self.bounds(self._cheap[:length]).low
        high = self.bounds(self._dear[:length]).low
        return _clip(low, high, -math.inf, limit.high)

    def order(self, layer: int) -> tuple[int, ...]:
        """As given."""
        return self._orders[layer]


class TableCost(Cost):
    """A cost measured for every architecture of a small space; bounds by enumeration.

    Args:
        space: The space.
        table: Costs, shape (K_1, ..., K_L); NaN where an architecture is not valid.

    Cost: about 2 * size * 8 bytes.
    """

    def __init__(self, space: LayerwiseSpace, table: ArrayLike) -> None:
        values = np.asarray(table, np.float64)
        if values.shape != space.sizes:
            raise ShapeError(
                f"a table of shape {values.shape} for layers of {space.sizes} options; the shapes "
                f"must be equal."
            )
        if np.isnan(values).all():
            raise ConfigError("the table of costs holds NaN only: no architecture is valid.")
        self.space = space
        self.table = values
        low = np.where(np.isnan(values), np.inf, values)
        high = np.where(np.isnan(values), -np.inf, values)
        self._low, self._high = [low], [high]
        for _ in range(len(space)):
            low, high = low.min(-1), high.max(-1)
            self._low.insert(0, low)
            self._high.insert(0, high)
        means = [_means(values, layer) for layer in range(len(space))]
        self._orders = [tuple(int(s) for s in np.argsort(m, kind="stable")) for m in means]

    def total(self, architecture: Architecture) -> float:
        """From the table."""
        return float(self.table[architecture])

    def bounds(self, prefix: Architecture) -> Bounds:
        """Exact; (inf, -inf) where no completion is valid."""
        n = len(prefix)
        return Bounds(float(self._low[n][prefix]), float(self._high[n][prefix]))

    def key_range(self, length: int, limit: Limit) -> Bounds:
        """Exact."""
        low, high = self._low[length], self._high[length]
        reachable = low[(low <= limit.high) & (high >= limit.low)]
        if not reachable.size:
            return Bounds(math.inf, -math.inf)
        return Bounds(float(reachable.min()), float(reachable.max()))

    def order(self, layer: int) -> tuple[int, ...]:
        """By the mean over all else."""
        return self._orders[layer]


class BlackBoxCost(Cost):
    """A function of the finished architecture about which nothing is known.

    Only the final check applies, unless `bounds` is given. Prefixes are grouped by the cost with
    the default option of every later layer.

    Args:
        space: The space.
        function: Cost of a finished architecture.
        bounds: Least and greatest cost of all completions of a prefix. It must be right: what it
            excludes is never looked at.
    """

    def __init__(
        self,
        space: LayerwiseSpace,
        function: Callable[[Architecture], float],
        *,
        bounds: Callable[[Architecture], tuple[float, float]] | None = None,
    ) -> None:
        self.space = space
        self.function = function
        self.proven = bounds is not None
        self._bounds = bounds
        self._ranges: dict[int, Bounds] = {}
        self._orders: dict[int, tuple[int, ...]] = {}

    def total(self, architecture: Architecture) -> float:
        """What the function says."""
        return float(self.function(architecture))

    def bounds(self, prefix: Architecture) -> Bounds:
        """As given; of a finished architecture its cost."""
        if len(prefix) == len(self.space):
            cost = self.total(prefix)
            return Bounds(cost, cost)
        return Bounds(*self._bounds(prefix)) if self._bounds else Bounds(-math.inf, math.inf)

    def key(self, prefix: Architecture) -> float:
        """Cost with the default of every later layer."""
        return self.total(prefix + self.space.default[len(prefix) :])

    def key_range(self, length: int, limit: Limit) -> Bounds:
        """Of all prefixes if few, else of 256 drawn ones; others join the end groups."""
        if length not in self._ranges:
            keys = [self.key(prefix) for prefix in self._some(length)]
            self._ranges[length] = Bounds(min(keys), max(keys))
        return self._ranges[length]

    def order(self, layer: int) -> tuple[int, ...]:
        """By the cost of the default architecture with one option changed."""
        if layer not in self._orders:
            self._orders[layer] = order_at_default(self, layer)
        return self._orders[layer]

    def _some(self, length: int) -> list[Architecture]:
        sizes = self.space.sizes[:length]
        if math.prod(sizes) <= _SAMPLE:
            return list(itertools.product(*map(range, sizes)))
        rng = random.Random(length)
        return [tuple(int(rng.random() * k) for k in sizes) for _ in range(_SAMPLE)]


def order_at_default(cost: Cost, layer: int) -> tuple[int, ...]:
    """Options of a layer, cheapest first, by the default architecture with one option changed."""
    default, k = cost.space.default, cost.space.sizes[layer]
    costs = [cost.total((*default[:layer], s, *default[layer + 1 :])) for s in range(k)]
    return tuple(sorted(range(k), key=costs.__getitem__))


def _suffix_sums(values: Sequence[float]) -> list[float]:
    """Sum of the values from each position on; one more, 0, at the end."""
    return [*itertools.accumulate(reversed(values), initial=0.0)][::-1]


def _clip(low: float, high: float, least: float, most: float) -> Bounds:
    return Bounds(max(low, least), min(high, most))


def _checked_orders(
    space: LayerwiseSpace, orders: Sequence[Sequence[int]] | None
) -> list[tuple[int, ...]]:
    if orders is None:
        return [tuple(range(k)) for k in space.sizes]
    found = [tuple(order) for order in orders]
    if [sorted(order) for order in found] != [list(range(k)) for k in space.sizes]:
        raise ConfigError(
            "orders must hold, for each layer, the positions of its options once each, from the "
            "cheapest to the dearest."
        )
    return found


def _means(values: NDArray[np.float64], layer: int) -> NDArray[np.float64]:
    rows = np.moveaxis(values, layer, 0).reshape(values.shape[layer], -1)
    known = ~np.isnan(rows)
    sums = np.where(known, rows, 0.0).sum(1)
    # An option that is never valid counts as the dearest.
    return np.where(known.any(1), sums / np.maximum(known.sum(1), 1), np.inf)
