"""Random numbers that belong to a question: the same for a row whenever and wherever it is met.

Source of the mixing function: Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014 (splitmix64).
"""

import numpy as np
from numpy.typing import NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def hashed(ids: NDArray[np.uint8], seed: int) -> NDArray[np.uint64]:
    """Turn question ids into numbers that look random.

    Args:
        ids: uint8, shape (n, 16).
        seed: Another seed gives numbers that have nothing to do with those of this one.

    Returns:
        uint64, shape (n,), uniform over all values.

    Cost: O(n), about 30 ns a row.
    """
    words = np.ascontiguousarray(ids).view("<u8")
    start = _mixed(np.array([seed % 2**64], dtype=np.uint64))
    return _mixed(_mixed(words[:, 0] ^ start) ^ words[:, 1])


def drawn(keys: NDArray[np.uint64], draw: int) -> NDArray[np.uint64]:
    """One more number for each key; those of different draws are independent of each other.

    Args:
        keys: uint64, shape (n,), from `hashed`.
        draw: Number of the draw, >= 0.
    """
    return _mixed(keys + np.array([(draw + 1) * int(_STEP) % 2**64], dtype=np.uint64))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words of which no bit of the result shows the input's order."""
    x = x + _STEP
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    mixed: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed
