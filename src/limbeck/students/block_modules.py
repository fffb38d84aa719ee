"""Blocks and whole students as modules of one input, to be run and timed."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.search.space import Architecture
from limbeck.students.bags import bag_sum
from limbeck.students.base import StudentModule, seeded_linear
from limbeck.students.blocks import Block
from limbeck.students.image_cnn import Convolution, ImageCnnConfig, Residual, Stage, squares
from limbeck.students.image_rows import ImageCnnEncoder
from limbeck.students.search_spaces import StudentSpace
from limbeck.students.text_bag import TextBagConfig
from limbeck.students.text_transformer import (
    AttendPresent,
    TextTransformerConfig,
    attend_within,
    look_up,
    token_sums,
)
from limbeck.students.text_transformer import Block as TransformerBlock
from limbeck.students.tokens import FIRST


class Runnable(NamedTuple):
    """A module and what it is called with.

    Args:
        module: In evaluation mode, weights random.
        example: Its one input: a row, or what the block before would give, values random.
    """

    module: nn.Module
    example: Tensor


def block_module(
    block: Block, space: StudentSpace, generator: torch.Generator, *, padded: bool = False
) -> Runnable:
    """A block by itself.

    Args:
        block: Of `blocks_of(space, ...)`.
        space: The space of the student.
        generator: Draws weights and input.
        padded: The form of an ONNX file, whose rows are laid out as `pad_rows` does, instead of the
            form that PyTorch runs.
    """
    made = _PARTS[block.part](space, generator, padded, *block.sizes)
    return Runnable(made.module.eval(), made.example)


def student_module(
    space: StudentSpace,
    architecture: Architecture,
    generator: torch.Generator,
    *,
    length: int | None = None,
    padded: bool = False,
) -> Runnable:
    """A whole student, from a row to the outputs of its head.

    Args:
        space: The space of the student.
        architecture: Positions of its options.
        generator: Draws weights and row.
        length: Entries of the row, for texts. Default: the length that the space costs.
        padded: As for `block_module`.
    """
    module = space.build(architecture, generator)
    settings, length = space.settings(architecture), length or space.length or 1
    whole = _Whole(module, padded).eval()
    if isinstance(settings, ImageCnnConfig):
        return Runnable(whole, _images(space, generator, padded))
    if isinstance(settings, TextBagConfig):
        return Runnable(whole, _bag_ids(settings.buckets, length, generator, padded))
    assert isinstance(module.table, Tensor)
    return Runnable(whole, _ids(FIRST, len(module.table), length, generator))


class _Whole(nn.Module):
    """One tensor in, as `collate` or `pad_rows` gives it; outputs of the head out."""

    def __init__(self, module: StudentModule, padded: bool) -> None:
        super().__init__()
        self.module, self.padded = module, padded
        self.name = "images" if isinstance(module.settings, ImageCnnConfig) else "ids"
        self.bag = isinstance(module.settings, TextBagConfig)

    def forward(self, rows: Tensor) -> Tensor:
        if self.padded:
            out: Tensor = self.module.head(self.module.embed_padded(rows))
            return out
        offsets = {"offsets": rows.new_zeros(1)} if self.bag else {}
        made: Tensor = self.module({self.name: rows, **offsets}).outputs
        return made


class _Stem(nn.Module):
    """Pixels to the first map."""

    mean: Tensor

    def __init__(self, convolution: Convolution, config: ImageCnnConfig, padded: bool) -> None:
        super().__init__()
        self.convolution, self.config, self.padded = convolution, config, padded
        self.register_buffer("mean", torch.full((config.channels, 1, 1), 128.0))

    def forward(self, images: Tensor) -> Tensor:
        if self.padded:
            images = squares(images, self.config)
        return F.relu(self.convolution((images.to(self.mean.dtype) - self.mean) / self.mean))


class _Mean(nn.Module):
    """The mean of a map, and the head."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.mean(dim=(2, 3)))
        return out


class _Tokens(nn.Module):
    """Ids to token vectors."""

    def __init__(self, vocabulary: int, dim: int, length: int, padded: bool) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(vocabulary, dim))
        self.positions = nn.Parameter(torch.zeros(length, dim))
        self.padded = padded

    def forward(self, ids: Tensor) -> Tensor:
        present = ids != 0
        if self.padded:
            places = torch.arange(ids.shape[1], device=ids.device)
            return F.embedding(ids, self.table) + F.embedding(places, self.positions)
        places = present.flatten().nonzero().squeeze(1)
        token = ids.flatten()[places]
        return look_up(self.table, token) + look_up(self.positions, places % ids.shape[1])


class _Attention(nn.Module):
    """One block of a transformer, over a row of tokens without padding."""

    def __init__(self, block: TransformerBlock, heads: int, length: int, padded: bool) -> None:
        super().__init__()
        self.block = block
        present = torch.ones(1, length, dtype=torch.bool)
        self.attend: Callable[[Tensor], Tensor] = AttendPresent(
            present, torch.arange(length), heads
        )
        if padded:
            mask = present[:, None, None, :]
            self.attend = lambda qkv: attend_within(qkv, heads, mask)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x, self.attend)
        return out


class _Pool(nn.Module):
    """The last norm, the mean over tokens, and the head."""

    def __init__(self, head: nn.Linear, length: int, padded: bool) -> None:
        super().__init__()
        self.norm, self.head, self.padded = nn.LayerNorm(head.in_features), head, padded
        self.present = torch.ones(1, length, dtype=torch.bool)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        if self.padded:
            total, counts = (x * self.present.unsqueeze(2)).sum(dim=1), self.present.sum(dim=1)
        else:
            total, counts = token_sums(x, self.present)
        out: Tensor = self.head(total / counts.clamp_min(1).to(total.dtype).unsqueeze(1))
        return out


