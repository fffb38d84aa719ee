"""Trust in a teacher that gives labels only: how often each of its labels is right.

Without probabilities there is no margin. This stands in for the isotonic fit; no paper behind it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor

from limbeck.errors import ConfigError
from limbeck.trust.topk import check_classes


@dataclass(frozen=True, slots=True)
class ClassTrust:
    """alpha by predicted class.

    Args:
        accuracy: For each class, the smoothed share of right answers among the validation rows that
            the teacher put into it.
        lower: Least alpha that comes out, in (0, 1].
    """

    accuracy: tuple[float, ...]
    lower: float

    @classmethod
    def fit(
        cls, predicted: Tensor, labels: Tensor, *, num_classes: int, lower: float = 0.5
    ) -> Self:
        """Count right answers for each predicted class, drawn towards the accuracy over all.

        A class with n answers, r of them right, gets (r + 2 a) / (n + 2) where a is the accuracy
        over all classes: Laplace's rule with a in the place of 1/2, so that many rare classes do
        not drag the mean of alpha away from the teacher's accuracy.

        Args:
            predicted: The teacher's labels of validation rows, int64, shape (n,), in [0, C).
            labels: True classes, int64, shape (n,), in [0, C).
            num_classes: C >= 2.
            lower: Least alpha, in (0, 1]; 0.5 never pushes the student away from a label.

        Raises:
            ShapeError: shapes do not fit, or there is no row.
            ConfigError: a setting or a label is out of range.

        Cost: O(n + C). A class that the teacher never predicted gets the accuracy over all.
        """
        if num_classes < 2 or not 0 < lower <= 1:
            raise ConfigError(
                f"num_classes={num_classes}, lower={lower}: there must be at least 2 classes and "
                f"a lower bound in (0, 1]."
            )
        rows = predicted.shape[0] if predicted.ndim else 0
        check_classes(predicted, rows=rows, num_classes=num_classes, what="ClassTrust, predicted")
        check_classes(labels, rows=rows, num_classes=num_classes, what="ClassTrust, labels")
        asked = torch.bincount(predicted, minlength=num_classes)
        right = torch.bincount(predicted[predicted == labels], minlength=num_classes)
        # Laplace's own rule for the accuracy over all: never exactly 0 or 1.
        overall = float(right.sum() + 1) / (rows + 2)
        return cls(tuple(((right + 2 * overall) / (asked + 2)).double().tolist()), lower)

    def alpha(self, predicted: Tensor) -> Tensor:
        """Estimated probability that these labels are right.

        Args:
            predicted: The teacher's labels, int64, any shape, in [0, C).

        Returns:
            alpha in [lower, 1), float32, same shape and device.
        """
        table = torch.tensor(self.accuracy, device=predicted.device).clamp_min(self.lower)
        return table[predicted]

    def to_dict(self) -> dict[str, object]:
        """Give the fit as plain JSON values."""
        return {"accuracy": list(self.accuracy), "lower": self.lower}

    @classmethod
    def from_dict(cls, state: Mapping[str, object]) -> Self:
        """Build the fit that `to_dict` described."""
        return cls(tuple(cast(Sequence[float], state["accuracy"])), cast(float, state["lower"]))
