"""Answers that exist already: in columns of the rows themselves, or in a file of their own."""

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.data.cells import only_bytes
from limbeck.data.columns import normalise
from limbeck.data.ids import distinct, question_ids
from limbeck.data.readers import Kind, column_names, input_kinds, read_batches
from limbeck.data.schema import Schema
from limbeck.data.sources import find_source
from limbeck.errors import DataError, LimbeckWarning
from limbeck.storage import sha256
from limbeck.teachers.columns import (
    MISSING,
    AnswerColumns,
    find_columns,
    read_embeddings,
    read_probs,
)
from limbeck.teachers.local import LocalTeacher, Said, fingerprint_of


class ColumnsTeacher(LocalTeacher):
    """Answers in columns of the rows that are asked about.

    The answers are part of the question: rows with equal inputs but other answers are different
    questions, and a table whose answers were changed is asked anew.

    Args:
        schema: The task.
        names: All columns that the rows have.
        label: The column of hard labels. Default: probabilities are looked for.

    Raises:
        DataError: the columns hold no answers, or a class has no column.
    """

    def __init__(self, schema: Schema, names: Sequence[str], *, label: str = "") -> None:
        self.name = "the table teacher"
        self._answers = find_columns(names, schema.classes, where="the table", label=label)
        self.embeds = bool(self._answers.embedding)
        self.classes = schema.classes
        self.columns = schema.inputs + self._answers.names
        self.fingerprint = fingerprint_of("columns", *self.classes, "|", *self.columns)

    def say(self, rows: pa.RecordBatch) -> Said:
        """Read the rows' own columns."""
        probs, there = read_probs(rows, self._answers, self.classes, where=self.name)
        embeddings = read_embeddings(rows, self._answers, where=self.name)
        if embeddings is not None:
            there = there & embeddings[1]
        failure = [None if has else MISSING for has in there]
        return Said(probs, None if embeddings is None else embeddings[0], failure)


class TableTeacher(LocalTeacher):
    """Answers in a file, found by the content of the input columns.

    Args:
        path: Parquet, CSV, TSV, JSONL, Arrow or npz, or a folder of parts.
        schema: The task.
        columns: Columns by which a row is found, in both tables. Default: all inputs.
        label: The column of hard labels. Default: probabilities are looked for.

    Raises:
        DataError: the file cannot be read, lacks a column or holds no answers.
        AnswerError: a row has lists of another width, or a label that is no class.

    Cost: one pass over the file; 4 C + 24 bytes of memory a row, embeddings stay on the disk.
    """

    def __init__(
        self, path: Path, schema: Schema, *, columns: Sequence[str] = (), label: str = ""
    ) -> None:
        self.name = f"table teacher {path}"
        self.classes = schema.classes
        self.columns = tuple(columns) or schema.inputs
        source = find_source(path)
        names = column_names(source.files[0], source.format, self.columns)
        answers = find_columns(names, schema.classes, where=str(path), label=label)
        self.embeds = bool(answers.embedding)
        part = _part(schema, self.columns)
        kinds = _kinds(part, answers)
        ids, probs = [], []
        # Embeddings lie in a file without a name, which ends with its last reader.
        with tempfile.TemporaryFile() as file:
            width = 0
            for batch in read_batches(source, kinds):
                ids_, probs_, embeddings = _read(batch, part, answers, str(path))
                ids.append(ids_)
                probs.append(probs_)
                if embeddings is not None and len(ids_):
                    width = embeddings.shape[1]
                    file.write(embeddings.data)
            if not any(map(len, ids)):
                raise DataError(f"{path} holds no rows with answers; add rows.")
            self._probs = np.concatenate(probs)
            self._embeddings = _mapped(file, len(self._probs), width)
        self._index(np.concatenate(ids))
        self.fingerprint = fingerprint_of(
            "table",
            *(sha256(file) for file in source.files),
            label,
            *self.classes,
            "|",
            *self.columns,
        )

    def say(self, rows: pa.RecordBatch) -> Said:
        """Look the rows up."""
        keys = _as_void(question_ids(rows, self.columns))
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        there = self._keys[at] == keys
        row = self._rows[at]
        embeddings = None if self._embeddings is None else self._embeddings[row]
        return Said(self._probs[row], embeddings, [None if has else MISSING for has in there])

    def _index(self, ids: NDArray[np.uint8]) -> None:
        """Sort the ids, so that a row is found by bisection."""
        first, _ = distinct(ids)
        if len(first) < len(ids):
            warnings.warn(
                f"{self.name}: {len(ids) - len(first)} of {len(ids)} rows repeat the inputs of an "
                f"earlier row, whose answer is taken; remove the repetitions to choose yourself.",
                LimbeckWarning,
                stacklevel=3,
            )
        keys = _as_void(ids[first])
        order = np.argsort(keys)
        self._keys, self._rows = keys[order], first[order]


def _mapped(file: IO[bytes], rows: int, width: int) -> NDArray[np.float16] | None:
    """Map `rows` x `width` float16 of a file into memory; the mapping outlives the file object."""
    if width == 0:
        return None
    file.flush()
    if os.fstat(file.fileno()).st_size != 2 * rows * width:
        raise DataError("embeddings differ in length from row to row; give as many in every row.")
    return np.memmap(file, np.float16, mode="r", shape=(rows, width))


def _read(
    batch: pa.RecordBatch, part: Schema, answers: AnswerColumns, where: str
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float16] | None]:
    """Ids, probabilities and embeddings of the rows that have all of them."""
    # An image that cannot be read keeps its row, which nothing will ask about.
    inputs = normalise(only_bytes(batch, part.image), part, where=where)
    ids = question_ids(inputs, part.inputs)
    probs, there = read_probs(batch, answers, part.classes, where=where)
    embeddings = read_embeddings(batch, answers, where=where)
    if embeddings is None:
        return ids[there], probs[there], None
    there = there & embeddings[1]
    # Values beyond float16 become infinite here and are refused when they are asked for.
    with np.errstate(over="ignore"):
        return ids[there], probs[there], embeddings[0][there].astype(np.float16)


def _part(schema: Schema, columns: Sequence[str]) -> Schema:
    """The task's schema with some of its input columns."""
    return Schema(
        text=tuple(name for name in schema.text if name in columns),
        numeric=tuple(name for name in schema.numeric if name in columns),
        category=tuple(name for name in schema.category if name in columns),
        image=tuple(name for name in schema.image if name in columns),
        label=None,
        classes=schema.classes,
    )


def _kinds(part: Schema, answers: AnswerColumns) -> dict[str, Kind]:
    """How to read each column of the file."""
    kinds = input_kinds(part)
    number: Kind = "number" if answers.form == "columns" else "any"
    for name in answers.probs:
        kinds[name] = "string" if answers.form == "label" else number
    for name in answers.embedding:
        kinds[name] = "any"
    return kinds


def _as_void(ids: NDArray[np.uint8]) -> NDArray[np.void]:
    """View ids of shape (n, 16) as n values that compare byte by byte."""
    return np.ascontiguousarray(ids).view("V16")[:, 0]
