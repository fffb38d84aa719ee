"""Mutations of the best architectures, and draws from everywhere, screened by a guess.

The part of `LayerNAS` that does not rest on its assumption: where prefixes tell little about what
they become, it goes on like evolution, from the best of all trials.

Source: ours. That the best of parents and children survive is the (mu + lambda) rule of Schwefel,
"Numerical Optimization of Computer Models" (Wiley 1981); that a model screens children before they
are evaluated is Jin, "Surrogate-assisted evolutionary computation" (Swarm and Evolutionary
Computation 1, 2011).
"""

import bisect
import random

from limbeck.search.additive_model import AdditiveModel
from limbeck.search.base import Found, Searcher, pick
from limbeck.search.evolution import mutated
from limbeck.search.random_search import draw_feasible
from limbeck.search.space import Architecture

SIZE = 20
"""Of the best that may be parents."""
_SCREENED = 8
_EVERYWHERE = 0.15
_DRAWN = 16
_UNIFORM = 20
_TWICE = 0.25
_TRIES = 200


class Elite:
    """What evolution would try next.

    Args:
        search: Whose evaluated architectures they are.
    """

    def __init__(self, search: Searcher) -> None:
        self.search = search
        self.model = AdditiveModel(search.space)
        self._best: list[tuple[float, float, Architecture]] = []

    def add(self, found: Found, *, in_range: bool) -> None:
        """Learn from an evaluated architecture; one in range may become a parent."""
        self.model.add(found.architecture, found.reward)
        if in_range:
            bisect.insort(self._best, found.rank())
            del self._best[SIZE:]

    def propose(self, rng: random.Random) -> Architecture | None:
        """Of some children, or of some draws, the one with the best guess; None if there is none.

        All are in range and not known yet.
        """
        if not self._best:
            return None
        tried = self._draws(rng) if rng.random() < _EVERYWHERE else self._children(rng)
        return max(tried, key=lambda one: (self.model.guess(one), one), default=None)

    def _children(self, rng: random.Random) -> list[Architecture]:
        """Parents are drawn by tournaments of two; a quarter of the children mutate twice."""
        children: list[Architecture] = []
        for _ in range(_TRIES):
            j = min(pick(rng, len(self._best)), pick(rng, len(self._best)))
            child = mutated(self.search.space, self._best[j][2], rng)
            if child is not None and rng.random() < _TWICE:
                child = mutated(self.search.space, child, rng)
            if child is not None and self._is_new(child):
                children.append(child)
                if len(children) == _SCREENED:
                    break
        return children

    def _draws(self, rng: random.Random) -> list[Architecture]:
        drawn = (draw_feasible(self.search, rng, _UNIFORM) for _ in range(_DRAWN))
        return [one for one in drawn if one is not None]

    def _is_new(self, architecture: Architecture) -> bool:
        return self.search.known(architecture) is None and self.search.feasible(architecture)
