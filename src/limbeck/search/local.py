"""Local search: the neighbours of the best architectures, one option changed.

`Neighbourhoods` is the last part of `LayerNAS`; `LocalSearch` is a search of its own, which starts
anew at a random architecture when its neighbourhood has nothing better.

Source: White, Nolen and Savani, "Exploring the Loss Landscape in Neural Architecture Search"
(UAI 2021), for local search as a strong baseline; first improvement and restarts are ours.
"""

import heapq
import random
from typing import ClassVar

from limbeck.search.base import Found, Note, Searcher, Trial, pick
from limbeck.search.random_search import draw_feasible
from limbeck.search.space import Architecture


class Neighbourhoods:
    """What is left to try around the best architectures in range, best first.

    Args:
        search: Whose evaluated architectures they are.
    """

    def __init__(self, search: Searcher) -> None:
        self.search = search
        self._heap: list[tuple[tuple[float, float, Architecture], Architecture]] = []
        self._left: dict[Architecture, list[Architecture]] = {}

    def add(self, found: Found) -> None:
        """Take an evaluated architecture that is in range."""
        heapq.heappush(self._heap, (found.rank(), found.architecture))

    def propose(self, rng: random.Random) -> Architecture | None:
        """A neighbour, not known yet, of the best architecture that has one; None if none has."""
        if not self.more():
            return None
        left = self.around(self._heap[0][1])
        return left[pick(rng, len(left))]

    def more(self) -> bool:
        """Whether any architecture has an untried neighbour in range."""
        while self._heap and not self.around(self._heap[0][1]):
            heapq.heappop(self._heap)
        return bool(self._heap)

    def around(self, architecture: Architecture) -> list[Architecture]:
        """Neighbours in range that are not known yet."""
        search = self.search
        if architecture not in self._left:
            near = search.space.neighbours(architecture)
            self._left[architecture] = [one for one in near if search.feasible(one)]
        left = [one for one in self._left[architecture] if search.known(one) is None]
        self._left[architecture] = left
        return left


class LocalSearch(Searcher):
    """First improvement over single-option changes in range, with random restarts."""

    name: ClassVar[str] = "local_search"
    _at: Architecture | None = None

    def _propose(self, rng: random.Random) -> tuple[Architecture, Note] | None:
        while True:
            at = self._at
            mine = None if at is None else self._reward(at)
            if at is None or mine is None:
                # A new start, or the start is still in flight: then another one beside it.
                drawn = draw_feasible(self, rng)
                return None if drawn is None else (drawn, Note("start", cursor=drawn))
            near = [one for one in self.space.neighbours(at) if self.feasible(one)]
            better = [one for one in near if self._beats(one, mine)]
            if better:
                self._at = better[pick(rng, len(better))]
                continue
            left = [one for one in near if self.known(one) is None]
            if left:
                return left[pick(rng, len(left))], Note("step", cursor=at)
            self._at = None

    def _asked(self, trial: Trial) -> None:
        self._at = trial.note.cursor or None

    def _beats(self, architecture: Architecture, reward: float) -> bool:
        other = self._reward(architecture)
        return other is not None and other > reward

    def _reward(self, architecture: Architecture) -> float | None:
        number = self.known(architecture)
        return None if number is None else self.history.rewards.get(number)
