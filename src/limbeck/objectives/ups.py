"""UPS: learn only from answers that are confident and certain, also from what they rule out.

A class that the teacher is sure of is a positive label; one that it is sure to be wrong is a
negative label, which says what the row is *not*. All other rows teach nothing.

Source: Rizve, Duarte, Rawat, Shah, "In defense of pseudo-labeling: an uncertainty-aware
pseudo-label selection framework for semi-supervised learning", ICLR 2021, arXiv 2101.06329. The
thresholds and the rule are a reconstruction; where the paper takes dropout passes of the network
that is trained, here the teacher's answers and their spread over its members stand.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Literal, Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import check_pair, working

Rule = Literal["confidence", "ensemble"]


def select_pseudo_labels(
    teacher_probs: Tensor,
    spread: Tensor | None = None,
    *,
    positive: float = 0.70,
    negative: float = 0.05,
    positive_spread: float = 0.05,
    negative_spread: float = 0.005,
) -> tuple[Tensor, Tensor]:
    """Mark classes that the teacher says a row has, and classes that it rules out.

    Args:
        teacher_probs: p at temperature 1, floating point, shape (B, C), rows sum to 1.
        spread: Standard deviation of each probability over the teacher's members, shape (B, C),
            >= 0; None goes by confidence alone.
        positive: Least p of a positive class, in (0.5, 1]: a row has at most one.
        negative: Most p of a negative class, in (0, 0.5).
        positive_spread: Most spread of a positive class, >= 0.
        negative_spread: Most spread of a negative class, >= 0.

    Returns:
        Two bool masks of shape (B, C): positive and negative classes. No class is both.

    Raises:
        ShapeError: the spread is not of the probabilities' shape.
        ConfigError: a threshold is out of range.

    Cost: O(B C).
    """
    _check_thresholds(positive, negative, positive_spread, negative_spread)
    yes, no = teacher_probs >= positive, teacher_probs <= negative
    if spread is None:
        return yes, no
    if spread.shape != teacher_probs.shape:
        raise ShapeError(
            f"spread has shape {tuple(spread.shape)} but the probabilities have "
            f"{tuple(teacher_probs.shape)}; give one deviation a probability."
        )
    return yes & (spread <= positive_spread), no & (spread <= negative_spread)


def ups_loss(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Cross-entropy with the positive class, or else the mean price of the negative ones.

    A row with a positive class c costs -log f_c and its negative classes are left out. A row with
    negative classes only costs the mean over them of -log(1 - f_c). A row with neither costs 0.

    Args:
        logits: Student logits z, floating point, shape (B, C); f = softmax(z).
        positive: Positive classes, bool, shape (B, C); of several in a row the mean is taken.
        negative: Negative classes, bool, shape (B, C).

    Returns:
        Loss of each row in nats, >= 0, shape (B,), float32 (float64 for float64 logits). The mean
        over a batch is over *all* of its rows, those that cost nothing too: the fewer rows are
        selected, the weaker the pool pulls beside the labels. Divide by the number of rows with a
        marked class to give the selected rows full weight.

    Raises:
        ShapeError: the masks are not bool of the logits' shape.

    Cost: O(B C). Stable for f near 0 and 1: no logarithm of a rounded difference is taken.
    """
    _check_masks(logits, positive, negative)
    logits = working(logits)
    wanted = _mean_over(positive, -torch.log_softmax(logits, dim=1))
    ruled_out = _mean_over(negative, -_log_complement(logits))
    return torch.where(positive.any(dim=1), wanted, ruled_out)


@final
class Ups(Objective):
    """Positive and negative pseudo-labels as an objective.

    Args:
        rule: "confidence" goes by the teacher's probabilities alone, "ensemble" by their spread
            over its members as well, which the answers must then hold.
        positive, negative, positive_spread, negative_spread: As in `select_pseudo_labels`.
    """

    name = "ups"

    def __init__(
        self,
        *,
        rule: Rule = "confidence",
        positive: float = 0.70,
        negative: float = 0.05,
        positive_spread: float = 0.05,
        negative_spread: float = 0.005,
    ) -> None:
        if rule not in ("confidence", "ensemble"):
            raise ConfigError(f"rule={rule!r}: must be 'confidence' or 'ensemble'.")
        _check_thresholds(positive, negative, positive_spread, negative_spread)
        self.rule: Rule = rule
        self.needs_spread = rule == "ensemble"
        self.positive = positive
        self.negative = negative
        self.positive_spread = positive_spread
        self.negative_spread = negative_spread

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return itself, having made sure that the first answers hold what the rule needs.

        Raises:
            ConfigError: the rule is "ensemble" and the answers have no spread.
        """
        if self.rule == "ensemble":
            for first in islice(answers, 1):
                self._spread(first)
        return self

    def targets(self, answers: Answers) -> Targets:
        """Give `positive` and `negative`, bool, shape (B, C).

        Raises:
            ConfigError: the rule is "ensemble" and the answers have no spread.
        """
        positive, negative = select_pseudo_labels(
            answers.probs,
            self._spread(answers),
            positive=self.positive,
            negative=self.negative,
            positive_spread=self.positive_spread,
            negative_spread=self.negative_spread,
        )
        return Targets({"positive": positive, "negative": negative})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        if targets is None:
            return self.label_loss(out, labels)
        return ups_loss(out.outputs, targets["positive"], targets["negative"])

    def _spread(self, answers: Answers) -> Tensor | None:
        if self.rule == "confidence":
            return None
        if answers.spread is None:
            raise ConfigError(
                "ups: rule='ensemble' needs answers with a spread but this teacher has one "
                "opinion; set rule = 'confidence', or take a teacher of several members."
            )
        return answers.spread


def _mean_over(mask: Tensor, values: Tensor) -> Tensor:
    """Mean of the marked values of each row, 0 where none is marked."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)


def _log_complement(logits: Tensor) -> Tensor:
    """log(1 - f) of every class, shape (B, C).

    The largest f may round to 1, so its complement is summed from the others; every other f is at
    most a half.
    """
    top = torch.zeros_like(logits, dtype=torch.bool)
    top.scatter_(1, logits.max(dim=1, keepdim=True).indices, True)
    others = logits.masked_fill(top, -torch.inf)
    rest = others.logsumexp(dim=1, keepdim=True) - logits.logsumexp(dim=1, keepdim=True)
    # The largest is set to 0 before the log, lest the branch that is not taken give NaN gradients.
    small = torch.log1p(-torch.softmax(logits, dim=1).masked_fill(top, 0.0))
    return torch.where(top, rest, small)


def _check_masks(logits: Tensor, positive: Tensor, negative: Tensor) -> None:
    check_pair(logits, logits)
    for name, mask in (("positive", positive), ("negative", negative)):
        if mask.shape != logits.shape or mask.dtype != torch.bool:
            raise ShapeError(
                f"{name} must be bool of shape {tuple(logits.shape)} like the logits, got "
                f"{mask.dtype} of shape {tuple(mask.shape)}; select_pseudo_labels makes it."
            )


def _check_thresholds(
    positive: float, negative: float, positive_spread: float, negative_spread: float
) -> None:
    if not 0.5 < positive <= 1:
        raise ConfigError(
            f"positive={positive}: must be in (0.5, 1], so that a row has one positive class; "
            f"0.7 is usual."
        )
    if not 0 < negative < 0.5:
        raise ConfigError(f"negative={negative}: must be in (0, 0.5); 0.05 is usual.")
    for name, most in (("positive_spread", positive_spread), ("negative_spread", negative_spread)):
        if not most >= 0:
            raise ConfigError(f"{name}={most}: must be >= 0, a standard deviation.")
