"""RKD, relational distillation: keep distances and angles between the rows of a batch.

Let e_i be the embedding of row i, m the mean of the distances that are not 0, and huber the Huber
loss with its corner at 1, of a difference of student and teacher. With u_ji the unit vector from
row j to row i,

    psi(i, j) = ||e_i - e_j|| / m,    L_D = mean over (i, j) of huber(psi^S - psi^T),
    cos(i, j, k) = u_ji . u_jk,       L_A = mean over (i, j, k) of huber(cos^S - cos^T),
    L = w_D L_D + w_A L_A,  w_D = 25, w_A = 50.

Both hold whatever the widths of the two embeddings are, so nothing is learnt beside the student.

Source: Park, Kim, Lu, Cho, "Relational knowledge distillation", CVPR 2019, arXiv 1904.05068,
Section 3; weights and means (with the zeros i = j) are those of the public suites. Two rows of the
same embedding have distance 0 and no angle here; the public code puts a small number in its place,
and its gradient is then of the order of that number's inverse.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self, final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import check_factor, working
from limbeck.objectives.features import check_embeddings, embedding_width, embeddings_of

SAME = 1e-12
"""Rows are the same when their squared distance is below this share of the mean squared norm."""
TRIPLES = 2**18
"""Angles that are computed at once: 1 MB of each intermediate result."""


def rkd_distance_loss(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Compare distances between rows, each side in units of its own mean distance.

    Args:
        embeddings: Of the student, floating point, shape (B, d).
        teacher_embeddings: Floating point, shape (B, D); d and D need not agree.

    Returns:
        L_D's mean over j for each row i, >= 0, shape (B,), float32 (float64 for float64); the mean
        over rows is L_D. Where all rows are the same (one row alone is), all psi are 0.

    Raises:
        ShapeError: not two matrices of the same rows.

    Cost: O(B^2 (d + D)) time, O(B^2) memory. Shifting, turning and scaling either side changes
    nothing.
    """
    check_embeddings(embeddings, teacher_embeddings, same_width=False)
    student = _relative(_distances(_gram(embeddings)))
    with torch.no_grad():
        teacher = _relative(_distances(_gram(teacher_embeddings)))
    found = functional.smooth_l1_loss(student, teacher, reduction="none").mean(dim=1)
    return found.to(working(embeddings).dtype)


