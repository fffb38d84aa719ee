"""How wrong the teacher is around a row, and what that costs the student: nearest neighbours.

Validation rows lie in a plane, phi(x) = (margin of the teacher, margin of the student). What holds
among a row's nearest validation rows is taken to hold for the row.

Source: Iliopoulos, Kontonis, Baykal, Menghani, Trinh, Vee, "Weighted distillation with unlabeled
examples", NeurIPS 2022, arXiv 2210.06711. The features and the mean of weights are a reconstruction
from memory of the paper; the ratio, the number of neighbours and how ties count are ours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError
from limbeck.trust.isotonic import margin

LEAST_NEIGHBOURS = 5
FLOOR = 1e-6
"""Losses are at least this much, so that no ratio of them is 0 / 0."""
_BLOCK = 1 << 21
"""Distances held at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourTrust:
    """Validation rows as points, with what the student loses on each.

    Args:
        points: phi of the validation rows, scaled, float64, shape (V, 2).
        scale: Standard deviation of each margin among them, float64, shape (2,).
        wrong: Whether the teacher's top class is wrong, float64 of 0 and 1, shape (V,).
        own: The student's loss for the true class, float64, shape (V,), >= `FLOOR`, nats.
        taught: Its loss for the teacher's class, float64, shape (V,), >= `FLOOR`, nats.
        k: Neighbours that count, in [1, V]; rows as far as the k-th count too.
    """

    points: Tensor
    scale: Tensor
    wrong: Tensor
    own: Tensor
    taught: Tensor
    k: int

    @classmethod
    def fit(
        cls, teacher_probs: Tensor, student_log_probs: Tensor, labels: Tensor, *, k: int = 0
    ) -> Self:
        """Place validation rows that the student has not trained on.

        Args:
            teacher_probs: Teacher probabilities at temperature 1, shape (V, C), V >= 1.
            student_log_probs: The student's log-probabilities of the same rows, shape (V, C).
            labels: True classes, int64, shape (V,), in [0, C).
            k: Neighbours, >= 1; more than V means all. 0: max(5, root of V), rounded.

        Raises:
            ShapeError: shapes differ, or there is no row.
            ConfigError: k is negative.

        Cost: O(V C).
        """
        rows = len(labels)
        if (
            teacher_probs.shape != student_log_probs.shape
            or labels.shape != teacher_probs.shape[:1]
            or rows == 0
        ):
            raise ShapeError(
                f"neighbours need teacher_probs and student_log_probs of one shape (V, C) and "
                f"labels (V,), V >= 1, got {tuple(teacher_probs.shape)}, "
                f"{tuple(student_log_probs.shape)} and {tuple(labels.shape)}; give the same rows."
            )
        if k < 0:
            raise ConfigError(f"k={k}: must be >= 1 neighbour, or 0 for the root of the rows.")
        logs = student_log_probs.detach().double()
        raw = _phi(teacher_probs, student_log_probs)
        spread = raw.std(dim=0, correction=0)
        scale = torch.where(spread > 0, spread, 1.0)
        named = teacher_probs.argmax(dim=1)
        return cls(
            points=raw / scale,
            scale=scale,
            wrong=(named != labels).double(),
            own=_loss(logs, labels),
            taught=_loss(logs, named),
            k=min(k or max(LEAST_NEIGHBOURS, round(rows**0.5)), rows),
        )

    def wrong_share(self, teacher_probs: Tensor, student_log_probs: Tensor) -> Tensor:
        """p(x): share of wrong teacher labels among the neighbours.

        Args:
            teacher_probs: Shape (B, C).
            student_log_probs: The student's log-probabilities of the same rows, shape (B, C).

        Returns:
            In [0, 1], float32, shape (B,), as for the methods below.

        Cost: O(B V) time, in blocks of about 2 million distances.
        """
        ones = torch.ones_like(self.wrong)
        return self._ratio(teacher_probs, student_log_probs, self.wrong, ones)

    def distortion(self, teacher_probs: Tensor, student_log_probs: Tensor) -> Tensor:
        """Mean of taught / own loss over the neighbours with a wrong label; 1 without any."""
        ratio = self.wrong * self.taught / self.own
        return self._ratio(teacher_probs, student_log_probs, ratio, self.wrong)

    def mean_weight(self, teacher_probs: Tensor, student_log_probs: Tensor) -> Tensor:
        """Mean over the neighbours of own / taught loss, which is 1 where the label is right."""
        ones = torch.ones_like(self.wrong)
        return self._ratio(teacher_probs, student_log_probs, self.own / self.taught, ones)

    def ratio_weight(self, teacher_probs: Tensor, student_log_probs: Tensor) -> Tensor:
        """Sum of the neighbours' own losses over the sum of their taught losses."""
        return self._ratio(teacher_probs, student_log_probs, self.own, self.taught)

    def _ratio(
        self, teacher_probs: Tensor, student_log_probs: Tensor, above: Tensor, below: Tensor
    ) -> Tensor:
        """Sum of `above` over sum of `below` among each row's neighbours; 1 where that is 0."""
        if teacher_probs.shape != student_log_probs.shape:
            raise ShapeError(
                f"teacher_probs have shape {tuple(teacher_probs.shape)} but student_log_probs "
                f"{tuple(student_log_probs.shape)}; give the same rows."
            )
        both = torch.stack([above, below], dim=1)
        device = teacher_probs.device
        parts = [torch.empty(0, dtype=torch.float64)]
        for near in self._neighbours(teacher_probs, student_log_probs):
            top, bottom = (near @ both).unbind(dim=1)
            parts.append(torch.where(bottom > 0, top / bottom, 1.0))
        return torch.cat(parts).float().to(device)

    def _neighbours(self, teacher_probs: Tensor, student_log_probs: Tensor) -> Iterator[Tensor]:
        """Which validation rows count for each of a block of rows: float64 0 or 1, (b, V)."""
        places = _phi(teacher_probs, student_log_probs) / self.scale
        size = max(1, _BLOCK // len(self.points))
        for start in range(0, len(places), size):
            part = places[start : start + size]
            # Squares of differences, not |a|^2 - 2ab + |b|^2: equal rows must be equally far.
            distance = (part[:, None, :] - self.points).square().sum(dim=2)
            reach = distance.kthvalue(self.k, dim=1, keepdim=True).values
            yield (distance <= reach).double()


def _phi(teacher_probs: Tensor, student_log_probs: Tensor) -> Tensor:
    """Margins of teacher and student, float64 on the CPU, shape (n, 2)."""
    both = (
        margin(teacher_probs.detach().double()),
        margin(student_log_probs.detach().double().exp()),
    )
    return torch.stack(both, dim=1).cpu()


def _loss(log_probs: Tensor, classes: Tensor) -> Tensor:
    picked = -log_probs.gather(1, classes[:, None]).squeeze(1)
    return picked.clamp_min(FLOOR).cpu()
