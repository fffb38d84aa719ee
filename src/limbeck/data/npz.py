"""NumPy archives: vectors and matrices are columns, arrays of pixels are images.

Images are read a piece at a time, whatever the size of the archive; other arrays whole.
"""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy

from limbeck.data.cells import BYTES
from limbeck.data.images import is_pixels, netpbm
from limbeck.data.pieces import PIECE_BYTES
from limbeck.errors import DataError


def names(file: Path) -> list[str]:
    """Names of the columns, from the heads of the arrays."""
    return [name for array, _, shape in _heads(file) for name in _columns(array, shape)]


def sample(file: Path, rows: int) -> pa.Table:
    """The first rows."""
    batch = next(batches(file, names(file), rows), None)
    return pa.table({}) if batch is None else pa.Table.from_batches([batch])


def batches(file: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Stream columns, at most `rows` rows at a time.

    Raises:
        DataError: an array has another type or shape, or arrays differ in length.
    """
    wanted = set(columns)
    heads = [head for head in _heads(file) if wanted & set(_columns(head[0], head[2]))]
    total = heads[0][2][0] if heads else 0
    rows = min([rows, *(_piece_rows(shape) for _, _, shape in heads)])
    streams = [_stream(file, name, shape, rows) for name, _, shape in heads]
    for _ in range(0, total, rows):
        found = {name: column for stream in streams for name, column in next(stream).items()}
        yield pa.RecordBatch.from_arrays([found[name] for name in columns], names=list(columns))


def refused(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], where: str) -> str:
    """The sentence about an array that holds neither columns nor images."""
    return (
        f"{where}: array '{name}' is {dtype} of shape {shape}, expected (rows,), (rows, columns), "
        f"or images as uint8 of shape (n, H, W), (n, H, W, 1) or (n, H, W, 3); convert it, for "
        f"instance with (255 * x).astype('uint8')."
    )


def _heads(file: Path) -> list[tuple[str, np.dtype[np.generic], tuple[int, ...]]]:
    """Name, type and shape of every array."""
    heads = []
    with zipfile.ZipFile(file) as archive:
        for entry in archive.namelist():
            with archive.open(entry) as stream:
                shape, _, dtype = _head(stream)
            name = entry.removesuffix(".npy")
            if len(shape) not in (1, 2) and not is_pixels(dtype, shape):
                raise DataError(refused(name, dtype, shape, str(file)))
            heads.append((name, dtype, shape))
    sizes = {shape[0] for _, _, shape in heads}
    if len(sizes) > 1:
        raise DataError(
            f"{file}: arrays have {sorted(sizes)} rows, expected one number; save arrays of equal "
            f"length."
        )
    return heads


def _head(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return shape, fortran, dtype


def _columns(name: str, shape: tuple[int, ...]) -> list[str]:
    return [f"{name}{i}" for i in range(shape[1])] if len(shape) == 2 else [name]


def _piece_rows(shape: tuple[int, ...]) -> int:
    if len(shape) < 3:
        return 1 << 62
    return max(1, PIECE_BYTES // int(np.prod(shape[1:])))


def _stream(
    file: Path, name: str, shape: tuple[int, ...], rows: int
) -> Iterator[dict[str, pa.Array]]:
    if len(shape) < 3:
        with np.load(file, allow_pickle=False) as arrays:
            array = arrays[name]
        for start in range(0, shape[0], rows):
            part = array[start : start + rows]
            flat = [part] if part.ndim == 1 else list(part.T)
            yield {
                column: pa.array(np.ascontiguousarray(values))
                for column, values in zip(_columns(name, shape), flat, strict=True)
            }
        return
    with _pixels(file, name, shape, rows) as parts:
        for part in parts:
            yield {name: pa.array([netpbm(pixels) for pixels in part], BYTES)}


@contextmanager
def _pixels(
    file: Path, name: str, shape: tuple[int, ...], rows: int
) -> Iterator[Iterator[np.ndarray]]:
    """An array of images, `rows` of them at a time."""
    with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
        _, fortran, _ = _head(stream)
        if fortran:  # its first axis varies fastest, so no row lies in one piece
            with np.load(file, allow_pickle=False) as arrays:
                whole = arrays[name]
            yield (whole[start : start + rows] for start in range(0, shape[0], rows))
        else:
            yield _unpacked(stream, shape, rows)


def _unpacked(stream: IO[bytes], shape: tuple[int, ...], rows: int) -> Iterator[np.ndarray]:
    size = int(np.prod(shape[1:]))
    for start in range(0, shape[0], rows):
        count = min(rows, shape[0] - start)
        data = stream.read(count * size)
        yield np.frombuffer(data, np.uint8).reshape(count, *shape[1:])
