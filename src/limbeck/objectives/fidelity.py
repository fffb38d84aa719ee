"""Fidelity weighting: each pool row counts the less, the less the teacher is sure of it.

Source: Dehghani, Mehrjou, Gouws, Kamps, Schoelkopf, "Fidelity-weighted learning", ICLR 2018,
arXiv 1711.02799: a step on a weak label is scaled by exp(-beta * uncertainty of the teacher). A
reconstruction in its manner: the paper's teacher is a Gaussian process with a variance of its own;
here its uncertainty is read off its answers.
"""

import math
from collections.abc import Iterable
from itertools import islice
from typing import Literal, Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import Target, check_target
from limbeck.objectives.kd import weighted_ce
from limbeck.objectives.mixing import first_max

Source = Literal["entropy", "spread"]


def teacher_uncertainty(
    teacher_probs: Tensor, spread: Tensor | None = None, *, source: Source = "entropy"
) -> Tensor:
    """How unsure a teacher is of each row, from 0 (sure) to 1.

    Args:
        teacher_probs: p at temperature 1, floating point, shape (B, C), C >= 2, rows sum to 1.
        spread: Standard deviation of each probability over the teacher's members, shape (B, C);
            only looked at by the source "spread".
        source: "entropy" is the entropy of p over log C. "spread" is four times the variance of
            the top class's probability, at most 1; a variance over members is never above 1/4.

    Returns:
        Uncertainty in [0, 1], shape (B,), dtype of `teacher_probs`.

    Raises:
        ConfigError: an unknown source, or "spread" without a spread.
        ShapeError: the probabilities are no (B, C) matrix, or the spread has another shape.

    Cost: O(B C).
    """
    _check_source(source)
    if teacher_probs.ndim != 2 or teacher_probs.shape[1] < 2:
        raise ShapeError(
            f"teacher_probs must be a (B, C) matrix with C >= 2, got "
            f"{tuple(teacher_probs.shape)}; give one row of probabilities for each example."
        )
    if source == "entropy":
        entropy: Tensor = torch.special.entr(teacher_probs).sum(dim=1)
        return (entropy / math.log(teacher_probs.shape[1])).clamp(0.0, 1.0)
    if spread is None:
        raise ConfigError(
            "fidelity: source='spread' needs answers with a spread but this teacher has one "
            "opinion; set source = 'entropy', or take a teacher of several members."
        )
    if spread.shape != teacher_probs.shape:
        raise ShapeError(
            f"spread has shape {tuple(spread.shape)} but the probabilities have "
            f"{tuple(teacher_probs.shape)}; give one deviation a probability."
        )
    top = spread.gather(1, first_max(teacher_probs)[:, None]).squeeze(1)
    return (4 * top.square()).clamp(max=1.0)


def fidelity_weights(uncertainty: Tensor, *, beta: float) -> Tensor:
    """Turn uncertainty u into weights exp(-beta u).

    Args:
        uncertainty: In [0, 1], floating point, any shape.
        beta: How fast a row loses weight, >= 0; 0 is plain distillation.

    Returns:
        Weights in [exp(-beta), 1], of the same shape, without a gradient.

    Raises:
        ConfigError: beta is negative or not finite.
    """
    _check_beta(beta)
    return torch.exp(-beta * uncertainty.detach())


@final
class Fidelity(Objective):
    """Cross-entropy with the teacher, weighted by how sure the teacher is.

    The mean over a batch is not divided by the sum of weights: a batch of unsure rows pulls less.

    Args:
        beta: As in `fidelity_weights`. The paper tunes it; 1 is our default.
        source: Where uncertainty is read off; see `teacher_uncertainty`.
        target: "hard" fits the teacher's most probable class, "soft" its distribution.
    """

    name = "fidelity"
    corrects_noise = True

    def __init__(
        self, *, beta: float = 1.0, source: Source = "entropy", target: Target = "hard"
    ) -> None:
        _check_beta(beta)
        _check_source(source)
        check_target(target)
        self.beta = beta
        self.source: Source = source
        self.needs_spread = source == "spread"
        self.target: Target = target

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return itself, having made sure that the first answers hold what the source needs.

        Raises:
            ConfigError: the source is "spread" and the answers have none.
        """
        if self.source == "spread":
            for first in islice(answers, 1):
                self.targets(first)
        return self

    def targets(self, answers: Answers) -> Targets:
        """Give `weight`, float32 (B,), and `labels`, int64 (B,), or `teacher_probs`, (B, C).

        Raises:
            ConfigError: the source is "spread" and the answers have none.
        """
        unsure = teacher_uncertainty(answers.probs, answers.spread, source=self.source)
        weight = fidelity_weights(unsure, beta=self.beta)
        if self.target == "hard":
            return Targets({"labels": first_max(answers.probs), "weight": weight})
        return Targets({"teacher_probs": answers.probs, "weight": weight})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        if targets is None:
            return self.label_loss(out, labels)
        fitted = targets["labels" if self.target == "hard" else "teacher_probs"]
        return weighted_ce(out.outputs, fitted, targets["weight"])


def _check_beta(beta: float) -> None:
    if not 0 <= beta < math.inf:
        raise ConfigError(f"beta={beta}: must be a finite number >= 0; 0 weights all rows alike.")


def _check_source(source: str) -> None:
    if source not in ("entropy", "spread"):
        raise ConfigError(f"source={source!r}: must be 'entropy' or 'spread'.")
