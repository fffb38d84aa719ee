"""How much a student would learn from a row now: a number in [0, 1] a row.

Any numbers in [0, 1] of your own serve the rules of this folder as well; `ranks` brings others
there.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError

Measure = Literal["margin", "entropy", "least_confidence", "bald", "gradient_norm", "rank"]
MEASURES: tuple[Measure, ...] = (
    "margin", "entropy", "least_confidence", "bald", "gradient_norm", "rank",
)  # fmt: skip
_SUM_TOLERANCE = 1e-3


def gains(
    probs: Tensor, measure: Measure = "margin", *, embeddings: Tensor | None = None
) -> Tensor:
    """Informativeness of rows from what the student says of them.

    Args:
        probs: Student probabilities f, taken in evaluation mode on inputs that are not augmented,
            shape (n, C); for "bald" of M members or dropout passes, shape (M, n, C).
        measure:
            "margin": 1 - (f_(1) - f_(2)), the two largest probabilities.
            "entropy": entropy over ln C.
            "least_confidence": (1 - f_(1)) C / (C - 1).
            "bald": (entropy of the mean - mean of the entropies) / ln C (Houlsby et al. 2011).
            "gradient_norm": norm of the last layer's gradient at the most probable class,
                |f - onehot| |h|, over the largest in these rows.
            "rank": rank of "margin" over n - 1, ties averaged.
        embeddings: Inputs h of the last layer, shape (n, D), for "gradient_norm".

    Returns:
        Gains in [0, 1], float32, shape (n,).

    Raises:
        ShapeError: shapes do not fit each other or the measure.
        ConfigError: the measure is unknown, or rows are no probabilities (NaN, negative, sum off).

    Cost: O(n C), for "bald" O(M n C), for "rank" O(n log n) more.
    """
    if measure not in MEASURES:
        raise ConfigError(f"measure={measure!r}: must be one of {', '.join(MEASURES)}.")
    dims = 3 if measure == "bald" else 2
    if probs.ndim != dims or not probs.is_floating_point() or probs.shape[-1] < 2:
        raise ShapeError(
            f"gains by {measure!r} need floating-point probabilities of shape "
            f"{'(M, n, C)' if dims == 3 else '(n, C)'} with C >= 2, got {probs.dtype} of shape "
            f"{tuple(probs.shape)}."
        )
    f = probs.detach().float()
    check_probs(f)
    match measure:
        case "margin":
            return _margin(f)
        case "rank":
            return ranks(_margin(f))
        case "entropy":
            return (_entropy(f) / math.log(f.shape[-1])).clamp(0, 1)
        case "least_confidence":
            count = f.shape[-1]
            return ((1 - f.amax(dim=-1)) * count / (count - 1)).clamp(0, 1)
        case "bald":
            gap = _entropy(f.mean(dim=0)) - _entropy(f).mean(dim=0)
            return (gap / math.log(f.shape[-1])).clamp(0, 1)
        case "gradient_norm":
            norms = gradient_norms(f, embeddings)
            return over_largest(norms)


def ranks(scores: Tensor) -> Tensor:
    """Rank of each score over n - 1, ties averaged: any scores become gains in [0, 1].

    Args:
        scores: Floating point, shape (n,); a larger one is more informative.

    Returns:
        float32, shape (n,); 0 for a single row.

    Raises:
        ShapeError, ConfigError: scores are not 1-d, or NaN.

    Cost: O(n log n).
    """
    if scores.ndim != 1:
        raise ShapeError(f"ranks need scores of shape (n,), got {tuple(scores.shape)}.")
    if bool(scores.isnan().any()):
        raise ConfigError("scores hold NaN, which has no rank; leave those rows out.")
    # Each distinct score takes the mean of the places that it fills.
    group, sizes = groups_of(scores.detach())
    mean = sizes.cumsum(0).double() - (sizes - 1).double() / 2 - 1
    places: Tensor = mean[group] / max(len(scores) - 1, 1)
    return places.float()


def gradient_norms(probs: Tensor, embeddings: Tensor | None) -> Tensor:
    """Norm of the last layer's gradient at the most probable class: |f - onehot| |h|.

    Args:
        probs: Student probabilities f, shape (n, C).
        embeddings: Inputs h of the last layer, shape (n, D).

    Returns:
        float32, >= 0, shape (n,), not scaled.

    Raises:
        ShapeError: embeddings are missing or of other rows.
        ConfigError: embeddings are NaN or infinite.
    """
    if embeddings is None or embeddings.ndim != 2 or len(embeddings) != len(probs):
        got = "none" if embeddings is None else tuple(embeddings.shape)
        raise ShapeError(
            f"gains by 'gradient_norm' need embeddings of shape ({len(probs)}, D), got {got}; they "
            f"are the inputs of the student's last layer."
        )
    check_embeddings(embeddings)
    f = probs.detach().float()
    # |f - e|^2 = |f|^2 - 2 f_top + 1; the gradient is the outer product of f - e and h.
    error = (f.square().sum(dim=1) - 2 * f.amax(dim=1) + 1).clamp_min(0).sqrt()
    norms: Tensor = error * embeddings.detach().float().norm(dim=1)
    return norms


def over_largest(norms: Tensor) -> Tensor:
    """Divide by the largest; zeros where all are zero."""
    if len(norms) == 0:
        return norms
    return (norms / norms.max().clamp_min(torch.finfo(norms.dtype).tiny)).clamp(0, 1)


def groups_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """Group equal values: the group of each, in ascending order of value, and the groups' sizes."""
    found = values.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]  # torch has no annotation
    group: Tensor = found[1]
    sizes: Tensor = found[2]
    return group, sizes


