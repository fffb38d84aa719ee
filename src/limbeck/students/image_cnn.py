"""Students for images: a small residual network over squares of pixels.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Section 3.3 (blocks of
two convolutions of 3 x 3, a global mean); Ioffe and Szegedy, "Batch Normalization", ICML 2015 (its
scales melt into the convolutions at export, where other norms stay and cost time).
Departures, for speed on a CPU: blocks only where maps are about 8 x 8 and 4 x 4, with three times
the channels in the latter; before them one convolution for every halving.
"""

import inspect
import math
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Literal, Self, get_args

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.data import pixels
from limbeck.data.decoding import decode_rows
from limbeck.data.pieces import pieces, row_bytes
from limbeck.data.schema import Schema
from limbeck.data.workers import map_with_help
from limbeck.errors import ConfigError, DataError
from limbeck.students import augment
from limbeck.students.base import Encoder, Ragged, StudentModule, seeded_linear
from limbeck.students.sampling import spaced

Variation = Literal["none", "light", "rand"]

LEAST, MOST = 8, 224
"""Sides that the network works with, pixels."""
SAMPLED_ROWS = 1_000
"""At most so many rows are decoded to learn size, channels, mean and deviation."""
_LARGEST_DEFAULT = 64
_THREADED_BYTES = 16_384  # smaller files are decoded before a thread has begun
_LUMA = np.array([[0.299], [0.587], [0.114]])  # how Pillow mixes grey


@dataclass(frozen=True, slots=True)
class ImageCnnConfig:
    """Settings of `image_cnn`. The defaults make a student of 0.55 MB."""

    size: int = 0
    """Side of the square that every image is squeezed into, pixels, in [8, 224]. Default 0: half of
    the rows are no larger (the longer side counts), at most 64."""
    channels: int = 0
    """1 for grey, 3 for RGB. Default 0: grey where all rows are, RGB files without colour too."""
    width: int = 32
    """Channels of all maps but the last, of about 4 x 4, which has three times as many: their mean
    is the student's embedding; in [1, 1024]."""
    blocks: int = 1
    """Residual blocks at each of the last two map sizes, in [1, 16]."""
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
        if not 1 <= self.blocks <= 16:
            raise ConfigError(f"blocks={self.blocks}: image_cnn needs blocks in [1, 16].")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: must be in [0, 1); 0 turns dropout off.")
        if self.augment not in get_args(Variation):
            raise ConfigError(f"augment={self.augment!r}: must be none, light or rand.")

    @classmethod
    def large(cls) -> Self:
        """A teacher's size: two blocks of 64 channels and two of 192, 5.1 MB."""
        return cls(width=64, blocks=2)


