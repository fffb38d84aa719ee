"""What losses over embeddings share: the teacher's width, checks, and maps between embeddings."""

import copy
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Self, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import check_factor, working


def embeddings_of(name: str, answers: Answers) -> Tensor:
    """The teacher's embeddings, float32, shape (n, D).

    Raises:
        ConfigError: the answers hold none.
    """
    if answers.embeddings is None:
        raise ConfigError(
            f"{name} learns from the teacher's embeddings, but these answers hold none; take a "
            f"teacher that gives them (fit, student, huggingface, or a function of yours that "
            f"returns them), or an arm that needs probabilities alone, such as soft_kd."
        )
    return answers.embeddings


def embedding_width(name: str, answers: Iterable[Answers]) -> int:
    """D of the first answers; the rest is not read.

    Raises:
        ConfigError: there are no answers, or they hold no embeddings.
    """
    first = next((part for part in answers if len(part.probs)), None)
    if first is None:
        raise no_answers(name)
    return embeddings_of(name, first).shape[1]


def no_answers(name: str) -> ConfigError:
    """The error of fitting on nothing."""
    return ConfigError(
        f"{name}: there are no answers to fit on, so the width of the teacher's embedding is not "
        f"known; buy some, or take an arm that needs none."
    )


def fitted_width(name: str, width: int | None) -> int:
    """D of a fitted objective.

    Raises:
        ConfigError: it has not been fitted.
    """
    if width is None:
        raise ConfigError(
            f"{name}: not fitted yet; call `fitted = objective.fit(answers, evidence)` first."
        )
    return width


def not_attached(name: str) -> ConfigError:
    """The error of a loss that was asked for before its projector was made."""
    return ConfigError(
        f"{name}: there is no projector yet; call `objective.attach(student.embedding_dim, "
        f"generator)` on the fitted objective, and train its parameters with the student."
    )


def check_embeddings(student: Tensor, teacher: Tensor, *, same_width: bool) -> None:
    """Refuse embeddings that are not two floating-point matrices of the same rows.

    Raises:
        ShapeError: a shape or dtype is wrong.
    """
    for owner, x in (("student", student), ("teacher", teacher)):
        if x.ndim != 2 or not x.is_floating_point():
            raise ShapeError(
                f"the {owner}'s embeddings must be a floating-point matrix with a row for each "
                f"example, got {x.dtype} of shape {tuple(x.shape)}; flatten each row."
            )
    if len(student) != len(teacher) or (same_width and student.shape[1] != teacher.shape[1]):
        rule = "shape" if same_width else "number of rows"
        raise ShapeError(
            f"the student's embeddings have shape {tuple(student.shape)} but the teacher's "
            f"{tuple(teacher.shape)}; give the same {rule}, of the same rows in the same order."
        )


def linear(
    inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True
) -> nn.Linear:
    """A linear layer, float32, with PyTorch's usual initial weights drawn from a generator."""
    # On a device without memory, so that PyTorch's own start draws nothing from a global seed.
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(inputs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


def project(module: nn.Module, embedding: Tensor) -> Tensor:
    """What a float32 module makes of embeddings, in float32 (float64 for float64)."""
    x = working(embedding)
    if x.dtype == torch.float32:
        return working(module(x))
    wide = {name: parameter.to(x.dtype) for name, parameter in module.named_parameters()}
    out: Tensor = functional_call(module, wide, (x,))
    return out


class ProjectedObjective(Objective):
    """What losses share that map the student's embedding to the teacher's by a trained module.

    A final class adds `projector` and `distance`.

    Args:
        weight: Of the loss of pool rows, > 0.
    """

    needs_embeddings = True
    uses_outputs = False

    def __init__(self, *, weight: float) -> None:
        check_factor("weight", weight)
        self.weight = weight
        self._width: int | None = None
        self._module: nn.Module | None = None

    @abstractmethod
    def projector(self, embedding_dim: int, width: int, generator: torch.Generator) -> nn.Module:
        """What is trained beside a student of width d, for a teacher of width D."""

    @abstractmethod
    def distance(self, module: nn.Module, embedding: Tensor, teacher: Tensor) -> Tensor:
        """Loss of each row, shape (B,), of embeddings (B, d) and (B, D), before the weight."""

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that knows D; only the first answers are read.

        Raises:
            ConfigError: there are no answers, or they hold no embeddings.
        """
        fitted = copy.copy(self)
        fitted._width = embedding_width(self.name, answers)
        return fitted

    @final
    def attach(self, embedding_dim: int, generator: torch.Generator) -> Self:
        """Return a copy with a fresh projector.

        Raises:
            ConfigError: the objective has not been fitted.
        """
        width, attached = fitted_width(self.name, self._width), copy.copy(self)
        attached._module = self.projector(embedding_dim, width, generator)
        return attached

    @final
    def targets(self, answers: Answers) -> Targets:
        """Give `embeddings` as they are, float32, shape (B, D)."""
        return Targets({"embeddings": embeddings_of(self.name, answers)})

    @final
    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Shape (B,): of pool rows the weighted distance, of labelled rows cross-entropy in nats.

        Raises:
            ConfigError: nothing has been attached.
        """
        if targets is None:
            return self.label_loss(out, labels)
        far = self.distance(self._attached(), out.embedding, targets["embeddings"])
        return self.weight * far

    @final
    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the projector."""
        return iter(()) if self._module is None else self._module.parameters()

    @final
    def state_dict(self) -> dict[str, Tensor]:
        """That of the projector."""
        return {} if self._module is None else self._module.state_dict()

    @final
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        self._attached().load_state_dict(dict(state))

    def _attached(self) -> nn.Module:
        if self._module is None:
            raise not_attached(self.name)
        return self._module
