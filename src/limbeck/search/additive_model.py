"""A guess at rewards from the trials so far: one number for each option of each layer.

    r(a) ~ c + sum_l u_l[s_l],    (c, u) = argmin sum_i (r_i - c - sum_l u_l[s_il])^2 + c^2 + |u|^2

It is what LayerNAS takes rewards to be where it is exact. Here it only ranks what may be tried
next; nothing is left out for it. Rewards are centred and scaled by those seen, so that their unit
plays no part.

Source: ours; ridge regression is Hoerl and Kennard, Technometrics 12 (1970).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limbeck.search.space import Architecture, LayerwiseSpace


class AdditiveModel:
    """Ridge regression on options, fitted again whenever the trials have grown by a sixteenth.

    Args:
        space: Gives the options.

    What it guesses is a function of the rewards and of the order in which they came.

    Cost: O(L^2) a trial, O(L) a guess; O(d^3) a fit, d the number of options of all layers. Fits
    are about 16 log n in n trials.
    """

    def __init__(self, space: LayerwiseSpace) -> None:
        self._first = np.cumsum([0, *space.sizes[:-1]])
        self._d = sum(space.sizes)
        self._products: NDArray[np.float64] = np.eye(self._d + 1)
        self._sums: NDArray[np.float64] = np.zeros(self._d + 1)
        self._n, self._next = 0, 1
        self._table: list[list[float]] = [[0.0] * k for k in space.sizes]

    def add(self, architecture: Architecture, reward: float) -> None:
        """Learn from a trial; a reward that is not finite is a mistake of the caller's."""
        at = np.append(self._first + np.array(architecture), self._d)
        self._products[np.ix_(at, at)] += 1
        self._sums[at] += reward
        self._n += 1
        if self._n >= self._next:
            self._fit()
            self._next = self._n + 1 + self._n // 16

    def guess(self, tried: Sequence[Architecture]) -> list[float]:
        """What orders architectures by the reward that they may have."""
        table = self._table
        return [sum(row[s] for row, s in zip(table, one, strict=True)) for one in tried]

    def _fit(self) -> None:
        # Centred rewards: the ridge would pull their mean to 0.
        mean = self._sums[self._d] / self._n
        counts = self._products[: self._d, self._d]
        right = np.append(self._sums[: self._d] - mean * counts, 0.0)
        fitted = np.linalg.solve(self._products, right)
        ends = [*self._first[1:], self._d]
        self._table = [
            fitted[a:b].tolist() for a, b in zip(self._first.tolist(), ends, strict=True)
        ]
