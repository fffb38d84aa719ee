"""Heads with more outputs than classes: each output belongs to one class, whose share is their sum.

Source of the formula: class logits are the log sum exp of a class's outputs (Mueller, Kornblith and
Hinton, "Subclass Distillation", 2020, Section 2). Temperatures other than 1 are a reconstruction.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Which class each output of a head belongs to.

    A class's logit is A = temperature * log sum exp(outputs / temperature) over its outputs. So
    softmax(A / temperature) sums softmax(outputs / temperature) over each class, softmax(A) are its
    probabilities at temperature 1, and a class of one output has that output as its logit.

    Args:
        class_of: Class of each output, in [0, C); every class has at least one.
        temperature: At which outputs are summed, that of their training, > 0.

    Raises:
        ConfigError: a class has no output, a number is negative, or the temperature is not > 0.
    """

    class_of: tuple[int, ...]
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.class_of or sorted(set(self.class_of)) != list(range(self.num_classes)):
            raise ConfigError(
                f"class_of={self.class_of} leaves out a class; name a class in [0, C) for each "
                f"output, and give each class at least one."
            )
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"temperature={self.temperature}: must be finite and > 0.")

    @classmethod
    def plain(cls, num_classes: int) -> Self:
        """One output for each of C classes, in their order."""
        return cls(tuple(range(num_classes)))

    @property
    def width(self) -> int:
        """Outputs of the head."""
        return len(self.class_of)

    @property
    def num_classes(self) -> int:
        """C."""
        return max(self.class_of, default=-1) + 1

    @property
    def is_plain(self) -> bool:
        """Whether the outputs are the class logits as they are."""
        return self == ClassMap.plain(self.num_classes)

    def class_logits(self, outputs: Tensor) -> Tensor:
        """Logits of the classes: their softmax gives the classes' probabilities.

        Args:
            outputs: Of a head, floating point, shape (..., width).

        Returns:
            float32, or float64 for float64; shape (..., C).

        Raises:
            ShapeError: another number of outputs.
        """
        if outputs.shape[-1] != self.width:
            raise ShapeError(
                f"a head gave {outputs.shape[-1]} outputs but its classes are known for "
                f"{self.width}; give the head {self.width}."
            )
        logits = outputs if outputs.dtype == torch.float64 else outputs.float()
        if self.is_plain:
            return logits
        return self.temperature * self._gathered(logits / self.temperature).logsumexp(dim=-1)

    def log_probs(self, outputs: Tensor) -> Tensor:
        """Log-probabilities of the classes, shape (..., C), from outputs (..., width)."""
        return torch.log_softmax(self.class_logits(outputs), dim=-1)

    def _gathered(self, logits: Tensor) -> Tensor:
        """Outputs class by class, shape (..., C, most of a class), -inf where a class has fewer."""
        places: list[list[int]] = [[] for _ in range(self.num_classes)]
        for output, owner in enumerate(self.class_of):
            places[owner].append(output)
        most = max(map(len, places))
        if any(len(own) < most for own in places):
            logits = torch.nn.functional.pad(logits, (0, 1), value=-torch.inf)
            places = [own + [self.width] * (most - len(own)) for own in places]
        return logits[..., torch.tensor(places, device=logits.device)]
