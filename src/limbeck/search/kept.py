"""The candidates that LayerNAS keeps: for every layer the best prefixes of each group.

Source: Fan et al., arXiv 2304.11517 (one candidate a group). Keeping k, or all that no other
candidate of the group beats in cost and reward, is Nemhauser and Ullmann, "Discrete dynamic
programming and capital allocation", Management Science 15 (1969).
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Literal

from limbeck.errors import ConfigError
from limbeck.search.space import Architecture

Keep = int | Literal["pareto"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prefix with what its completion was worth.

    Args:
        prefix: Options of the first layers.
        reward: Of the completed architecture, finite.
        key: Cost that it is grouped by.
        cost: Of the completed architecture.
    """

    prefix: Architecture
    reward: float
    key: float
    cost: float

    def rank(self) -> tuple[float, float, Architecture]:
        """Ascending from the best: reward, then the cheaper, then the smaller options."""
        return (-self.reward, self.key, self.prefix)


class Kept:
    """Groups of one layer.

    Args:
        keep: How many candidates a group keeps, or "pareto".

    What is kept does not depend on the order in which candidates come.
    """

    def __init__(self, keep: Keep) -> None:
        if keep != "pareto" and (isinstance(keep, str) or keep < 1):
            raise ConfigError(f"keep={keep!r}: must be a count >= 1, or 'pareto'.")
        self.keep = keep
        self.groups: dict[Hashable, list[Candidate]] = {}

    def insert(self, group: Hashable, candidate: Candidate) -> None:
        """Keep a candidate where it is good enough, in place of those that it beats."""
        kept = self.groups.setdefault(group, [])
        if any(one.prefix == candidate.prefix for one in kept):
            return
        kept.append(candidate)
        kept.sort(key=Candidate.rank)
        if self.keep == "pareto":
            self.groups[group] = _undominated(kept)
        else:
            del kept[self.keep :]

    def __iter__(self) -> Iterator[Candidate]:
        for kept in self.groups.values():
            yield from kept

    def __len__(self) -> int:
        return sum(map(len, self.groups.values()))


def _undominated(ranked: list[Candidate]) -> list[Candidate]:
    """Those that no other one matches in cost and beats, or equals, in reward."""
    kept: list[Candidate] = []
    for one in ranked:
        if not kept or one.key < kept[-1].key:
            kept.append(one)
    return kept
