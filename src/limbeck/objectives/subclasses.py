"""Heads with S outputs a class, and the loss of every method that splits classes into subclasses.

Outputs lie class by class: output c S + s is subclass s of class c. A split gives w_{c,s}(x), which
sums to one over s; the target is q_{c,s} = p_c w_{c,s} for the teacher's class probabilities p.

Source: Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449: the product q and one cross-entropy over all outputs. That the
outputs of a class are summed at the temperature of training is a reconstruction.
"""

import copy
from abc import abstractmethod
from typing import Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics.classmap import ClassMap
from limbeck.numerics.logspace import log_probs
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import working
from limbeck.objectives.kd import check_temperature


def default_subclasses(num_classes: int) -> int:
    """S for C classes: 8 for two, else 16 outputs in all, but at least 2 a class (a choice of
    ours)."""
    return 8 if num_classes == 2 else max(2, 16 // num_classes)


def subclass_map(num_classes: int, num_subclasses: int, temperature: float) -> ClassMap:
    """The map of a head with S outputs for each of C classes, class by class.

    Args:
        num_classes: C.
        num_subclasses: S.
        temperature: Of training, > 0: only there is the sum over a class what it was trained to be.
    """
    places = tuple(c for c in range(num_classes) for _ in range(num_subclasses))
    return ClassMap(places, temperature if num_subclasses > 1 else 1.0)


def lelp_loss(outputs: Tensor, pseudo_probs: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Divergence over all subclasses: tau^2 KL(q || softmax(a / tau)).

    Args:
        outputs: Student outputs a, floating point, shape (B, C S), class by class.
        pseudo_probs: q, already at this temperature, shape (B, C, S), rows sum to 1.
        temperature: tau > 0.

    Returns:
        Loss of each row in nats, >= 0 up to rounding, shape (B,), float32 (float64 for float64).
        The gradient is that of the cross-entropy with q, from which it differs by q's entropy. With
        S = 1 it is `kd_loss`, bit for bit.

    Raises:
        ShapeError: the two do not fit each other.
        ConfigError: the temperature is not positive.

    Cost: O(B C S).
    """
    check_subclasses(outputs, pseudo_probs)
    check_temperature(temperature)
    outputs = working(outputs)
    target = pseudo_probs.to(outputs.dtype).flatten(1)
    student = torch.log_softmax(outputs / temperature, dim=-1)
    return temperature**2 * (target * (log_probs(target) - student)).sum(dim=-1)


def check_subclasses(outputs: Tensor, pseudo_probs: Tensor) -> None:
    """Refuse outputs (B, C S) and targets (B, C, S) that do not fit each other.

    Raises:
        ShapeError: they do not.
    """
    if pseudo_probs.ndim != 3 or not pseudo_probs.is_floating_point():
        raise ShapeError(
            f"pseudo_probs must be a floating-point (B, C, S) tensor, got {pseudo_probs.dtype} of "
            f"shape {tuple(pseudo_probs.shape)}; take them from a split's pseudo_probs."
        )
    rows, classes, size = pseudo_probs.shape
    if outputs.shape != (rows, classes * size) or not outputs.is_floating_point():
        raise ShapeError(
            f"outputs are {outputs.dtype} of shape {tuple(outputs.shape)} but {rows} rows of "
            f"{classes} classes with {size} subclasses need ({rows}, {classes * size}); give the "
            f"student a head of {classes * size} outputs."
        )


class SubclassObjective(Objective):
    """What all objectives over subclasses share; a final class adds `fit` and `pseudo_probs`.

    Args:
        subclasses: S >= 1; 0 takes `default_subclasses(C)`.
        temperature: tau > 0, of teacher and student.
    """

    needs_embeddings = True
    _classes: int | None = None

    def __init__(self, *, subclasses: int, temperature: float) -> None:
        if type(subclasses) is not int or subclasses < 0:
            raise ConfigError(
                f"subclasses={subclasses!r}: must be an integer >= 1, or 0 for the rule."
            )
        check_temperature(temperature)
        self.subclasses = subclasses
        self.temperature = temperature

    @abstractmethod
    def pseudo_probs(self, answers: Answers) -> Tensor:
        """Targets q at the temperature of training, float32, shape (n, C, S)."""

    def size(self, num_classes: int) -> int:
        """S for C classes."""
        return self.subclasses or default_subclasses(num_classes)

    def informed(self, source: Evidence | int | None) -> Self:
        """Return a copy that knows C, from evidence or given; with None what it knew before."""
        known = copy.copy(self)
        if source is not None:
            known._classes = source if isinstance(source, int) else source.teacher_probs.shape[1]
        return known

    @final
    def width(self, num_classes: int) -> int:
        """C S."""
        return self.class_map(num_classes).width

    @final
    def class_map(self, num_classes: int) -> ClassMap:
        """Sums over each class's outputs at the temperature of training; see `ClassMap`."""
        # Outputs alone do not tell C where S follows from C, so the last C asked about is kept.
        self._classes = num_classes
        return subclass_map(num_classes, self.size(num_classes), self.temperature)

    @final
    def class_log_probs(self, out: StudentOut) -> Tensor:
        """Log-probabilities of the classes, summed at the temperature of training, shape (B, C).

        They are those at temperature 1: of a student that fits its targets, the teacher's own.

        Raises:
            ConfigError: it has not been fitted and never asked for a width, so C is not known.
        """
        if self._classes is None:
            raise ConfigError(
                f"{self.name} does not know the number of classes yet; fit it, or ask it for the "
                f"width(C) of the student's head."
            )
        return self.class_map(self._classes).log_probs(out.outputs)

    def targets(self, answers: Answers) -> Targets:
        """Give `pseudo_probs`, float32, shape (B, C, S)."""
        return Targets({"pseudo_probs": self.pseudo_probs(answers)})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        if targets is None:
            return self.label_loss(out, labels)
        return lelp_loss(out.outputs, targets["pseudo_probs"], temperature=self.temperature)


def not_fitted(name: str) -> ConfigError:
    """The error of an objective that is used before `fit`."""
    return ConfigError(f"{name}: not fitted yet; call `fitted = {name}.fit(answers, evidence)`.")
