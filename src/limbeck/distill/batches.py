"""Which rows a training step sees: a pure function of the seed and the step.

There is no sampler state to save. Step t of a resumed run asks for the same rows as step t of a run
that was never stopped, because both read the same endless sequence of seeded permutations.
"""

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import ConfigError


class EndlessPermutation:
    """Positions 0..n-1 in a fresh random order every epoch, cut into minibatches.

    A minibatch may straddle two epochs, so every step has exactly `batch` rows and after e epochs
    every position has been seen e times.

    Args:
        n: Positions, >= 1.
        batch: Positions a step, >= 1.
        seed: Seeds the order of every epoch.

    Cost: O(n) when a step enters a new epoch, O(batch) otherwise; 8 n bytes for an epoch's order.
    """

    def __init__(self, n: int, batch: int, seed: int) -> None:
        if n < 1 or batch < 1:
            raise ConfigError(
                f"minibatches need at least one row and one place, got n={n}, batch={batch}; "
                f"give more rows or a larger batch."
            )
        self.n = n
        self.batch = batch
        self._seed = seed
        self._orders: dict[int, NDArray[np.int64]] = {}

    def rows(self, step: int) -> NDArray[np.int64]:
        """Positions of step 0, 1, 2, ...; int64, shape (batch,)."""
        first = step * self.batch
        last = first + self.batch
        epochs = range(first // self.n, (last - 1) // self.n + 1)
        parts = [
            self._order(e)[max(first - e * self.n, 0) : min(last - e * self.n, self.n)]
            for e in epochs
        ]
        return np.concatenate(parts)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            rng = np.random.default_rng([self._seed, epoch])
            order = rng.permutation(self.n).astype(np.int64, copy=False)
            # Two epochs are enough for a batch that straddles; small sets may straddle more.
            keep = {e: o for e, o in self._orders.items() if e == epoch - 1}
            self._orders = {**keep, epoch: order}
        return self._orders[epoch]
