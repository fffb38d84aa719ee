"""DIST: fit the pattern of the teacher's probabilities, by correlation instead of divergence.

Let Y = softmax(z / tau), shape (B, C), of the student S and the teacher T, and rho the correlation
of two vectors. Inter-class relations are those of a row, intra-class ones those of a column:

    L = tau^2 [beta (1 - mean_i rho(Y^S_i:, Y^T_i:)) + gamma (1 - mean_c rho(Y^S_:c, Y^T_:c))].

With two classes a row's correlation is 1 or -1, whether the two sides of 1/2 agree: a constant,
with no gradient but that of rounding. The two columns then say the same, so what is left is one
correlation over the batch.

Source: Huang, You, Wang, Qian, Xu, "Knowledge distillation from a stronger teacher", NeurIPS 2022,
arXiv 2205.10536. Form, weights and `eps` are those of its public code; the factor tau^2 and the
use of temperatures other than 1 are a reconstruction.
"""

import warnings
from collections.abc import Iterable
from typing import Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import LimbeckWarning
from limbeck.numerics.logspace import retemper
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import check_factor, check_pair, count_classes, working
from limbeck.objectives.kd import check_temperature

EPS = 1e-8
"""Added to the product of two norms: something constant has correlation 0 with everything."""


def dist_loss(
    logits: Tensor,
    teacher_probs: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Dissimilarity of each row, and of the columns of the batch.

    Args:
        logits: Student logits, floating point, shape (B, C).
        teacher_probs: Teacher probabilities at temperature 1, shape (B, C), rows sum to 1.
        beta: Weight of the inter-class part, >= 0.
        gamma: Weight of the intra-class part, >= 0.
        temperature: tau > 0.

    Returns:
        Shape (B,), in [0, 2 tau^2 (beta + gamma)], float32 (float64 for float64); its mean is the
        loss. Each row holds its own inter-class part and the intra-class part of the whole batch.
        One row alone has no intra-class part: it is 0 by definition.

    Raises:
        ShapeError: shapes or dtypes do not fit each other.
        ConfigError: a setting is out of range.

    Cost: O(B C).
    """
    check_pair(logits, teacher_probs)
    check_temperature(temperature)
    _check_weights(beta, gamma)
    logits = working(logits)
    student = torch.softmax(logits / temperature, dim=1)
    teacher = retemper(teacher_probs.to(logits.dtype), temperature)
    inter = 1 - correlation(student, teacher)
    intra = inter.new_zeros(())
    if len(logits) > 1:
        intra = 1 - correlation(student.T, teacher.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of the rows of two matrices, in [-1, 1], shape (n,) from (n, m).

    It is 0 where one of the two rows is constant; in general the norms' product is enlarged by
    `EPS`. The gradient is finite everywhere.
    """
    a = a - a.mean(dim=1, keepdim=True)
    b = b - b.mean(dim=1, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (a * b).sum(dim=1) / (norms + EPS)


@final
class Dist(Objective):
    """Correlation of rows and of columns with the teacher's.

    Args:
        beta: Weight of the inter-class part, >= 0.
        gamma: Weight of the intra-class part, >= 0.
        temperature: tau > 0.
    """

    name = "dist"
    relational = True

    def __init__(self, *, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        _check_weights(beta, gamma)
        check_temperature(temperature)
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return itself: nothing is learnt from answers. Warns where they have two classes."""
        if self.beta > 0 and count_classes(answers) == 2:
            warnings.warn(
                "dist: with two classes a row's correlation only says whether student and teacher "
                "agree, so the inter-class part is a constant without gradient and one correlation "
                "over the batch is all that teaches; set beta=0 to leave it out of the loss.",
                LimbeckWarning,
                stacklevel=2,
            )
        return self

    def targets(self, answers: Answers) -> Targets:
        """Give `teacher_probs` as they are, float32, shape (B, C)."""
        return Targets({"teacher_probs": answers.probs})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Shape (B,): of pool rows as `dist_loss`, of labelled rows their cross-entropy in nats."""
        if targets is None:
            return self.label_loss(out, labels)
        return dist_loss(
            out.outputs,
            targets["teacher_probs"],
            beta=self.beta,
            gamma=self.gamma,
            temperature=self.temperature,
        )


def _check_weights(beta: float, gamma: float) -> None:
    check_factor("beta", beta, zero=True)
    check_factor("gamma", gamma, zero=True)
