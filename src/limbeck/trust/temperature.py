"""Temperature scaling: one number that makes probabilities as sure as they are right.

Source: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017,
arXiv 1706.04599, Section 4.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor

from limbeck.errors import ConfigError, DataError
from limbeck.trust.topk import check_labelled

COLDEST = 0.05
HOTTEST = 20.0
_STEPS = 60  # halvings of the bracket: far below the last digit of a float
_DEEPEST = 100.0  # nats below the row's largest: e^-100 adds nothing to a sum of float64


@dataclass(frozen=True, slots=True)
class Temperature:
    """Divide logits by `value` before the softmax.

    Args:
        value: T > 0; above 1 the model was too sure, below 1 not sure enough.
    """

    value: float

    def __post_init__(self) -> None:
        if not 0 < self.value < float("inf"):
            raise ConfigError(
                f"temperature {self.value}: must be a positive number; 1.0 changes nothing."
            )

    @classmethod
    def fit(cls, logits: Tensor, labels: Tensor) -> Self:
        """Minimise the negative log-likelihood of validation labels over T in [0.05, 20].

        Args:
            logits: Logits or log-probabilities, floating point, shape (n, C); -inf is allowed.
            labels: True classes, int64, shape (n,), in [0, C).

        Raises:
            ShapeError, ConfigError: shapes do not fit, or a label is out of range.
            DataError: a logit is NaN or +inf.

        Cost: 60 passes over (n, C). The likelihood is convex in 1/T, so bisection of its slope
        cannot fail; when all labels are the largest entries, the answer is the coldest T.
        """
        check_labelled(logits, labels, what="Temperature.fit")
        z = logits.detach().double()
        z = z - z.max(dim=1, keepdim=True).values
        if bool(z.isnan().any()):
            raise DataError(
                "Temperature.fit: logits hold NaN, +inf or a row of -inf; drop these rows or "
                "repair the model."
            )
        z = z.clamp_min(-_DEEPEST)
        own = z.gather(1, labels[:, None]).mean()
        low, high = 1 / HOTTEST, 1 / COLDEST
        for _ in range(_STEPS):
            beta = (low + high) / 2
            slope = (torch.softmax(beta * z, dim=1) * z).sum(dim=1).mean() - own
            if float(slope) < 0:
                low = beta
            else:
                high = beta
        return cls(2 / (low + high))

    def apply(self, logits: Tensor) -> Tensor:
        """Log-probabilities at this temperature.

        Args:
            logits: Logits or log-probabilities, floating point, shape (n, C).

        Returns:
            log_softmax(logits / T), same shape and dtype.
        """
        return torch.log_softmax(logits / self.value, dim=-1)

    def to_dict(self) -> dict[str, object]:
        """Give the fit as plain JSON values."""
        return {"value": self.value}

    @classmethod
    def from_dict(cls, state: Mapping[str, object]) -> Self:
        """Build the fit that `to_dict` described."""
        return cls(cast(float, state["value"]))
