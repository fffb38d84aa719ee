"""Encoded rows seen in another way: some of them, or two sets one after the other."""

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.distill.job import Labelled
from limbeck.students.base import Ragged
from limbeck.students.store import Store


class Subset:
    """Some positions of other rows, int64, shape (m,)."""

    def __init__(self, rows: Store, positions: NDArray[np.int64]) -> None:
        self._rows = rows
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def take(self, rows: NDArray[np.int64]) -> Ragged:
        """Rows by position within the subset."""
        return self._rows.take(self._positions[rows])


class Stacked:
    """The rows of `first`, then those of `second`."""

    def __init__(self, first: Store, second: Store) -> None:
        self._first = first
        self._second = second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def take(self, rows: NDArray[np.int64]) -> Ragged:
        """Rows by position within the stack."""
        split = len(self._first)
        low = rows < split
        a = self._first.take(rows[low])
        b = self._second.take(rows[~low] - split)
        lengths = np.concatenate([a.lengths, b.lengths])
        values = np.concatenate([a.values, b.values])
        order = np.argsort(np.concatenate([np.flatnonzero(low), np.flatnonzero(~low)]))
        return reorder(Ragged(values, lengths), order)


def reorder(rows: Ragged, order: NDArray[np.int64]) -> Ragged:
    """Rows of a batch in another order."""
    ends = np.cumsum(rows.lengths)
    pieces = np.split(rows.values, ends[:-1])
    return Ragged(np.concatenate([pieces[i] for i in order]), rows.lengths[order])


def subset(labelled: Labelled, positions: NDArray[np.int64]) -> Labelled:
    """Some labelled rows."""
    return Labelled(Subset(labelled.rows, positions), labelled.labels[torch.from_numpy(positions)])


def stack(first: Labelled, second: Labelled) -> Labelled:
    """Two sets of labelled rows as one."""
    return Labelled(Stacked(first.rows, second.rows), torch.cat([first.labels, second.labels]))


def folds(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Fold of each row, stratified by label and seeded; int64 in [0, count), shape (n,)."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(labels), dtype=np.int64)
    start = 0
    for c in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == c))
        # The next class begins at the fold where this one ended: folds stay of equal size.
        fold[rows] = (np.arange(len(rows)) + start) % count
        start += len(rows)
    return fold
