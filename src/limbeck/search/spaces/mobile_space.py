"""A layerwise space around a published mobile network: one layer a row of its block table.

The options of a row are kernel (3, 5, 7) x expansion (3, 6 and the published one) x channels (0.5,
0.75, 1 and 1.25 times the published ones) and, where the table repeats rows, the number of blocks
(one less, as published, one more). The default is the published row, so that the default
architecture is the published network. Strides, activations, squeeze-and-excitation, stem and head
are as published; a row that does not expand does not learn to.

Source: LayerNAS (arXiv 2304.11517) searches around such networks, a layer a block. The values of
its options are not public, those here are ours; its default is the dearest one, ours the published.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import NamedTuple

from torch import nn

from limbeck.errors import ConfigError
from limbeck.search.costs import BlackBoxCost, Cost
from limbeck.search.space import Architecture, Layer, LayerwiseSpace
from limbeck.search.spaces.chain import ChainCost
from limbeck.search.spaces.mobile_blocks import (
    Activation,
    Block,
    Ends,
    divisible,
    halved,
    mobile_network,
)
from limbeck.search.spaces.named import NamedSpace, seeded

KERNELS = (3, 5, 7)
EXPANSIONS = (3.0, 6.0)
WIDTHS = (0.5, 0.75, 1.0, 1.25)


class Choice(NamedTuple):
    """Option of a row.

    Args:
        kernel: Of the depthwise convolutions.
        expansion: Channels inside a block over those that go in (rounded to a multiple of 8).
        channels: Out of the row.
        repeats: Blocks; the first has the stride.
    """

    kernel: int
    expansion: float
    channels: int
    repeats: int = 1

    def label(self, *, repeated: bool) -> str:
        """As in a layer's options: "k5 e3 c40", "k3 e6 c24 n2"."""
        count = f" n{self.repeats}" if repeated else ""
        return f"k{self.kernel} e{self.expansion:.3g} c{self.channels}{count}"


class Row(NamedTuple):
    """Row of a published table."""

    published: Choice
    stride: int
    activation: Activation
    squeezed: bool = False


