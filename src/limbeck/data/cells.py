"""Image columns as users have them (paths, bytes, or a struct of both), made into bytes.

While a file is read, an image is a cell `{bytes, path}` as Hugging Face writes them: `bytes` is
null where there is no image or its file cannot be read, `path` names it in messages. What is
staged are the bytes alone.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from limbeck.data.images import from_pillow, is_pixels, netpbm
from limbeck.data.pieces import pieces
from limbeck.errors import DataError

BYTES = pa.large_binary()
CELL = pa.struct([("bytes", BYTES), ("path", pa.large_string())])
MOST_FILE_BYTES = 256 << 20
"""Most bytes of an image file that is read."""


def opened(
    batch: pa.RecordBatch, names: Sequence[str], folder: Path, *, where: str
) -> Iterator[pa.RecordBatch]:
    """Read the images that rows name, a few megabytes at a time.

    Args:
        batch: Rows; images are paths, bytes or structs of both.
        names: The image columns.
        folder: What relative paths are relative to.
        where: Name of the file, used in messages.

    Yields:
        The same rows in order; image columns hold cells, with the path that was read.

    Raises:
        DataError: a column holds no images.
    """
    columns = {name: as_cells(batch.column(name), name, where=where) for name in names}
    sizes = np.zeros(batch.num_rows, np.int64)
    for cells in columns.values():
        sizes += _sizes(cells, folder)
    for piece in pieces(sizes):
        rows = batch.slice(piece.start, piece.stop - piece.start)
        arrays = [
            _read(columns[name].slice(piece.start, rows.num_rows), folder)
            if name in columns
            else rows.column(name)
            for name in batch.schema.names
        ]
        yield pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)


def as_cells(column: pa.Array, name: str, *, where: str) -> pa.StructArray:
    """A column of paths, bytes or structs as cells; no file is opened.

    Raises:
        DataError: it is of another type.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind, rows = column.type, len(column)
    data, paths = pa.nulls(rows, BYTES), pa.nulls(rows, pa.large_string())
    if is_cell(kind):
        fields = {field.name for field in kind}
        if "bytes" in fields:
            data = pc.struct_field(column, "bytes").cast(BYTES)
        if "path" in fields:
            paths = pc.struct_field(column, "path").cast(pa.large_string())
    elif is_bytes(kind):
        data = column.cast(BYTES)
    elif is_text(kind):
        paths = column.cast(pa.large_string())
    elif not pa.types.is_null(kind):
        raise DataError(
            f"{where}: image column '{name}' holds {kind}, expected paths, the bytes of image "
            f"files, or a struct of bytes and path; convert it or list it elsewhere."
        )
    paths = pc.if_else(pc.equal(paths, ""), pa.scalar(None, pa.large_string()), paths)
    return pa.StructArray.from_arrays([data, paths], fields=list(CELL))


def is_cell(kind: pa.DataType) -> bool:
    """Whether a type is a struct with the bytes or the path of an image."""
    if not pa.types.is_struct(kind):
        return False
    inner = {field.name: field.type for field in kind}
    return ("bytes" in inner and is_bytes(inner["bytes"])) or (
        "path" in inner and is_text(inner["path"])
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a type holds bytes of any number."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def image_column(column: pa.Array, name: str, *, where: str) -> pa.LargeBinaryArray:
    """A column of images as bytes; relative paths are taken from the current folder.

    Bytes that are missing stay null.

    Raises:
        DataError: the column holds no images, or a file cannot be read.
    """
    if is_bytes(column.type):
        return column.cast(BYTES)
    cells = _read(as_cells(column, name, where=where), Path())
    data = pc.struct_field(cells, "bytes")
    if data.null_count:
        row = int(np.argmax(data.is_null().to_numpy(zero_copy_only=False)))
        raise DataError(
            f"{where}: column '{name}': {fault_of(cells[row].as_py()['path'], row)}, expected the "
            f"file of an image; correct the path or leave the row out."
        )
    return data


def cells_of(values: Sequence[object], *, where: str) -> pa.Array | None:
    """Images in memory as cells: paths, bytes, Pillow images or uint8 arrays, mixed as they come.

    Returns:
        None when any value is something else.

    Raises:
        DataError: an array is no image.
    """
    cells = []
    for value in values:
        data = value if isinstance(value, bytes) else _memory_bytes(value, where)
        path = str(value) if isinstance(value, (str, Path)) else None
        if data is None and path is None and value is not None:
            return None
        cells.append({"bytes": data, "path": path})
    return pa.array(cells, CELL)


def _memory_bytes(value: object, where: str) -> bytes | None:
    if isinstance(value, Image.Image):
        return from_pillow(value)
    if not isinstance(value, np.ndarray):
        return None
    if not is_pixels(value.dtype, (1, *value.shape)):
        raise DataError(
            f"{where}: an image is an array of {value.dtype} with shape {value.shape}, expected "
            f"uint8 of shape (H, W), (H, W, 1) or (H, W, 3); convert it."
        )
    return netpbm(value)


def only_bytes(batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """Put the bytes of cells in their place; null where there are none."""
    for name in names:
        at = batch.schema.get_field_index(name)
        batch = batch.set_column(at, name, pc.struct_field(batch.column(at), "bytes"))
    return batch


def fault_of(path: str | None, row: int) -> str:
    """Why a cell has no bytes, in words."""
    if path is None:
        return f"row {row} has no image"
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # a path may hold a null character
        missing = not isinstance(error, PermissionError)
        return f"{path} {'does not exist' if missing else 'may not be read'}"
    if stat.S_ISDIR(found.st_mode):
        return f"{path} is a folder"
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is no file"
    if found.st_size > MOST_FILE_BYTES:
        return f"{path} is larger than {MOST_FILE_BYTES >> 20} MB"
    return f"{path} may not be read"


def _sizes(cells: pa.StructArray, folder: Path) -> NDArray[np.int64]:
    data, paths = (pc.struct_field(cells, name) for name in ("bytes", "path"))
    sizes = np.array(pc.fill_null(pc.binary_length(data), 0), np.int64)
    for row in _unread(data, paths):
        try:
            sizes[row] = os.stat(folder / paths[row].as_py()).st_size
        except (OSError, ValueError):
            sizes[row] = 0
    return sizes


def _read(cells: pa.StructArray, folder: Path) -> pa.StructArray:
    """Fill in the bytes of cells that have a path alone, where the file can be read."""
    data, paths = (pc.struct_field(cells, name) for name in ("bytes", "path"))
    unread = _unread(data, paths)
    if not len(unread):
        return cells
    values, names = data.to_pylist(), paths.to_pylist()
    for row in unread:
        path = folder / names[row]
        names[row], values[row] = str(path), _file_bytes(path)
    return pa.StructArray.from_arrays(
        [pa.array(values, BYTES), pa.array(names, pa.large_string())], fields=list(CELL)
    )


def _unread(data: pa.Array, paths: pa.Array) -> NDArray[np.int64]:
    wanted = pc.and_(data.is_null(), paths.is_valid())
    return np.flatnonzero(wanted.to_numpy(zero_copy_only=False))


def _file_bytes(path: Path) -> bytes | None:
    try:
        found = os.stat(path)
        # Opening a pipe or a device could wait for ever.
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_FILE_BYTES:
            return None
        return path.read_bytes()
    except (OSError, ValueError):
        return None
