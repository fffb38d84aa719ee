"""What a teacher's embeddings hold beside its probabilities, and what a split of classes adds.

Sources: neural collapse, Papyan, Han, Donoho, "Prevalence of neural collapse during the terminal
phase of deep learning training", PNAS 117 (2020): within-class over between-class covariance, equal
norms, angles of a simplex. The share of energy in a layer's null space and the nats that a split
adds are figures of ours; the latter is the chain rule KL(q || r) = KL(p || rho) +
sum_c p_c KL(w_c || omega_c) with the mean split of each class as omega.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.rotations import row_space

_RANK = 1e-9
"""A spread of class means below this share of the largest one is rounding."""


@dataclass(frozen=True, slots=True)
class Collapse:
    """How far a teacher's embeddings have drawn together, class by class.

    Args:
        rows: N.
        dim: D.
        classes: Classes that have rows, C.
        within: Mean squared distance of a row from the mean of its class.
        between: Mean squared distance of the class means from their own mean.
        nc1: tr(Sw Sb^+) / C for the two covariances, >= 0: 0 where each class is one point. It
            looks along the class means alone. None where these do not differ.
        norm_spread: Standard deviation over mean of the norms of the centred class means.
        angle_gap: Mean distance of the cosines between centred class means from -1 / (C - 1). In
            full collapse this and `norm_spread` are 0; with two classes they always are.
        null_share: Share of `within` outside the rows of the last layer, in [0, 1]; None where the
            layer is unknown or nothing varies.
        centered_null_share: The same outside its rows less their mean, the part that softmax
            ignores.
        null_room: The share that the same rows would have if they varied alike in all directions.
    """

    rows: int
    dim: int
    classes: int
    within: float
    between: float
    nc1: float | None
    norm_spread: float
    angle_gap: float
    null_share: float | None = None
    centered_null_share: float | None = None
    null_room: float | None = None

    @property
    def ratio(self) -> float | None:
        """`within` over `between`, which looks in all directions; None where means are equal."""
        return self.within / self.between if self.between > 0 else None


def collapse(batches: Iterable[tuple[Tensor, Tensor]], *, weight: Tensor | None = None) -> Collapse:
    """Measure how embeddings vary within and between classes.

    Args:
        batches: Embeddings, floating point, (n, D), and the class of each row, int64, (n,), >= 0.
            They are read twice.
        weight: The last layer, shape (K, D), where it is known.

    Raises:
        ShapeError: shapes do not fit each other, or there are no rows.
        ConfigError: `batches` is an iterator, which can be read only once.

    Cost: two passes, O(N D (C + K)) time and 8 D (2 C + K) bytes, in float64.
    """
    if iter(batches) is batches:
        raise ConfigError(
            "the figures of embeddings are made in two passes, but these batches can be read only "
            "once; give a list, or an object whose __iter__ begins anew."
        )
    counts, means = _class_means(batches)
    there = means[counts > 0]
    middle = there - there.mean(dim=0)
    _, sizes, axes = torch.linalg.svd(middle, full_matrices=False)
    kept = sizes > _RANK * there.norm(dim=1).max().clamp_min(1e-300)
    spaces = [axes[kept]]
    if weight is not None:
        if weight.ndim != 2 or weight.shape[1] != means.shape[1]:
            raise ShapeError(
                f"the last layer has shape {tuple(weight.shape)} but embeddings have "
                f"{means.shape[1]} numbers a row; pass the layer that reads these embeddings."
            )
        spaces += [row_space(weight), row_space(weight, centered=True)]
    within, along = _within(batches, means, spaces)
    spread = sizes[kept].square() / len(there)
    norms = middle.norm(dim=1)
    shares = [float(1 - part.sum() / within) if within > 0 else None for part in along[1:]]
    return Collapse(
        rows=int(counts.sum()),
        dim=means.shape[1],
        classes=len(there),
        within=within,
        between=float(spread.sum()),
        nc1=float((along[0] / spread).sum() / len(there)) if bool(kept.any()) else None,
        norm_spread=float(norms.std(correction=0) / norms.mean()) if bool(kept.any()) else 0.0,
        angle_gap=_angle_gap(middle) if bool(kept.any()) else 0.0,
        null_share=shares[0] if shares else None,
        centered_null_share=shares[1] if shares else None,
        null_room=1 - len(spaces[1]) / means.shape[1] if shares else None,
    )


@dataclass(frozen=True, slots=True)
class SplitGain:
    """What targets over subclasses say of a row, in nats.

    Args:
        rows: N.
        class_nats: E KL(p || mean p): what the class probabilities say.
        split_nats: E sum_c p_c KL(w_c || mean w_c): what the split adds, in [0, bound].
        bound: log S, averaged over the classes' own S by their share.
    """

    rows: int
    class_nats: float
    split_nats: float
    bound: float


def split_gain(batches: Iterable[Tensor]) -> SplitGain:
    """Measure how much a split of classes adds to their probabilities.

    The figure counts what the targets say, not whether it is worth knowing: a hard split at random
    adds as much as one can.

    Args:
        batches: q_{c,s} = p_c w_{c,s}, floating point, shape (n, C, S), rows sum to 1; a subclass
            that no row has does not count.

    Raises:
        ShapeError: a batch is not 3-d, or there are no rows.

    Cost: one pass, O(N C S), in float64.
    """
    rows, known, total = 0, torch.zeros(2, dtype=torch.float64), None
    for given in batches:
        if given.ndim != 3:
            raise ShapeError(
                f"targets over subclasses must have shape (n, C, S), got {tuple(given.shape)}; "
                f"take an objective's pseudo_probs."
            )
        q = given.detach().cpu().double()
        known = known + torch.stack([_negentropy(q.sum(dim=2)), _negentropy(q)])
        total = q.sum(dim=0) if total is None else total + q.sum(dim=0)
        rows += len(q)
    if total is None or rows == 0:
        raise ShapeError("there are no targets to measure; give at least one row.")
    mean = total / rows
    share = mean.sum(dim=1)
    class_nats = float(known[0] / rows - _negentropy(share))
    # E KL(q || p omega) = E sum q log(q / p) - sum mean q log(mean q / mean p).
    split_nats = float((known[1] - known[0]) / rows - (_negentropy(mean) - _negentropy(share)))
    sizes = (mean > 0).sum(dim=1).clamp_min(1).double()
    return SplitGain(
        rows, max(0.0, class_nats), max(0.0, split_nats), float((share * sizes.log()).sum())
    )


def _class_means(batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Rows, int64, (C,), and mean, float64, (C, D), of each class up to the largest one."""
    counts, sums = torch.zeros(0, dtype=torch.long), None
    for embeddings, classes in batches:
        if embeddings.ndim != 2 or classes.shape != embeddings.shape[:1]:
            raise ShapeError(
                f"embeddings have shape {tuple(embeddings.shape)} and classes "
                f"{tuple(classes.shape)}; give a matrix (n, D) and one class a row."
            )
        if not len(classes):
            continue
        size = max(len(counts), int(classes.max()) + 1)
        if sums is None:
            sums = torch.zeros(0, embeddings.shape[1], dtype=torch.float64)
        counts = torch.nn.functional.pad(counts, (0, size - len(counts)))
        sums = torch.nn.functional.pad(sums, (0, 0, 0, size - len(sums)))
        counts += torch.bincount(classes.cpu(), minlength=size)
        sums.index_add_(0, classes.cpu(), embeddings.detach().cpu().double())
    if sums is None:
        raise ShapeError("there are no embeddings to measure; give at least one row.")
    return counts, sums / counts.clamp_min(1)[:, None]


def _within(
    batches: Iterable[tuple[Tensor, Tensor]], means: Tensor, spaces: list[Tensor]
) -> tuple[float, list[Tensor]]:
    """Mean squared distance from the class mean, and its part along each row of each space."""
    rows, total = 0, 0.0
    along = [torch.zeros(len(space), dtype=torch.float64) for space in spaces]
    for embeddings, classes in batches:
        centred = embeddings.detach().cpu().double() - means[classes.cpu()]
        rows += len(centred)
        total += float(centred.square().sum())
        for i, space in enumerate(spaces):
            along[i] += (centred @ space.T).square().sum(dim=0)
    return total / rows, [part / rows for part in along]


def _angle_gap(middle: Tensor) -> float:
    count = len(middle)
    unit = torch.nn.functional.normalize(middle, dim=1)
    pairs = (unit @ unit.T)[~torch.eye(count, dtype=torch.bool)]
    return float((pairs + 1 / (count - 1)).abs().mean())


def _negentropy(x: Tensor) -> Tensor:
    """Sum of x log x."""
    return torch.xlogy(x, x).sum()