@dataclass(frozen=True, eq=False)
class MobileNet:
    """A published network and the layerwise space around it.

    Args:
        ends: Stem and head.
        rows: Its table.
        repeated: Whether the number of blocks of a row is searched.
    """

    ends: Ends
    rows: tuple[Row, ...]
    repeated: bool

    @cached_property
    def choices(self) -> tuple[tuple[Choice, ...], ...]:
        """Options of each row, in the order of the space."""
        return tuple(_choices(row.published, repeated=self.repeated) for row in self.rows)

    @cached_property
    def space(self) -> LayerwiseSpace:
        """The space; its default is the published network."""
        layers = []
        for i, (row, choices) in enumerate(zip(self.rows, self.choices, strict=True), 1):
            labels = tuple(choice.label(repeated=self.repeated) for choice in choices)
            layers.append(Layer(f"row{i}", labels, default=choices.index(row.published)))
        return LayerwiseSpace(tuple(layers))

    def blocks(self, architecture: Sequence[int]) -> list[Block]:
        """Blocks of an architecture, in order.

        Raises:
            ConfigError: there is no such architecture.
        """
        self.space.check(architecture)
        found, width = [], self.ends.stem
        for i, s in enumerate(architecture):
            found += self._row(i, width, self.choices[i][s])
            width = self.choices[i][s].channels
        return found

    def build(
        self, architecture: Sequence[int], *, classes: int = 1000, seed: int = 0
    ) -> nn.Module:
        """The network of an architecture.

        Args:
            architecture: Positions of the options of `space`.
            classes: Logits, >= 1.
            seed: Of the weights.

        Returns:
            Images (n, 3, height, width) in, logits (n, classes) out.

        Raises:
            ConfigError: there is no such architecture, or no class.
        """
        blocks = self.blocks(architecture)
        if classes < 1:
            raise ConfigError(f"classes={classes}: a network needs at least one.")
        return seeded(lambda: mobile_network(self.ends, blocks, classes), seed)

    def parameters(self, *, classes: int = 1000) -> ChainCost:
        """Parameters of any architecture, exact."""
        return self._chain(
            lambda i, width, choice: sum(b.parameters for b in self._row(i, width, choice)),
            lambda width: self.ends.parameters(width, classes),
        )

    def macs(self, *, classes: int = 1000, side: int = 224) -> ChainCost:
        """Multiply-adds of any architecture for a square image, exact.

        Args:
            classes: Logits.
            side: Of the image, pixels.
        """
        sides = self._sides(side)

        def term(i: int, width: int, choice: Choice) -> int:
            first, *others = self._row(i, width, choice)
            return first.macs(sides[i]) + sum(block.macs(sides[i + 1]) for block in others)

        return self._chain(
            term,
            lambda width: self.ends.macs(width, classes, side=side, last_side=sides[-1]),
        )

    def activation_bytes(self, *, classes: int = 1000, side: int = 224) -> BlackBoxCost:
        """Peak of activations of a chain, bytes in float32, as `counting.count` defines it.

        It is a maximum and not a sum: use it as a constraint beside a cost that is one. Bounds: a
        prefix's own peak at least; at most, nothing is known.

        Args:
            classes: Logits.
            side: Of the image, pixels.
        """
        sides = self._sides(side)

        @cache
        def row_peak(i: int, width: int, s: int) -> int:
            first, *others = self._row(i, width, self.choices[i][s])
            peaks = [first.activations(sides[i]), *(b.activations(sides[i + 1]) for b in others)]
            return max(peaks)

        def peak(prefix: Architecture) -> float:
            found, width = 0, self.ends.stem
            for i, s in enumerate(prefix):
                found = max(found, row_peak(i, width, s))
                width = self.choices[i][s].channels
            if len(prefix) == len(self.rows):
                last = self.ends.activations(width, classes, side=side, last_side=sides[-1])
                found = max(found, last)
            return 4.0 * found

        return BlackBoxCost(self.space, peak, bounds=lambda prefix: (peak(prefix), math.inf))

    def named(self) -> NamedSpace:
        """The space with its costs for ImageNet: 1000 classes, 224 x 224."""
        costs: dict[str, Cost] = {
            "macs": self.macs(),
            "parameters": self.parameters(),
            "activation_bytes": self.activation_bytes(),
        }
        return NamedSpace(self.space, costs, self.build, (1, 3, 224, 224))

    def _sides(self, side: int) -> list[int]:
        """Side of the map into each row, and out of the last one."""
        sides = [halved(side, 2)]
        for row in self.rows:
            sides.append(halved(sides[-1], row.stride))
        return sides

    def _chain(
        self, term: Callable[[int, int, Choice], int], last: Callable[[int], int]
    ) -> ChainCost:
        choices = self.choices
        return ChainCost(
            self.space,
            first=self.ends.stem,
            widths=[[choice.channels for choice in row] for row in choices],
            term=lambda i, width, s: term(i, width, choices[i][s]),
            last=last,
        )

    def _row(self, i: int, width: int, choice: Choice) -> list[Block]:
        """Blocks of one row behind a width."""
        row, found = self.rows[i], []
        for n in range(choice.repeats):
            inside = divisible(choice.expansion * width) if choice.expansion != 1 else width
            squeeze = divisible(inside // 4) if row.squeezed else 0
            stride = row.stride if n == 0 else 1
            numbers = (width, inside, choice.channels, choice.kernel, stride, squeeze)
            found.append(Block(*numbers, row.activation))
            width = choice.channels
        return found


def _choices(published: Choice, *, repeated: bool) -> tuple[Choice, ...]:
    """Options of a row, the published one among them, those that round to the same one once."""
    kernel, expansion, channels, repeats = published
    expansions = [1.0] if expansion == 1 else sorted({*EXPANSIONS, expansion})
    widths = sorted({divisible(channels * share) for share in WIDTHS} | {channels})
    counts = sorted({max(1, repeats + d) for d in (-1, 0, 1)}) if repeated else [1]
    kernels = sorted({*KERNELS, kernel})
    return tuple(Choice(*one) for one in product(kernels, expansions, widths, counts))
