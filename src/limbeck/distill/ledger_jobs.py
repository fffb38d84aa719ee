"""What the ledger's commands need of a run file: its teacher, or the questions of some rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limbeck.data import find_source
from limbeck.data.guess import guess_schema
from limbeck.data.ids import question_ids
from limbeck.data.looks import Seen
from limbeck.data.readers import sample_rows
from limbeck.data.stage import Layout, typed_batches
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import Listener, RunFolder, ignore
from limbeck.distill.run import teacher_if_ready
from limbeck.distill.staging import answer_columns, stage
from limbeck.errors import ConfigError, DataError
from limbeck.ledger.facts import SHORT, TeacherFacts
from limbeck.ledger.reparse import Reparsed, reparse
from limbeck.ledger.sqlite import SqliteLedger
from limbeck.teachers.imports import importable
from limbeck.teachers.mean import members_of


def reparse_run(
    config: DistillConfig, listener: Listener = ignore, *, dry_run: bool = False
) -> Reparsed:
    """Read the raw replies of a run file's teacher again, with its parser of today.

    Of an ensemble each teacher is read that has raw replies.

    Args:
        config: Whose teacher, and which ledger.
        listener: Told what happens.
        dry_run: Count, and write nothing.

    Raises:
        ConfigError: the teacher has yet to be trained, or the ledger holds no reply of it.
    """
    folder = RunFolder(config.out, listener, writes=False)
    with importable(config.code), SqliteLedger.existing(config.ledger) as ledger:
        teacher = teacher_if_ready(config, stage(config, folder), folder)
        if teacher is None:
            raise ConfigError(
                f"teacher.kind={config.teacher.kind!r} has not been trained in {config.out}, so it "
                f"has no replies to read again; give the run file whose answers they are."
            )
        done: list[Reparsed] = []
        refusals: list[ConfigError] = []
        for member in members_of(teacher):
            try:
                done.append(reparse(ledger, member, dry_run=dry_run))
            except ConfigError as error:  # nothing to read; another of an ensemble may have some
                refusals.append(error)
        if not done:
            raise refusals[0]
        return Reparsed(
            sum(one.read for one in done),
            sum(one.changed for one in done),
            sum(one.recovered for one in done),
            sum(one.unreadable for one in done),
        )


def questions_in(
    config: DistillConfig, rows: Path, teachers: Sequence[TeacherFacts]
) -> dict[str, NDArray[np.uint8]]:
    """What teachers were asked about the rows of a file, whatever columns each of them sees.

    Args:
        config: Says what the columns are.
        rows: File with the inputs, as a pool has them.
        teachers: Those of a ledger.

    Returns:
        Question ids, uint8, shape (n, 16), under each teacher's fingerprint.

    Raises:
        DataError: the file cannot be read, or lacks a column that some teacher sees.
    """
    labelled = find_source(config.data.labelled)
    guess = guess_schema(
        sample_rows(labelled),
        config.data,
        where=str(labelled.path),
        answers=answer_columns(config),
        folder=labelled.files[0].parent,
    )
    source = find_source(rows)
    have = sample_rows(source).schema.names
    seen: Mapping[str, tuple[str, ...]] = {
        teacher.fingerprint: teacher.columns or guess.schema.inputs for teacher in teachers
    }
    for fingerprint, columns in seen.items():
        if missing := sorted(set(columns) - set(have)):
            raise DataError(
                f"{rows} has no column {', '.join(missing)}, which teacher {fingerprint[:SHORT]} "
                f"sees, so its questions cannot be told; add it, or name questions with --ids."
            )
    layout = Layout(guess.schema, tuple({name for columns in seen.values() for name in columns}))
    found: dict[str, list[NDArray[np.uint8]]] = {fingerprint: [] for fingerprint in seen}
    for batch in typed_batches(source, layout, Seen()):
        for fingerprint, columns in seen.items():
            found[fingerprint].append(question_ids(batch, columns))
    nothing = np.zeros((0, 16), np.uint8)
    return {fingerprint: np.concatenate([nothing, *ids]) for fingerprint, ids in found.items()}
