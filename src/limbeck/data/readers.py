"""Rows out of files as Arrow record batches, a small piece at a time.

Types are declared, never inferred block by block: a text column whose first thousand values look
like numbers stays text, and the label "001" keeps its zeros.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa

from limbeck.data import delimited, folders, jsonl, npz
from limbeck.data.cells import opened
from limbeck.data.columns import check_columns
from limbeck.data.pieces import PIECE_BYTES
from limbeck.data.schema import Schema
from limbeck.data.sources import Source
from limbeck.errors import DataError

Kind = Literal["string", "number", "image", "any"]
"""How a column is read where a file does not say: CSV and JSONL know no types of their own. An
image comes as a cell `{bytes, path}`, read from its own file where the column holds a path."""

BATCH_ROWS = 16_384
"""Most rows in a batch that is read. Small, so that long texts do not fill the memory."""

SAMPLE_ROWS = 2_000
"""Rows that are looked at to guess what columns are."""

_BUFFER_BYTES = 1 << 20
_LARGE_BYTES = 64 << 20
"""A batch of Parquet rows that would be larger than this is read in smaller ones."""


def read_batches(source: Source, kinds: Mapping[str, Kind]) -> Iterator[pa.RecordBatch]:
    """Stream the named columns of all files of a source.

    Args:
        source: Where the rows are.
        kinds: The columns to read, in the order wanted, and how.

    Yields:
        Batches of 1 to `BATCH_ROWS` rows, with about 8 MB of images at most. CSV and JSONL columns
        have the kinds asked for, other formats the types of the file.

    Raises:
        DataError: a column is missing, or a file is broken (with the line where that is known).

    Cost: memory for a few batches, and the vectors and matrices of an `.npz` file.
    """
    images = [name for name, kind in kinds.items() if kind == "image"]
    for file, batch in _of_all_files(source, kinds):
        for start in range(0, batch.num_rows, BATCH_ROWS):
            rows = batch.slice(start, BATCH_ROWS)
            yield from opened(rows, images, file.parent, where=str(file)) if images else (rows,)


def input_kinds(schema: Schema) -> dict[str, Kind]:
    """How to read the inputs of a task."""
    kinds: dict[str, Kind] = dict.fromkeys(schema.inputs, "string")
    kinds |= dict.fromkeys(schema.numeric, "number")
    kinds |= dict.fromkeys(schema.image, "image")
    return kinds


def sample_rows(source: Source) -> pa.Table:
    """The first rows of a source with the types that they seem to have.

    Raises:
        DataError: the file is broken, names a column twice, or holds no row.
    """
    if source.format in (folders.FLAT, folders.BY_CLASS):
        shown = folders.batches(source.files, folders.names(source.format), SAMPLE_ROWS)
        return pa.Table.from_batches([next(shown)])
    for file in source.files:
        with _broken(file):
            table = _sample(file, source.format)
        _check_names(file, table.schema.names)
        if table.num_rows:
            return table.slice(0, SAMPLE_ROWS)
    raise DataError(f"{source.path} has columns but no rows, expected at least one; add rows.")


def _of_all_files(
    source: Source, kinds: Mapping[str, Kind]
) -> Iterator[tuple[Path, pa.RecordBatch]]:
    if source.format in (folders.FLAT, folders.BY_CLASS):
        check_columns(folders.names(source.format), list(kinds), where=str(source.path))
        for batch in folders.batches(source.files, list(kinds), BATCH_ROWS):
            yield source.files[0], batch
        return
    for file in source.files:
        check_columns(column_names(file, source.format, kinds), list(kinds), where=str(file))
        for batch in _read(file, source.format, kinds):
            yield file, batch


def column_names(file: Path, form: str, wanted: Sequence[str] | Mapping[str, Kind]) -> list[str]:
    """Names of a file's columns. A JSONL file is read until all of `wanted` have been seen.

    Raises:
        DataError: the file is broken or names a column twice.
    """
    if form in (folders.FLAT, folders.BY_CLASS):
        return folders.names(form)
    with _broken(file):
        if form == "jsonl":
            return jsonl.names(file, set(wanted))
        names = list(_names(file, form))
    _check_names(file, names)
    return names


def _check_names(file: Path, names: Sequence[str]) -> None:
    for name in names:
        if list(names).count(name) > 1:
            raise DataError(
                f"{file} has more than one column '{name}', expected distinct names; rename one."
            )


def _names(file: Path, form: str) -> Sequence[str]:
    if form == "parquet":
        import pyarrow.parquet as pq

        names: Sequence[str] = pq.read_schema(file).names
        return names
    if form in ("csv", "tsv"):
        with delimited.opened(file, form) as reader:
            return list(reader.schema.names)
    if form == "arrow":
        return list(_arrow_reader(file).schema.names)
    return npz.names(file)


def _sample(file: Path, form: str) -> pa.Table:
    if form == "jsonl":
        return jsonl.sample(file, SAMPLE_ROWS)
    if form == "npz":
        return npz.sample(file, SAMPLE_ROWS)
    if form in ("csv", "tsv"):
        with delimited.opened(file, form) as reader:
            first = next(iter(reader), None)
            return pa.Table.from_batches([] if first is None else [first], schema=reader.schema)
    if form == "parquet":
        with _parquet_file(file) as parquet:
            schema = parquet.schema_arrow
            first = next(_parquet_batches(parquet, schema.names, SAMPLE_ROWS), None)
    else:
        arrow = _arrow_reader(file)
        schema, first = arrow.schema, next(_arrow_batches(arrow), None)
    return pa.Table.from_batches([] if first is None else [first], schema=schema)


def _read(file: Path, form: str, kinds: Mapping[str, Kind]) -> Iterator[pa.RecordBatch]:
    columns = list(kinds)
    with _broken(file):
        if form == "jsonl":
            yield from jsonl.batches(file, kinds, BATCH_ROWS)
        elif form in ("csv", "tsv"):
            yield from delimited.batches(file, form, kinds)
        elif form == "parquet":
            with _parquet_file(file) as parquet:
                yield from _parquet_batches(parquet, columns, BATCH_ROWS)
        elif form == "arrow":
            for batch in _arrow_batches(_arrow_reader(file)):
                yield batch.select(columns)
        else:
            yield from npz.batches(file, columns, BATCH_ROWS)


def _parquet_file(file: Path) -> "pa.parquet.ParquetFile":
    import pyarrow.parquet as pq

    # Without pre-buffering and with a small read buffer, even one giant row group is streamed
    # page by page; the defaults would hold all of its bytes at once.
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)


def _parquet_batches(
    parquet: "pa.parquet.ParquetFile", columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Fewer than `rows` rows at a time where they are large, as images are."""
    wanted = set(columns)
    small: list[int] = []
    for number in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(number)
        parts = (group.column(i) for i in range(group.num_columns))
        size = sum(
            part.total_uncompressed_size
            for part in parts
            if part.path_in_schema.split(".")[0] in wanted
        )
        if size * rows <= _LARGE_BYTES * group.num_rows:
            small.append(number)
            continue
        yield from _of_groups(parquet, small, columns, rows)
        small = []
        few = max(1, PIECE_BYTES * group.num_rows // size)
        yield from _of_groups(parquet, [number], columns, few)
    yield from _of_groups(parquet, small, columns, rows)


def _of_groups(
    parquet: "pa.parquet.ParquetFile", groups: list[int], columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    if groups:
        yield from parquet.iter_batches(
            rows, row_groups=groups, columns=list(columns), use_threads=False
        )


def _arrow_reader(file: Path) -> "pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader":
    mapped = pa.memory_map(str(file))
    if mapped.read(6) == b"ARROW1":
        return pa.ipc.open_file(mapped)
    mapped.seek(0)
    return pa.ipc.open_stream(mapped)


def _arrow_batches(
    reader: "pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader",
) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)
    else:
        yield from reader


class _broken:
    """Turns what a reader raises about a damaged file into one sentence."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import zipfile

        if isinstance(error, PermissionError):
            raise DataError(f"{self.file} may not be read; change its permissions.") from error
        if isinstance(error, (pa.ArrowException, OSError, zipfile.BadZipFile, ValueError)) and (
            not isinstance(error, DataError)
        ):
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"{self.file} is damaged or not what its ending says ({first}); "
                f"write the file again."
            ) from error
