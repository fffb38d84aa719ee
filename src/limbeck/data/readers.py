"""Rows out of files as Arrow record batches, a small piece at a time.

Types are declared, never inferred block by block: a text column whose first thousand values look
like numbers stays text, and the label "001" keeps its zeros.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from limbeck.data import delimited, jsonl
from limbeck.data.columns import check_columns
from limbeck.data.sources import Source
from limbeck.errors import DataError

Kind = Literal["string", "number", "any"]
"""How a column is read where a file does not say: CSV and JSONL know no types of their own."""

BATCH_ROWS = 16_384
"""Most rows in a batch that is read. Small, so that long texts do not fill the memory."""

SAMPLE_ROWS = 2_000
"""Rows that are looked at to guess what columns are."""

_BUFFER_BYTES = 1 << 20


def read_batches(source: Source, kinds: Mapping[str, Kind]) -> Iterator[pa.RecordBatch]:
    """Stream the named columns of all files of a source.

    Args:
        source: Where the rows are.
        kinds: The columns to read, in the order wanted, and how.

    Yields:
        Batches of 1 to `BATCH_ROWS` rows. CSV and JSONL columns have the kinds asked for, other
        formats the types of the file.

    Raises:
        DataError: a column is missing, or a file is broken (with the line where that is known).

    Cost: memory for a few batches, except `.npz`, which is loaded whole.
    """
    for file in source.files:
        check_columns(column_names(file, source.format, kinds), list(kinds), where=str(file))
        for batch in _read(file, source.format, kinds):
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS)


def sample_rows(source: Source) -> pa.Table:
    """The first rows of a source with the types that they seem to have.

    Raises:
        DataError: the file is broken, names a column twice, or holds no row.
    """
    for file in source.files:
        with _broken(file):
            table = _sample(file, source.format)
        _check_names(file, table.schema.names)
        if table.num_rows:
            return table.slice(0, SAMPLE_ROWS)
    raise DataError(f"{source.path} has columns but no rows, expected at least one; add rows.")


def column_names(file: Path, form: str, wanted: Sequence[str] | Mapping[str, Kind]) -> list[str]:
    """Names of a file's columns. A JSONL file is read until all of `wanted` have been seen.

    Raises:
        DataError: the file is broken or names a column twice.
    """
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
    return list(_npz_table(file).schema.names)


def _sample(file: Path, form: str) -> pa.Table:
    if form == "jsonl":
        return jsonl.sample(file, SAMPLE_ROWS)
    if form == "npz":
        return _npz_table(file)
    batches: Iterator[pa.RecordBatch]
    if form in ("csv", "tsv"):
        with delimited.opened(file, form) as reader:
            first = next(iter(reader), None)
            return pa.Table.from_batches([] if first is None else [first], schema=reader.schema)
    if form == "parquet":
        with _parquet_file(file) as parquet:
            schema = parquet.schema_arrow
            batches = parquet.iter_batches(SAMPLE_ROWS, use_threads=False)
            first = next(batches, None)
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
                yield from parquet.iter_batches(BATCH_ROWS, columns=columns, use_threads=False)
        elif form == "arrow":
            for batch in _arrow_batches(_arrow_reader(file)):
                yield batch.select(columns)
        else:
            yield from _npz_table(file).select(columns).to_batches()


def _parquet_file(file: Path) -> "pa.parquet.ParquetFile":
    import pyarrow.parquet as pq

    # Without pre-buffering and with a small read buffer, even one giant row group is streamed
    # page by page; the defaults would hold all of its bytes at once.
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)


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


def _npz_table(file: Path) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    with np.load(file, allow_pickle=False) as arrays:
        for name in arrays.files:
            array = arrays[name]
            if array.ndim == 1:
                columns[name] = pa.array(array)
            elif array.ndim == 2:
                columns |= {f"{name}{i}": pa.array(array[:, i]) for i in range(array.shape[1])}
            else:
                raise DataError(
                    f"{file}: array '{name}' has shape {array.shape}, expected (rows,) or "
                    f"(rows, columns); reshape it to two axes."
                )
    sizes = {len(column) for column in columns.values()}
    if len(sizes) > 1:
        raise DataError(
            f"{file}: arrays have {sorted(sizes)} rows, expected one number; save arrays of equal "
            f"length."
        )
    return pa.table(columns)


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
