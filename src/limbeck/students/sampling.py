"""Some rows of a stream of unknown length, evenly spaced."""

from collections.abc import Callable, Iterable
from typing import TypeVar

Row = TypeVar("Row")
Kept = TypeVar("Kept")


def spaced(rows: Iterable[Row], most: int, look: Callable[[Row], Kept]) -> list[Kept]:
    """Look at rows 0, s, 2s, ..., s the smallest power of two that leaves at most `most`.

    Args:
        rows: Read once.
        most: Rows of the result at most, >= 1.
        look: What to keep of a row. Called for rows that may be dropped again later, which are
            `most / 2` more for every doubling of the stream.
    """
    kept: list[Kept] = []
    stride = 1
    for number, row in enumerate(rows):
        if number % stride:
            continue
        if len(kept) == most:
            kept, stride = kept[::2], 2 * stride
            if number % stride:
                continue
        kept.append(look(row))
    return kept
