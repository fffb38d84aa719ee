"""DKD, decoupled knowledge distillation: the target class and the others, each with its own weight.

Let t be a row's target class, b = (p_t, 1 - p_t) and p^ the probabilities of the other classes,
made to sum to one. With T the teacher and S the student, both at temperature tau,

    TCKD = tau^2 KL(b^T || b^S),   NCKD = tau^2 KL(p^T^ || p^S^),
    KD = TCKD + (1 - p_t^T) NCKD,   DKD = alpha TCKD + beta NCKD:

plain distillation hides what the teacher says of the other classes behind its own certainty. With
two classes there is one other class, NCKD is always 0, and DKD is alpha times plain distillation.

Source: Zhao, Cui, Song, Qiu, Liang, "Decoupled knowledge distillation", CVPR 2022, arXiv
2203.08679, Section 3; defaults are those of its public code for CIFAR-100.
"""

import warnings
from collections.abc import Iterable
from typing import Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError, LimbeckWarning
from limbeck.numerics.logspace import log_probs
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import check_factor, check_labels, check_pair, count_classes, working
from limbeck.objectives.kd import check_temperature
from limbeck.objectives.mixing import first_max


def dkd_loss(
    logits: Tensor,
    teacher_probs: Tensor,
    labels: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Weigh both parts of distillation: alpha TCKD + beta NCKD.

    Args:
        logits: Student logits, floating point, shape (B, C).
        teacher_probs: Teacher probabilities at temperature 1, shape (B, C), rows sum to 1.
        labels: Target classes, int64, shape (B,), in [0, C). Where there are none the teacher's
            most probable class is the target, of equal ones the first.
        alpha: Weight of TCKD, >= 0.
        beta: Weight of NCKD, >= 0; without any effect where C = 2.
        temperature: tau > 0.

    Returns:
        Loss of each row in nats, >= 0 up to rounding, shape (B,), float32 (float64 for float64).

    Raises:
        ShapeError: shapes or dtypes do not fit each other.
        ConfigError: a setting is out of range.

    Cost: O(B C).
    """
    _check_weights(alpha, beta)
    student, teacher = _both(logits, teacher_probs, labels, temperature)
    return temperature**2 * (alpha * _target(student, teacher) + beta * _others(student, teacher))


def tckd(
    logits: Tensor,
    teacher_probs: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 4.0,
) -> Tensor:
    """How much target class against all others differs: tau^2 KL(b^T || b^S), shape (B,).

    Arguments and errors are those of `dkd_loss`.
    """
    return temperature**2 * _target(*_both(logits, teacher_probs, labels, temperature))


def nckd(
    logits: Tensor,
    teacher_probs: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 4.0,
) -> Tensor:
    """How much the other classes differ among themselves: tau^2 KL(p^T^ || p^S^), shape (B,).

    Exactly 0, with a gradient of 0, where C = 2. Arguments and errors are those of `dkd_loss`.
    """
    return temperature**2 * _others(*_both(logits, teacher_probs, labels, temperature))


@final
class Dkd(Objective):
    """Decoupled distillation with the teacher's most probable class as the target.

    Args:
        alpha: Weight of TCKD, >= 0.
        beta: Weight of NCKD, >= 0; the public code takes 2 to 8 by pair of networks.
        temperature: tau > 0.
        warmup: Share of the schedule, in [0, 1], in which the loss of pool rows rises from nothing
            to its full size; 20 of 240 epochs in the public code. It needs a loop that calls
            `begin_step`; without one the loss has its full size.
    """

    name = "dkd"

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        warmup: float = 20 / 240,
    ) -> None:
        _check_weights(alpha, beta)
        check_temperature(temperature)
        if not 0 <= warmup <= 1:
            raise ConfigError(
                f"warmup={warmup}: must be a share of the schedule in [0, 1]; 0 turns it off."
            )
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature
        self.warmup = warmup
        self._ramp = 1.0

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return itself: nothing is learnt from answers. Warns where they have two classes."""
        if count_classes(answers) == 2:
            warnings.warn(
                f"dkd: with two classes there is only one class besides the target, so NCKD is 0 "
                f"and this is soft_kd with temperature {self.temperature:g}, weighted by "
                f"{self.alpha:g}; name an arm that looks further, such as soft_kd+rkd.",
                LimbeckWarning,
                stacklevel=2,
            )
        return self

    def begin_step(self, share: float) -> None:
        """Raise the weight of pool rows in a straight line until `warmup` is over."""
        self._ramp = min(share / self.warmup, 1.0) if self.warmup > 0 else 1.0

    def targets(self, answers: Answers) -> Targets:
        """Give `teacher_probs`, (B, C), and `labels`, int64 (B,): the most probable class."""
        return Targets({"teacher_probs": answers.probs, "labels": first_max(answers.probs)})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        if targets is None:
            return self.label_loss(out, labels)
        return self._ramp * dkd_loss(
            out.outputs,
            targets["teacher_probs"],
            targets["labels"],
            alpha=self.alpha,
            beta=self.beta,
            temperature=self.temperature,
        )


_Split = tuple[Tensor, Tensor, Tensor]
"""Log-probabilities of the target, (B,), of all others together, (B,), and among them, (B, C-1)."""


def _both(
    logits: Tensor, teacher_probs: Tensor, labels: Tensor | None, temperature: float
) -> tuple[_Split, _Split]:
    check_pair(logits, teacher_probs)
    check_temperature(temperature)
    labels = first_max(teacher_probs) if labels is None else labels
    check_labels(logits, labels)
    student = working(logits)
    teacher = log_probs(teacher_probs.to(student.dtype))
    return _split(student / temperature, labels), _split(teacher / temperature, labels)


def _split(scores: Tensor, labels: Tensor) -> _Split:
    # The public code subtracts 1000 from the target's logit instead of leaving it out, and takes
    # the log of a sum of probabilities, which is that of 0 for a student that is very sure.
    logs = torch.log_softmax(scores, dim=1)
    places = torch.arange(scores.shape[1] - 1, device=scores.device)
    others = logs.gather(1, places + (places >= labels[:, None]))
    rest = others.logsumexp(dim=1)
    return logs.gather(1, labels[:, None]).squeeze(1), rest, torch.log_softmax(others, dim=1)


def _target(student: _Split, teacher: _Split) -> Tensor:
    hit = teacher[0].exp() * (teacher[0] - student[0])
    return hit + teacher[1].exp() * (teacher[1] - student[1])


def _others(student: _Split, teacher: _Split) -> Tensor:
    return (teacher[2].exp() * (teacher[2] - student[2])).sum(dim=1)


def _check_weights(alpha: float, beta: float) -> None:
    check_factor("alpha", alpha, zero=True)
    check_factor("beta", beta, zero=True)
