"""The student before it is trained: can it be built, and every row that it will read, encoded.

All of that happens before the first answer is bought, so a row that the encoder refuses costs
nothing.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.data import Dataset, Splits
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import RunFolder, content_hash
from limbeck.distill.job import Labelled
from limbeck.distill.recipes import class_maps
from limbeck.errors import ConfigError, DataError
from limbeck.students import (
    Keep,
    Student,
    build,
    default_kind,
    find_kind,
    recommended_lr,
    settings_of,
    with_outputs,
)
from limbeck.students.store import EncodedStore
from limbeck.teachers.imports import importable

TRIED_ROWS = 64
"""Pool rows that a student is tried on before all rows are encoded."""
_BATCH = 4096
_SHOWN = 60  # characters of a row in a message


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRows:
    """A student and all rows that it may read.

    Args:
        student: Freshly initialised.
        learning_rate: Peak that suits it.
        labelled, validation, test: Encoded rows with true labels.
        pool: Encoded pool rows, those of `pool_rows`.
        pool_rows: Positions in the pool, int64, ascending.
    """

    student: Student
    learning_rate: float
    labelled: Labelled
    validation: Labelled
    test: Labelled
    pool: EncodedStore
    pool_rows: NDArray[np.int64]


def encode_rows(
    config: DistillConfig, splits: Splits, pool_rows: NDArray[np.int64], folder: RunFolder
) -> EncodedRows:
    """Encode labelled, validation and test rows and some pool rows, once, into the run folder.

    Args:
        config: The run's settings.
        splits: The rows.
        pool_rows: Positions in the pool, int64, ascending.
        folder: Where the encoded rows go; what is there already is used as it is.

    Raises:
        DataError: the student's encoder refuses a row, which is named.
    """
    student, rate = make_student(config, splits, folder)
    if not (folder.encoded / "pool.bin").exists():
        folder.log("encode", f"encoding {len(pool_rows):,} pool rows for the student")
    return encode_for(student, rate, splits, pool_rows, folder.encoded)


def encode_labelled(config: DistillConfig, splits: Splits, folder: RunFolder) -> EncodedRows:
    """The same without pool rows, beside those of the run: for who learns from labels alone."""
    student, rate = make_student(config, splits, folder)
    return encode_for(student, rate, splits, np.arange(0), folder.search / "encoded" / "labelled")


def encode_for(
    student: Student,
    learning_rate: float,
    splits: Splits,
    pool_rows: NDArray[np.int64],
    place: Path,
) -> EncodedRows:
    """Encode rows for a student that is made already, once, into the folder `place`.

    Raises:
        DataError: the student's encoder refuses a row, which is named.
    """
    assert splits.pool is not None

    def encoded(name: str, rows: Dataset) -> Labelled:
        assert rows.labels is not None
        positions = np.arange(len(rows))
        return Labelled(store(name, rows, positions), torch.from_numpy(rows.labels.copy()))

    def store(name: str, rows: Dataset, positions: NDArray[np.int64]) -> EncodedStore:
        ids = rows.content_ids if len(positions) == len(rows) else rows.content_ids[positions]
        try:
            return EncodedStore.build(
                student.encoder,
                (rows.take(part) for part in _parts(positions, _BATCH)),
                place / f"{name}.bin",
                rows=len(positions),
                source=content_hash(ids),
                name=_describe(name, rows, positions),
            )
        except DataError as error:
            raise DataError(f"stopped before any purchase: {error}") from error

    return EncodedRows(
        student=student,
        learning_rate=learning_rate,
        labelled=encoded("labelled", splits.labelled),
        validation=encoded("validation", splits.validation),
        test=encoded("test", splits.test),
        pool=store("pool", splits.pool, pool_rows),
        pool_rows=pool_rows,
    )


def student_kind(config: DistillConfig, splits: Splits) -> str:
    """The configured kind of student, or the one that fits the columns."""
    return config.student.kind or default_kind(splits.schema)


def check_student(config: DistillConfig, splits: Splits) -> None:
    """Refuse a student that cannot be built before anything is spent on its teacher.

    Raises:
        ConfigError: unknown kind or setting, columns that this kind does not read, or a network of
            yours that cannot be used.
        DataError: its `encode` cannot read the rows.
        MissingExtraError: the kind needs an optional package.
    """
    kind = find_kind(student_kind(config, splits))
    settings = settings_of(kind.name, config.student.settings)
    if not any(getattr(splits.schema, group) for group in kind.reads):
        raise ConfigError(
            f"the student {kind.name} reads {' and '.join(kind.reads)} columns but the rows have "
            f"none (inputs: {', '.join(splits.schema.inputs)}); use another kind, or name columns."
        )
    assert splits.pool is not None
    rows = splits.pool.take(np.arange(min(TRIED_ROWS, len(splits.pool))))
    with importable(config.code), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the student that is trained says it
        made = build(
            kind.name,
            settings,
            splits.schema,
            [rows],
            splits.schema.num_classes,
            torch.Generator(),
        )
        made.encoder.encode(rows)
        for class_map in class_maps(config, splits.schema.num_classes):
            if not class_map.is_plain:
                with_outputs(made, class_map, torch.Generator())


def make_student(config: DistillConfig, splits: Splits, folder: RunFolder) -> tuple[Student, float]:
    """A freshly initialised student and its peak learning rate."""
    assert splits.pool is not None
    kind = student_kind(config, splits)
    settings = settings_of(kind, config.student.settings)
    generator = torch.Generator().manual_seed(config.seed)
    student = build(
        kind,
        settings,
        splits.schema,
        splits.pool.batches(8192),
        splits.schema.num_classes,
        generator,
        keep=Keep(folder.encoded, content_hash(splits.pool.content_ids)),
    )
    return student, config.train.learning_rate or recommended_lr(settings)


def _describe(name: str, rows: Dataset, positions: NDArray[np.int64]) -> Callable[[int], str]:
    """How messages call a row: the files' own numbers went when rows were left out."""

    def describe(place: int) -> str:
        row = int(positions[place])
        values = rows.take(np.array([row])).select(list(rows.schema.inputs)).to_pylist()[0]
        shown = ", ".join(f"{key} {_short(value)}" for key, value in values.items())
        return f"{name} row {row:,} ({shown}) cannot be encoded for the student"

    return describe


def _short(value: object) -> str:
    if isinstance(value, bytes):
        return f"of {len(value):,} bytes"
    text = str(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _parts(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
