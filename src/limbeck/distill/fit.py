"""The teacher `fit`: a larger student of ours, trained on labelled rows.

This is the papers' setting: few labels make a strong but imperfect teacher. It never sees the
validation rows, on which its honesty is measured; a tenth of its own rows chooses its steps.
"""

from dataclasses import dataclass, replace
from pathlib import Path
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
from limbeck.distill.subclass_teacher import calibrated, teacher_objective, with_head
from limbeck.distill.views import folds, subset
from limbeck.errors import DataError
from limbeck.students import Keep, Student, build, large_kind, large_settings, recommended_lr
from limbeck.students.folder import SUMS, save
from limbeck.students.store import EncodedStore
from limbeck.teachers.config import MOST_MEMBERS
from limbeck.teachers.ensemble import member_folder

if TYPE_CHECKING:
    from accelerate import Accelerator

HELD_OUT_FOLDS = MOST_MEMBERS
MEMBER_STRIDE = 1_000_003
"""Between the seeds of two members, so that runs of neighbouring seeds share no member."""
LEAST_STEPS = 300
EVALUATIONS = 10


def fit_teacher(
    config: DistillConfig,
    splits: Splits,
    folder: RunFolder,
    accelerator: "Accelerator",
) -> None:
    """Train the teacher into its folder, unless it is there; members one after the other.

    Args:
        config: The run's settings.
        splits: To make sure that the teacher's rows are not among validation or test.
        folder: The teacher is saved into `teacher/`, the members of an ensemble into
            `teacher/member0/` and so on.
        accelerator: Where to train.

    Raises:
        DataError: the teacher's rows hold validation or test rows, or have no labels.
    """
    homes = _homes(config, folder)
    if not is_trained(config, folder):
        plan = teacher_plan(config, splits, folder)
        _refuse_overlap(plan.rows, splits)
        for member, home in enumerate(homes):
            if not (home / SUMS).exists():
                job = _job(config, plan, folder, member)
                _train_into(home, job, plan.rows, folder, accelerator)
    accelerator.wait_for_everyone()


def is_trained(config: DistillConfig, folder: RunFolder) -> bool:
    """Whether the teacher, with all its members, is in its folder."""
    return all((home / SUMS).exists() for home in _homes(config, folder))


def _homes(config: DistillConfig, folder: RunFolder) -> list[Path]:
    """Where the teacher, or each of its members, is saved."""
    if config.teacher.members == 1:
        return [folder.teacher]
    return [member_folder(folder.teacher, i) for i in range(config.teacher.members)]


def _train_into(
    home: Path, job: Job, rows: Dataset, folder: RunFolder, accelerator: "Accelerator"
) -> None:
    """Train one model and save it, calibrated on the rows that it has held out."""
    folder.log("teacher", f"training the {_spoken(job.name)} on {len(rows):,} labelled rows")

    def on_step(step: int, point: CurvePoint | None) -> None:
        detail = {} if point is None else {"accuracy": point.accuracy}
        folder.tell(Event("teacher", "training", step, job.stop_at, detail))

    settings = settings_hash(
        content_hash(rows.content_ids),
        job.steps,
        job.seed,
        job.student.encoder.to_config(),
        job.student.class_map,
    )
    path = folder.checkpoints / f"{job.name}.safetensors"
    best = train(job, path, settings, accelerator, on_step).best
    assert best is not None
    folder.log(
        "teacher",
        f"{_spoken(job.name)}: accuracy {best.accuracy:.1%} on rows held out of its own labels",
    )
    if accelerator.is_main_process:
        student, temperature = calibrated(job, best.temperature, accelerator.device)
        save(student, home, temperature=temperature, threshold=0.0, extra={})


def _spoken(name: str) -> str:
    return name.replace(".member", ", member ")


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
    """What training the teacher, or each of its members, takes.

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


def teacher_plan(config: DistillConfig, splits: Splits, folder: RunFolder) -> TeacherPlan:
    """Size up the teacher's training without starting it.

    Raises:
        DataError: fewer rows than members.
    """
    rows = _own_rows(config, splits)
    if len(rows) < config.teacher.members:
        raise DataError(
            f"the teacher has {len(rows)} labelled rows but teacher.members="
            f"{config.teacher.members}, and each member holds out rows of its own; add rows or "
            f"lower it."
        )
    settings = large_settings(config.student.kind, splits.schema)
    batch = min(config.train.pool_batch, max(config.train.labelled_batch, len(rows) // 20))
    steps = config.train.steps or max(LEAST_STEPS, round(config.train.epochs * len(rows) / batch))
    student = _large_student(config, rows, config.seed, folder)
    return TeacherPlan(rows, student, batch, steps, recommended_lr(settings))


def _large_student(config: DistillConfig, rows: Dataset, seed: int, folder: RunFolder) -> Student:
    schema = rows.schema
    kind = large_kind(config.student.kind, schema)
    generator = torch.Generator().manual_seed(seed + 1)
    settings = large_settings(kind, schema)
    keep = Keep(folder.encoded, content_hash(rows.content_ids))
    student = build(
        kind, settings, schema, rows.batches(8192), schema.num_classes, generator, keep=keep
    )
    _, class_map = teacher_objective(config, schema.num_classes)
    return with_head(student, class_map, seed + 1)


def _job(config: DistillConfig, plan: TeacherPlan, folder: RunFolder, member: int) -> Job:
    """The training of a member: other weights, another order, another tenth held out."""
    rows = plan.rows
    assert rows.labels is not None
    seed = config.seed + member * MEMBER_STRIDE
    student = plan.student if member == 0 else _large_student(config, rows, seed, folder)
    store = EncodedStore.build(
        student.encoder,
        rows.batches(4096),
        folder.encoded / "teacher.bin",
        rows=len(rows),
        source=content_hash(rows.content_ids),
    )
    everything = Labelled(store, torch.from_numpy(rows.labels.copy()))
    fold = folds(rows.labels, HELD_OUT_FOLDS, config.seed)
    return Job(
        name="teacher" if config.teacher.members == 1 else f"teacher.member{member}",
        student=student,
        objective=teacher_objective(config, rows.schema.num_classes)[0],
        labelled=subset(everything, np.flatnonzero(fold != member)),
        pool=None,
        held_out=subset(everything, np.flatnonzero(fold == member)),
        train=replace(config.train, labelled_batch=plan.batch, evaluations=EVALUATIONS),
        steps=plan.steps,
        stop_at=plan.steps,
        learning_rate=plan.learning_rate,
        seed=seed,
    )


def _refuse_overlap(rows: Dataset, splits: Splits) -> None:
    for name, split in (("validation", splits.validation), ("test", splits.test)):
        shared = int(contains(split.content_ids, rows.content_ids).sum())
        if shared:
            raise DataError(
                f"{shared} of the teacher's own training rows are {name} rows too, so its answers "
                f"there would look better than they are; take them out of the teacher's file."
            )
