"""Rows that are in memory already, in whatever a user has: one Arrow table comes out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from limbeck.data.cells import BYTES, cells_of
from limbeck.data.columns import normalise
from limbeck.data.images import is_pixels, netpbm
from limbeck.data.jsonl import mixed_column
from limbeck.data.npz import refused
from limbeck.data.schema import Schema
from limbeck.errors import DataError


def as_table(rows: object, schema: Schema | None = None, *, where: str = "rows") -> pa.Table:
    """Make an Arrow table of rows.

    Args:
        rows: An Arrow table or batch, a dict of columns, a list of dicts, a list of strings (for a
            task with one text column), a 2-d numpy array (its columns are the numeric ones in
            order), a pandas or polars frame, a Hugging Face dataset, or any object with
            `to_arrow` or `__arrow_c_stream__`. For a task with one image column also a list of
            paths, bytes of image files or Pillow images, or a uint8 array of shape (n, H, W),
            (n, H, W, 1) or (n, H, W, 3). Relative paths start from the current folder.
        schema: The task. None keeps all columns with their types; a list of strings then becomes
            the column "text" and an array the columns x0, x1, ...
        where: What to call the rows in messages.

    Returns:
        With a schema just its inputs, in its types; else everything.

    Raises:
        DataError: the object is of another kind, columns differ in length, or one is missing, or an
            image is missing or cannot be read.
    """
    table = raw_table(rows, schema, where=where)
    if schema is None:
        return table
    batches = [normalise(batch, schema, where=where) for batch in table.to_batches()]
    if not batches:
        empty = pa.RecordBatch.from_pylist([], schema=table.schema)
        batches = [normalise(empty, schema, where=where)]
    for name in schema.image:
        _refuse_missing(batches, name, where)
    return pa.Table.from_batches(batches)


def as_batch(rows: object, schema: Schema, *, where: str = "rows") -> pa.RecordBatch:
    """The rows of `as_table` as one record batch, also when there are none."""
    table = as_table(rows, schema, where=where)
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def raw_table(rows: object, schema: Schema | None, *, where: str = "rows") -> pa.Table:
    """All columns of rows with the types that they came with.

    The schema only names columns that have no name of their own (strings, arrays).
    """
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, pa.RecordBatch):
        return pa.Table.from_batches([rows])
    if isinstance(rows, np.ndarray):
        return _from_array(rows, schema, where)
    if isinstance(rows, Mapping):
        return _from_columns({str(name): values for name, values in rows.items()}, where)
    if not isinstance(rows, (str, bytes)):
        arrow = _from_arrow_object(rows)
        if arrow is not None:
            return arrow
        if isinstance(rows, Sequence):
            return _from_sequence(rows, schema, where)
    raise DataError(
        f"{where} are a {type(rows).__name__}, expected a table: an Arrow table, a data frame, a "
        f"dict of columns, a list of dicts, a list of strings or a 2-d array; wrap one text as "
        f"[text]."
    )


def _from_arrow_object(rows: object) -> pa.Table | None:
    # A Hugging Face dataset gives rows in its own order only through its arrow format.
    if hasattr(rows, "with_format") and hasattr(rows, "__getitem__"):
        table = rows.with_format("arrow")[:]
        return table if isinstance(table, pa.Table) else None
    if hasattr(rows, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(rows).read_all()
    if hasattr(rows, "to_arrow"):
        table = rows.to_arrow()
        return table if isinstance(table, pa.Table) else None
    if type(rows).__module__.split(".")[0] == "pandas" and hasattr(rows, "columns"):
        return pa.Table.from_pandas(rows, preserve_index=False)
    return None


def _refuse_missing(batches: Sequence[pa.RecordBatch], name: str, where: str) -> None:
    first = 0
    for batch in batches:
        column = batch.column(name)
        if column.null_count:
            row = first + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(
                f"{where}: row {row} has no image in column '{name}', expected one in every row; "
                f"leave the row out."
            )
        first += batch.num_rows


def _from_array(rows: np.ndarray, schema: Schema | None, where: str) -> pa.Table:
    if rows.ndim in (3, 4):
        return pa.table({_image_name(schema, where): _pixels(rows, where)})
    if rows.ndim == 1 and rows.dtype.kind in "UO":
        return _from_sequence(rows.tolist(), schema, where)
    if rows.ndim != 2:
        raise DataError(
            f"{where} are an array of shape {rows.shape}, expected (rows, columns); "
            f"reshape it to two axes."
        )
    width = rows.shape[1]
    names = [f"x{i}" for i in range(width)] if schema is None else list(schema.numeric)
    if schema is not None and (len(names) != width or len(schema.inputs) != width):
        raise DataError(
            f"{where} are an array with {width} columns but the task reads {list(schema.inputs)}; "
            f"pass one array column for each, or a dict of named columns."
        )
    columns = [pa.array(np.ascontiguousarray(rows[:, i])) for i in range(width)]
    return pa.Table.from_arrays(columns, names=names)


def _from_sequence(rows: Sequence[object], schema: Schema | None, where: str) -> pa.Table:
    kinds = {type(row) for row in rows}
    if all(issubclass(kind, Mapping) for kind in kinds) and kinds:
        names = list(dict.fromkeys(str(name) for row in rows for name in row))  # type: ignore[attr-defined]  # mappings
        return _from_columns({name: [row.get(name) for row in rows] for name in names}, where)  # type: ignore[attr-defined]  # mappings
    images = schema is not None and schema.image and kinds and not kinds <= {str}
    cells = cells_of(rows, where=where) if images else None
    if cells is not None:
        return pa.table({_image_name(schema, where): cells})
    if all(issubclass(kind, str) for kind in kinds):
        if schema is not None and len(schema.inputs) != 1 and (kinds or not schema.inputs):
            raise DataError(
                f"{where} are strings but the task reads {list(schema.inputs)}; pass a list of "
                f"dicts or a dict of columns with these names."
            )
        if not kinds and schema is not None:
            return pa.table({name: pa.nulls(0) for name in schema.inputs})
        name = "text" if schema is None else schema.inputs[0]
        return pa.table({name: pa.array(list(rows), pa.large_string())})
    shown = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise DataError(
        f"{where} are a list of {shown}, expected a list of dicts or a list of strings; "
        f"name the columns in dicts such as {{'text': '...'}}."
    )


def _image_name(schema: Schema | None, where: str) -> str:
    if schema is None:
        return "image"
    if len(schema.image) != 1 or len(schema.inputs) != 1:
        raise DataError(
            f"{where} are images but the task reads {list(schema.inputs)}; pass a list of dicts or "
            f"a dict of columns with these names."
        )
    return schema.image[0]


def _pixels(rows: np.ndarray, where: str) -> pa.Array:
    if not is_pixels(rows.dtype, rows.shape):
        raise DataError(refused("of pixels", rows.dtype, rows.shape, where))
    return pa.array([netpbm(row) for row in rows], BYTES)


def _images(values: list[object], where: str) -> pa.Array | None:
    """Cells, where a list holds what no other column could: paths, Pillow images or pixels."""
    if any(_only_image(value) for value in values):
        return cells_of(values, where=where)
    return None


def _only_image(value: object) -> bool:
    pixels = isinstance(value, np.ndarray) and value.ndim in (2, 3)
    return pixels or isinstance(value, (Path, Image.Image))


def _from_columns(columns: Mapping[str, object], where: str) -> pa.Table:
    arrays: dict[str, object] = {}
    for name, values in columns.items():
        if isinstance(values, (pa.Array, pa.ChunkedArray)):
            arrays[name] = values
        elif isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype != object:
            arrays[name] = pa.array(values)
        elif isinstance(values, np.ndarray) and values.ndim in (3, 4):
            arrays[name] = _pixels(values, where)
        elif isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
            raise DataError(
                f"{where}: column '{name}' is {values!r}, expected a list with one value a row; "
                f"wrap single values in a list."
            )
        else:
            listed = list(values)
            arrays[name] = _images(listed, where) or mixed_column(listed)
    lengths = {name: len(values) for name, values in arrays.items()}  # type: ignore[arg-type]  # arrays
    if len(set(lengths.values())) > 1:
        raise DataError(
            f"{where}: columns have different numbers of rows ({lengths}); give each column one "
            f"value a row."
        )
    return pa.table(arrays)
