"""The main job from end to end: the way of a row through the house.

Every stage reads what the one before left in the run folder, and writes whole files. So the same
call resumes a run that was stopped at any moment, and does nothing twice.
"""

import hashlib
import math
import uuid
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.data import Dataset, Splits, find_source, prepare, sample_rows
from limbeck.distill.acquire import Acquired, acquire
from limbeck.distill.arms import ArmTrainer, Materials, choose
from limbeck.distill.config import DecisionConfig, DistillConfig
from limbeck.distill.decision import check_decision
from limbeck.distill.finish import finish
from limbeck.distill.fit import fit_teacher
from limbeck.distill.folder import START, Listener, RunFolder, content_hash, ignore, settings_hash
from limbeck.distill.job import Labelled
from limbeck.distill.outcome import Outcome, read_outcome
from limbeck.distill.questions import (
    AnswerBook,
    check_budget,
    content_questions,
)
from limbeck.distill.recipes import check_objectives, expand, own_sources
from limbeck.distill.trust import Trust, fit_trust
from limbeck.distill.views import Subset
from limbeck.errors import ConfigError
from limbeck.ledger import Ledger, SqliteLedger
from limbeck.objectives.base import Objective, Targets
from limbeck.storage import write_text
from limbeck.students import Student, build, default_kind, find_kind, recommended_lr, settings_of
from limbeck.students.base import Ragged
from limbeck.students.store import EncodedStore, Store
from limbeck.teachers import Teacher, candidate_columns
from limbeck.teachers import build as build_teacher
from limbeck.teachers.imports import importable

if TYPE_CHECKING:
    from accelerate import Accelerator

LEAST_STEPS = 300
TRIED_ROWS = 64
"""Pool rows that a student is tried on before anything is spent."""

__all__ = ["Outcome", "distill"]


def distill(config: DistillConfig, listener: Listener = ignore, *, timed: bool = True) -> Outcome:
    """Make a small student from a teacher, a few labels and a pool.

    Args:
        config: What to do; `config.out` is the run folder. When it holds a run with the same
            settings, the run goes on where it stopped.
        listener: Told what happens.
        timed: Measure how long the student takes for one row. Off where other work on the machine
            would disturb the clock.

    Returns:
        The verdict, the numbers, and where the student and the report are.

    Raises:
        LimbeckError: one of its kinds, before money or minutes are spent where that is possible.
    """
    from accelerate import Accelerator

    accelerator = Accelerator()
    folder = RunFolder(config.out, listener, writes=accelerator.is_main_process)
    folder.check(config)
    folder.log(START, f"run folder {folder.root}")
    code = importable(config.code)
    with code, folder.collecting_warnings(), SqliteLedger(config.ledger) as ledger:
        outcome = _way_of_a_row(config, folder, ledger, accelerator, timed=timed)
    folder.log("done", f"verdict: {outcome.verdict.title}")
    return outcome


def _way_of_a_row(
    config: DistillConfig,
    folder: RunFolder,
    ledger: Ledger,
    accelerator: "Accelerator",
    *,
    timed: bool,
) -> Outcome:
    main_first = accelerator.main_process_first
    # Helpers of a distributed run wait at each of these, then find the work done.
    with main_first():
        splits = stage(config, folder)
        check_student(config, splits)
        check_validation(config, splits)
        check_objectives(config, splits.schema.num_classes)
        if config.teacher.kind == "fit" and not folder.claimed:
            # Its questions are known before it is trained: refuse a small budget now, not then.
            check_budget(config, content_questions(splits), None)
        folder.claim(config)
    teacher = make_teacher(config, splits, folder, accelerator)
    with main_first():
        acquired = acquire(config, splits, teacher, ledger, folder, run_id(folder))
    trust = fit_trust(config, splits, acquired)
    folder.log("trust", trust.summary())
    with main_first():
        materials = prepare_materials(config, splits, acquired, trust, folder)
    trainer = ArmTrainer(config, materials, folder, accelerator)
    arms = [trainer.train(name) for name in expand(config)]
    if accelerator.is_main_process:
        chosen = choose(arms)
        finish(config, splits, acquired, trust, arms, chosen, teacher, folder, timed=timed)
    accelerator.wait_for_everyone()
    return read_outcome(folder)


def stage(config: DistillConfig, folder: RunFolder) -> Splits:
    """Read the files into the run folder, once.

    Raises:
        DataError: the files cannot be used; ConfigError: there is no pool, or the settings of the
            decision do not fit the classes.
    """
    splits = prepare(
        config.data,
        folder.data,
        config.seed,
        keep=answer_columns(config),
        restage=not folder.claimed,
    )
    if splits.pool is None or len(splits.pool) == 0:
        raise ConfigError(
            "distillation needs a pool of unlabelled rows and none was given; name a file with "
            "data.pool (or --pool), or leave the label empty in the rows that are the pool."
        )
    check_decision(config.decision, splits.schema.classes)
    for note in splits.notes:
        folder.log("data", note)
    return splits


def answer_columns(config: DistillConfig) -> tuple[str, ...]:
    """Columns of the pool that hold answers, where the teacher reads them off the rows."""
    if config.teacher.kind not in ("table", "simulated") or config.teacher.path is not None:
        return ()
    pool = config.data.pool or config.data.labelled
    names = sample_rows(find_source(pool)).schema.names
    return candidate_columns(names, label=config.teacher.label)


