"""Rows at the two ends of directions: what people look at to see what a direction means."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError

Found = tuple[Tensor, Tensor]
"""Keys, ascending, and places of rows, both of shape (C, S, k)."""


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """The rows at the two ends of each direction, the furthest first.

    Args:
        low, high: Places of rows among all rows read, int64, shape (C, S, k); -1 where a class has
            fewer rows, or a direction does not exist.
        low_scores, high_scores: Their scores, float64, same shape; NaN there.
    """

    low: Tensor
    high: Tensor
    low_scores: Tensor
    high_scores: Tensor


def direction_ends(batches: Iterable[tuple[Tensor, Tensor]], k: int) -> Ends:
    """Find the rows with the lowest and highest scores along each direction of their own class.

    Args:
        batches: Scores, floating point, shape (n, C, S), of which a row's own class is looked at
            (a score that is not finite belongs to no direction); and that class, int64, (n,).
        k: Rows of each end, >= 1. One row is never at both ends.

    Raises:
        ShapeError: there are no rows.
        ConfigError: k < 1.

    Cost: one pass, O(N S) time; O(C S k) memory, however many rows come.
    """
    if k < 1:
        raise ConfigError(f"k={k}: at least one row of each end.")
    low = high = None
    start = 0
    for scores, classes in batches:
        given = scores.detach().cpu().double()
        own = given[torch.arange(len(given)), classes.cpu()]
        places = torch.arange(start, start + len(given))
        start += len(given)
        if low is None or high is None:
            shape = given.shape[1:]
            low = high = (torch.full((*shape, k), math.inf).double(), torch.full((*shape, k), -1))
        low = _furthest(low, own, classes.cpu(), places)
        high = _furthest(high, -own, classes.cpu(), places)
    if low is None or high is None:
        raise ShapeError("there are no scores to look through; give at least one row.")
    high = _not_both(low, high)
    nan = math.nan
    return Ends(
        low[1],
        high[1],
        low[0].masked_fill(low[1] < 0, nan),
        (-high[0]).masked_fill(high[1] < 0, nan),
    )


def _furthest(found: Found, own: Tensor, classes: Tensor, places: Tensor) -> Found:
    """Keep the k smallest keys of each class and direction; `own` are keys of shape (n, S)."""
    keys, rows = found[0].clone(), found[1].clone()
    k = keys.shape[2]
    own = own.masked_fill(~own.isfinite(), math.inf)
    for c in torch.unique(classes).tolist():
        mine = classes == c
        all_keys = torch.cat([keys[c], own[mine].T], dim=1)
        count = int(mine.sum())
        all_rows = torch.cat([rows[c], places[mine].expand(len(keys[c]), count)], dim=1)
        # Stable, so that equal keys stay in the order of their rows.
        order = all_keys.argsort(dim=1, stable=True)[:, :k]
        keys[c] = all_keys.gather(1, order)
        rows[c] = all_rows.gather(1, order)
    return keys, rows.masked_fill(keys.isinf(), -1)


def _not_both(low: Found, high: Found) -> Found:
    """Leave out of the high end what is at the low one already, where a class has few rows."""
    again = (high[1][..., :, None] == low[1][..., None, :]).any(dim=-1)
    return high[0], high[1].masked_fill(again, -1)
