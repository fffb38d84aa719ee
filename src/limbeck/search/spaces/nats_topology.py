"""NATS-Bench topology (NAS-Bench-201): one operation on each of the six edges of a cell.

The network: a stem of 16 channels, five cells, a reduction to 32, five cells, a reduction to 64,
five cells, a head; 32 x 32 images; all fifteen cells are alike.

Source: Dong and Yang, "NAS-Bench-201", ICLR 2020, Section 2; as layers, in the order in which the
benchmark writes a cell (how LayerNAS orders them, its public text does not say).
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from limbeck.search.costs import AdditiveCost, Cost
from limbeck.search.space import Architecture, Layer, LayerwiseSpace
from limbeck.search.spaces.cells import (
    CONV_1X1,
    CONV_3X3,
    EDGES,
    NONE,
    OPERATIONS,
    SKIP,
    Cell,
    Reduction,
    head,
    stem,
)
from limbeck.search.spaces.named import NamedSpace, check_build, seeded

CHANNELS = (16, 32, 64)
CELLS = 5
EXAMPLE = (1, 3, 32, 32)

_ZERO = "#"


def space() -> LayerwiseSpace:
    """Edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3, five operations each: 15,625 cells, 6,466 distinct."""
    layers = tuple(Layer(f"e{start}{end}", OPERATIONS) for start, end in EDGES)
    return LayerwiseSpace(layers, canonical=isomorphism_key)


def build(architecture: Sequence[int], *, classes: int = 10, seed: int = 0) -> nn.Module:
    """The network of a cell.

    Args:
        architecture: Operation of each edge, by position in `OPERATIONS`.
        classes: Logits, >= 1.
        seed: Of the weights.

    Returns:
        Images (n, 3, 32, 32) in, logits (n, classes) out.

    Raises:
        ConfigError: there is no such architecture, or no class.
    """
    check_build(space(), architecture, classes)
    return seeded(lambda: _network(tuple(architecture), classes), seed)


def parameters(space: LayerwiseSpace, *, classes: int = 10) -> AdditiveCost:
    """Parameters: 73,306 + 28,000 a convolution of 1 x 1 + 243,040 one of 3 x 3, for 10 classes."""
    base = 27 * 16 + 2 * 16 + 2 * 64 + 64 * classes + classes
    base += sum(10 * a * b + 9 * b * b + 4 * b for a, b in _steps())
    edge = {
        kernel: sum(CELLS * (kernel * kernel * c * c + 2 * c) for c in CHANNELS)
        for kernel in (1, 3)
    }
    return _additive(space, base, edge)


def macs(space: LayerwiseSpace, *, classes: int = 10) -> AdditiveCost:
    """Multiply-adds: 7,783,040 + 3,932,160 a 1 x 1 + 35,389,440 a 3 x 3, for 10 classes."""
    areas = [(32 >> i) ** 2 for i in range(3)]
    base = 27 * 16 * areas[0] + 64 * classes
    base += sum(
        area * (10 * a * b + 9 * b * b) for (a, b), area in zip(_steps(), areas[1:], strict=True)
    )
    edge = {
        kernel: sum(
            CELLS * area * kernel * kernel * c * c for c, area in zip(CHANNELS, areas, strict=True)
        )
        for kernel in (1, 3)
    }
    return _additive(space, base, edge)


def isomorphism_key(architecture: Architecture) -> str:
    """What the benchmark holds for equal cells: a skip is its start, what hangs on zero is zero.

    It is the benchmark's own rule, and splits the 15,625 cells into the same 6,466 classes. Two
    things it leaves apart that are equal: it keeps zeros as terms of a sum, and does not sort sums
    within sums anew; `simplified_key` does both.
    """
    nodes = ["0"]
    for end in range(1, 4):
        terms = []
        for start, operation in _into(architecture, end):
            if operation == NONE or nodes[start] == _ZERO:
                terms.append(_ZERO)
            elif operation == SKIP:
                terms.append(nodes[start])
            else:
                terms.append(f"({nodes[start]})@{operation}")
        nodes.append("+".join(sorted(terms)))
    return nodes[3]


def simplified_key(architecture: Architecture) -> str:
    """The cell as a sum of chains of operations, zeros dropped and all sums sorted: 4,930 classes.

    Every class of `isomorphism_key` lies in one of these. What hangs on zero counts as zero; the
    bias of its norm, a constant after training, is not looked at, as in the benchmark's rule.
    """
    nodes: list[list[str]] = [["0"]]
    for end in range(1, 4):
        terms: list[str] = []
        for start, operation in _into(architecture, end):
            if operation == NONE or not nodes[start]:
                continue
            whole = "+".join(nodes[start])
            terms += nodes[start] if operation == SKIP else [f"({whole})@{operation}"]
        nodes.append(sorted(terms))
    return "+".join(nodes[3]) or _ZERO


def named() -> NamedSpace:
    """The space with its costs for CIFAR-10."""
    found = space()
    costs: dict[str, Cost] = {"macs": macs(found), "parameters": parameters(found)}
    return NamedSpace(found, costs, build, EXAMPLE)


def _network(architecture: Architecture, classes: int) -> nn.Module:
    operations = [OPERATIONS[s] for s in architecture]
    blocks: list[nn.Module] = [stem(CHANNELS[0])]
    for stage, channels in enumerate(CHANNELS):
        if stage:
            blocks.append(Reduction(CHANNELS[stage - 1], channels))
        blocks += [Cell(operations, channels, channels) for _ in range(CELLS)]
    return nn.Sequential(*blocks, head(CHANNELS[-1], classes))


def _steps() -> list[tuple[int, int]]:
    return list(pairwise(CHANNELS))


def _into(architecture: Architecture, end: int) -> list[tuple[int, str]]:
    """Start and operation of the edges into a node."""
    pairs = zip(EDGES, architecture, strict=True)
    return [(start, OPERATIONS[s]) for (start, stop), s in pairs if stop == end]


def _additive(space: LayerwiseSpace, base: int, edge: dict[int, int]) -> AdditiveCost:
    cost = {CONV_1X1: edge[1], CONV_3X3: edge[3]}
    row = [float(cost.get(operation, 0)) for operation in OPERATIONS]
    return AdditiveCost(space, [row] * len(EDGES), base=base)
