"""The teacher `fit`: a larger student of ours, trained on labelled rows.

This is the papers' setting: few labels make a strong but imperfect teacher. It never sees the
validation rows, on which its honesty is measured; a tenth of its own rows chooses its steps.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from limbeck.data import Dataset, Splits, contains, find_source, read_batches
from limbeck.data.readers import input_kinds
from limbeck.distill.checkpoint import CurvePoint
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import Event, RunFolder, content_hash, settings_hash
from limbeck.distill.job import Job, Labelled
from limbeck.distill.loop import train
from limbeck.distill.views import folds, subset
from limbeck.errors import DataError
from limbeck.objectives import Supervised
from limbeck.students import Student, build, large_kind, large_settings, recommended_lr
from limbeck.students.folder import SUMS, save
from limbeck.students.store import EncodedStore

if TYPE_CHECKING:
    from accelerate import Accelerator

HELD_OUT_FOLDS = 10
LEAST_STEPS = 300
EVALUATIONS = 10


def fit_teacher(
    config: DistillConfig,
    splits: Splits,
    folder: RunFolder,
    accelerator: "Accelerator",
) -> None:
    """Train the teacher into its folder, unless it is there.

    Args:
        config: The run's settings.
        splits: To make sure that the teacher's rows are not among validation or test.
        folder: The teacher is saved into `teacher/`.
        accelerator: Where to train.

    Raises:
        DataError: the teacher's rows hold validation or test rows, or have no labels.
    """
    if not (folder.teacher / SUMS).exists():
        plan = teacher_plan(config, splits)
        _refuse_overlap(plan.rows, splits)
        job = _job(config, plan, folder)
        folder.log("teacher", f"training the teacher on {len(plan.rows):,} labelled rows")

        def on_step(step: int, point: CurvePoint | None) -> None:
            detail = {} if point is None else {"accuracy": point.accuracy}
            folder.tell(Event("teacher", "training", step, job.stop_at, detail))

        settings = settings_hash(
            content_hash(plan.rows.content_ids),
            job.steps,
            config.seed,
            job.student.encoder.to_config(),
        )
        path = folder.checkpoints / "teacher.safetensors"
        trained = train(job, path, settings, accelerator, on_step)
        best = trained.best
        assert best is not None
        folder.log(
            "teacher", f"teacher: accuracy {best.accuracy:.1%} on rows held out of its own labels"
        )
        if accelerator.is_main_process:
            save(job.student, folder.teacher, temperature=best.temperature, threshold=0.0, extra={})
    accelerator.wait_for_everyone()


def _own_rows(config: DistillConfig, splits: Splits) -> Dataset:
    """The run's labelled rows, or those of the teacher's own file."""
    path = config.teacher.path
    if path is None:
        return splits.labelled
    schema = splits.schema
    kinds = input_kinds(schema)
    kinds[schema.label or ""] = "string"
    table = pa.Table.from_batches(read_batches(find_source(path), kinds))
    return Dataset.from_table(table, schema)


@dataclass(frozen=True, slots=True, eq=False)
class TeacherPlan:
    """What training the teacher takes.

    Args:
        rows: Its labelled rows.
        student: The larger model, freshly initialised.
        batch: Rows a step: small sets take small batches, so that an epoch has steps.
        steps: Gradient steps.
        learning_rate: Peak of the schedule.
    """

    rows: Dataset
    student: Student
    batch: int
    steps: int
    learning_rate: float


def teacher_plan(config: DistillConfig, splits: Splits) -> TeacherPlan:
    """Size up the teacher's training without starting it."""
    rows = _own_rows(config, splits)
    kind = large_kind(config.student.kind, splits.schema)
    settings = large_settings(kind, splits.schema)
    generator = torch.Generator().manual_seed(config.seed + 1)
    student = build(
        kind, settings, splits.schema, rows.batches(8192), splits.schema.num_classes, generator
    )
    batch = min(config.train.pool_batch, max(config.train.labelled_batch, len(rows) // 20))
    steps = config.train.steps or max(LEAST_STEPS, round(config.train.epochs * len(rows) / batch))
    return TeacherPlan(rows, student, batch, steps, recommended_lr(settings))


def _job(config: DistillConfig, plan: TeacherPlan, folder: RunFolder) -> Job:
    rows = plan.rows
    assert rows.labels is not None
    store = EncodedStore.build(
        plan.student.encoder,
        rows.batches(4096),
        folder.encoded / "teacher.bin",
        rows=len(rows),
        source=content_hash(rows.content_ids),
    )
    everything = Labelled(store, torch.from_numpy(rows.labels.copy()))
    fold = folds(rows.labels, HELD_OUT_FOLDS, config.seed)
    return Job(
        name="teacher",
        student=plan.student,
        objective=Supervised(),
        labelled=subset(everything, np.flatnonzero(fold != 0)),
        pool=None,
        held_out=subset(everything, np.flatnonzero(fold == 0)),
        train=replace(config.train, labelled_batch=plan.batch, evaluations=EVALUATIONS),
        steps=plan.steps,
        stop_at=plan.steps,
        learning_rate=plan.learning_rate,
        seed=config.seed,
    )


def _refuse_overlap(rows: Dataset, splits: Splits) -> None:
    for name, split in (("validation", splits.validation), ("test", splits.test)):
        shared = int(contains(split.content_ids, rows.content_ids).sum())
        if shared:
            raise DataError(
                f"{shared} of the teacher's own training rows are {name} rows too, so its answers "
                f"there would look better than they are; take them out of the teacher's file."
            )
