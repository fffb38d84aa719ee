"""Students as chains of blocks: what an architecture runs one after another, by sizes alone.

Settings of a student act together (a stage's time depends on its width, kernel and depth at once),
so no sum over settings gives its milliseconds; a sum over blocks nearly does.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from limbeck.errors import ConfigError
from limbeck.search.space import Architecture
from limbeck.students.image_cnn import ImageCnnConfig, halved, halvings, stages
from limbeck.students.image_rows import ImageCnnEncoder
from limbeck.students.search_spaces import StudentSpace
from limbeck.students.text_bag import TextBagConfig
from limbeck.students.text_transformer import TextTransformerConfig, TextTransformerEncoder

FLOAT = 4
"""Bytes of a number."""
MOST_ARCHITECTURES = 200_000
"""Of a space whose blocks can be enumerated, in some seconds."""


class Block(NamedTuple):
    """One link of the chain.

    Args:
        part: What it is: "stem", "halving", "residual", "head" (images); "tokens", "attention",
            "pool" (transformers); "bag", "hidden" (bags).
        sizes: What its time depends on, in the order of `SIZES[part]`.
    """

    part: str
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """A key for files, such as "residual 32 32 96 3 7 2"."""
        return " ".join(map(str, (self.part, *self.sizes)))

    @classmethod
    def named(cls, name: str) -> "Block":
        """The block of a `name`.

        Raises:
            ConfigError: there is no such part, or it has another number of sizes.
        """
        part, *sizes = name.split(" ")
        if part not in SIZES or len(sizes) != len(SIZES[part]) or not all(map(str.isdigit, sizes)):
            raise ConfigError(
                f"{name!r} is no block; write one of {', '.join(SIZES)} and its sizes, such as "
                f"'residual 32 32 96 3 7 2'."
            )
        return cls(part, tuple(map(int, sizes)))


SIZES: dict[str, tuple[str, ...]] = {
    "stem": ("channels", "width", "side", "stride"),
    "halving": ("width", "side"),
    "residual": ("inputs", "inner", "outputs", "kernel", "side", "stride"),
    "head": ("inputs", "side", "outputs"),
    "tokens": ("vocabulary", "dim", "length"),
    "attention": ("dim", "heads", "hidden", "length"),
    "pool": ("dim", "length", "outputs"),
    "bag": ("buckets", "dim", "length"),
    "hidden": ("dim", "hidden", "outputs"),
}
"""Names of the sizes of each part. A side is that of the map that comes in, in pixels; lengths are
token ids or n-grams."""


class Work(NamedTuple):
    """What a block does for one row.

    Args:
        macs: Multiply-adds.
        weights: Bytes of weights that are read, of a table those of the row's ids.
        maps: Bytes that come in and go out, those between its layers included.
    """

    macs: int
    weights: int
    maps: int


def blocks_of(
    space: StudentSpace, architecture: Sequence[int], *, length: int | None = None
) -> tuple[Block, ...]:
    """Blocks of an architecture from the first to the last, as often as each comes.

    Args:
        space: The space of the student.
        architecture: Positions of its options; valid.
        length: Entries of the row, for texts. Default: the length that the space costs.

    Raises:
        ConfigError: a text's length is not known.
    """
    settings = space.settings(architecture)
    if isinstance(settings, ImageCnnConfig):
        assert isinstance(space.encoder, ImageCnnEncoder)
        known = space.encoder.config
        return tuple(_image_blocks(settings, known.size, known.channels, space.classes))
    length = length or space.length
    if length is None:
        raise ConfigError(
            "the blocks of a text_bag depend on the n-grams of a row; give its length."
        )
    if isinstance(settings, TextTransformerConfig):
        assert isinstance(space.encoder, TextTransformerEncoder)
        return _transformer_blocks(settings, space.encoder.vocabulary, length, space.classes)
    return _bag_blocks(settings, length, space.classes)


def all_blocks(space: StudentSpace, *, length: int | None = None) -> tuple[Block, ...]:
    """Every block that an architecture of the space can have, each once, sorted.

    Raises:
        ConfigError: the space is too large to walk through.
    """
    found: set[Block] = set()
    for one in architectures(space):
        found.update(blocks_of(space, one, length=length))
    return tuple(sorted(found))


def architectures(space: StudentSpace) -> Iterator[Architecture]:
    """All valid architectures.

    Raises:
        ConfigError: there are too many.
    """
    if space.space.size > MOST_ARCHITECTURES:
        raise ConfigError(
            f"the space has {space.space.size:,} architectures but a table of blocks can cover "
            f"{MOST_ARCHITECTURES:,}; give fewer options."
        )
    for one in itertools.product(*map(range, space.space.sizes)):
        if space.space.valid(one):
            yield one


def work_of(block: Block) -> Work:
    """Multiply-adds and bytes of a block, from its sizes."""
    macs, weights, maps = _WORK[block.part](*block.sizes)
    return Work(macs, FLOAT * weights, FLOAT * maps)


def _image_blocks(
    config: ImageCnnConfig, size: int, channels: int, outputs: int
) -> Iterator[Block]:
    found = stages(config, size)
    inputs, before, side = config.width, halvings(size) - len(found), size
    yield Block("stem", (channels, inputs, side, 2 if before else 1))
    for _ in range(before - 1):
        side = halved(side)
        yield Block("halving", (inputs, side))
    side = halved(side) if before else side
    for width, inner, blocks, kernel in found:
        yield Block("residual", (inputs, inner, width, kernel, side, 2))
        side, inputs = halved(side), width
        for _ in range(blocks - 1):
            yield Block("residual", (width, inner, width, kernel, side, 1))
    yield Block("head", (inputs, side, outputs))


def _transformer_blocks(
    config: TextTransformerConfig, vocabulary: int, length: int, outputs: int
) -> tuple[Block, ...]:
    attention = Block(
        "attention", (config.dim, config.heads, config.hidden_multiple * config.dim, length)
    )
    return (
        Block("tokens", (vocabulary, config.dim, length)),
        *[attention] * config.layers,
        Block("pool", (config.dim, length, outputs)),
    )


def _bag_blocks(config: TextBagConfig, length: int, outputs: int) -> tuple[Block, ...]:
    return (
        Block("bag", (config.buckets, config.dim, length)),
        Block("hidden", (config.dim, config.hidden, outputs)),
    )


def _stem(channels: int, width: int, side: int, stride: int) -> tuple[int, int, int]:
    after = (halved(side) if stride == 2 else side) ** 2
    weights = 9 * channels * width
    return weights * after, weights, channels * side**2 + width * after


def _halving(width: int, side: int) -> tuple[int, int, int]:
    return _stem(width, width, side, 2)


def _residual(
    inputs: int, inner: int, outputs: int, kernel: int, side: int, stride: int
) -> tuple[int, int, int]:
    after = (halved(side) if stride == 2 else side) ** 2
    skip = inputs * outputs if stride > 1 or inputs != outputs else 0
    weights = (inputs + outputs) * inner * kernel**2 + skip
    return weights * after, weights, inputs * side**2 + (inner + outputs) * after


def _head(inputs: int, side: int, outputs: int) -> tuple[int, int, int]:
    return inputs * outputs, inputs * outputs, inputs * side**2 + inputs + outputs


def _tokens(_: int, dim: int, length: int) -> tuple[int, int, int]:
    return 0, 2 * length * dim, length * dim


def _attention(dim: int, _: int, hidden: int, length: int) -> tuple[int, int, int]:
    weights = 4 * dim**2 + 2 * dim * hidden
    return length * weights + 2 * length**2 * dim, weights, length * (6 * dim + hidden)


def _pool(dim: int, length: int, outputs: int) -> tuple[int, int, int]:
    return dim * outputs, dim * outputs, length * dim + dim + outputs


def _bag(_: int, dim: int, length: int) -> tuple[int, int, int]:
    return 0, length * dim, dim


def _hidden(dim: int, hidden: int, outputs: int) -> tuple[int, int, int]:
    weights = dim * hidden + hidden * outputs
    return weights, weights, dim + hidden + outputs


_WORK: dict[str, Callable[..., tuple[int, int, int]]] = {
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