def check_gains(values: Tensor) -> None:
    """Refuse gains that a rule could not use.

    Raises:
        ShapeError: they are not floating point of shape (n,).
        ConfigError: one is NaN or out of [0, 1].
    """
    if values.ndim != 1 or not values.is_floating_point():
        raise ShapeError(
            f"gains must be a floating-point tensor of shape (n,), got {values.dtype} of shape "
            f"{tuple(values.shape)}."
        )
    if len(values) and not bool(((values >= 0) & (values <= 1)).all()):
        if bool(values.isnan().any()):
            raise ConfigError(
                f"{int(values.isnan().sum())} of {len(values)} gains are NaN, expected numbers in "
                f"[0, 1]; leave those rows out."
            )
        raise ConfigError(
            f"gains must lie in [0, 1], got values from {float(values.min()):.6g} to "
            f"{float(values.max()):.6g}; limbeck.select.ranks brings any scores there."
        )


def _margin(f: Tensor) -> Tensor:
    # Half the time of topk(2), whatever the number of classes.
    first, at = f.max(dim=1, keepdim=True)
    second = f.scatter(1, at, -1.0).amax(dim=1)
    return (1 - (first[:, 0] - second)).clamp(0, 1)


def _entropy(f: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(f).sum(dim=-1)
    return entropy


def check_probs(f: Tensor) -> None:
    """Refuse student probabilities that are none.

    Raises:
        ConfigError: NaN, a negative one, or a row that does not sum to 1 within 0.001.
    """
    if f.numel() == 0:
        return
    off = (f.sum(dim=-1) - 1).abs().max()
    if not bool(f.min() >= 0) or not bool(off <= _SUM_TOLERANCE):
        raise ConfigError(
            "student probabilities must be >= 0 and sum to 1 in each row, without NaN; pass "
            "torch.softmax(logits, dim=-1) of a student in evaluation mode."
        )


def check_embeddings(h: Tensor) -> None:
    """Refuse embeddings that have no distances.

    Raises:
        ConfigError: one is NaN or infinite.
    """
    if not bool(h.isfinite().all()):
        raise ConfigError(
            "embeddings hold NaN or infinite values; look at the student that they come from, or "
            "leave those rows out."
        )
