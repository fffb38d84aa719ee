"""Answers that are written in columns of a table: which columns, and how they are read.

Probabilities are a list column `probs`, one column `prob_<class>` a class, or columns `probs0`,
`probs1`, ... (what a matrix of an `.npz` file becomes). Embeddings are a list column `embedding`
or columns `embedding0`, `embedding1`, ... Hard labels are one column of class names.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.data.columns import label_column
from limbeck.errors import AnswerError, DataError

_NUMBERED = re.compile(r"(probs|embedding)(\d+)")
MISSING = "not in the table"
"""Why a row has no answer."""


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """Where the answers are.

    Args:
        probs: Column names: one list column, one column a class, or the column of hard labels.
        embedding: Column names: one list column, several of numbers, or none.
        form: How `probs` are written.
    """

    probs: tuple[str, ...]
    embedding: tuple[str, ...]
    form: Literal["list", "columns", "label"]

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that hold answers."""
        return self.probs + self.embedding


def candidate_columns(names: Sequence[str], *, label: str = "") -> tuple[str, ...]:
    """The columns of a file that may hold answers, told by their names alone.

    For whoever reads a file before the classes are known and must not drop these.
    """
    return tuple(
        name
        for name in names
        if name in ("probs", "embedding", label)
        or name.startswith("prob_")
        or _NUMBERED.fullmatch(name)
    )


def find_columns(
    names: Sequence[str], classes: Sequence[str], *, where: str, label: str = ""
) -> AnswerColumns:
    """Find the answers among a table's columns.

    Args:
        names: All columns of the table.
        classes: The task's classes.
        where: What the table is called in messages.
        label: The column of hard labels; when given, probabilities are not looked for.

    Raises:
        DataError: there are none, or a class has no column.
    """
    embedding = ("embedding",) if "embedding" in names else _numbered(names, "embedding")
    if label:
        if label not in names:
            raise DataError(f"{where} has no column '{label}'; its columns are {list(names)}.")
        return AnswerColumns((label,), embedding, "label")
    if "probs" in names:
        return AnswerColumns(("probs",), embedding, "list")
    wanted = tuple(f"prob_{name}" for name in classes)
    found = [name for name in names if name.startswith("prob_")]
    if found:
        missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
        if missing or extra:
            raise DataError(
                f"{where} has probability columns {found}, expected {list(wanted)}: missing "
                f"{missing}, unknown {extra}; give one column for each class."
            )
        return AnswerColumns(wanted, embedding, "columns")
    numbered = _numbered(names, "probs")
    if not numbered:
        raise DataError(
            f"{where} holds no answers: its columns are {list(names)}; add a list column probs, or "
            f"a column prob_<class> for each class, or name a column of hard labels with label."
        )
    return AnswerColumns(numbered, embedding, "columns")


def read_probs(
    batch: pa.RecordBatch, columns: AnswerColumns, classes: Sequence[str], *, where: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read probabilities.

    Returns:
        float32 (n, C), zeros where the row has no answer; and which rows have one, bool (n,).

    Raises:
        AnswerError: lists of another width, or a label that is no class.
    """
    if columns.form == "label":
        return _one_hot(batch.column(columns.probs[0]), columns.probs[0], classes, where)
    if columns.form == "list":
        return _lists(batch.column("probs"), f"{where}, column probs", width=len(classes))
    return _numbers(batch, columns.probs)


def read_embeddings(
    batch: pa.RecordBatch, columns: AnswerColumns, *, where: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
    """Read embeddings, float32 (n, D), and which rows have one; None: the table has none."""
    if not columns.embedding:
        return None
    if columns.embedding == ("embedding",):
        column = batch.column("embedding")
        if _is_list(column.type):
            return _lists(column, f"{where}, column embedding", width=None)
    return _numbers(batch, columns.embedding)


def _numbered(names: Sequence[str], stem: str) -> tuple[str, ...]:
    found = [name for name in names if (match := _NUMBERED.fullmatch(name)) and match[1] == stem]
    return tuple(sorted(found, key=lambda name: int(name[len(stem) :])))


def _numbers(
    batch: pa.RecordBatch, names: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    matrix = np.zeros((batch.num_rows, len(names)), np.float32)
    there = np.ones(batch.num_rows, np.bool_)
    for i, name in enumerate(names):
        column = batch.column(name)
        there &= column.is_valid().to_numpy(zero_copy_only=False)
        matrix[:, i] = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
    return matrix, there


def _lists(
    column: pa.Array, where: str, *, width: int | None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    if not _is_list(column.type):
        raise AnswerError(f"{where} holds {column.type}, expected lists of numbers; convert it.")
    there = column.is_valid().to_numpy(zero_copy_only=False)
    lists = column.filter(pa.array(there)).cast(pa.large_list(pa.float64()))
    lengths = np.diff(lists.offsets.to_numpy())
    width = width if width is not None else int(lengths[0]) if len(lengths) else 0
    if (lengths != width).any():
        row = int(np.flatnonzero(there)[int((lengths != width).argmax())])
        raise AnswerError(
            f"{where}: row {row} holds {lengths[lengths != width][0]} numbers, expected {width}; "
            f"give as many in every row."
        )
    matrix = np.zeros((len(column), width), np.float32)
    values = lists.flatten().fill_null(np.nan).to_numpy(zero_copy_only=False)
    matrix[there] = values.reshape(-1, width)
    return matrix, there


def _one_hot(
    column: pa.Array, name: str, classes: Sequence[str], where: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    labels = label_column(column, name, where=where).to_pylist()
    matrix = np.zeros((len(labels), len(classes)), np.float32)
    position = {known: i for i, known in enumerate(classes)}
    for row, label in enumerate(labels):
        if label is not None and label not in position:
            raise AnswerError(
                f"{where}: row {row} has label {label!r}, expected one of {list(classes)}; correct "
                f"the label."
            )
        if label is not None:
            matrix[row, position[label]] = 1.0
    return matrix, np.array([label is not None for label in labels], np.bool_)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
