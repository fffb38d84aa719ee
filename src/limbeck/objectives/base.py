"""What every objective is: a head width, per-row targets and a loss.

An objective is usable without any trainer: the loop calls `targets` on the teacher's answers of
one minibatch, `loss` on what the student made of the same rows, and averages.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.numerics.classmap import ClassMap


@dataclass(frozen=True, slots=True, eq=False)
class StudentOut:
    """What a student made of B rows.

    Args:
        outputs: Output of the head, floating point, shape (B, width).
        embedding: Input of the head, floating point, shape (B, d).
    """

    outputs: Tensor
    embedding: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What an objective wants of B rows: named tensors whose first axis is the row."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def to(self, device: torch.device) -> "Targets":
        """Copy to a device; the same object when it is there already."""
        return Targets({name: t.to(device) for name, t in self.tensors.items()})


@dataclass(frozen=True, slots=True, eq=False)
class TeacherHead:
    """A teacher's last linear layer: its logits are embeddings @ weight.T + bias.

    Args:
        weight: float32, shape (K, D); K is C, or more where a class has several outputs.
        bias: float32, shape (K,).
    """

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known of the teacher's honesty: its answers on validation rows with true labels.

    Args:
        teacher_probs: float32, shape (V, C), temperature 1.
        labels: int64, shape (V,), in [0, C).
        alpha: Trust: teacher probabilities of any B rows, shape (B, C), to the estimated
            probability that the teacher's top class is right, in (0, 1], shape (B,).
        k: The truth is taken to be among the teacher's k most probable classes, in [2, C].
        neighbours: Student log-probabilities of these rows, shape (V, C), to what is known of rows
            that teacher and student judge alike; None where nobody has use for it.
        head: The layer behind the teacher's embeddings, or None where it is not known.
    """

    teacher_probs: Tensor
    labels: Tensor
    alpha: Callable[[Tensor], Tensor]
    k: int
    neighbours: "Callable[[Tensor], Neighbours] | None" = None
    head: TeacherHead | None = None

    def trust(self, answers: Answers) -> Tensor:
        """Alpha of B answers, shape (B,): their own where they have one."""
        return self.alpha(answers.probs) if answers.alpha is None else answers.alpha


class Neighbours(Protocol):
    """What holds among a row's nearest validation rows; `limbeck.trust.NeighbourTrust` is one.

    Each method takes teacher probabilities and student log-probabilities of B rows, shape (B, C)
    both, and gives one number a row, float32, shape (B,).
    """

    def wrong_share(self, teacher_probs: Tensor, student_log_probs: Tensor) -> Tensor:
        """Share of wrong teacher labels, in [0, 1]."""

    def distortion(self, teacher_probs: Tensor, student_log_probs: Tensor) -> Tensor:
        """Student's loss on wrong labels over that on the true ones, > 0."""

    def mean_weight(self, teacher_probs: Tensor, student_log_probs: Tensor) -> Tensor:
        """Mean of the student's loss on the truth over that on the teacher's label, > 0."""

    def ratio_weight(self, teacher_probs: Tensor, student_log_probs: Tensor) -> Tensor:
        """Summed loss on the truth over summed loss on the teacher's label, > 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What the student says at one moment of its training, in evaluation mode.

    Args:
        validation_log_probs: Of the evidence's validation rows, float32, shape (V, C).
        pool: Answers of consecutive pool rows and the student's log-probabilities of the same rows,
            float32, shape (b, C): all rows of the pool, in order.
    """

    validation_log_probs: Tensor
    pool: Iterable[tuple[Answers, Tensor]]


class Objective(ABC):
    """One way of training a student from answers. Final classes implement it."""

    name: ClassVar[str]
    needs_answers: ClassVar[bool] = True
    """False: the objective learns from labels alone and `targets` is never called."""
    uses_trust: bool = False
    """Whether alpha of the evidence shapes the loss."""
    needs_spread: bool = False
    """Whether answers must hold a spread, which only a teacher of several members gives."""
    needs_embeddings: bool = False
    """Whether answers must hold embeddings."""
    needs_rows: bool = False
    """Whether targets must name the rows' places in the pool, as while `refresh_every` is set."""
    uses_outputs: bool = True
    """Whether pool rows teach the head; a loss over embeddings alone goes with a head of any
    width, and leaves the head to labelled rows or to the other part of a sum."""
    relational: bool = False
    """Whether a row's loss depends on the other rows of its minibatch."""
    leads: float = 0.0
    """In a sum, share of the schedule, in [0, 1), at whose start this part teaches alone."""
    corrects_noise: bool = False
    """Whether the loss corrects for the teacher's mistakes; a sum never holds two of this kind."""
    refresh_every: float | None = None
    """Epochs over the pool between two calls of `refresh`; 0 for one call; None for none at all."""
    pretrain: float = 0.0
    """Share of the schedule, in [0, 1), in which only labelled rows teach; the first `refresh`
    comes at its end."""

    def width(self, num_classes: int) -> int:
        """Outputs that the student's head needs for C classes."""
        return num_classes

    def class_map(self, num_classes: int) -> ClassMap:
        """Which class each output belongs to; it is saved with a student, who predicts by it.

        An objective with another `width` overrides it, and `class_log_probs` so that it says the
        same without being fitted: `self.class_map(C).log_probs(out.outputs)`.
        """
        return ClassMap.plain(num_classes)

    @abstractmethod
    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Learn what is learnt once (trust, directions) and return the fitted objective."""

    @abstractmethod
    def targets(self, answers: Answers) -> Targets:
        """Targets of one minibatch, computed from the teacher's answers alone."""

    @abstractmethod
    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,).

        Args:
            out: What the student made of the rows.
            targets: For pool rows: what `targets` gave of the same rows.
            labels: For labelled rows, where `targets` is None: int64, shape (B,), in [0, C).
        """

    def attach(self, embedding_dim: int, generator: torch.Generator) -> Self:
        """Return the fitted objective with what it trains beside a student; itself for most.

        Args:
            embedding_dim: d, the width of the student's embedding.
            generator: Draws initial weights.
        """
        return self

    def begin_step(self, share: float) -> None:  # noqa: B027  # most have no warm-up
        """Hear before each step which share of the schedule is over, in [0, 1); for warm-ups."""

    def refresh(self, snapshot: Snapshot) -> None:
        """Learn from what the student says now, changing the objective; see `refresh_every`.

        What is learnt goes into `state_dict`. While `refresh_every` is not None, or where
        `needs_rows`, the loop adds to each minibatch's targets a tensor `row`, int64, shape (B,):
        the rows' places in the pool.
        """
        raise NotImplementedError(f"{self.name} sets refresh_every but has no refresh.")

    def label_loss(self, out: StudentOut, labels: Tensor | None) -> Tensor:
        """Cross-entropy with true labels, shape (B,): the labelled part of every objective.

        Raises:
            ConfigError: there are no labels either.
        """
        if labels is None:
            raise ConfigError(
                f"{self.name}: loss was given neither targets nor labels; pass `targets(answers)` "
                f"for pool rows or int64 labels for labelled rows."
            )
        return functional.nll_loss(self.class_log_probs(out), labels, reduction="none")

    def class_log_probs(self, out: StudentOut) -> Tensor:
        """Log-probabilities over the C classes, shape (B, C), at temperature 1."""
        return torch.log_softmax(out.outputs.float(), dim=-1)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters trained with the student (projectors, banks); none by default."""
        return iter(())

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors that a resumed run needs; none by default."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        if state:
            raise KeyError(f"{self.name} keeps no state but was given {sorted(state)}.")
