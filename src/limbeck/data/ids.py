"""Ids of rows: a hash of what a row says, whatever file, type or order it came in.

Equal content means equal id, so duplicates and overlaps between files are found by comparing ids,
and a question that was paid for once is recognised for ever.

A row is written down as its columns in the order of their names; each column is
`length of name (4 bytes) | name | kind (1 byte) | length of value (8 bytes) | value`, integers
little-endian. The kind is `t` for text (UTF-8), `n` for a number (float64), `b` for bytes (those of
an image file) and `0` for a missing value. Every part carries its length, so two different rows are
never written alike. The id is the BLAKE2b hash of that, 16 bytes long.
"""

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from limbeck.data.cells import is_bytes
from limbeck.data.schema import Schema
from limbeck.errors import DataError

ID_BYTES = 16
ID_TYPE = pa.binary(ID_BYTES)
_BINARY = pa.large_binary()
_PART_BITS = 5
_SMALL = 65_536
_BLOCK = 262_144
_MASK_BLOCK = 16_384


def row_ids(batch: pa.RecordBatch, columns: Sequence[str]) -> NDArray[np.uint8]:
    """Hash the named columns of each row.

    The id does not depend on the order of `columns`, on how Arrow stores a string (string,
    large_string, dictionary), on int or float for the same value, or on the sign of zero. NaN is a
    missing number. Numbers are compared as float64: integers beyond 2**53 may share an id.

    Args:
        batch: Rows, n of them.
        columns: Names of the columns to hash, at least one, in any order.

    Returns:
        Ids, uint8, shape (n, 16).

    Raises:
        DataError: no column is named, one is missing, or one holds neither text, numbers nor bytes.

    Cost: about 1 microsecond a row for one short text column, and one copy of the hashed columns.
    """
    if not columns:
        raise DataError("ids need at least one column to hash; name the input columns.")
    parts: list[object] = []
    for name in sorted(set(columns)):
        if name not in batch.schema.names:
            raise DataError(
                f"column '{name}' is needed for row ids but the rows have only "
                f"{batch.schema.names}; add the column."
            )
        parts += _written(batch.column(name), name)
    separator = pa.scalar(b"", _BINARY)
    rows = pc.binary_join_element_wise(*parts, separator)
    return _hashed(rows)


def content_ids(batch: pa.RecordBatch, schema: Schema) -> NDArray[np.uint8]:
    """Ids over all input columns: equal for rows that no student could tell apart, (n, 16)."""
    return row_ids(batch, schema.inputs)


def question_ids(batch: pa.RecordBatch, columns: Sequence[str]) -> NDArray[np.uint8]:
    """Ids over the columns that a teacher sees: the ledger's key of a question, (n, 16)."""
    return row_ids(batch, columns)


