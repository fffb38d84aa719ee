"""SLaM, student-label mixing: put the student's prediction through the teacher's noise.

The teacher's label is right with probability alpha(x), else it is one of the other k - 1 of the
teacher's k most probable classes. Instead of repairing the label, SLaM mixes the student's
prediction in the same way and fits the label as it is.

Source: Kontonis, Iliopoulos, Trinh, Baykal, Menghani, Vee, "SLaM: Student-label mixing for
distillation with unlabeled examples", NeurIPS 2023, arXiv 2302.03806. The abstract and Remark B.1
(the un-normalised mix) were at hand; the mixing formula for more than two classes, the choice of
the loss's target and the gradient below are a reconstruction, checked by the tests.
"""

import copy
import warnings
from collections.abc import Callable, Iterable
from typing import Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError, LimbeckWarning, ShapeError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import Target, check_alpha, check_pair, check_target, working
from limbeck.objectives.mixing import (
    Noise,
    attracted_loss,
    attracting,
    first_max,
    hard_loss,
    inside,
    prepare_soft,
    ranking,
    soft_loss,
)


def mix(
    probs: Tensor,
    alpha: Tensor,
    teacher_probs: Tensor,
    k: int | Tensor,
    *,
    normalized: bool = False,
) -> Tensor:
    """Mix alpha f + (1 - alpha) (1 - f) T / nu, with T = 1 on the teacher's top k classes.

    Args:
        probs: Student probabilities f, floating point, shape (B, C).
        alpha: Probability that the teacher's top class is right, in (0, 1], shape (B,).
        teacher_probs: Teacher probabilities at temperature 1, shape (B, C).
        k: Size of the set that holds the truth, in [2, C]; an int or int64 of shape (B,).
        normalized: nu = k - 1, the noise model itself. Otherwise nu = 1, the form that all
            experiments of the source use.

    Returns:
        Mixed predictions in [0, 1], shape (B, C), dtype of `probs`, with a gradient to `probs`
        only. Rows do not sum to one in general, and must not be made to.

    Raises:
        ShapeError, ConfigError: as `slam_loss`.

    Cost: O(B C) time and memory.
    """
    check_pair(probs, teacher_probs)
    check_alpha(alpha, probs.shape[0])
    top = top_mask(teacher_probs, k).to(probs.dtype)
    alpha, other = Noise(alpha, k, normalized).rates(probs.dtype)
    return alpha[:, None] * probs + other[:, None] * (1 - probs) * top


def slam_loss(
    logits: Tensor,
    teacher_probs: Tensor,
    alpha: Tensor,
    k: int | Tensor,
    *,
    target: Target = "soft",
    normalized: bool = False,
    eps: float = 1e-7,
) -> Tensor:
    """Cross-entropy of the teacher's label with the mixed prediction of the student.

    L = - sum_c target_c log max(mix_c, eps), where rows with alpha = 1 are exactly the
    cross-entropy with the same target (and no floor).

    Args:
        logits: Student logits z, floating point, shape (B, C); f = softmax(z). Only they get a
            gradient.
        teacher_probs: Teacher probabilities at temperature 1, shape (B, C), rows sum to 1.
        alpha: Probability that the teacher's top class is right, in (0, 1], shape (B,).
        k: Size of the teacher's top set, in [2, C]; an int or int64 of shape (B,).
        target: "soft" fits `teacher_probs`, "hard" their largest entry (of equal ones the first).
        normalized: As in `mix`. With a hard target and False the loss does not depend on k.
        eps: Floor of the mixed prediction, in (0, 1).

    Returns:
        Loss of each row in nats, shape (B,), float32 (float64 for float64 logits).

    Raises:
        ShapeError: shapes or dtypes do not fit each other.
        ConfigError: a setting is out of range. Values of `alpha` are looked at on the CPU only, and
            those of a tensor k nowhere: a GPU would have to wait for them in each step.

    Cost: O(B C), plus ranking the teacher's classes if the target is soft. Below alpha = 1/2
    (1/k if normalised) the loss pushes the student *away* from the teacher's label.
    """
    check_pair(logits, teacher_probs)
    check_alpha(alpha, logits.shape[0])
    _check_settings(target, eps)
    _check_k(k, teacher_probs)
    noise = Noise(alpha, k, normalized)
    dtype = working(logits).dtype
    if target == "soft":
        return soft_loss(logits, prepare_soft(teacher_probs.to(dtype), noise, eps), eps)
    labels, ready = first_max(teacher_probs), attracting(noise, eps, dtype)
    if ready is None:
        return hard_loss(logits, labels, noise, eps)
    return attracted_loss(logits, labels, *ready)


