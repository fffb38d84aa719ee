"""A guess at rewards from the trials so far, by how many layers two architectures have in common.

    k(a, b) = m / L + 2^-(L - m),    m = number of layers with the same option

The first term is an additive model, the second lets what lies one or two changes apart be alike
without it. Only the order of rewards counts, so that networks at chance level, or a reward in
another unit, change nothing.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning" (MIT Press 2006), Equation
2.25, for the mean; the kernel and the use of ranks are ours.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limbeck.search.space import Architecture, LayerwiseSpace

MOST = 256
"""Trials that the guess rests on: half of them the best, half the last."""
_NOISE = 0.05


class MatchesModel:
    """Mean of a Gaussian process, fitted again whenever the trials have grown by a sixteenth.

    Args:
        space: Gives the layers.

    What it guesses is a function of the rewards and of the order in which they came.

    Cost: O(1) a trial, O(256 d) a guess, d the number of options of all layers; O(256^3) a fit, and
    fits are about 16 log n in n trials.
    """

    def __init__(self, space: LayerwiseSpace) -> None:
        self._first = np.cumsum([0, *space.sizes[:-1]])
        self._d, layers = sum(space.sizes), len(space)
        matches = np.arange(layers + 1)
        self._kernel = matches / layers + 0.5 ** (layers - matches)
        self._known: list[Architecture] = []
        self._rewards: list[float] = []
        self._next = 1
        self._at = self._marks([])
        self._weights: NDArray[np.float64] = np.zeros(0)

    def add(self, architecture: Architecture, reward: float) -> None:
        """Learn from a trial; a reward that is not finite is a mistake of the caller's."""
        self._known.append(architecture)
        self._rewards.append(reward)
        n = len(self._known)
        if n >= self._next:
            self._fit()
            self._next = n + 1 + n // 16

    def guess(self, tried: Sequence[Architecture]) -> list[float]:
        """What orders architectures by the reward that they may have."""
        guessed: list[float] = (self._likeness(self._marks(tried)) @ self._weights).tolist()
        return guessed

    def _fit(self) -> None:
        rewards = np.array(self._rewards)
        rows = _best_and_last(rewards)
        self._at = self._marks([self._known[i] for i in rows])
        ranks = mid_ranks(rewards[rows])
        covariance = self._likeness(self._at) + _NOISE * np.eye(len(rows))
        self._weights = np.linalg.solve(covariance, ranks - ranks.mean())

    def _likeness(self, marks: NDArray[np.float32]) -> NDArray[np.float64]:
        return self._kernel[(marks @ self._at.T).astype(np.intp)]

    def _marks(self, tried: Sequence[Architecture]) -> NDArray[np.float32]:
        """One row an architecture, 1 at the option of each layer: products count matches."""
        marks = np.zeros((len(tried), self._d), np.float32)
        if tried:
            marks[np.arange(len(tried))[:, None], self._first + np.array(tried)] = 1
        return marks


def mid_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0 to the number of values, equal values at their mean, over their spread.

    Returns:
        float64, standard deviation 1, or all equal where the values are.
    """
    ordered = np.sort(values)
    ends = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    ranks = np.asarray(sum(ends), np.float64) / 2
    spread = float(ranks.std())
    return ranks / spread if spread else ranks


def _best_and_last(rewards: NDArray[np.float64]) -> NDArray[np.intp]:
    """Positions in ascending order: all, or half of MOST by each."""
    rows = np.arange(len(rewards))
    if len(rows) <= MOST:
        return rows
    best = np.argsort(-rewards, kind="stable")[: MOST // 2]
    return np.union1d(best, rows[-MOST // 2 :])
