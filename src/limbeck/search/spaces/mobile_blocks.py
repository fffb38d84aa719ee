"""Mobile networks as modules: inverted residuals with squeeze-and-excitation, stem and head.

Source: Sandler et al., "MobileNetV2", CVPR 2018, Sections 3.2-3.3 and Table 1; Howard et al.,
"Searching for MobileNetV3", ICCV 2019, Sections 5.1-5.3; Hu et al., "Squeeze-and-Excitation
Networks", CVPR 2018.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Activation = Literal["relu", "relu6", "hardswish"]

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
}


class Block(NamedTuple):
    """One inverted residual.

    Args:
        inputs, expanded, outputs: Channels; where nothing expands, there is no first convolution.
        kernel: Of the depthwise convolution, odd.
        stride: Of it, 1 or 2.
        squeeze: Channels inside squeeze-and-excitation; 0 for none.
        activation: Behind the first two convolutions.
    """

    inputs: int
    expanded: int
    outputs: int
    kernel: int
    stride: int
    squeeze: int
    activation: Activation

    @property
    def parameters(self) -> int:
        """Weights, norms and biases."""
        a, t, b, q = self.inputs, self.expanded, self.outputs, self.squeeze
        expand = a * t + 2 * t if t != a else 0
        excite = 2 * t * q + q + t if q else 0
        return expand + self.kernel**2 * t + 2 * t + excite + t * b + 2 * b

    def macs(self, side: int) -> int:
        """Multiply-adds for a square map of a side, pixels."""
        a, t, b = self.inputs, self.expanded, self.outputs
        before, after = side**2, halved(side, self.stride) ** 2
        expand = a * t * before if t != a else 0
        return expand + (self.kernel**2 * t + t * b) * after + 2 * t * self.squeeze

    def activations(self, side: int) -> int:
        """Greatest input and output of one of its modules together, in numbers."""
        a, t, b = self.inputs, self.expanded, self.outputs
        before, after = side**2, halved(side, self.stride) ** 2
        expand = max(a + t, 2 * t) * before if t != a else 0
        return max(expand, t * (before + after), 2 * t * after, (t + b) * after, 2 * b * after)


class Ends(NamedTuple):
    """What stands before and behind the blocks.

    Args:
        stem: Channels of the first convolution, 3 x 3, stride 2.
        last: Channels of the last convolution, 1 x 1.
        hidden: Units of a layer between the mean over the map and the logits; 0 for none.
        activation: Of all of these.
        norm: Epsilon and momentum of every norm of the network.
    """

    stem: int
    last: int
    hidden: int
    activation: Activation
    norm: tuple[float, float]

    def parameters(self, inputs: int, classes: int) -> int:
        """Of all but the blocks, by the channels of the last of them."""
        head, features = inputs * self.last + 2 * self.last, self.last
        if self.hidden:
            head, features = head + features * self.hidden + self.hidden, self.hidden
        return 29 * self.stem + head + features * classes + classes

    def macs(self, inputs: int, classes: int, *, side: int, last_side: int) -> int:
        """Of all but the blocks, for a square image and the map of the last block, pixels."""
        head, features = inputs * self.last * last_side**2, self.last
        if self.hidden:
            head, features = head + features * self.hidden, self.hidden
        return 27 * self.stem * halved(side, 2) ** 2 + head + features * classes

    def activations(self, inputs: int, classes: int, *, side: int, last_side: int) -> int:
        """Greatest input and output of one of their modules together, in numbers."""
        first, area = halved(side, 2) ** 2, last_side**2
        ways = [self.last, *([self.hidden] * bool(self.hidden)), classes]
        return max(
            3 * side**2 + self.stem * first,
            2 * self.stem * first,
            (inputs + self.last) * area,
            2 * self.last * area,
            2 * self.hidden,
            *(a + b for a, b in pairwise(ways)),
        )


def halved(side: int, stride: int) -> int:
    """Side of a map behind a convolution that pads (kernel - 1) / 2, whatever its kernel."""
    return (side - 1) // stride + 1


def divisible(channels: float) -> int:
    """The nearest multiple of 8, at least 8; the next one where rounding would lose over 10 %."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class SqueezeExcite(nn.Module):
    """Scales every channel by a function of the means of all.

    Args:
        channels: In and out.
        squeeze: In between.
    """

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeeze, 1),
            nn.ReLU(),
            nn.Conv2d(squeeze, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return torch.mul(x, self.scale(x))


def _convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    norm: tuple[float, float],
    activation: Activation | None,
    *,
    stride: int = 1,
    groups: int = 1,
) -> list[nn.Module]:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, *norm),
    ]
    return [*layers, _ACTIVATIONS[activation]()] if activation else layers


class InvertedResidual(nn.Module):
    """Expand, convolve each channel by itself, squeeze-and-excite, project; a shortcut if it fits.

    Args:
        block: Its numbers.
        norm: Epsilon and momentum of the norms.
    """

    def __init__(self, block: Block, norm: tuple[float, float]) -> None:
        super().__init__()
        self.shortcut = block.stride == 1 and block.inputs == block.outputs
        a, t, act = block.inputs, block.expanded, block.activation
        layers = _convolution(a, t, 1, norm, act) if t != a else []
        layers += _convolution(t, t, block.kernel, norm, act, stride=block.stride, groups=t)
        if block.squeeze:
            layers.append(SqueezeExcite(t, block.squeeze))
        layers += _convolution(t, block.outputs, 1, norm, None)
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, outputs, h / stride, w / stride), from x of shape (n, inputs, h, w)."""
        found: Tensor = self.body(x)
        return x + found if self.shortcut else found


def mobile_network(ends: Ends, blocks: Sequence[Block], classes: int) -> nn.Sequential:
    """The whole network: images (n, 3, h, w) in, logits (n, classes) out; dropout 0.2."""
    act, norm = ends.activation, ends.norm
    hidden: list[nn.Module] = []
    if ends.hidden:
        hidden = [nn.Linear(ends.last, ends.hidden), _ACTIVATIONS[act]()]
    return nn.Sequential(
        *_convolution(3, ends.stem, 3, norm, act, stride=2),
        *(InvertedResidual(block, norm) for block in blocks),
        *_convolution(blocks[-1].outputs, ends.last, 1, norm, act),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        *hidden,
        nn.Dropout(0.2),
        nn.Linear(ends.hidden or ends.last, classes),
    )
