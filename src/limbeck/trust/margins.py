"""Trust for rows that were chosen: it looks at the student's margin beside the teacher's.

A rule that asks where the student is unsure finds rows on which the teacher errs more often than
its own margin says. Trust in the teacher's margin alone, fitted on random validation rows, is then
too high. Given *both* margins it no longer matters that a row was chosen by one of them.

A reconstruction of ours, with no paper behind it: a non-negative logistic regression finds how to
mix the margins, an isotonic fit of the mixture says how often the teacher is right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import DataError, ShapeError
from limbeck.trust.isotonic import IsotonicTrust, as_arrays

_RIDGE = 1.0
"""Weight of half the squared coefficients of standardised margins, against the sum over rows."""
_CONSTANT = 1e-6
"""A standard deviation below this is rounding, not information."""
_SLACK = 1e-5
"""How far a margin of float32 probabilities may be out of [0, 1]."""


@dataclass(frozen=True, slots=True)
class MarginsTrust:
    """alpha(teacher's margin, student's margin), rising in both.

    Args:
        share: Part of the teacher's margin in the score, in [0, 1]; the student's has the rest.
        score: Trust as a function of the score share * teacher + (1 - share) * student.
    """

    share: float
    score: IsotonicTrust

    @classmethod
    def fit(
        cls,
        teacher_margins: Tensor,
        student_margins: Tensor,
        correct: Tensor,
        *,
        lower: float = 0.5,
    ) -> Self:
        """Fit on random validation rows that neither teacher nor student was trained on.

        Args:
            teacher_margins: The teacher's margins, shape (V,), V >= 1, in [0, 1].
            student_margins: Margins on the same rows of the student by which rows are chosen.
            correct: Whether the teacher's top class was the true one, bool or 0/1, shape (V,).
            lower: Least alpha, in (0, 1].

        Raises:
            ShapeError: shapes differ or there is no row.
            DataError: a margin is NaN or out of [0, 1], or `correct` holds something else than 0
                and 1.
            ConfigError: `lower` is out of range.

        Warns as `IsotonicTrust.fit`.

        Cost: O(V log V). A margin that says nothing (constant, or falling where the teacher is
        right more often) gets no share; where neither says anything, the teacher's has all.
        """
        teacher, right = as_arrays(teacher_margins, correct)
        student, _ = as_arrays(student_margins, correct)
        check_margins(teacher_margins, student_margins)
        share = _teacher_share(np.stack([teacher, student], axis=1), right)
        score = torch.from_numpy(share * teacher + (1 - share) * student)
        return cls(share, IsotonicTrust.fit(score, correct, lower=lower))

    def alpha(self, teacher_margins: Tensor, student_margins: Tensor) -> Tensor:
        """Estimated probability that the teacher's top class is right.

        Args:
            teacher_margins: Floating point, any shape and device, in [0, 1].
            student_margins: Of the same rows and the student that `fit` saw, before it was trained
                on their answers: it is sure of what it was told.

        Returns:
            alpha in [lower, 1], same shape, dtype and device as the teacher's margins.

        Raises:
            ShapeError: shapes differ.
            DataError: a margin is NaN or out of [0, 1].

        Cost: O(rows log knots).
        """
        check_margins(teacher_margins, student_margins)
        score = self.share * teacher_margins.double()
        score = score + (1 - self.share) * student_margins.double()
        return self.score.alpha(score).to(teacher_margins.dtype)

    def to_dict(self) -> dict[str, object]:
        """Give the fit as plain JSON values."""
        return {"share": self.share, "score": self.score.to_dict()}

    @classmethod
    def from_dict(cls, state: Mapping[str, object]) -> Self:
        """Build the fit that `to_dict` described."""
        score = IsotonicTrust.from_dict(cast(Mapping[str, object], state["score"]))
        return cls(cast(float, state["share"]), score)


def check_margins(teacher: Tensor, student: Tensor) -> None:
    """Refuse two sets of margins that cannot be of the same rows.

    Raises:
        ShapeError: shapes differ.
        DataError: a margin is NaN or out of [0, 1].
    """
    if teacher.shape != student.shape:
        raise ShapeError(
            f"trust in two margins needs both of the same rows, got shapes "
            f"{tuple(teacher.shape)} and {tuple(student.shape)}; score the same rows by both."
        )
    for name, margins in (("teacher", teacher), ("student", student)):
        outside = ~((margins >= -_SLACK) & (margins <= 1 + _SLACK))  # NaN fails both
        if bool(outside.any()):
            raise DataError(
                f"a {name}'s margin is {float(margins[outside][0]):.6g}; margins lie in [0, 1], "
                f"so give limbeck.trust.margin of its probabilities."
            )


def _teacher_share(margins: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """The teacher's part of the two coefficients of a ridge logistic fit with none below 0."""
    from scipy.optimize import minimize

    if right.all() or not right.any():
        return 1.0  # nothing to tell apart
    spread = margins.std(axis=0)
    known = spread > _CONSTANT
    scale = np.where(known, spread, 1.0)
    x = np.where(known, (margins - margins.mean(axis=0)) / scale, 0.0)

    def loss(beta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits, slopes = beta[0] + x @ beta[1:], beta[1:]
        error = 1 / (1 + np.exp(-np.clip(logits, -500, 500))) - right
        value = np.logaddexp(0, logits).sum() - (right * logits).sum()
        gradient = np.append(error.sum(), x.T @ error + _RIDGE * slopes)
        return float(value + _RIDGE / 2 * slopes @ slopes), gradient

    found = minimize(
        loss,
        np.zeros(3),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, None), (0, None), (0, None)],
        options={"ftol": 1e-14, "gtol": 1e-8},
    )
    slopes = found.x[1:] / scale
    total = float(slopes.sum())
    return float(slopes[0] / total) if total > 0 else 1.0
