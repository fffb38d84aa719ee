"""Students for images: a small residual network over squares of pixels.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Section 3.3 (blocks of
two convolutions of 3 x 3, a global mean); Ioffe and Szegedy, "Batch Normalization", ICML 2015 (its
scales melt into the convolutions at export, where other norms stay and cost time).
Departures, for speed on a CPU: blocks only where maps are about 8 x 8 and 4 x 4, with three times
the channels in the latter; before them one convolution for every halving. Widths, depths, kernels
and the channels inside a block can be set by stage, so that they can be searched.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.errors import ConfigError
from limbeck.students.base import StudentModule, seeded_linear

if TYPE_CHECKING:
    from limbeck.students.image_rows import ImageCnnEncoder

Variation = Literal["none", "light", "rand"]

LEAST, MOST = 8, 224
"""Sides that the network works with, pixels."""
KERNELS = (3, 5)
EXPANSIONS = (0.5, 1.0, 2.0)
_LAST = 3
"""Channels of the last stage over those of the others, where nothing is said."""


@dataclass(frozen=True, slots=True)
class ImageCnnConfig:
    """Settings of `image_cnn`. The defaults make a student of 0.55 MB."""

    size: int = 0
    """Side of the square that every image is squeezed into, pixels, in [8, 224]. Default 0: half of
    the rows are no larger (the longer side counts), at most 64."""
    channels: int = 0
    """1 for grey, 3 for RGB. Default 0: grey where all rows are, RGB files without colour too."""
    width: int = 32
    """Channels of all maps but the last, in [1, 1024]."""
    last_width: int = 0
    """Channels of the last maps, of about 4 x 4, whose mean is the student's embedding, in
    [1, 3072]. Default 0: three times `width`."""
    blocks: int = 1
    """Residual blocks at maps of about 8 x 8, in [1, 16]; below 12 pixels there are none."""
    last_blocks: int = 0
    """Residual blocks at the last maps, in [1, 16]. Default 0: as many as `blocks` says."""
    kernel: int = 3
    """Side of the convolutions of the blocks at about 8 x 8: 3 or 5."""
    last_kernel: int = 3
    """Side of the convolutions of the blocks at the last maps: 3 or 5."""
    expansion: float = 1.0
    """Channels between the two convolutions of a block over those it gives, rounded up: 0.5, 1 or
    2."""
    dropout: float = 0.1
    """Share of the embedding dropped in training, in [0, 1)."""
    augment: Variation = "light"
    """Variation of training rows: none; light, moved by up to an eighth of the side; or rand, light
    and two operations of RandAugment."""
    flip: bool = False
    """Mirror half of the training rows. Default false: letters, digits, signs and most documents
    change their meaning; turn it on for things and scenes."""

    recommended_lr: ClassVar[float] = 3e-3
    """Peak learning rate of AdamW in batches of 256 rows."""

    def __post_init__(self) -> None:
        if self.size != 0 and not LEAST <= self.size <= MOST:
            raise ConfigError(
                f"size={self.size}: image_cnn needs size in [{LEAST}, {MOST}], or 0 to choose it."
            )
        if self.channels not in (0, 1, 3):
            raise ConfigError(
                f"channels={self.channels}: image_cnn reads 1 (grey) or 3 (RGB); 0 chooses."
            )
        if not 1 <= self.width <= 1024:
            raise ConfigError(f"width={self.width}: image_cnn needs width in [1, 1024].")
        if not 0 <= self.last_width <= 1024 * _LAST:
            raise ConfigError(
                f"last_width={self.last_width}: image_cnn needs last_width in [1, {1024 * _LAST}], "
                f"or 0 for three times the width."
            )
        if not 1 <= self.blocks <= 16:
            raise ConfigError(f"blocks={self.blocks}: image_cnn needs blocks in [1, 16].")
        if not 0 <= self.last_blocks <= 16:
            raise ConfigError(
                f"last_blocks={self.last_blocks}: image_cnn needs last_blocks in [1, 16], or 0 for "
                f"as many as blocks."
            )
        for name, side in (("kernel", self.kernel), ("last_kernel", self.last_kernel)):
            if side not in KERNELS:
                raise ConfigError(f"{name}={side}: image_cnn needs {name} 3 or 5.")
        if self.expansion not in EXPANSIONS:
            raise ConfigError(f"expansion={self.expansion}: image_cnn needs 0.5, 1 or 2.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: must be in [0, 1); 0 turns dropout off.")
        if self.augment not in get_args(Variation):
            raise ConfigError(f"augment={self.augment!r}: must be none, light or rand.")

    @classmethod
    def large(cls) -> Self:
        """A teacher's size: two blocks of 64 channels and two of 192, 5.1 MB."""
        return cls(width=64, blocks=2)


_FEW = 8
"""Channels below which a strided kernel of one point is not left to PyTorch."""


