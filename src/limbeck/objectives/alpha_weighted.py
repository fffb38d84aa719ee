"""Alpha as weight: each pool row counts as much as the teacher can be believed there.

A plain baseline beside SLaM: the same trust, used to scale cross-entropy instead of to mix the
student's prediction. A wrong label with a small weight still pulls without bound.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Self, final

from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import Target, check_alpha, check_pair, check_target
from limbeck.objectives.kd import weighted_ce
from limbeck.objectives.mixing import first_max


def alpha_weighted_loss(
    logits: Tensor, teacher_probs: Tensor, alpha: Tensor, *, target: Target = "hard"
) -> Tensor:
    """Cross-entropy with the teacher, times the probability that the teacher is right.

    Args:
        logits: Student logits z, floating point, shape (B, C).
        teacher_probs: Teacher probabilities at temperature 1, shape (B, C), rows sum to 1.
        alpha: Probability that the teacher's top class is right, in (0, 1], shape (B,); a constant
            to the gradient.
        target: "hard" takes cross-entropy with the teacher's most probable class (of equal ones
            the first), "soft" with its distribution.

    Returns:
        Loss of each row in nats, >= 0, shape (B,), float32 (float64 for float64 logits). Average
        it over the rows, not over the sum of alpha: the mean is then the plain loss of those rows
        that are right in expectation.

    Raises:
        ShapeError: shapes or dtypes do not fit each other.
        ConfigError: unknown target, or (on the CPU) an alpha outside of (0, 1].

    Cost: O(B C).
    """
    check_pair(logits, teacher_probs)
    check_alpha(alpha, logits.shape[0])
    check_target(target)
    fitted = first_max(teacher_probs) if target == "hard" else teacher_probs
    return weighted_ce(logits, fitted, alpha)


@final
class AlphaWeighted(Objective):
    """Cross-entropy weighted by alpha; its trust comes in through `Evidence`.

    Args:
        target: What cross-entropy is taken with; see `alpha_weighted_loss`.
    """

    name = "alpha_weighted"
    uses_trust = True
    corrects_noise = True

    def __init__(self, *, target: Target = "hard") -> None:
        check_target(target)
        self.target: Target = target
        self._trust: Callable[[Answers], Tensor] | None = None

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that holds alpha of the evidence; the pool's answers are not read.

        Raises:
            ConfigError: there is no evidence.
        """
        if evidence is None:
            raise ConfigError(
                "alpha_weighted: fitting needs the teacher's answers on validation rows with true "
                "labels; give some labelled rows as validation, or choose hard_kd."
            )
        fitted = copy.copy(self)
        fitted._trust = evidence.trust
        return fitted

    def targets(self, answers: Answers) -> Targets:
        """Give `alpha`, float32 (B,), and `labels`, int64 (B,), or `teacher_probs`, (B, C).

        Raises:
            ConfigError: the objective has not been fitted.
        """
        if self._trust is None:
            raise ConfigError(
                "alpha_weighted: not fitted yet; call `fitted = objective.fit(answers, evidence)`."
            )
        alpha = self._trust(answers)
        if self.target == "hard":
            return Targets({"labels": first_max(answers.probs), "alpha": alpha})
        return Targets({"teacher_probs": answers.probs, "alpha": alpha})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        if targets is None:
            return self.label_loss(out, labels)
        fitted = targets["labels" if self.target == "hard" else "teacher_probs"]
        return weighted_ce(out.outputs, fitted, targets["alpha"])