class _Bag(nn.Module):
    """Bucket numbers to the sum of their vectors."""

    def __init__(self, buckets: int, dim: int, padded: bool) -> None:
        super().__init__()
        self.table, self.padded = nn.Parameter(torch.zeros(buckets, dim)), padded

    def forward(self, ids: Tensor) -> Tensor:
        if self.padded:
            return F.embedding(ids, self.table).sum(dim=1)
        return bag_sum(ids, self.table, ids.new_zeros(1))


class _Hidden(nn.Module):
    """The hidden layer of a bag, and the head."""

    def __init__(self, hidden: nn.Linear, head: nn.Linear) -> None:
        super().__init__()
        self.hidden, self.head = hidden, head

    def forward(self, total: Tensor) -> Tensor:
        out: Tensor = self.head(F.relu(self.hidden(total)))
        return out


def _stem(space: StudentSpace, generator: torch.Generator, padded: bool, *sizes: int) -> Runnable:
    channels, width, _, stride = sizes
    convolution = Convolution(channels, width, 3, stride, generator)
    stem = _Stem(convolution, _image_config(space), padded)
    return Runnable(stem, _images(space, generator, padded))


def _halving(
    space: StudentSpace, generator: torch.Generator, padded: bool, width: int, side: int
) -> Runnable:
    module = nn.Sequential(Convolution(width, width, 3, 2, generator), nn.ReLU())
    return Runnable(module, _map(width, side, generator, padded))


def _residual(
    space: StudentSpace, generator: torch.Generator, padded: bool, *sizes: int
) -> Runnable:
    inputs, inner, outputs, kernel, side, stride = sizes
    module = Residual(inputs, Stage(outputs, inner, 1, kernel), stride, generator)
    return Runnable(module, _map(inputs, side, generator, padded))


def _head(space: StudentSpace, generator: torch.Generator, padded: bool, *sizes: int) -> Runnable:
    inputs, side, outputs = sizes
    module = _Mean(seeded_linear(inputs, outputs, generator))
    return Runnable(module, _map(inputs, side, generator, padded))


def _tokens(space: StudentSpace, generator: torch.Generator, padded: bool, *sizes: int) -> Runnable:
    vocabulary, dim, length = sizes
    return Runnable(
        _Tokens(vocabulary, dim, length, padded), _ids(FIRST, vocabulary, length, generator)
    )


def _attention(
    space: StudentSpace, generator: torch.Generator, padded: bool, *sizes: int
) -> Runnable:
    dim, heads, hidden, length = sizes
    config = TextTransformerConfig(dim=dim, heads=heads, hidden_multiple=hidden // dim)
    module = _Attention(TransformerBlock(config, generator), heads, length, padded)
    return Runnable(module, _vectors(length, dim, generator, padded))


def _pool(space: StudentSpace, generator: torch.Generator, padded: bool, *sizes: int) -> Runnable:
    dim, length, outputs = sizes
    module = _Pool(seeded_linear(dim, outputs, generator), length, padded)
    return Runnable(module, _vectors(length, dim, generator, padded))


def _bag(space: StudentSpace, generator: torch.Generator, padded: bool, *sizes: int) -> Runnable:
    buckets, dim, length = sizes
    return Runnable(_Bag(buckets, dim, padded), _bag_ids(buckets, length, generator, padded))


def _hidden(space: StudentSpace, generator: torch.Generator, padded: bool, *sizes: int) -> Runnable:
    dim, hidden, outputs = sizes
    module = _Hidden(
        seeded_linear(dim, hidden, generator), seeded_linear(hidden, outputs, generator)
    )
    return Runnable(module, torch.randn(1, dim, generator=generator))


_PARTS: dict[str, Callable[..., Runnable]] = {
    "stem": _stem,
    "halving": _halving,
    "residual": _residual,
    "head": _head,
    "tokens": _tokens,
    "attention": _attention,
    "pool": _pool,
    "bag": _bag,
    "hidden": _hidden,
}


def _image_config(space: StudentSpace) -> ImageCnnConfig:
    assert isinstance(space.encoder, ImageCnnEncoder)
    return space.encoder.config


def _images(space: StudentSpace, generator: torch.Generator, padded: bool) -> Tensor:
    config = _image_config(space)
    width = config.size**2 * config.channels
    rows = torch.randint(256, (1, width), generator=generator, dtype=torch.uint8)
    return rows if padded else squares(rows, config)


def _map(channels: int, side: int, generator: torch.Generator, padded: bool) -> Tensor:
    """Laid out in memory as the block before leaves it: PyTorch keeps the order of the pixels."""
    made = torch.randn(1, channels, side, side, generator=generator).relu()
    return made if padded else made.contiguous(memory_format=torch.channels_last)


def _vectors(length: int, dim: int, generator: torch.Generator, padded: bool) -> Tensor:
    made = torch.randn(length, dim, generator=generator)
    return made[None] if padded else made


def _ids(low: int, high: int, length: int, generator: torch.Generator) -> Tensor:
    return torch.randint(low, high, (1, length), generator=generator)


def _bag_ids(buckets: int, length: int, generator: torch.Generator, padded: bool) -> Tensor:
    ids = _ids(1, buckets, length, generator)
    return ids if padded else ids[0]
