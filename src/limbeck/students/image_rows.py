"""Images as the rows of pixels that `image_cnn` reads: size and scale learnt, decoded, varied."""

import inspect
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.data import pixels
from limbeck.data.decoding import decode_rows
from limbeck.data.pieces import pieces, row_bytes
from limbeck.data.schema import Schema
from limbeck.data.workers import map_with_help
from limbeck.errors import ConfigError, DataError
from limbeck.students import augment
from limbeck.students.base import Encoder, Ragged
from limbeck.students.image_cnn import LEAST, ImageCnnConfig, squares
from limbeck.students.sampling import spaced

SAMPLED_ROWS = 1_000
"""At most so many rows are decoded to learn size, channels, mean and deviation."""
_LARGEST_DEFAULT = 64
_THREADED_BYTES = 16_384  # smaller files are decoded before a thread has begun
_LUMA = np.array([[0.299], [0.587], [0.114]])  # how Pillow mixes grey


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
        return {"images": squares(torch.from_numpy(values), self.config)}

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
        # Folders written before stages could be set have not all of them.
        settings = {f.name: config.get(f.name, f.default) for f in fields(ImageCnnConfig)}
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