def top_mask(teacher_probs: Tensor, k: int | Tensor) -> Tensor:
    """Mark the k most probable classes of each row; of equal ones the lower class comes first.

    Args:
        teacher_probs: Probabilities, floating point, shape (B, C); compared as float32.
        k: Classes to mark, in [2, C]; an int or int64 of shape (B,).

    Returns:
        bool, shape (B, C), with exactly k true entries a row, on any device the same ones.

    Raises:
        ShapeError, ConfigError: `k` does not fit the probabilities.

    Cost: O(B C log k) time; 8 bytes for each entry of `teacher_probs`.
    """
    _check_k(k, teacher_probs)
    top = ranking(teacher_probs, k)
    mask = torch.zeros(teacher_probs.shape, dtype=torch.bool, device=teacher_probs.device)
    return mask.scatter_(1, top, inside(top, k))


@final
class Slam(Objective):
    """Student-label mixing as an objective; its trust comes in through `Evidence`.

    Args:
        target: What the mixed prediction is fitted to; see `slam_loss`.
        normalized: Whether to divide by k - 1; see `mix`.
        eps: Floor of the mixed prediction, in (0, 1).
    """

    name = "slam"
    uses_trust = True
    corrects_noise = True

    def __init__(
        self, *, target: Target = "soft", normalized: bool = False, eps: float = 1e-7
    ) -> None:
        _check_settings(target, eps)
        self.target: Target = target
        self.normalized = normalized
        self.eps = eps
        self._fitted: tuple[Callable[[Answers], Tensor], int] | None = None

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that holds alpha and k of the evidence; the pool's answers are not read.

        Warns when some validation row has so low an alpha that its loss would push the student
        away from the teacher's label: alpha < 1/2, or < 1/k when normalised.

        Raises:
            ConfigError: there is no evidence, or k is out of range.
        """
        if evidence is None:
            raise ConfigError(
                "slam: fitting needs the teacher's answers on validation rows with true labels; "
                "give some labelled rows as validation, or choose soft_kd."
            )
        _check_k(evidence.k, evidence.teacher_probs)
        bound = 1 / evidence.k if self.normalized else 0.5
        lowest = float(evidence.alpha(evidence.teacher_probs).min())
        if lowest < bound:
            warnings.warn(
                f"slam: alpha falls to {lowest:.3g} on validation rows, but below {bound:.3g} the "
                f"loss pushes the student away from the teacher's label; fit trust with "
                f"lower={bound:.3g} or more.",
                LimbeckWarning,
                stacklevel=2,
            )
        fitted = copy.copy(self)
        fitted._fitted = (evidence.trust, evidence.k)
        return fitted

    def targets(self, answers: Answers) -> Targets:
        """Give all that depends on the teacher only, as tensors whose first axis is the row.

        That is `labels`, int64 (B,), for a hard target, with the logs of its noise where the quick
        form of the loss holds for the whole batch, else with `alpha`; and what
        `limbeck.objectives.mixing.prepare_soft` gives for a soft one.

        Raises:
            ConfigError: the objective has not been fitted.
        """
        trust, k = self._trust()
        noise = Noise(trust(answers), k, self.normalized)
        if self.target == "soft":
            return Targets(prepare_soft(answers.probs, noise, self.eps))
        labels, ready = first_max(answers.probs), attracting(noise, self.eps, torch.float32)
        if ready is None:
            return Targets({"labels": labels, "alpha": noise.alpha})
        return Targets({"labels": labels, "log_gain": ready[0], "log_other": ready[1]})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        if targets is None:
            return self.label_loss(out, labels)
        if self.target == "soft":
            return soft_loss(out.outputs, targets.tensors, self.eps)
        if "log_gain" in targets.tensors:
            gain, other = targets["log_gain"], targets["log_other"]
            return attracted_loss(out.outputs, targets["labels"], gain, other)
        noise = Noise(targets["alpha"], self._trust()[1], self.normalized)
        return hard_loss(out.outputs, targets["labels"], noise, self.eps)

    def _trust(self) -> tuple[Callable[[Answers], Tensor], int]:
        if self._fitted is None:
            raise ConfigError("slam: not fitted yet; call `fitted = slam.fit(answers, evidence)`.")
        return self._fitted


def _check_settings(target: str, eps: float) -> None:
    check_target(target)
    if not 0 < eps < 1:
        raise ConfigError(f"eps={eps}: must lie in (0, 1); 1e-7 keeps log mix finite in float32.")


def _check_k(k: int | Tensor, teacher_probs: Tensor) -> None:
    rows, count = teacher_probs.shape
    if isinstance(k, Tensor):
        if k.shape != (rows,) or k.dtype != torch.long:
            raise ShapeError(
                f"k must be an int or int64 of shape ({rows},), got {k.dtype} of shape "
                f"{tuple(k.shape)}."
            )
    elif not 2 <= k <= count:
        raise ConfigError(
            f"k={k}: must lie in [2, {count}] for {count} classes; limbeck.trust.top_k finds it."
        )
