"""The directions of each class: where they may lie, how many there are, how they are turned.

Source: Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449: principal components in the null space of the teacher's last layer,
turned at random. All other options and all edge cases are a reconstruction.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import torch
from torch import Tensor

from limbeck.errors import ConfigError, LimbeckWarning, ShapeError
from limbeck.objectives.rotations import balanced, haar, haar_frame, row_space, without
from limbeck.objectives.spectra import Spectra

NullSpace = Literal["weights", "centered", "none"]
Rotation = Literal["random", "balanced", "none"]
Scale = Literal["rms", "none", "whiten"]
Directions = Literal["pca", "random"]
NO_VARIANCE = 1e-14
"""A variance below this share of the mean squared length is rounding of float32."""


@dataclass(frozen=True, slots=True)
class ProjectionConfig:
    """How directions are found and scores are scaled."""

    null_space: NullSpace = "weights"
    """Where directions may lie: outside the rows of the teacher's last layer, outside its rows less
    their mean, or anywhere."""
    rotation: Rotation = "random"
    """Of principal directions: random, one that makes all variances equal, or none."""
    scale: Scale = "rms"
    """Scores of a class are divided by one r.m.s., by nothing, or each by its own deviation."""
    directions: Directions = "pca"
    """Principal directions of the class, or random ones."""
    absorb_empty: bool = False
    """Give a class without rows one subclass instead of refusing it."""

    def __post_init__(self) -> None:
        for name, kind in (("null_space", NullSpace), ("rotation", Rotation), ("scale", Scale),
                           ("directions", Directions)):  # fmt: skip
            value = getattr(self, name)
            if value not in get_args(kind):
                raise ConfigError(f"{name}={value!r}: must be one of {', '.join(get_args(kind))}.")


class ProjectionSettings(TypedDict, total=False):
    """The fields of `ProjectionConfig` as keyword arguments."""

    null_space: NullSpace
    rotation: Rotation
    scale: Scale
    directions: Directions
    absorb_empty: bool


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Directions (C, D, S), their scales and variances (C, S), S_c, and the room they came from."""

    directions: Tensor
    scales: Tensor
    variances: Tensor
    sizes: tuple[int, ...]
    room: int


def find_directions(
    spectra: Spectra,
    wanted: int,
    weight: Tensor | None,
    config: ProjectionConfig,
    generator: torch.Generator,
) -> Found:
    """Find up to `wanted` directions of each class; see `LinearProjections.fit_batches`."""
    if type(wanted) is not int or wanted < 1:
        raise ConfigError(f"num_subclasses={wanted!r}: must be an integer >= 1.")
    dim = len(spectra.means[0])
    rows = _left_out(weight, dim, config.null_space)
    room = dim - len(rows)
    if room < wanted:
        where = "null space of the teacher's last layer" if len(rows) else "space of the embeddings"
        _warn(f"{wanted} subclasses were asked for but the {where} has {room} dimensions; classes "
              f"get that many.")  # fmt: skip
    sizes = _sizes(spectra.counts, min(wanted, room), config.absorb_empty)
    count = len(sizes)
    directions = torch.zeros(count, dim, wanted, dtype=torch.float64)
    variances = torch.zeros(count, wanted, dtype=torch.float64)
    scales = torch.ones(count, wanted, dtype=torch.float64)
    for c, pair in enumerate(_found(spectra, rows, sizes, config.directions, generator)):
        length = float(spectra.means[c].square().sum() + pair[0].sum())
        size = _alive(pair[0], length, c, wanted, spectra.counts[c])
        if not size:
            continue
        values, vectors = pair[0][:size], pair[1][:, :size]
        if config.directions == "pca":
            values, vectors = _rotated(values, vectors, config.rotation, generator)
        directions[c, :, :size], variances[c, :size] = vectors, values
        scales[c, :size] = _scaled(values, config.scale)
        sizes[c] = size
    return Found(directions, scales, variances, tuple(sizes), room)


def _left_out(weight: Tensor | None, dim: int, null_space: NullSpace) -> Tensor:
    """Orthonormal rows (r, D) that directions must avoid."""
    none = torch.zeros(0, dim, dtype=torch.float64)
    if null_space == "none":
        return none
    if weight is None:
        raise ConfigError(
            f"null_space={null_space!r} needs the teacher's last layer as classifier_weight; "
            f"recover one with regress_head, or choose null_space='none'."
        )
    if weight.ndim != 2 or weight.shape[1] != dim:
        raise ShapeError(
            f"classifier_weight has shape {tuple(weight.shape)} but embeddings have {dim} numbers "
            f"a row; pass the (K, {dim}) weight of the layer that reads these embeddings."
        )
    rows = row_space(weight, centered=null_space == "centered")
    if len(rows) == dim:
        _warn(f"the teacher's last layer has rank {dim}, as many as an embedding has numbers, so "
              f"its null space is empty; directions are taken from the whole space.")  # fmt: skip
        return none
    return rows


def _sizes(counts: Sequence[int], most: int, absorb: bool) -> list[int]:
    """Subclasses of each class, at most `most`, before variances are known."""
    sizes = []
    for c, count in enumerate(counts):
        if not count and not absorb:
            raise ConfigError(
                f"class {c} has no rows, so it has no directions; give rows of all {len(counts)} "
                f"classes, or absorb_empty to leave it whole."
            )
        sizes.append(max(1, min(most, count - 1)))
        if sizes[c] < most:
            _warn(f"class {c} has {count} rows, too few for {most} subclasses; it gets {sizes[c]}.")
    return sizes


def _found(
    spectra: Spectra, rows: Tensor, sizes: list[int], kind: Directions, generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Variances (S_c,) and directions (D, S_c) of each class."""
    if kind == "pca":
        return spectra.principal(rows, sizes, generator)
    dim = len(spectra.means[0])
    drawn = [without(rows, haar_frame(dim, size, generator)) for size in sizes]
    vectors = [torch.linalg.qr(own)[0] for own in drawn]
    variances = [
        (own * product).sum(dim=0).clamp_min(0)
        for own, product in zip(vectors, spectra.products(vectors), strict=True)
    ]
    return list(zip(variances, vectors, strict=True))


def _alive(values: Tensor, length: float, c: int, wanted: int, count: int) -> int:
    """How many directions have variance; 0, with a warning, for a class that has none at all."""
    size = int((values > NO_VARIANCE * length).sum())
    if size == 0 and count > 1:
        _warn(f"the embeddings of class {c} are all equal, so its subclasses share it evenly.")
    elif 0 < size < len(values):
        _warn(f"the embeddings of class {c} vary in {size} directions only, too few for {wanted} "
              f"subclasses; it gets {size}.")  # fmt: skip
    return size


def _rotated(
    values: Tensor, vectors: Tensor, rotation: Rotation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Variances along rotated directions, and these."""
    if rotation == "none":
        return values, vectors
    q = haar(len(values), generator) if rotation == "random" else balanced(values)
    return (values[:, None] * q.square()).sum(dim=0), vectors @ q


def _scaled(values: Tensor, scale: Scale) -> Tensor:
    """Sigma of each direction."""
    if scale == "rms":
        return values.mean().sqrt().expand_as(values)
    return torch.ones_like(values) if scale == "none" else values.sqrt()


def _warn(message: str) -> None:
    warnings.warn(message, LimbeckWarning, stacklevel=2)
