"""Gains of candidates, block by block."""

from collections.abc import Callable

import torch
from torch import Tensor

from limbeck.errors import ShapeError
from limbeck.select.base import Candidates
from limbeck.select.gains import Measure, check_gains, gains, gradient_norms, over_largest, ranks

Score = Measure | Callable[[Tensor], Tensor] | Tensor
"""A measure of `limbeck.select.gains`; a function from a block of probabilities to gains; or ready
gains of all rows of the pool, in [0, 1], shape (N,)."""


def gains_of(candidates: Candidates, measure: Score) -> Tensor:
    """Gains of all candidates, float32, shape (n,).

    Args:
        candidates: Their probabilities are read a block at a time.
        measure: What is informative. Probabilities of several members are averaged for all measures
            but "bald"; ready gains need none.

    Raises:
        ShapeError, ConfigError: as `gains`, or a function of yours gives something else than gains.
    """
    if isinstance(measure, Tensor):
        return _ready(candidates, measure)
    if measure == "gradient_norm":
        return _gradient_norm(candidates)
    kind = "margin" if measure == "rank" else measure
    parts = [_of_block(block, kind) for block in candidates.probs()]
    found = torch.cat(parts) if parts else torch.zeros(0)
    if len(found) != len(candidates.rows):
        raise ShapeError(
            f"{len(candidates.rows)} candidates but {len(found)} gains; give one for each row."
        )
    check_gains(found)
    return ranks(found) if measure == "rank" else found


def _ready(candidates: Candidates, of_pool: Tensor) -> Tensor:
    if of_pool.shape != (candidates.pool_size,):
        raise ShapeError(
            f"ready gains have shape {tuple(of_pool.shape)} but the pool has "
            f"{candidates.pool_size} rows; give one for each row of the pool, bought ones too."
        )
    found = of_pool.detach()[candidates.rows].float()
    check_gains(found)
    return found


def _of_block(block: Tensor, measure: Measure | Callable[[Tensor], Tensor]) -> Tensor:
    if measure != "bald" and block.ndim == 3:
        block = block.mean(dim=0)
    return measure(block) if callable(measure) else gains(block, measure)


def _gradient_norm(candidates: Candidates) -> Tensor:
    """Norms of all blocks over the largest of all."""
    parts, start = [], 0
    for block in candidates.probs():
        probs = block.mean(dim=0) if block.ndim == 3 else block
        at = torch.arange(start, start + len(probs))
        parts.append(gradient_norms(probs, candidates.embeddings(at)))
        start += len(probs)
    return over_largest(torch.cat(parts) if parts else torch.zeros(0))
