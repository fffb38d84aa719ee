"""Groups of prefixes by cost: the map phi of LayerNAS.

Inside a group only rewards are compared, so what lies in one group must leave the same future: the
same cost still to be spent. Narrow groups are exact and many; wide ones are few and may drop the
optimum, by no more than the bound that `LayerNAS.diagnostics` prints.

Source: Fan et al., arXiv 2304.11517 (H groups a layer, 100 in its experiments according to its
public reviews). How the range is cut is ours.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from limbeck.errors import ConfigError
from limbeck.search.costs import Bounds
from limbeck.search.space import Architecture

Phi = Callable[[Architecture, float], Hashable]
"""Group of a prefix with a key, among the prefixes of its length."""


@dataclass(frozen=True, slots=True)
class EqualWidth:
    """H groups of one width between the least and the greatest key that can be reached."""

    count: int = 20

    def __post_init__(self) -> None:
        _at_least_one(self.count)

    def phi(self, keys: Bounds) -> Phi:
        """Groups for a range of keys."""
        low, width = keys.low, self.width(keys)
        if width <= 0:
            return lambda _prefix, _key: 0
        last = self.count - 1
        return lambda _prefix, key: min(last, max(0, int((key - low) / width)))

    def width(self, keys: Bounds) -> float:
        """Width of a group, in the unit of the cost; 0 where all keys are equal."""
        return max(0.0, (keys.high - keys.low) / self.count)


@dataclass(frozen=True, slots=True)
class Geometric:
    """H groups whose ends grow by one factor: for costs that span decades; keys must be > 0."""

    count: int = 20

    def __post_init__(self) -> None:
        _at_least_one(self.count)

    def phi(self, keys: Bounds) -> Phi:
        """Groups for a range of keys."""
        if keys.low <= 0:
            raise ConfigError(
                f"geometric buckets need costs > 0, but a prefix can cost {keys.low:g}; use equal "
                f"widths, or add what every architecture costs to the table."
            )
        low = math.log(keys.low)
        width = (math.log(max(keys.high, keys.low)) - low) / self.count
        if width <= 0:
            return lambda _prefix, _key: 0
        last = self.count - 1
        return lambda _prefix, key: min(last, max(0, int((math.log(key) - low) / width)))

    def width(self, keys: Bounds) -> float:
        """Width of the widest group, the dearest one."""
        steps = math.log(max(keys.high, keys.low) / keys.low) / self.count
        return keys.high * -math.expm1(-steps)


@dataclass(frozen=True, slots=True)
class Edges:
    """Groups between edges of your own, ascending, in the unit of the cost."""

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", tuple(float(edge) for edge in self.edges))
        if list(self.edges) != sorted(set(self.edges)):
            raise ConfigError(f"edges must ascend without repeats, got {self.edges}.")

    def phi(self, keys: Bounds) -> Phi:
        """The same groups for every layer."""
        return lambda _prefix, key: bisect_right(self.edges, key)

    def width(self, keys: Bounds) -> float:
        """Width of the widest group that holds keys."""
        inner = [edge for edge in self.edges if keys.low < edge < keys.high]
        ends = [keys.low, *inner, keys.high]
        return max((b - a for a, b in pairwise(ends)), default=0.0)


@dataclass(frozen=True, slots=True)
class Exact:
    """One group for each distinct key, rounded to a unit: an exact dynamic programme."""

    unit: float = 1.0

    def __post_init__(self) -> None:
        if not self.unit > 0:
            raise ConfigError(f"unit={self.unit:g}: must be > 0, in the unit of the cost.")

    def phi(self, keys: Bounds) -> Phi:
        """The same groups for every layer."""
        return lambda _prefix, key: round(key / self.unit)

    def width(self, keys: Bounds) -> float:
        """0, for costs that are multiples of the unit."""
        return 0.0


@dataclass(frozen=True, slots=True)
class GroupBy:
    """Groups by a function of the prefix: a structural key, or a constant for beam search."""

    function: Callable[[Architecture], Hashable]

    def phi(self, keys: Bounds) -> Phi:
        """What the function says."""
        return lambda prefix, _key: self.function(prefix)

    def width(self, keys: Bounds) -> float:
        """Unbounded: nothing is known of the costs in a group."""
        return math.inf


Buckets = EqualWidth | Geometric | Edges | Exact | GroupBy


def as_buckets(buckets: "int | Sequence[float] | str | Buckets") -> Buckets:
    """Read a setting: a count of equal width, a list of edges, "exact", "geometric", or a class.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(buckets, EqualWidth | Geometric | Edges | Exact | GroupBy):
        return buckets
    if isinstance(buckets, int) and not isinstance(buckets, bool):
        return EqualWidth(buckets)
    if buckets == "exact":
        return Exact()
    if buckets == "geometric":
        return Geometric()
    if isinstance(buckets, str | bool):
        raise ConfigError(
            f"buckets={buckets!r}: give a count, a list of edges, 'exact' or 'geometric'."
        )
    return Edges(tuple(buckets))


def _at_least_one(count: int) -> None:
    if count < 1:
        raise ConfigError(f"buckets={count}: there must be at least one.")
