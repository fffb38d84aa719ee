"""Rows out: batches into a CSV, JSONL or Parquet file that appears whole or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from limbeck.errors import ConfigError
from limbeck.storage import atomic_file

FORMATS = (".csv", ".jsonl", ".parquet")


def check_ending(path: Path, *, what: str) -> None:
    """Refuse a file that cannot be written, before there is anything to write.

    Raises:
        ConfigError: its ending is none of `FORMATS`.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(
            f"{path} has the ending {path.suffix or '(none)'!r}; {what} can be written to "
            f"{', '.join(FORMATS)}."
        )


def write_rows(batches: Iterator[pa.RecordBatch], path: Path, *, what: str) -> None:
    """Write batches of one schema.

    Args:
        batches: At least one, which may be empty, for Parquet to have columns.
        path: The file; its ending says the format.
        what: What the rows are called in messages.

    Raises:
        ConfigError: as `check_ending`.
        StorageError: the file cannot be written.
    """
    check_ending(path, what=what)
    writer = {".csv": write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[path.suffix]
    with atomic_file(path) as handle:
        writer(batches, handle)


def write_csv(batches: Iterator[pa.RecordBatch], handle: IO[bytes]) -> None:
    """Write batches as CSV with one header line."""
    for number, batch in enumerate(batches):
        pc.write_csv(batch, handle, pc.WriteOptions(include_header=number == 0))


def _write_jsonl(batches: Iterator[pa.RecordBatch], handle: IO[bytes]) -> None:
    for batch in batches:
        for row in batch.to_pylist():
            handle.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _write_parquet(batches: Iterator[pa.RecordBatch], handle: IO[bytes]) -> None:
    writer: pq.ParquetWriter | None = None
    for batch in batches:
        writer = writer or pq.ParquetWriter(handle, batch.schema)
        writer.write_batch(batch)
    if writer is not None:
        writer.close()
