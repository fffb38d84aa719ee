"""How good are class probabilities: accuracy, macro-F1, NLL, Brier score, calibration, confusion.

Everything is pure and computed by numpy in float64; numpy arrays and CPU tensors are taken alike.
n rows, C classes; labels are int, shape (n,), in [0, C).

Source: expected calibration error as in Guo et al., "On Calibration of Modern Neural Networks"
(ICML 2017), Section 2, with 15 equal-width bins of the top-1 probability.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from limbeck.errors import ShapeError

ECE_BINS = 15


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Rows whose top-1 probability falls into one bin (low, high].

    Args:
        low, high: Edges of the bin, in [0, 1].
        count: Rows in it.
        confidence: Their mean top-1 probability, 0.0 for an empty bin.
        accuracy: Share of them whose top-1 class is right, 0.0 for an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Share of rows whose largest score is that of the label; `scores` has shape (n, C)."""
    return float(correct(scores, labels).mean())


def correct(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.bool_]:
    """Which rows are right, bool, shape (n,); of equal largest scores the first class counts."""
    values, truth = _arrays(scores, labels)
    right: NDArray[np.bool_] = values.argmax(axis=1) == truth
    return right


def confusion(predicted: ArrayLike, labels: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Count rows by (truth, prediction): int64, shape (C, C), rows are the truth."""
    flat = np.asarray(labels, np.int64) * num_classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def precision_recall(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall of each class, float64, shape (C,) each, from a confusion matrix.

    A class that was never predicted has precision 0; one that never occurs has recall 0.
    """
    hits = np.diag(counts).astype(np.float64)
    predicted, actual = counts.sum(axis=0), counts.sum(axis=1)
    return hits / np.maximum(predicted, 1), hits / np.maximum(actual, 1)


def macro_f1(counts: NDArray[np.int64]) -> float:
    """Mean F1 over the classes that occur or were predicted, from a confusion matrix."""
    hits = np.diag(counts).astype(np.float64)
    seen = counts.sum(axis=0) + counts.sum(axis=1)
    present = seen > 0
    # F1 = 2 TP / (predicted + actual): one formula with no 0/0 for a class that is present.
    return float((2 * hits[present] / seen[present]).mean())


def nll(log_probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-probability of the label, in nats; `log_probs` has shape (n, C).

    Log-probabilities are cut at -100, so that one impossible row cannot make the mean infinite.
    """
    values, truth = _arrays(log_probs, labels)
    picked = values[np.arange(len(truth)), truth]
    return float(-np.maximum(picked, -100.0).mean())


def brier(probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean over rows of the squared distance to the one-hot label, in [0, 2]."""
    values, truth = _arrays(probs, labels)
    return float(((values - np.eye(values.shape[1])[truth]) ** 2).sum(axis=1).mean())


def reliability(
    probs: ArrayLike, labels: ArrayLike, *, bins: int = ECE_BINS
) -> tuple[ReliabilityBin, ...]:
    """Group rows by their top-1 probability into equal-width bins (low, high] of [0, 1].

    Cost: O(n C) time, O(n) extra memory.
    """
    right = correct(probs, labels)
    confidence = np.asarray(probs, np.float64).max(axis=1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    size = np.maximum(count, 1)
    mean = np.bincount(place, weights=confidence, minlength=bins) / size
    hits = np.bincount(place, weights=right, minlength=bins) / size
    return tuple(
        ReliabilityBin(i / bins, (i + 1) / bins, int(count[i]), float(mean[i]), float(hits[i]))
        for i in range(bins)
    )


def ece(bins: tuple[ReliabilityBin, ...]) -> float:
    """Expected calibration error: the row-weighted mean of |accuracy - confidence| over bins."""
    rows = sum(b.count for b in bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / rows


def tempered(log_probs: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Log-probabilities at another temperature: log softmax(log p / temperature), float64."""
    scaled = np.asarray(log_probs, np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    normal: NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return normal


def _arrays(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, truth = np.asarray(scores, np.float64), np.asarray(labels, np.int64)
    if values.ndim != 2 or truth.shape != values.shape[:1] or len(truth) == 0:
        raise ShapeError(
            f"metrics need scores of shape (n, C) and labels of shape (n,) with n >= 1, got "
            f"{values.shape} and {truth.shape}; give one row of scores for each label."
        )
    return values, truth
