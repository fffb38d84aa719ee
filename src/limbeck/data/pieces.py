"""Rows in pieces of a bounded number of bytes, however much their sizes differ."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

PIECE_BYTES = 8 << 20
"""Bytes that rows are gathered up to, while they are read and in a staged file."""


def pieces(sizes: NDArray[np.int64], limit: int = PIECE_BYTES) -> Iterator[slice]:
    """Cut rows into runs of at most `limit` bytes; a row that is larger is a run of its own.

    Args:
        sizes: Bytes of each row, int64, shape (n,), >= 0.
        limit: Bytes.
    """
    ends = np.cumsum(sizes)
    start, before = 0, 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        yield slice(start, stop)
        start, before = stop, int(ends[stop - 1])


def row_bytes(batch: pa.RecordBatch) -> NDArray[np.int64]:
    """About how many bytes each row takes, int64, shape (n,)."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        if _varies(column.type):
            lengths = pc.fill_null(pc.binary_length(column), 0)
            sizes += lengths.to_numpy(zero_copy_only=False).astype(np.int64) + 8
        elif batch.num_rows:
            sizes += -(-column.nbytes // batch.num_rows)
    return sizes


def _varies(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )
