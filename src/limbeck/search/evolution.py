"""Regularized evolution: a population in which the oldest dies, not the worst.

Source: Real, Aggarwal, Huang and Le, "Regularized Evolution for Image Classifier Architecture
Search" (AAAI 2019), Algorithm 1, with one kind of mutation: one layer takes another option. The
reward of MnasNet is Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile"
(CVPR 2019), its Equation 2 with exponent 0 inside the limit and -0.07 above it.
"""

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import ClassVar, Literal

import torch

from limbeck.errors import ConfigError
from limbeck.search.base import LAST, Note, Searcher, Trial, pick
from limbeck.search.costs import Cost
from limbeck.search.random_search import draw_feasible
from limbeck.search.space import Architecture, LayerwiseSpace

_EXPONENT = -0.07
_DRAWS = 200


class RegularizedEvolution(Searcher):
    """Tournaments, one mutation, death by age.

    Args:
        cost, limit, constraints, generator: As for every search.
        population: P, how many live.
        tournament: S, how many of them compete to be a parent.
        reward: "feasible": children out of range are drawn again. "mnas": they are evaluated, and
            compete with reward * (cost / limit) ** -0.07; rewards must be > 0.

    A child that is known already enters the population again and costs no trial.
    """

    name: ClassVar[str] = "evolution"

    def __init__(
        self,
        cost: Cost,
        limit: float | tuple[float, float],
        *,
        population: int = 20,
        tournament: int = 10,
        reward: Literal["feasible", "mnas"] = "feasible",
        constraints: Sequence[tuple[Cost, float | tuple[float, float]]] = (),
        generator: torch.Generator,
    ) -> None:
        super().__init__(cost, limit, constraints=constraints, generator=generator)
        if not 1 <= tournament <= population:
            raise ConfigError(
                f"tournament={tournament} of population={population}: must be >= 1 and at most the "
                f"population."
            )
        if reward not in ("feasible", "mnas"):
            raise ConfigError(f"reward={reward!r}: must be 'feasible' or 'mnas'.")
        self.population, self.tournament, self.reward = population, tournament, reward
        self._births: list[int] = []
        """Trial numbers in the order in which they entered the population."""

    def _propose(self, rng: random.Random) -> tuple[Architecture, Note] | None:
        if len(self.history.trials) < self.population:
            return self._founder(rng, ())
        again: list[Architecture] = []  # known children, born on the way to one that is not
        living = self._living()
        while living and len(again) < _DRAWS:
            entrants = [living[pick(rng, len(living))] for _ in range(self.tournament)]
            parent = max(entrants, key=lambda number: (self._fitness(number), -number))
            child = self._child(self.history.trials[parent].architecture, rng)
            if child is None:
                break
            number = self.known(child)
            free = tuple((0, one) for one in again)
            if number is None:
                return child, Note("child", free=free)
            again.append(child)
            if number in self.history.rewards:
                living = [*living, number][-self.population :]
        # Nobody has come yet, or the population has come together where every child is known.
        return self._founder(rng, tuple((0, one) for one in again))

    def _founder(
        self, rng: random.Random, free: tuple[tuple[int, Architecture], ...]
    ) -> tuple[Architecture, Note] | None:
        drawn = self._any(rng) if self.reward == "mnas" else draw_feasible(self, rng)
        return None if drawn is None else (drawn, Note("founder", free=free))

    def _any(self, rng: random.Random) -> Architecture | None:
        for _ in range(_DRAWS):
            drawn = tuple(pick(rng, k) for k in self.space.sizes)
            if self.space.valid(drawn) and self.known(drawn) is None:
                return drawn
        return None

    def _child(self, parent: Architecture, rng: random.Random) -> Architecture | None:
        for _ in range(_DRAWS):
            child = mutated(self.space, parent, rng)
            if child is not None and (self.reward == "mnas" or self.feasible(child)):
                return child
        return None

    def _living(self) -> list[int]:
        """The youngest P that have a reward, oldest first; a network may live twice."""
        rewards = self.history.rewards
        born = (number for number in reversed(self._births) if number in rewards)
        return [*islice(born, self.population)][::-1]

    def _fitness(self, number: int) -> float:
        reward, cost = self.history.rewards[number], self.history.trials[number].cost
        if self.reward == "feasible" or cost <= self.limit.high or reward == LAST:
            return reward
        return reward * math.exp(_EXPONENT * math.log(cost / self.limit.high))

    def _asked(self, trial: Trial) -> None:
        again = (self.known(child) for _, child in trial.note.free)
        self._births += [number for number in again if number is not None]
        self._births.append(trial.number)


def mutated(
    space: LayerwiseSpace, architecture: Architecture, rng: random.Random
) -> Architecture | None:
    """One layer, uniform among those with a choice, takes another option; None if not valid."""
    layers = _choices(space.sizes)
    if not layers:
        return None
    i = layers[pick(rng, len(layers))]
    s = pick(rng, space.sizes[i] - 1)
    s += s >= architecture[i]
    child = (*architecture[:i], s, *architecture[i + 1 :])
    return child if space.valid(child) else None


@lru_cache(maxsize=64)
def _choices(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(i for i, k in enumerate(sizes) if k > 1)
