"""Write a staged file: rows in record batches of about one size, whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from limbeck.data.pieces import PIECE_BYTES, pieces, row_bytes
from limbeck.storage import atomic_path

CHUNK_ROWS = 65_536
"""Most rows in a record batch of a staged file."""


@dataclass(slots=True)
class RowWriter:
    """Gathers batches of any size into record batches of at most 65,536 rows and about 8 MB.

    Rows are measured one by one: a few large images among small ones must not fill the memory.
    """

    sink: pa.NativeFile
    rows: int = 0
    _writer: pa.ipc.RecordBatchFileWriter | None = None
    _waiting: list[pa.RecordBatch] = field(default_factory=list)
    _waiting_rows: int = 0
    _waiting_bytes: int = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; they reach the file when a whole record batch is there."""
        if batch.num_rows == 0:
            return
        if self._writer is None:
            self._writer = pa.ipc.new_file(self.sink, batch.schema)
        self.rows += batch.num_rows
        sizes = row_bytes(batch)
        for piece in pieces(sizes):
            for start in range(piece.start, piece.stop, CHUNK_ROWS):
                stop = min(start + CHUNK_ROWS, piece.stop)
                self._add(batch.slice(start, stop - start), int(sizes[start:stop].sum()))

    def close(self) -> None:
        """Write what waits, and the end of the file."""
        if self._writer is not None:
            self._flush()
            self._writer.close()

    def _add(self, rows: pa.RecordBatch, size: int) -> None:
        if (
            self._waiting_rows + rows.num_rows > CHUNK_ROWS
            or self._waiting_bytes + size > PIECE_BYTES
        ):
            self._flush()
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        self._waiting_bytes += size

    def _flush(self) -> None:
        assert self._writer is not None  # write() has opened it
        if self._waiting:
            joined = pa.Table.from_batches(self._waiting).combine_chunks()
            self._writer.write_batch(joined.to_batches()[0])
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0


@contextmanager
def row_writer(path: Path) -> Iterator[RowWriter]:
    """Write a staged file that appears whole or not at all."""
    with atomic_path(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        writer = RowWriter(sink)
        yield writer
        writer.close()