def make_teacher(
    config: DistillConfig, splits: Splits, folder: RunFolder, accelerator: "Accelerator"
) -> Teacher:
    """The configured teacher; `fit` is trained first."""
    if config.teacher.kind == "fit":
        fit_teacher(config, splits, folder, accelerator)
    return load_teacher(config, splits, folder)


def load_teacher(config: DistillConfig, splits: Splits, folder: RunFolder) -> Teacher:
    """The configured teacher; `fit` must have been trained."""
    assert splits.pool is not None
    settings = config.teacher
    if settings.kind == "fit":
        settings = replace(settings, kind="student", path=folder.teacher, members=1)
    return build_teacher(settings, splits.schema, config.code, names=splits.pool.table.schema.names)


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


def check_validation(config: DistillConfig, splits: Splits) -> None:
    """Refuse a validation set that cross-validation cannot be cut from.

    Raises:
        ConfigError: fewer validation rows than folds.
    """
    rows, folds = len(splits.validation), config.train.folds
    if rows < folds:
        raise ConfigError(
            f"validation has {rows} rows but train.folds={folds}; set at least {folds} rows aside "
            f"for validation (some hundred make trust and temperature worth having)."
        )


def steps_of(config: DistillConfig, pool_rows: int) -> int:
    """Gradient steps of every arm."""
    if config.train.steps:
        return config.train.steps
    return max(LEAST_STEPS, math.ceil(config.train.epochs * pool_rows / config.train.pool_batch))


def make_student(config: DistillConfig, splits: Splits) -> tuple[Student, float]:
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
    )
    return student, config.train.learning_rate or recommended_lr(settings)


def prepare_materials(
    config: DistillConfig, splits: Splits, acquired: Acquired, trust: Trust, folder: RunFolder
) -> Materials:
    """Encode every row that will be trained or measured on, once, into the run folder."""
    assert splits.pool is not None
    student, rate = make_student(config, splits)
    folder.log("encode", f"encoding {len(acquired.pool_rows):,} pool rows for the student")

    def encoded(name: str, rows: Dataset) -> Labelled:
        assert rows.labels is not None
        store = EncodedStore.build(
            student.encoder,
            rows.batches(4096),
            folder.encoded / f"{name}.bin",
            rows=len(rows),
            source=content_hash(rows.content_ids),
        )
        return Labelled(store, torch.from_numpy(rows.labels.copy()))

    pool = EncodedStore.build(
        student.encoder,
        (splits.pool.take(part) for part in _parts(acquired.pool_rows, 4096)),
        folder.encoded / "pool.bin",
        rows=len(acquired.pool_rows),
        source=content_hash(splits.pool.content_ids[acquired.pool_rows]),
    )
    validation = encoded("validation", splits.validation)
    return Materials(
        student=student,
        labelled=encoded("labelled", splits.labelled),
        validation=validation,
        evidence=Subset(validation.rows, acquired.validation_rows),
        test=encoded("test", splits.test),
        pools=lambda objective: AnsweredPool(pool, acquired.book, acquired.pool_ids, objective),
        fit=lambda objective: objective.fit(
            acquired.book.batches(acquired.pool_ids), trust.evidence
        ),
        steps=steps_of(config, len(acquired.pool_rows)),
        learning_rate=rate,
        settings=settings_hash(
            _shaping(config),
            own_sources(config),
            student.encoder.to_config(),
            _weights_hash(student),
            content_hash(
                splits.labelled.content_ids, splits.validation.content_ids, acquired.pool_ids
            ),
            torch.__version__,
        ),
    )


@dataclass(frozen=True, slots=True, eq=False)
class AnsweredPool:
    """Encoded pool rows and, read from the ledger a minibatch at a time, their targets."""

    encoded: Store
    book: AnswerBook
    ids: NDArray[np.uint8]
    objective: Objective

    def __len__(self) -> int:
        return len(self.encoded)

    def take(self, rows: NDArray[np.int64]) -> tuple[Ragged, Targets]:
        """Rows by position and what the objective wants of them."""
        return self.encoded.take(rows), self.objective.targets(self.answers(rows))

    def answers(self, rows: NDArray[np.int64]) -> Answers:
        """The teacher's answers of rows by position."""
        return self.book.read(self.ids[rows])


def _shaping(config: DistillConfig) -> str:
    """Every setting that shapes a trained arm."""
    rest = replace(config, out=Path(), ledger=Path(), code=Path(), budget=1, money=0.0)
    return repr(replace(rest, decision=DecisionConfig()))


def _weights_hash(student: Student) -> str:
    """Hash of initial weights: a model folder or a network of the user's may have changed."""
    weights = {name: t.contiguous() for name, t in student.module.state_dict().items()}
    return hashlib.blake2b(safetensors.torch.save(weights), digest_size=16).hexdigest()


def _parts(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def run_id(folder: RunFolder) -> str:
    """Names the run in the ledger; a folder that is deleted and made anew is another run."""
    path = folder.root / "run.id"
    if not path.exists():
        write_text(path, uuid.uuid4().hex + "\n")
    return path.read_text().strip()