class Stage(NamedTuple):
    """Residual blocks at maps of one size, of which the first halves them.

    Args:
        width: Channels that each block gives.
        inner: Channels between its two convolutions.
        blocks: How many.
        kernel: Side of the convolutions.
    """

    width: int
    inner: int
    blocks: int
    kernel: int


def stages(config: ImageCnnConfig, size: int) -> tuple[Stage, ...]:
    """The one or two stages of the network for images of `size` pixels."""

    def stage(width: int, blocks: int, kernel: int) -> Stage:
        return Stage(width, math.ceil(config.expansion * width), blocks, kernel)

    last_width = config.last_width or _LAST * config.width
    last = stage(last_width, config.last_blocks or config.blocks, config.last_kernel)
    if halvings(size) == 1:
        return (last,)
    return stage(config.width, config.blocks, config.kernel), last


def squares(values: Tensor, config: ImageCnnConfig) -> Tensor:
    """Rows of pixels, channels last, as (B, channels, size, size)."""
    return values.view(-1, config.size, config.size, config.channels).permute(0, 3, 1, 2)


def halvings(size: int) -> int:
    """How often a map is halved until its side is about 4 (3 to 6)."""
    return max(1, round(math.log2(size / 4)))


def halved(side: int) -> int:
    """Side of a map after a convolution of stride 2."""
    return (side + 1) // 2


class Convolution(nn.Module):
    """A convolution without bias and its batch normalisation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, generator: torch.Generator
    ) -> None:
        """Draw weights as `seeded_linear` does, from `generator` alone."""
        super().__init__()
        self.conv: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call] # torch has no annotation
            nn.Conv2d, inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        with torch.no_grad():
            bound = (6 / (inputs * kernel**2)) ** 0.5
            self.conv.weight.uniform_(-bound, bound, generator=generator)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, inputs, H, W) to (B, outputs, H / stride, W / stride), rounded up."""
        out: Tensor = self.norm(convolve(x, self.conv.weight, self.conv.stride[0]))
        return out


def convolve(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """A convolution that keeps the side of maps, but for the stride.

    A stride is taken before a kernel of one point where channels are few, which is the same sum:
    PyTorch's own way (2.13, maps with channels last) writes beyond its memory on the way back.
    """
    side = weight.shape[-1]
    if side == 1 and stride > 1 and x.shape[1] < _FEW:
        return F.conv2d(x[:, :, ::stride, ::stride], weight)
    return F.conv2d(x, weight, stride=stride, padding=side // 2)


class Residual(nn.Module):
    """Two convolutions, added to what came in (where shapes differ, to 1 x 1 of it)."""

    def __init__(self, inputs: int, stage: Stage, stride: int, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inner, _, kernel = stage
        self.first = Convolution(inputs, inner, kernel, stride, generator)
        self.second = Convolution(inner, outputs, kernel, 1, generator)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = Convolution(inputs, outputs, 1, stride, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, inputs, H, W) to (B, outputs, H / stride, W / stride), rounded up."""
        return F.relu(self.second(F.relu(self.first(x))) + self.skip(x))


class ImageCnnModule(StudentModule):
    """Convolutions down to about 16 x 16, residual blocks at about 8 x 8 and 4 x 4, a mean."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: "ImageCnnEncoder",
        config: ImageCnnConfig,
        width: int,
        generator: torch.Generator,
    ) -> None:
        """Draw all weights from `generator`; `width` is the head's number of outputs."""
        super().__init__()
        self.settings = config
        found = stages(config, encoder.config.size)
        self.embedding_dim = found[-1].width
        self.encoded = encoder.config
        # The encoder is what keeps them: weights of a folder cannot contradict it.
        for name, values in (("mean", encoder.mean), ("std", encoder.std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        channels = config.width
        before = halvings(encoder.config.size) - len(found)
        stem = [Convolution(encoder.config.channels, channels, 3, 2 if before else 1, generator)]
        stem += [Convolution(channels, channels, 3, 2, generator) for _ in range(before - 1)]
        self.stem = nn.ModuleList(stem)
        body: list[nn.Module] = []
        for stage in found:
            for block in range(stage.blocks):
                body.append(Residual(channels, stage, 1 if block else 2, generator))
                channels = stage.width
        self.body = nn.ModuleList(body)
        self.dropout = nn.Dropout(config.dropout)
        self.head = seeded_linear(self.embedding_dim, width, generator)

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Embed `images` (B, channels, size, size), in [0, 255], shape (B, embedding_dim)."""
        images = inputs["images"]
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        for convolution in self.stem:
            x = F.relu(convolution(x))
        for block in self.body:
            x = block(x)
        embedding: Tensor = self.dropout(x.mean(dim=(2, 3)))
        return embedding

    def embed_padded(self, padded: Tensor) -> Tensor:
        """Embed rows of pixels, channels last, (B, size * size * channels)."""
        return self.embed({"images": squares(padded, self.encoded)})
