"""Parts of the networks of NATS-Bench: the cell, the block that halves a map, stem and head.

Source: Dong and Yang, "NAS-Bench-201", ICLR 2020, Section 2.1 and Figure 1; Dong et al.,
"NATS-Bench", IEEE TPAMI 2021, Section 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""From node to node, in the order in which a cell is written."""

NONE, SKIP, CONV_1X1, CONV_3X3, POOL = OPERATIONS = (
    "none",
    "skip_connect",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "avg_pool_3x3",
)


class Zero(nn.Module):
    """No connection: zeros of as many channels as the edge's end has."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """Zeros, shape (n, outputs, h, w)."""
        return x.new_zeros(x.shape[0], self.outputs, *x.shape[2:])


def convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Sequential:
    """ReLU, convolution, norm: in this order."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


def _edge(operation: str, inputs: int, outputs: int) -> nn.Module:
    if operation == NONE:
        return Zero(outputs)
    if operation == CONV_1X1:
        return convolution(inputs, outputs, 1)
    if operation == CONV_3X3:
        return convolution(inputs, outputs, 3)
    mean = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    if operation == POOL:
        return mean if inputs == outputs else nn.Sequential(convolution(inputs, outputs, 1), mean)
    if inputs == outputs:
        return nn.Identity()
    # Where a skip has to change the channels, the benchmark's code projects, without a ReLU.
    projection = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(projection, nn.BatchNorm2d(outputs))


class Cell(nn.Module):
    """Four nodes; each is the sum over all before it of what the edge between makes of it.

    Args:
        operations: One of `OPERATIONS` for each of `EDGES`.
        inputs, outputs: Channels. Edges from node 0 change them.
    """

    def __init__(self, operations: Sequence[str], inputs: int, outputs: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            _edge(operation, outputs if start else inputs, outputs)
            for (start, _), operation in zip(EDGES, operations, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The last node, shape (n, outputs, h, w), from x of shape (n, inputs, h, w)."""
        nodes = [x]
        for end in range(1, 4):
            parts = [
                edge(nodes[start])
                for (start, stop), edge in zip(EDGES, self.edges, strict=True)
                if stop == end
            ]
            nodes.append(torch.stack(parts).sum(0) if len(parts) > 1 else parts[0])
        return nodes[3]


class Reduction(nn.Module):
    """A residual block that halves height and width: two convolutions beside a pooled projection.

    Args:
        inputs, outputs: Channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            convolution(inputs, outputs, 3, stride=2), convolution(outputs, outputs, 3)
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, stride=2), nn.Conv2d(inputs, outputs, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, outputs, h / 2, w / 2), from x of shape (n, inputs, h, w), both sides even."""
        body, shortcut = self.body(x), self.shortcut(x)
        return torch.add(body, shortcut)


def stem(outputs: int) -> nn.Sequential:
    """From colours to channels."""
    return nn.Sequential(nn.Conv2d(3, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))


def head(inputs: int, classes: int) -> nn.Sequential:
    """Norm, ReLU, the mean over the map, logits."""
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(inputs, classes),
    )
