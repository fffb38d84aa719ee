"""Copy rows out of files of any kind into one Arrow file that can be memory-mapped.

A staged file holds the inputs in their final types, the content ids and the labels, so that a
resumed run neither parses nor hashes anything, and sees the same rows even if its sources change.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.data.columns import blank_rows, kept_column, label_column, normalise
from limbeck.data.dataset import ID_COLUMN, LABEL_COLUMN, Dataset
from limbeck.data.ids import as_arrow, contains, content_ids
from limbeck.data.looks import Seen, looked_at
from limbeck.data.readers import Kind, input_kinds, read_batches
from limbeck.data.schema import Schema
from limbeck.data.sources import Source
from limbeck.data.writer import CHUNK_ROWS, row_writer
from limbeck.errors import DataError

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
        kinds = input_kinds(self.schema)
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


def stage_labelled(
    source: Source, layout: Layout, book: LabelBook, path: Path, seen: Seen, *, role: str
) -> tuple[Dataset, NDArray[np.int64]]:
    """Stage a source that has a label column.

    Args:
        source: Where the rows are.
        layout: The columns to read.
        book: Gives codes to class names; new ones are added.
        path: The file to write.
        seen: Learns what the images are like.
        role: "labelled", where a label may be missing, or "validation" or "test".

    Returns:
        The staged rows, and the code of each label, int64, shape (n,), -1 where it is missing.

    Raises:
        DataError: no rows, blank texts, images that cannot be used, or missing labels where they
            are needed. Images without a label stay as nulls.
    """
    label = layout.schema.label or ""
    codes: list[NDArray[np.int64]] = []
    blank = 0
    faults: list[str] = []
    where = str(source.path)
    with row_writer(path) as writer:
        batches = read_batches(source, layout.kinds(label=True))
        for looked in looked_at(batches, layout.schema.image, seen, where=where):
            batch = looked.batch
            names = label_column(batch.column(label), label, where=where)
            code = book.encode(names, where=f"column '{label}' of {where}")
            rows = layout.typed(batch, where=where)
            faults += [fault for row, fault in looked.faults.items() if code[row] >= 0]
            blank += int((blank_rows(rows, layout.schema) & (code >= 0)).sum())
            codes.append(code)
            writer.write(rows)
        _check_labelled(source, role, codes, blank, faults)
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
        Rows written, rows left out because they are blank ("blank") or an image cannot be used
        ("unreadable"), and rows left out because they are in a split
        (by its name; a row in two splits counts for the first).
    """
    everything = np.concatenate(list(known.values()))
    counts = dict.fromkeys(["rows", "blank", "unreadable", *known], 0)
    with row_writer(path) as writer:
        for batch in batches:
            blank = blank_rows(batch, schema)
            ids = ids_of(batch)
            unreadable = _without_image(batch, schema)
            seen = contains(everything, ids) & ~(blank | unreadable)
            counts["blank"] += int(blank.sum())
            counts["unreadable"] += int(unreadable.sum())
            left = seen.copy()
            for name, part in known.items() if seen.any() else ():
                here = left & contains(part, ids)
                counts[name] += int(here.sum())
                left &= ~here
            keep = ~(blank | unreadable | seen)
            writer.write(batch if keep.all() else batch.filter(pa.array(keep)))
        counts["rows"] = writer.rows
        if not writer.rows:
            images = counts["unreadable"]
            unread = f", {images} with an image that cannot be read" if images else ""
            raise DataError(
                f"the pool is empty after leaving out {counts['blank']} blank rows{unread} and "
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


def typed_batches(source: Source, layout: Layout, seen: Seen) -> Iterator[pa.RecordBatch]:
    """The rows of an unlabelled source, typed, with their ids; unusable images are nulls."""
    where = str(source.path)
    batches = read_batches(source, layout.kinds(label=False))
    for looked in looked_at(batches, layout.schema.image, seen, where=where):
        yield layout.typed(looked.batch, where=where)


def ids_of(batch: pa.RecordBatch) -> NDArray[np.uint8]:
    """The content ids that a typed batch carries, uint8, shape (n, 16)."""
    column = batch.column(ID_COLUMN)
    flat = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, 16)
    return flat[column.offset : column.offset + len(column)]


def _check_labelled(
    source: Source,
    role: str,
    codes: Sequence[NDArray[np.int64]],
    blank: int,
    faults: Sequence[str],
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
    if faults:
        raise DataError(
            f"{source.path} ({role}): {len(faults)} labelled images cannot be used, such as "
            f"{faults[0]}; repair them or take them out."
        )


def _without_image(batch: pa.RecordBatch, schema: Schema) -> NDArray[np.bool_]:
    missing = np.zeros(batch.num_rows, bool)
    for name in schema.image:
        missing |= batch.column(name).is_null().to_numpy(zero_copy_only=False)
    return missing
