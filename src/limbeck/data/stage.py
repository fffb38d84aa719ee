"""Copy rows out of files of any kind into one Arrow file that can be memory-mapped.

A staged file holds the inputs in their final types, the content ids and the labels, so that a
resumed run neither parses nor hashes anything, and sees the same rows even if its sources change.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.data.columns import blank_rows, kept_column, label_column, normalise
from limbeck.data.dataset import ID_COLUMN, LABEL_COLUMN, Dataset
from limbeck.data.ids import as_arrow, contains, content_ids
from limbeck.data.readers import Kind, read_batches
from limbeck.data.schema import Schema
from limbeck.data.sources import Source
from limbeck.errors import DataError
from limbeck.storage import atomic_path

CHUNK_ROWS = 65_536
"""Most rows in a record batch of a staged file."""
_CHUNK_BYTES = 8 << 20
_LEAST_CHUNK_ROWS = 1_024
_MOST_CLASSES = 10_000


@dataclass(slots=True)
class LabelBook:
    """Class names in the order in which they were met, each with a code."""

    codes: dict[str, int] = field(default_factory=dict)

    def encode(self, names: pa.LargeStringArray, *, where: str) -> NDArray[np.int64]:
        """Codes of labels, int64, shape (n,); -1 where a label is missing."""
        coded = names.dictionary_encode()
        known = [self.codes.setdefault(name, len(self.codes)) for name in coded.dictionary.tolist()]
        if len(self.codes) > _MOST_CLASSES:
            raise DataError(
                f"{where} holds more than {_MOST_CLASSES} different labels, expected classes; "
                f"name the column that holds the classes with label."
            )
        table = np.array([*known, -1], np.int64)
        positions = coded.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)
        codes: NDArray[np.int64] = table[positions]
        return codes


@dataclass(frozen=True, slots=True)
class Layout:
    """What is read of every source.

    Args:
        schema: Inputs and label.
        keep: Further columns to carry along for a teacher that reads them.
    """

    schema: Schema
    keep: tuple[str, ...] = ()

    def kinds(self, *, label: bool) -> dict[str, Kind]:
        """How the readers should read each column."""
        numeric = set(self.schema.numeric)
        kinds: dict[str, Kind] = {
            name: "number" if name in numeric else "string" for name in self.schema.inputs
        }
        for name in self.keep:
            kinds.setdefault(name, "any")
        if label and self.schema.label:
            kinds[self.schema.label] = "string"
        return kinds

    def typed(self, batch: pa.RecordBatch, *, where: str) -> pa.RecordBatch:
        """Inputs in their types, then the kept columns, then the content ids."""
        inputs = normalise(batch, self.schema, where=where)
        extra = [name for name in self.keep if name not in self.schema.inputs]
        arrays = [*inputs.columns, *(kept_column(batch.column(name)) for name in extra)]
        ids = as_arrow(content_ids(inputs, self.schema))
        names = [*inputs.schema.names, *extra, ID_COLUMN]
        return pa.RecordBatch.from_arrays([*arrays, ids], names=names)


@dataclass(slots=True)
class RowWriter:
    """Gathers batches of any size into record batches of one fixed size."""

    sink: pa.NativeFile
    rows: int = 0
    _writer: pa.ipc.RecordBatchFileWriter | None = None
    _size: int = CHUNK_ROWS
    _waiting: list[pa.RecordBatch] = field(default_factory=list)
    _waiting_rows: int = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; they reach the file when a whole record batch is there."""
        if batch.num_rows == 0:
            return
        if self._writer is None:
            self._writer = pa.ipc.new_file(self.sink, batch.schema)
            self._size = _chunk_rows(batch)
        self.rows += batch.num_rows
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        while self._waiting_rows >= self._size:
            self._flush(self._size)

    def close(self) -> None:
        """Write what waits, and the end of the file."""
        if self._writer is not None:
            if self._waiting_rows:
                self._flush(self._waiting_rows)
            self._writer.close()

    def _flush(self, rows: int) -> None:
        assert self._writer is not None  # write() has opened it
        table = pa.Table.from_batches(self._waiting)
        self._writer.write_batch(_one_batch(table.slice(0, rows)))
        self._waiting = table.slice(rows).to_batches()
        self._waiting_rows -= rows


