"""Weighted distillation: weigh each row so that wrong labels of the teacher cancel on average.

At x the teacher's label is wrong with probability p(x). For a student f that loses l(y, f) on the
true and l(y_adv, f) on the wrong label, the expected loss on the teacher's label is

    (1 - p) l(y, f) + p l(y_adv, f) = l(y, f) (1 + p (distortion - 1)),
    distortion = l(y_adv, f) / l(y, f),

so multiplying by w_f(x) = 1 / (1 + p (distortion - 1)) gives the loss on the truth. Both p and the
distortion are unknown on the pool; they are estimated among validation rows that teacher and
student judge alike, once after a start on labels alone, or anew every few epochs.

Source: Iliopoulos, Kontonis, Baykal, Menghani, Trinh, Vee, "Weighted distillation with unlabeled
examples", NeurIPS 2022, arXiv 2210.06711. The two formulas, the start on labels and the two
schedules are a reconstruction from memory of the paper; the clipping of weights and the defaults of
`refresh_every` and `pretrain` are ours.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.base import Evidence, Neighbours, Objective, Snapshot, StudentOut, Targets
from limbeck.objectives.checks import Target, check_pair, check_target
from limbeck.objectives.kd import weighted_ce
from limbeck.objectives.mixing import first_max

Estimator = Literal["mean", "plug-in", "ratio"]
LEAST_WEIGHT = 1e-3
"""Smaller weights are raised to this: a row that counts for nothing teaches nothing either."""


def debiasing_weights(p: Tensor, distortion: Tensor, *, clip_max: float = 1.0) -> Tensor:
    """w = 1 / (1 + p (distortion - 1)), at most `clip_max`.

    Args:
        p: Probability that the teacher's label is wrong, in [0, 1], any shape.
        distortion: Student's loss on the wrong label over that on the true one, > 0, same shape.
        clip_max: Largest weight, > 0; infinity keeps the risk exactly unbiased.

    Returns:
        Weights in (0, min(1 / (1 - p), clip_max)], shape of `p`: 1 where p = 0 or distortion = 1;
        falling in p where distortion > 1.

    Raises:
        ShapeError: the shapes differ. ConfigError: `clip_max` is not positive.
    """
    if p.shape != distortion.shape:
        raise ShapeError(
            f"p has shape {tuple(p.shape)} but distortion {tuple(distortion.shape)}; give both for "
            f"the same rows."
        )
    _check_clip(clip_max)
    return (1 / (1 + p * (distortion - 1))).clamp_max(clip_max)


def weighted_loss(
    logits: Tensor,
    teacher_probs: Tensor,
    weights: Tensor,
    *,
    target: Target = "hard",
    normalize: bool = False,
) -> Tensor:
    """w times the cross-entropy with the teacher's label.

    Args:
        logits: Student logits, floating point, shape (B, C).
        teacher_probs: Teacher probabilities at temperature 1, shape (B, C), rows sum to 1.
        weights: w, floating point, shape (B,); no gradient flows through them.
        target: "hard" fits the teacher's most probable class (of equal ones the first), "soft" all
            its probabilities.
        normalize: Divide by the mean weight of the batch. That breaks unbiasedness; an ablation.

    Returns:
        Loss of each row in nats, shape (B,), float32 (float64 for float64 logits).

    Raises:
        ShapeError: shapes do not fit each other. ConfigError: an unknown target.

    Cost: O(B C).
    """
    check_pair(logits, teacher_probs)
    check_target(target)
    if weights.shape != logits.shape[:1]:
        raise ShapeError(
            f"weights have shape {tuple(weights.shape)}, expected ({len(logits)},): one a row."
        )
    fitted = first_max(teacher_probs) if target == "hard" else teacher_probs.detach()
    if normalize:
        weights = weights / weights.mean().clamp_min(LEAST_WEIGHT)
    return weighted_ce(logits, fitted, weights)


@final
class Weighted(Objective):
    """Weighted distillation as an objective. Until the first `refresh` every weight is 1.

    Args:
        target: As in `weighted_loss`.
        estimator: "plug-in" puts the neighbours' p and distortion into `debiasing_weights`, "mean"
            averages their weights, "ratio" divides their summed losses.
        refresh_every: Epochs over the pool between two estimates, >= 0; 0 estimates once.
        pretrain: Share of the schedule, in [0, 1), in which only labelled rows teach; the first
            estimate comes at its end.
        clip_max: Largest weight, > 0; infinity for none.
        normalize: As in `weighted_loss`.
    """

    name = "weighted"
    corrects_noise = True

    def __init__(
        self,
        *,
        target: Target = "hard",
        estimator: Estimator = "plug-in",
        refresh_every: float = 1.0,
        pretrain: float = 0.1,
        clip_max: float = 1.0,
        normalize: bool = False,
    ) -> None:
        check_target(target)
        _check_clip(clip_max)
        if estimator not in ("mean", "plug-in", "ratio"):
            raise ConfigError(f"estimator={estimator!r}: must be 'mean', 'plug-in' or 'ratio'.")
        if not 0 <= refresh_every < float("inf"):
            raise ConfigError(
                f"refresh_every={refresh_every}: must be >= 0 epochs; 0 estimates weights once."
            )
        if not 0 <= pretrain < 1:
            raise ConfigError(
                f"pretrain={pretrain}: must be in [0, 1), a share of the schedule; 0.1 is usual."
            )
        self.target: Target = target
        self.estimator: Estimator = estimator
        self.refresh_every = refresh_every
        self.pretrain = pretrain
        self.clip_max = clip_max
        self.normalize = normalize
        self._near: Callable[[Tensor], Neighbours] | None = None
        self._weights: Tensor | None = None

    @property
    def weights(self) -> Tensor | None:
        """Weight of each pool row, float32, shape (n,); None before the first `refresh`."""
        return self._weights

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that holds the validation rows; the pool's answers are not read.

        Raises:
            ConfigError: the evidence is missing, or says nothing of neighbours.
        """
        if evidence is None or evidence.neighbours is None:
            raise ConfigError(
                "weighted: fitting needs validation rows with true labels, and Evidence.neighbours "
                "to compare rows by; give labelled rows as validation, or choose hard_kd."
            )
        fitted = copy.copy(self)
        fitted._near = evidence.neighbours
        return fitted

    def refresh(self, snapshot: Snapshot) -> None:
        """Estimate the weight of every pool row anew, changing the objective.

        Raises:
            ConfigError: the objective has not been fitted.

        Cost: O(n V) time for n pool and V validation rows; 4 n bytes are kept.
        """
        if self._near is None:
            raise ConfigError("weighted: not fitted yet; call `w = w.fit(answers, evidence)`.")
        near = self._near(snapshot.validation_log_probs)
        parts = [self._estimate(near, told.probs, logs) for told, logs in snapshot.pool]
        self._weights = torch.cat([torch.empty(0), *parts])

    def targets(self, answers: Answers) -> Targets:
        """Give `teacher_probs` as they are; the loop adds `row`, each row's place in the pool."""
        return Targets({"teacher_probs": answers.probs})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,).

        Raises:
            ConfigError: weights were estimated, but the targets do not say which rows these are.
        """
        if targets is None:
            return self.label_loss(out, labels)
        probs = targets["teacher_probs"]
        return weighted_loss(
            out.outputs,
            probs,
            self._weights_of(targets, probs),
            target=self.target,
            normalize=self.normalize,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The weights, once they were estimated."""
        return {} if self._weights is None else {"weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        self._weights = state.get("weights")

    def _weights_of(self, targets: Targets, probs: Tensor) -> Tensor:
        if self._weights is None:
            return torch.ones(len(probs), device=probs.device)
        if "row" not in targets.tensors:
            raise ConfigError(
                "weighted: targets need a tensor 'row', int64 (B,), the place of each row in the "
                "pool that `refresh` saw; add it to what `targets(answers)` gave."
            )
        # Kept where it was used last: a GPU then copies it once, not in every step.
        self._weights = self._weights.to(probs.device)
        return self._weights[targets["row"]]

    def _estimate(self, near: Neighbours, teacher_probs: Tensor, log_probs: Tensor) -> Tensor:
        if self.estimator == "plug-in":
            p = near.wrong_share(teacher_probs, log_probs)
            raw = debiasing_weights(
                p, near.distortion(teacher_probs, log_probs), clip_max=self.clip_max
            )
        elif self.estimator == "ratio":
            raw = near.ratio_weight(teacher_probs, log_probs)
        else:
            raw = near.mean_weight(teacher_probs, log_probs)
        return raw.float().cpu().clamp(min=min(LEAST_WEIGHT, self.clip_max), max=self.clip_max)


def _check_clip(clip_max: float) -> None:
    if not clip_max > 0:
        raise ConfigError(
            f"clip_max={clip_max}: must be > 0; 1 keeps weights at most 1, infinity clips none."
        )