def rkd_angle_loss(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """Compare the angles that any two rows make at a third.

    Args:
        embeddings: Of the student, floating point, shape (B, d).
        teacher_embeddings: Floating point, shape (B, D); d and D need not agree.

    Returns:
        L_A's mean over (i, k) for each vertex j, in [0, 1.5], shape (B,), float32 (float64 for
        float64); the mean over rows is L_A.

    Raises:
        ShapeError: not two matrices of the same rows.

    Cost: O(B^3 + B^2 (d + D)) time, about 0.3 s for 256 rows on one core; memory O(B^2) and
    `TRIPLES` angles at a time. Shifting, turning and scaling either side changes nothing.
    """
    check_embeddings(embeddings, teacher_embeddings, same_width=False)
    dtype = working(embeddings).dtype
    student = _relative(_distances(_gram(embeddings)))
    told = _relative(_distances(_gram(teacher_embeddings.detach())))
    sides = (x.to(dtype) for d in (student, told) for x in (d, _inverse(d), d.square()))
    found: Tensor = _Angles.apply(*sides)  # type: ignore[no-untyped-call]  # torch's own
    return found


@final
class Rkd(Objective):
    """Distances and angles as an objective. Pool rows do not teach the head.

    Args:
        distance_weight: w_D >= 0.
        angle_weight: w_A >= 0.
        angle_rows: Rows whose angles are compared with one another, >= 3. A larger minibatch is cut
            into equal groups of at most so many, anew in each step; the public suites take
            minibatches of 64.
    """

    name = "rkd"
    needs_embeddings = True
    needs_rows = True
    uses_outputs = False
    relational = True

    def __init__(
        self,
        *,
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
        angle_rows: int = 128,
    ) -> None:
        check_factor("distance_weight", distance_weight, zero=True)
        check_factor("angle_weight", angle_weight, zero=True)
        if distance_weight == 0 and angle_weight == 0:
            raise ConfigError(
                "distance_weight and angle_weight are both 0, so nothing would be taught; the "
                "public suites take 25 and 50."
            )
        if type(angle_rows) is not int or angle_rows < 3:
            raise ConfigError(
                f"angle_rows={angle_rows!r}: must be an integer >= 3, an angle's rows."
            )
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.angle_rows = angle_rows

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy after making sure that the first answers hold embeddings.

        Raises:
            ConfigError: there are no answers, or they hold no embeddings.
        """
        embedding_width(self.name, answers)
        return copy.copy(self)

    def targets(self, answers: Answers) -> Targets:
        """Give `embeddings` as they are, float32, shape (B, D); a loop may add `row`."""
        return Targets({"embeddings": embeddings_of(self.name, answers)})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Shape (B,): of pool rows the weighted sum, of labelled rows cross-entropy in nats."""
        if targets is None:
            return self.label_loss(out, labels)
        student, teacher = out.embedding, targets["embeddings"]
        parts = []
        if self.distance_weight > 0:
            parts.append(self.distance_weight * rkd_distance_loss(student, teacher))
        if self.angle_weight > 0:
            parts.append(self.angle_weight * self._angles(student, teacher, targets))
        return sum(parts[1:], parts[0])

    def _angles(self, student: Tensor, teacher: Tensor, targets: Targets) -> Tensor:
        rows = len(student)
        if rows <= self.angle_rows:
            return rkd_angle_loss(student, teacher)
        order = _shuffled(targets["row"]) if "row" in targets.tensors else torch.arange(rows)
        order = order.to(student.device)
        groups = order.tensor_split(-(-rows // self.angle_rows))
        found = torch.cat([rkd_angle_loss(student[g], teacher[g]) for g in groups])
        return found[order.argsort()]


def _gram(embeddings: Tensor) -> Tensor:
    """Inner products of centred rows, (B, B).

    In float64: distances are differences of its entries, and those of rows that lie close together
    would have no digits left in float32.
    """
    # Apple's GPUs have no float64.
    wide = embeddings.float() if embeddings.device.type == "mps" else embeddings.double()
    if len(wide):
        wide = wide - wide.mean(dim=0)
    return wide @ wide.T


def _distances(gram: Tensor) -> Tensor:
    """Distances between rows, exactly 0 without a gradient where rows are the same."""
    norms = gram.diagonal()
    squared = norms[:, None] + norms - 2 * gram
    apart = squared > SAME * norms.detach().mean().clamp_min(torch.finfo(gram.dtype).tiny)
    apart = apart & ~torch.eye(len(gram), dtype=torch.bool, device=gram.device)
    # The root of a harmless number where it is not used: `where` alone would let its infinite
    # gradient through as NaN.
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)


def _relative(distances: Tensor) -> Tensor:
    count = (distances > 0).sum().clamp_min(1)
    mean = distances.sum() / count
    return distances / torch.where(mean > 0, mean, 1.0)


def _inverse(distances: Tensor) -> Tensor:
    apart = distances > 0
    return torch.where(apart, 1 / torch.where(apart, distances, 1.0), 0.0)


def _shuffled(rows: Tensor) -> Tensor:
    """An order of a minibatch that depends on which rows it holds, and not on their order."""
    generator = torch.Generator().manual_seed(int(rows.sum()))
    return rows.argsort()[torch.randperm(len(rows), generator=generator).to(rows.device)]


class _Angles(torch.autograd.Function):
    """Mean Huber loss at each vertex, from distances d, inverses r and squares q of both sides.

    By the law of cosines cos(i, j, k) = (d_ji r_jk + r_ji d_jk - r_ji r_jk q_ik) / 2. All B^3 of
    them are computed in pieces that fit a processor's cache, and again on the way back: kept by
    autograd they would take gigabytes, and most of the time.
    """

    @staticmethod
    def forward(ctx: Any, *sides: Tensor) -> Tensor:
        ctx.save_for_backward(*sides)
        parts = [
            functional.huber_loss(mine, told, reduction="none").mean(dim=(1, 2))
            for _, mine, told in _pieces(sides)
        ]
        return torch.cat([sides[0].new_zeros(0), *parts])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        sides = ctx.saved_tensors
        d, r, q = sides[:3]
        d_slope, r_slope, q_slope = (torch.zeros_like(x) for x in (d, r, q))
        scale = upstream / max(len(d), 1) ** 2
        for at, mine, told in _pieces(sides):
            # Symmetric in i and k, so that the two halves of each product give the same.
            pull = mine.sub_(told).clamp_(-1, 1).mul_(scale[at, None, None])
            near, far = r[at, :, None], d[at, :, None]
            d_slope[at] = (pull @ near).squeeze(2)
            r_slope[at] = (pull @ far - (pull * q) @ near).squeeze(2)
            q_slope -= 0.5 * pull.mul_(near).mul_(near.mT).sum(dim=0)
        return d_slope, r_slope, q_slope, None, None, None


def _pieces(sides: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Vertices a few at a time, with the cosines of both sides, shape (j, i, k)."""
    rows = len(sides[0])
    size = max(1, TRIPLES // max(rows, 1) ** 2)
    for start in range(0, rows, size):
        at = slice(start, start + size)
        yield at, _cosines(at, *sides[:3]), _cosines(at, *sides[3:])


def _cosines(at: slice, d: Tensor, r: Tensor, q: Tensor) -> Tensor:
    far, near = d[at, :, None], r[at, :, None]
    half = 0.5 * torch.cat([near.mT, far.mT], dim=1)
    return (torch.cat([far, near], dim=2) @ half).addcmul_(near * half[:, :1], q, value=-1)