@contextmanager
def row_writer(path: Path) -> Iterator[RowWriter]:
    """Write a staged file that appears whole or not at all."""
    with atomic_path(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        writer = RowWriter(sink)
        yield writer
        writer.close()


def stage_labelled(
    source: Source, layout: Layout, book: LabelBook, path: Path, *, role: str
) -> tuple[Dataset, NDArray[np.int64]]:
    """Stage a source that has a label column.

    Args:
        source: Where the rows are.
        layout: The columns to read.
        book: Gives codes to class names; new ones are added.
        path: The file to write.
        role: "labelled", where a label may be missing, or "validation" or "test".

    Returns:
        The staged rows, and the code of each label, int64, shape (n,), -1 where it is missing.

    Raises:
        DataError: no rows, blank texts, or missing labels where they are needed.
    """
    label = layout.schema.label or ""
    codes: list[NDArray[np.int64]] = []
    blank = 0
    with row_writer(path) as writer:
        for batch in read_batches(source, layout.kinds(label=True)):
            names = label_column(batch.column(label), label, where=str(source.path))
            code = book.encode(names, where=f"column '{label}' of {source.path}")
            rows = layout.typed(batch, where=str(source.path))
            blank += int((blank_rows(rows, layout.schema) & (code >= 0)).sum())
            codes.append(code)
            writer.write(rows)
        _check_labelled(source, role, codes, blank)
    return Dataset.open(path, layout.schema), np.concatenate(codes)


def stage_pool(
    batches: Iterable[pa.RecordBatch],
    schema: Schema,
    known: dict[str, NDArray[np.uint8]],
    path: Path,
) -> dict[str, int]:
    """Stage pool rows, leaving out blank ones and those that repeat a known row.

    Args:
        batches: Typed rows with their ids.
        schema: What the columns are.
        known: Content ids of the other splits, by name.
        path: The file to write.

    Returns:
        Rows written, blank rows left out ("blank"), and rows left out because they are in a split
        (by its name; a row in two splits counts for the first).
    """
    everything = np.concatenate(list(known.values()))
    counts = dict.fromkeys(["rows", "blank", *known], 0)
    with row_writer(path) as writer:
        for batch in batches:
            blank = blank_rows(batch, schema)
            ids = ids_of(batch)
            seen = contains(everything, ids) & ~blank
            counts["blank"] += int(blank.sum())
            left = seen.copy()
            for name, part in known.items() if seen.any() else ():
                here = left & contains(part, ids)
                counts[name] += int(here.sum())
                left &= ~here
            keep = ~(blank | seen)
            writer.write(batch if keep.all() else batch.filter(pa.array(keep)))
        counts["rows"] = writer.rows
        if not writer.rows:
            raise DataError(
                f"the pool is empty after leaving out {counts['blank']} blank rows and "
                f"{sum(counts[name] for name in known)} rows that are also labelled, validation "
                f"or test rows; give a pool of other rows."
            )
    return counts


def copy_rows(
    staged: Dataset, rows: NDArray[np.bool_], labels: NDArray[np.int64], path: Path
) -> None:
    """Write some rows of a staged file to another one, with their classes.

    Args:
        staged: Rows staged before, n of them.
        rows: Which to write, bool, shape (n,).
        labels: Class of each row, int64, shape (n,).
        path: The file to write.
    """
    with row_writer(path) as writer:
        start = 0
        for batch in staged_batches(staged):
            here = slice(start, start + batch.num_rows)
            labelled = batch.append_column(LABEL_COLUMN, pa.array(labels[here], pa.int64()))
            writer.write(labelled.filter(pa.array(rows[here])))
            start += batch.num_rows


def staged_batches(staged: Dataset) -> Iterator[pa.RecordBatch]:
    """The rows of a staged file with their ids as a column."""
    start = 0
    for batch in staged.batches(CHUNK_ROWS):
        ids = staged.content_ids[start : start + batch.num_rows]
        yield batch.append_column(ID_COLUMN, as_arrow(ids))
        start += batch.num_rows


def typed_batches(source: Source, layout: Layout) -> Iterator[pa.RecordBatch]:
    """The rows of an unlabelled source, typed, with their ids."""
    for batch in read_batches(source, layout.kinds(label=False)):
        yield layout.typed(batch, where=str(source.path))


def ids_of(batch: pa.RecordBatch) -> NDArray[np.uint8]:
    """The content ids that a typed batch carries, uint8, shape (n, 16)."""
    column = batch.column(ID_COLUMN)
    flat = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, 16)
    return flat[column.offset : column.offset + len(column)]


def _check_labelled(
    source: Source, role: str, codes: Sequence[NDArray[np.int64]], blank: int
) -> None:
    total = sum(len(code) for code in codes)
    if total == 0:
        raise DataError(f"{source.path} has columns but no rows, expected at least one; add rows.")
    missing = sum(int((code < 0).sum()) for code in codes)
    if missing and role != "labelled":
        raise DataError(
            f"{source.path} ({role}): {missing} of {total} rows have no label, expected one in "
            f"every row; label them or take them out."
        )
    if missing == total:
        raise DataError(
            f"{source.path}: none of its {total} rows has a label; check the label column."
        )
    if blank:
        raise DataError(
            f"{source.path} ({role}): {blank} labelled rows have an empty text, expected at least "
            f"one character; fill them in or take them out."
        )


def _chunk_rows(batch: pa.RecordBatch) -> int:
    """Rows of a record batch of about 8 MB: long texts must not fill the memory while staging."""
    row_bytes = max(1, batch.nbytes // batch.num_rows)
    size = CHUNK_ROWS
    while size > _LEAST_CHUNK_ROWS and size * row_bytes > _CHUNK_BYTES:
        size //= 2
    return size


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]
