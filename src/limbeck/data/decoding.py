"""Many images decoded to one size: the work of a worker process."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limbeck.data import pixels


def decode_rows(work: tuple[Sequence[bytes | None], int, int]) -> NDArray[np.uint8]:
    """Decode files one after the other; see `pixels.decode`.

    Args:
        work: The bytes of n files, the side of the squares in pixels, and the channels.

    Returns:
        uint8, shape (n, side * side * channels), channels last.

    Raises:
        ValueError: a file is missing or cannot be decoded.
    """
    files, size, channels = work
    squares = np.empty((len(files), size * size * channels), np.uint8)
    # Pillow warns of what is oddly written; it can be used, or raises.
    with warnings.catch_warnings(action="ignore"):
        for row, data in enumerate(files):
            squares[row] = pixels.decode(data or b"", size, channels).reshape(-1)
    return squares
