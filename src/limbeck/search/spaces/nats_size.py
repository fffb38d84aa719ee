"""NATS-Bench size: five widths of a small network, eight choices each.

The network: a stem and a cell of w1 channels, a reduction to w2, a cell to w3, a reduction to w4, a
cell to w5, a head; every cell is the one of `CELL`.

Source: Dong et al., "NATS-Bench", IEEE TPAMI 2021, Section 3.2 (candidates and the cell). How a
cell changes its channels (the edges from its input do, a skip as a projection without ReLU) follows
the benchmark's published code. Reconstruction: the trained table could not be had, so neither
accuracies nor the costs are checked against it. `synthetic_problem` is made up, costs and all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import nn

from limbeck.errors import ConfigError
from limbeck.search.costs import Cost, MonotoneCost
from limbeck.search.space import Architecture, Layer, LayerwiseSpace
from limbeck.search.spaces.cells import CONV_3X3, SKIP, Cell, Reduction, head, stem
from limbeck.search.spaces.named import NamedSpace, check_build, seeded

WIDTHS = tuple(range(8, 65, 8))
CELL = (CONV_3X3, CONV_3X3, CONV_3X3, SKIP, CONV_3X3, CONV_3X3)
EXAMPLE = (1, 3, 32, 32)


def space() -> LayerwiseSpace:
    """w1..w5, each of 8, 16, ..., 64 channels; 32,768 networks; the default is the widest."""
    return LayerwiseSpace(tuple(Layer(f"w{i}", WIDTHS) for i in range(1, 6)))


def build(architecture: Sequence[int], *, classes: int = 10, seed: int = 0) -> nn.Module:
    """The network of five widths.

    Args:
        architecture: Positions in `WIDTHS`.
        classes: Logits, >= 1.
        seed: Of the weights.

    Returns:
        Images (n, 3, 32, 32) in, logits (n, classes) out.

    Raises:
        ConfigError: there is no such architecture, or no class.
    """
    check_build(space(), architecture, classes)
    return seeded(lambda: _network(tuple(architecture), classes), seed)


def macs(space: LayerwiseSpace, *, classes: int = 10) -> MonotoneCost:
    """Multiply-adds of the network for an image of 32 x 32.

    A skip that keeps its channels is free, so a cell whose two widths are equal has less; the step
    of eight channels outweighs it everywhere, so that the cost still never falls with a width.
    """

    def total(architecture: Architecture) -> float:
        a, b, c, d, e = (WIDTHS[s] for s in architecture)
        full = 27 * a + _cell(a, a)
        half = _reduction(a, b) + _cell(b, c)
        quarter = _reduction(c, d) + _cell(d, e)
        return float(1024 * full + 256 * half + 64 * quarter + e * classes)

    return MonotoneCost(space, total)


def parameters(space: LayerwiseSpace, *, classes: int = 10) -> MonotoneCost:
    """Parameters of the network, norms and biases included."""

    def total(architecture: Architecture) -> float:
        a, b, c, d, e = (WIDTHS[s] for s in architecture)
        weights = 27 * a + e * classes + _reduction(a, b) + _reduction(c, d)
        weights += _cell(a, a) + _cell(b, c) + _cell(d, e)
        norms = 2 * a + 10 * a + 4 * b + (10 + 2 * (b != c)) * c + 4 * d + (10 + 2 * (d != e)) * e
        return float(weights + norms + 2 * e + classes)

    return MonotoneCost(space, total)


@dataclass(frozen=True, eq=False)
class SyntheticSize:
    """A made-up search problem over the five widths.

    Args:
        cost: Multiply-adds of a plain chain of convolutions.
        limit: Half of the dearest.
        reward: What a search sees, points, shape (8, 8, 8, 8, 8).
        report: The same without noise.
    """

    cost: MonotoneCost
    limit: float
    reward: NDArray[np.float64]
    report: NDArray[np.float64]


def synthetic_problem(sigma: float) -> SyntheticSize:
    """A stand-in for the trained table: widths help with falling returns, jumps between them hurt.

    reward = 93 - sum_l b_l exp(-w_l / v_l) - 0.3 sum_l |log2(w_(l+1) / w_l) - 1/2| + sigma z
    with b = (6, 5, 4, 3, 3), v = (10, 14, 18, 22, 26) and z one fixed table of standard normals;
    cost = 9 (3 w1 1024 + w1 w2 1024 + w2 w3 256 + w3 w4 256 + w4 w5 64).

    Args:
        sigma: Noise of the reward, points, >= 0.

    Raises:
        ConfigError: sigma is negative.
    """
    if not sigma >= 0:
        raise ConfigError(f"sigma={sigma:g}: the noise must be >= 0 points.")
    w = np.stack(np.meshgrid(*[np.array(WIDTHS, float)] * 5, indexing="ij"), -1)
    b, v = np.array([6, 5, 4, 3, 3]), np.array([10, 14, 18, 22, 26])
    report = 93 - (b * np.exp(-w / v)).sum(-1)
    report -= 0.3 * np.abs(np.log2(w[..., 1:] / w[..., :-1]) - 0.5).sum(-1)
    noise = np.random.default_rng(7).normal(size=report.shape)
    cost = MonotoneCost(space(), _chain)
    return SyntheticSize(cost, 0.5 * cost.bounds(()).high, report + sigma * noise, report)


def named() -> NamedSpace:
    """The space with its costs for CIFAR-10."""
    found = space()
    costs: dict[str, Cost] = {"macs": macs(found), "parameters": parameters(found)}
    return NamedSpace(found, costs, build, EXAMPLE)


def _network(architecture: Architecture, classes: int) -> nn.Module:
    a, b, c, d, e = (WIDTHS[s] for s in architecture)
    return nn.Sequential(
        stem(a),
        Cell(CELL, a, a),
        Reduction(a, b),
        Cell(CELL, b, c),
        Reduction(c, d),
        Cell(CELL, d, e),
        head(e, classes),
    )


def _cell(a: int, b: int) -> int:
    """Weights of convolutions: two of 3 x 3 from a to b, three from b to b, a skip."""
    return 18 * a * b + 27 * b * b + (a * b if a != b else 0)


def _reduction(a: int, b: int) -> int:
    """Weights of convolutions: 3 x 3 from a to b and from b to b, 1 x 1 from a to b."""
    return 10 * a * b + 9 * b * b


def _chain(architecture: Architecture) -> float:
    w = [3, *(WIDTHS[s] for s in architecture)]
    areas = (1024, 1024, 256, 256, 64)
    return 9.0 * sum(a * b * area for (a, b), area in zip(pairwise(w), areas, strict=True))