def as_arrow(ids: NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    """View ids of shape (n, 16) as an Arrow array of 16-byte values, without a copy."""
    if ids.ndim != 2 or ids.shape[1] != ID_BYTES or ids.dtype != np.uint8:
        raise DataError(
            f"ids must be a uint8 array of shape (n, {ID_BYTES}), got {ids.dtype} of shape "
            f"{ids.shape}; make them with limbeck.data.row_ids."
        )
    buffer = pa.py_buffer(np.ascontiguousarray(ids))
    return pa.FixedSizeBinaryArray.from_buffers(ID_TYPE, len(ids), [None, buffer])


def from_arrow(column: pa.FixedSizeBinaryArray) -> NDArray[np.uint8]:
    """View an Arrow array of 16-byte values as ids of shape (n, 16), without a copy."""
    flat = np.frombuffer(column.buffers()[1] or b"", np.uint8)
    start = column.offset * ID_BYTES
    return flat[start : start + len(column) * ID_BYTES].reshape(-1, ID_BYTES)


def contains(known: NDArray[np.uint8], ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of `ids` are among `known`, bool, shape (n,).

    Cost: one hash table of `known`.
    """
    found = pc.is_in(as_arrow(ids), value_set=as_arrow(known))
    result: NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
    return result


class GatheredIds:
    """`ids[rows]`, gathered where it is needed and never all at once.

    Args:
        ids: uint8, shape (n, 16).
        rows: Positions in `ids`, int64, shape (m,), repeats allowed; None for all.
    """

    def __init__(self, ids: NDArray[np.uint8], rows: NDArray[np.int64] | None = None) -> None:
        self._ids = ids
        self._rows = rows

    def __len__(self) -> int:
        return len(self._ids) if self._rows is None else len(self._rows)

    def __getitem__(self, places: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """Ids at some places, uint8, shape (k, 16)."""
        return self._ids[places if self._rows is None else self._rows[places]]

    def leads(self) -> NDArray[np.bool_]:
        """Which places are the first ones with their id, bool, shape (m,).

        Cost: as `distinct`, but 3 bytes an id while it runs, whatever the ids are.
        """
        leads = np.zeros(len(self), np.bool_)
        if len(self) <= _SMALL:
            leads[distinct(self[:])[0]] = True
            return leads
        # Equal ids begin with equal bits: each part of the id space is grouped by itself.
        lead = self._ids[:, 0] if self._rows is None else self._ids[self._rows, 0]
        part = lead >> (8 - _PART_BITS)
        for value in range(1 << _PART_BITS):
            here = np.flatnonzero(part == value)
            leads[here[distinct(self[here])[0]]] = True
        return leads

    def without(
        self, places: NDArray[np.bool_], look: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
    ) -> NDArray[np.bool_]:
        """Those of some places, bool of shape (m,), about whose ids `look` says no."""
        left = places.copy()
        for start in range(0, len(places), _BLOCK):
            here = start + np.flatnonzero(places[start : start + _BLOCK])
            left[here] = ~look(self[here])
        return left

    def which(
        self,
        look: Callable[[NDArray[np.uint8]], NDArray[np.bool_]],
        places: NDArray[np.int64] | None = None,
    ) -> NDArray[np.bool_]:
        """Ask `look`, which takes ids and gives a bool each, about some places, a block at a time.

        Args:
            look: Such as a ledger's `known`.
            places: int64, shape (k,); None for all.

        Returns:
            bool, shape (k,).
        """
        count = len(self) if places is None else len(places)
        found = np.zeros(count, np.bool_)
        for start in range(0, count, _BLOCK):
            block = slice(start, min(start + _BLOCK, count))
            found[block] = look(self[block if places is None else places[block]])
        return found


class Places:
    """Where a mask is true, in order, as a sequence that is sliced: a byte a place, not eight.

    Args:
        mask: bool, shape (n,).
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._mask = mask
        starts = range(0, len(mask), _MASK_BLOCK)
        counts = [np.count_nonzero(mask[start : start + _MASK_BLOCK]) for start in starts]
        self._ends = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, part: slice) -> NDArray[np.int64]:
        """Some of the places, int64; the slice has no step."""
        start, stop, _ = part.indices(len(self))
        if stop <= start:
            return np.zeros(0, np.int64)
        first = int(np.searchsorted(self._ends, start, side="right")) - 1
        end = int(np.searchsorted(self._ends, stop, side="left"))
        base = first * _MASK_BLOCK
        here = base + np.flatnonzero(self._mask[base : end * _MASK_BLOCK])
        before = int(self._ends[first])
        return here[start - before : stop - before]


def distinct(ids: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group equal ids, groups in the order of their first rows.

    Args:
        ids: uint8, shape (n, 16).

    Returns:
        The first row of each group, int64, shape (m,), ascending; and the group of each row,
        int64, shape (n,), so that `ids[first][group]` equals `ids`.

    Cost: O(n log n) time, 0.5 s a million rows; about 40 bytes a row while it runs.
    """
    halves = as_arrow(ids).buffers()[1]
    pairs = np.frombuffer(halves, np.uint64).reshape(-1, 2)
    # A sort takes a third of the memory of a hash table here, and is stable: first rows lead.
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    new = np.ones(len(order), bool)
    for half in (0, 1):
        column = pairs[order, half]
        differs = column[1:] != column[:-1]
        new[1:] = differs if half == 0 else new[1:] | differs
    first = order[new]
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    by_row = np.argsort(first)
    rank = np.empty(len(first), np.int64)
    rank[by_row] = np.arange(len(first))
    return first[by_row].astype(np.int64), rank[group]


def _written(column: pa.Array, name: str) -> list[object]:
    """The parts of one column's encoding, each a scalar or one value a row, all large_binary."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    encoded_name = name.encode()
    head = len(encoded_name).to_bytes(4, "little") + encoded_name
    values, kind = _values(column, name)
    missing = values.is_null()
    kinds = pc.if_else(missing, pa.scalar(b"0", _BINARY), pa.scalar(kind, _BINARY))
    filled = values.fill_null(b"")
    lengths = pc.binary_length(filled).to_numpy(zero_copy_only=False).astype("<u8")
    length_type = pa.binary(8)
    written = pa.FixedSizeBinaryArray.from_buffers(
        length_type, len(lengths), [None, pa.py_buffer(lengths)]
    )
    return [pa.scalar(head, _BINARY), kinds, written.cast(_BINARY), filled]


def _values(column: pa.Array, name: str) -> tuple[pa.Array, bytes]:
    kind = column.type
    if pa.types.is_null(kind):
        return column.cast(_BINARY), b"0"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(_BINARY), b"t"
    if is_bytes(kind):
        return column.cast(_BINARY), b"b"
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string()).cast(_BINARY), b"t"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        if pa.types.is_boolean(kind):
            column = column.cast(pa.int8())
        numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        # Adding zero turns -0.0 into 0.0, which compare equal and must hash equal.
        plain = np.ascontiguousarray(numbers + 0.0, dtype="<f8")
        raw = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(8), len(plain), [None, pa.py_buffer(plain)]
        ).cast(_BINARY)
        return pc.if_else(pa.array(np.isnan(plain)), pa.scalar(None, _BINARY), raw), b"n"
    raise DataError(
        f"column '{name}' holds {kind}, which has no row id; inputs are text, numbers or "
        f"images, so convert the column or leave it out."
    )


def _hashed(rows: pa.LargeBinaryArray) -> NDArray[np.uint8]:
    _, offset_buffer, data = rows.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[rows.offset : rows.offset + len(rows) + 1]
    view = memoryview(data if data is not None else b"")
    ends = offsets.tolist()
    blake = hashlib.blake2b
    digests = [
        blake(view[start:end], digest_size=ID_BYTES).digest() for start, end in pairwise(ends)
    ]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, ID_BYTES)