class ImageCnnEncoder(Encoder):
    """Decodes the files of an image column into squares of one size."""

    kind: ClassVar[str] = "image_cnn"
    portable_packages: ClassVar[tuple[str, ...]] = ("numpy", "pillow")
    same_lengths: ClassVar[bool] = True
    slow_to_fit: ClassVar[bool] = True

    def __init__(
        self,
        column: str,
        config: ImageCnnConfig,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        """Use `fit`: `config` has size and channels, `mean` and `std` are of each channel."""
        self.column = column
        self.config = config
        self.mean = mean
        self.std = std

    @classmethod
    def fit(cls, batches: Iterable[pa.RecordBatch], schema: Schema, settings: object) -> Self:
        """Learn size, channels, mean and deviation from at most 1,000 rows, evenly spaced.

        Raises:
            ConfigError: the schema has no image column, or several.
            DataError: there are no rows, or one cannot be decoded.
        """
        if not isinstance(settings, ImageCnnConfig):
            raise ConfigError(f"image_cnn needs an ImageCnnConfig, got {type(settings).__name__}.")
        column = _only_column(schema)
        scalars = (file for batch in batches for file in batch.column(column))
        with warnings.catch_warnings(action="ignore"):  # as in `encode`
            seen = spaced(
                scalars, SAMPLED_ROWS, lambda file: _look(file.as_py(), settings.size, column)
            )
        if not seen:
            raise DataError("image_cnn learns the size of its images but got 0 rows; give it some.")
        channels = settings.channels or (1 if all(one.grey for one in seen) else 3)
        size = settings.size or sorted(one.side for one in seen)[(len(seen) - 1) // 2]
        chosen = {**asdict(settings), "size": size, "channels": channels}
        mean, std = _moments(seen, channels)
        return cls(column, ImageCnnConfig(**chosen), mean, std)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """uint8."""
        return np.dtype(np.uint8)

    def encode(self, rows: pa.RecordBatch) -> Ragged:
        """Decode rows; each has size x size x channels values, channels last.

        Raises:
            DataError: a row is missing or cannot be decoded.
        """
        size, channels = self.config.size, self.config.channels
        files = rows.column(self.column).to_pylist()

        def one(file: bytes | None) -> NDArray[np.uint8]:
            return _decoded(file, size, channels, self.column)

        # Pillow warns of what is oddly written; it can be used, or raises.
        with warnings.catch_warnings(action="ignore"):
            if sum(len(file or b"") for file in files) > _THREADED_BYTES * len(files):
                # Decoding lets other threads of Python run meanwhile.
                with ThreadPoolExecutor(os.cpu_count()) as threads:
                    squares = list(threads.map(one, files))
            else:
                squares = [one(file) for file in files]
        values = np.stack(squares).reshape(-1) if squares else np.empty(0, dtype=np.uint8)
        return Ragged(values, np.full(len(files), size * size * channels, dtype=np.int64))

    def encode_all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Ragged]:
        """Decode batches, in worker processes where it takes long.

        Raises:
            DataError: a row is missing or cannot be decoded.
        """
        size, channels = self.config.size, self.config.channels
        waiting: deque[int] = deque()

        def work() -> Iterator[tuple[list[bytes | None], int, int]]:
            for batch in batches:
                files = batch.select([self.column])
                # A batch of photographs can be gigabytes.
                cut = list(pieces(row_bytes(files))) or [slice(0, 0)]
                waiting.append(len(cut))
                for piece in cut:
                    part = files.column(0).slice(piece.start, piece.stop - piece.start)
                    yield part.to_pylist(), size, channels

        done: list[NDArray[np.uint8]] = []
        try:
            for squares in map_with_help(decode_rows, work()):
                done.append(squares)
                if len(done) == waiting[0]:
                    waiting.popleft()
                    whole, done = np.concatenate(done), []
                    yield Ragged(whole.reshape(-1), np.full(len(whole), whole.shape[1], np.int64))
        except ValueError as error:
            raise _refusal(error, self.column) from error

    def collate(self, rows: Ragged) -> dict[str, Tensor]:
        """Give `images` uint8 (B, channels, size, size), channels last in memory."""
        values = np.array(rows.values)  # a copy: the store's bytes are read-only
        return {"images": _squares(torch.from_numpy(values), self.config)}

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Move, and as the settings say vary and mirror, each image."""
        images = inputs["images"]
        if self.config.augment != "none":
            images = augment.random_crop(images, self.config.size // 8, generator)
        if self.config.augment == "rand":
            images = augment.rand_augment(images, generator)
        if self.config.flip:
            images = augment.random_flip(images, generator)
        return {"images": images}

    def to_config(self) -> dict[str, object]:
        """Column, settings, and what was learnt."""
        learnt = {"mean": list(self.mean), "std": list(self.std)}
        return {"column": self.column, **asdict(self.config), **learnt}

    @classmethod
    def from_config(cls, config: dict[str, object]) -> Self:
        """Build the encoder that `to_config` described."""
        settings = {f.name: config[f.name] for f in fields(ImageCnnConfig)}
        column, mean, std = config["column"], config["mean"], config["std"]
        if not isinstance(column, str) or not isinstance(mean, list) or not isinstance(std, list):
            raise ConfigError(
                f"column={column!r}, mean={mean!r}, std={std!r}: image_cnn needs a name and two "
                f"lists."
            )
        made = ImageCnnConfig(**settings)  # type: ignore[arg-type] # JSON values; checked by __post_init__
        return cls(column, made, tuple(mean), tuple(std))

    def portable_source(self) -> str:
        """The decoding file and a function that applies it to dicts."""
        return "\n\n".join((inspect.getsource(pixels), _PORTABLE_ENCODE))


_PORTABLE_ENCODE = '''
def encode(rows: list[dict], encoder: dict) -> np.ndarray:
    """Turn rows, whose images are paths or the bytes of files, into pixels, uint8 (n, width)."""
    size, channels = encoder["size"], encoder["channels"]
    files = [row[encoder["column"]] for row in rows]
    files = [file if isinstance(file, bytes) else Path(file).read_bytes() for file in files]
    return np.stack([decode(file, size, channels).reshape(-1) for file in files])
'''.strip()


@dataclass(frozen=True, slots=True)
class _Seen:
    """One image of the sample: side in pixels, and moments of R, G, B and grey in [0, 255]."""

    side: int
    grey: bool
    mean: NDArray[np.float64]
    square: NDArray[np.float64]


def _look(file: bytes | None, size: int, column: str) -> _Seen:
    try:
        side = size or min(max(LEAST, *pixels.open_image(file or b"").size), _LARGEST_DEFAULT)
    except ValueError as error:
        raise _refusal(error, column) from error
    square = _decoded(file, side, 3, column).astype(np.float64)
    colours = np.concatenate([square, square @ _LUMA], axis=2)
    grey = bool((square == square[:, :, :1]).all())
    return _Seen(side, grey, colours.mean(axis=(0, 1)), (colours**2).mean(axis=(0, 1)))


def _decoded(file: bytes | None, size: int, channels: int, column: str) -> NDArray[np.uint8]:
    try:
        return pixels.decode(file or b"", size, channels)
    except ValueError as error:
        raise _refusal(error, column) from error


def _refusal(error: ValueError, column: str) -> DataError:
    return DataError(
        f"an image of the column '{column}' cannot be used: {error}; leave its row out, or save it "
        f"again as PNG or JPEG."
    )


def _moments(seen: list[_Seen], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, every image counting the same."""
    place = slice(3, 4) if channels == 1 else slice(0, 3)
    mean = np.mean([one.mean for one in seen], axis=0)[place]
    square = np.mean([one.square for one in seen], axis=0)[place]
    # Images of one colour have no deviation; one level of 255 is the finest there is.
    std = np.sqrt(np.maximum(square - mean**2, 1.0))
    return tuple(mean.tolist()), tuple(std.tolist())


def _only_column(schema: Schema) -> str:
    if len(schema.image) != 1:
        found = f"{len(schema.image)} ({', '.join(schema.image)})" if schema.image else "none"
        raise ConfigError(
            f"image_cnn reads one image column but the schema has {found} (its inputs: "
            f"{', '.join(schema.inputs) or 'nothing'}); name one image column, or use another "
            f"student."
        )
    return schema.image[0]


def _squares(values: Tensor, config: ImageCnnConfig) -> Tensor:
    """Rows of pixels, channels last, as (B, channels, size, size)."""
    return values.view(-1, config.size, config.size, config.channels).permute(0, 3, 1, 2)


def halvings(size: int) -> int:
    """How often a map is halved until its side is about 4 (3 to 6)."""
    return max(1, round(math.log2(size / 4)))


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
        out: Tensor = self.norm(self.conv(x))
        return out


class Residual(nn.Module):
    """Two convolutions of 3 x 3, added to what came in (where shapes differ, to 1 x 1 of it)."""

    def __init__(self, inputs: int, outputs: int, stride: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = Convolution(inputs, outputs, 3, stride, generator)
        self.second = Convolution(outputs, outputs, 3, 1, generator)
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
        encoder: ImageCnnEncoder,
        config: ImageCnnConfig,
        width: int,
        generator: torch.Generator,
    ) -> None:
        """Draw all weights from `generator`; `width` is the head's number of outputs."""
        super().__init__()
        self.settings = config
        self.embedding_dim = 3 * config.width
        self.encoded = encoder.config
        # The encoder is what keeps them: weights of a folder cannot contradict it.
        for name, values in (("mean", encoder.mean), ("std", encoder.std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        times = halvings(encoder.config.size)
        stages = [config.width, 3 * config.width][-times:]
        channels = config.width
        halved = times - len(stages)
        stem = [Convolution(encoder.config.channels, channels, 3, 2 if halved else 1, generator)]
        stem += [Convolution(channels, channels, 3, 2, generator) for _ in range(halved - 1)]
        self.stem = nn.ModuleList(stem)
        body: list[nn.Module] = []
        for outputs in stages:
            for block in range(config.blocks):
                body.append(Residual(channels, outputs, 1 if block else 2, generator))
                channels = outputs
        self.body = nn.ModuleList(body)
        self.dropout = nn.Dropout(config.dropout)
        self.head = seeded_linear(self.embedding_dim, width, generator)

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Embed `images` (B, channels, size, size), in [0, 255], shape (B, 3 width)."""
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
        return self.embed({"images": _squares(padded, self.encoded)})
