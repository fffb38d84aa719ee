"""Evolution beside a sweep: mutations of the best and of the youngest, screened by a guess.

The part of `LayerNAS` that does not rest on its assumption: where prefixes tell little about what
they become, it goes on like evolution. Half of what it proposes comes from the best of all trials;
half from a population of its own, in which the oldest die, so that it does not stay where the sweep
has led.

Source: ours, from parts. The best of parents and children survive: the (mu + lambda) rule of
Schwefel, "Numerical Optimization of Computer Models" (Wiley 1981); the oldest die: Real et al.,
"Regularized Evolution for Image Classifier Architecture Search" (AAAI 2019); a model screens
children before they are evaluated: Jin, "Surrogate-assisted evolutionary computation" (Swarm and
Evolutionary Computation 1, 2011).
"""

import bisect
import random
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Literal, Protocol

from limbeck.search.additive_model import AdditiveModel
from limbeck.search.base import Found, Searcher, Trial, pick
from limbeck.search.evolution import mutated
from limbeck.search.matches_model import MatchesModel
from limbeck.search.random_search import draw_feasible
from limbeck.search.space import Architecture, LayerwiseSpace

BEST, YOUNG, TOURNAMENT = 20, 20, 10
"""Of the best that may be parents; of the youngest; and how many of these compete to be one."""
EXPLORE, EVOLVE = "explore", "evolve"
"""Notes on trials that come from the best, or belong to the population."""
_EVOLVED = 0.5
_SCREENED = 8
_EVERYWHERE, _DRAWN, _UNIFORM = 0.15, 16, 20
_TWICE = 0.25
_TRIES = 200


Guess = Literal["additive", "matches"]


class Model(Protocol):
    """A guess at rewards."""

    def add(self, architecture: Architecture, reward: float) -> None:
        """Learn from a trial."""

    def guess(self, tried: Sequence[Architecture]) -> list[float]:
        """What orders architectures by the reward that they may have."""


GUESSES: dict[str, Callable[[LayerwiseSpace], Model]] = {
    "additive": AdditiveModel,
    "matches": MatchesModel,
}


class Explorer:
    """What evolution would try next.

    Args:
        search: Whose evaluated architectures they are.
        model: Screens them.
    """

    def __init__(self, search: Searcher, model: Model) -> None:
        self.search = search
        self.model = model
        self._best: list[tuple[float, float, Architecture]] = []
        self._born: list[int] = []

    def asked(self, trial: Trial) -> None:
        """Take a trial of the population into it."""
        if trial.note.how == EVOLVE:
            self._born.append(trial.number)

    def told(self, found: Found, *, in_range: bool) -> None:
        """Learn from an evaluated architecture; one in range may become a parent."""
        self.model.add(found.architecture, found.reward)
        if in_range:
            bisect.insort(self._best, found.rank())
            del self._best[BEST:]

    def propose(self, rng: random.Random) -> tuple[str, Architecture] | None:
        """An architecture in range that is not known yet, with the note it should carry.

        None: none was found, which may be luck.
        """
        if rng.random() < _EVOLVED:
            how, tried = EVOLVE, self._of_population(rng)
        elif rng.random() < _EVERYWHERE:
            how, tried = EXPLORE, self._draws(rng, _DRAWN)
        else:
            how, tried = EXPLORE, self._children(rng, self._of_best)
        if not tried:
            return None
        return how, max(zip(self.model.guess(tried), tried, strict=True))[1]

    def _of_population(self, rng: random.Random) -> list[Architecture]:
        if len(self._born) < YOUNG:
            return self._draws(rng, 1)
        rewards = self.search.history.rewards
        young = [*islice((n for n in reversed(self._born) if n in rewards), YOUNG)]

        def winner(rng: random.Random) -> Architecture:
            entrants = [young[pick(rng, len(young))] for _ in range(TOURNAMENT)]
            best = max(entrants, key=lambda number: (rewards[number], -number))
            return self.search.history.trials[best].architecture

        return self._children(rng, winner) if young else []

    def _of_best(self, rng: random.Random) -> Architecture | None:
        """By a tournament of two."""
        n = len(self._best)
        return self._best[min(pick(rng, n), pick(rng, n))][2] if n else None

    def _children(
        self, rng: random.Random, parent: Callable[[random.Random], Architecture | None]
    ) -> list[Architecture]:
        """One layer changed, two in a quarter of the children."""
        children: list[Architecture] = []
        for _ in range(_TRIES):
            child = parent(rng)
            for _ in range(1 + (rng.random() < _TWICE)):
                child = child and mutated(self.search.space, child, rng)
            if child and self.search.known(child) is None and self.search.feasible(child):
                children.append(child)
                if len(children) == _SCREENED:
                    break
        return children

    def _draws(self, rng: random.Random, count: int) -> list[Architecture]:
        drawn = (draw_feasible(self.search, rng, _UNIFORM) for _ in range(count))
        return [one for one in drawn if one is not None]
