"""Subclass Distillation: a teacher trained to invent subclasses, and a student that fits them.

Source: Mueller, Kornblith, Hinton, "Subclass Distillation", 2020, arXiv 2002.03936: class logits
are log-sum-exps over a class's outputs, an auxiliary loss makes the teacher use all of them, and
the student fits the probabilities of the subclasses. The auxiliary loss is written after the
authors' published code.
"""

import math
from collections.abc import Iterable
from typing import Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.base import Evidence, StudentOut, Targets, TeacherHead
from limbeck.objectives.checks import working
from limbeck.objectives.features import embeddings_of
from limbeck.objectives.kd import check_temperature
from limbeck.objectives.subclasses import SubclassObjective, not_fitted

_TINY = 1e-6
"""Added to variances: an example whose outputs are all equal has none to divide by."""
AGREE = 0.9
"""Share of rows, at least, whose most probable class is that of the layer's summed outputs. Their
probabilities may differ: a teacher calibrates its answers, and embeddings are kept in half
precision."""
_LABELS_ONLY = (
    "subclass_teacher learns from labelled rows only; leave pool rows out, and distil what it has "
    "trained with subclass."
)


def auxiliary_loss(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Reward a minibatch whose examples use different subclasses.

    For outputs n_i of example i, brought to mean 0 and variance 1 over its own K outputs,
    L_i = log((1 / B) sum_j exp(n_i . n_j / (K T))) - 1 / T: zero if all examples are alike.

    Args:
        logits: Outputs of the teacher, floating point, shape (B, K), K >= 2.
        temperature: T > 0.

    Returns:
        L_i in nats, in [-log B, 0] up to rounding, shape (B,), float32 (float64 for
        float64); their mean is the loss.

    Raises:
        ShapeError: the logits are not a (B, K) matrix.
        ConfigError: the temperature is not positive.

    Cost: O(B^2 K) time, O(B^2) memory.
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.is_floating_point():
        raise ShapeError(
            f"logits must be a floating-point (B, K) matrix with K >= 2, got {logits.dtype} of "
            f"shape {tuple(logits.shape)}; give one row of subclass scores for each example."
        )
    check_temperature(temperature)
    logits = working(logits)
    rows, count = logits.shape
    centred = logits - logits.mean(dim=1, keepdim=True)
    normed = centred * (centred.square().mean(dim=1, keepdim=True) + _TINY).rsqrt()
    alike = normed @ normed.T / (count * temperature)
    return alike.logsumexp(dim=1) - 1 / temperature - math.log(max(rows, 1))


@final
class SubclassTeacher(SubclassObjective):
    """Train a teacher with S outputs a class on labels: cross-entropy and the auxiliary loss.

    Args:
        subclasses: S of each class; 0 is 8 for two classes, else max(2, 16 // C).
        weight: Of the auxiliary loss, >= 0; 1 in the source's demonstration.
        temperature: T > 0 of the auxiliary loss.
    """

    name = "subclass_teacher"
    needs_answers = False
    needs_embeddings = False
    relational = True

    def __init__(
        self, *, subclasses: int = 0, weight: float = 1.0, temperature: float = 1.0
    ) -> None:
        super().__init__(subclasses=subclasses, temperature=1.0)
        check_temperature(temperature)
        if not 0 <= weight < math.inf:
            raise ConfigError(f"weight={weight}: must be a finite number >= 0; 0 leaves it out.")
        self.weight = weight
        self.spread_temperature = temperature

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that knows how many classes there are, if the evidence tells."""
        return self.informed(evidence)

    def targets(self, answers: Answers) -> Targets:
        """Give no targets."""
        return Targets()

    def pseudo_probs(self, answers: Answers) -> Tensor:
        """Refuse: a teacher has no answers to learn from."""
        raise ConfigError(_LABELS_ONLY)

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,).

        Raises:
            ConfigError: targets were given: this objective has no use for pool rows.
        """
        if targets is not None:
            raise ConfigError(_LABELS_ONLY)
        spread = auxiliary_loss(out.outputs, temperature=self.spread_temperature)
        return self.label_loss(out, labels) + self.weight * spread


@final
class SubclassDistillation(SubclassObjective):
    """Distil the subclasses of a teacher that has been trained with them.

    The subclasses' logits are the teacher's last layer applied to the embeddings of its answers; a
    calibration of the teacher's class probabilities has no part in them.

    Args:
        subclasses: S of each class, as the teacher has them; 0 is 8 for two classes, else
            max(2, 16 // C).
        temperature: tau > 0, of teacher and student; outputs of a class are summed at it.
    """

    name = "subclass"

    def __init__(self, *, subclasses: int = 0, temperature: float = 2.0) -> None:
        super().__init__(subclasses=subclasses, temperature=temperature)
        self._head: TeacherHead | None = None

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that holds the teacher's last layer; of the answers one batch is read.

        Raises:
            ConfigError: the teacher has no layer with S outputs a class, answers hold no
                embeddings, or the layer's outputs, class by class, do not give the answers'
                classes.
        """
        batch = next((told for told in answers if len(told)), None)
        if batch is None:
            raise ShapeError("subclass: there are no answers to learn from; give one batch.")
        head, classes = None if evidence is None else evidence.head, batch.num_classes
        fitted = self.informed(classes)
        wanted = classes * fitted.size(classes)
        if head is None or len(head.weight) != wanted:
            found = "is not known" if head is None else f"has {len(head.weight)} outputs"
            raise ConfigError(
                f"subclass needs a teacher trained with {wanted // classes} outputs for each of "
                f"{classes} classes, but this teacher's last layer {found}; train one with "
                f"subclass_teacher, or choose lelp."
            )
        fitted._head = head
        told = fitted._logits(batch, head).softmax(dim=1)
        told = told.view(len(batch), classes, wanted // classes).sum(dim=2)
        agreed = float((told.argmax(dim=1) == batch.probs.argmax(dim=1)).double().mean())
        if agreed < AGREE:
            raise ConfigError(
                f"subclass: the teacher's last layer, with outputs taken class by class, gives the "
                f"class of its answers on only {agreed:.0%} of the rows; order the outputs so that "
                f"those of a class are neighbours."
            )
        return fitted

    def pseudo_probs(self, answers: Answers) -> Tensor:
        """The teacher's subclass probabilities at the temperature, float32, shape (n, C, S)."""
        if self._head is None:
            raise not_fitted(self.name)
        logits = self._logits(answers, self._head) / self.temperature
        classes = answers.num_classes
        return logits.softmax(dim=1).view(len(answers), classes, self.size(classes))

    def _logits(self, answers: Answers, head: TeacherHead) -> Tensor:
        rows = embeddings_of(self.name, answers).float()
        return torch.addmm(head.bias.to(rows), rows, head.weight.to(rows).T)
