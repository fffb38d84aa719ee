"""The main job from end to end: the way of a row through the house.

Every stage reads what the one before left in the run folder, and writes whole files. So the same
call resumes a run that was stopped at any moment, and does nothing twice.
"""

import hashlib
import math
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.data import Splits, find_source, prepare, sample_rows
from limbeck.distill.acquire import Acquired, acquire, check_spending
from limbeck.distill.arms import ArmTrainer, Materials, choose
from limbeck.distill.config import DecisionConfig, DistillConfig
from limbeck.distill.decision import check_decision
from limbeck.distill.encoding import EncodedRows, check_student, encode_rows
from limbeck.distill.finish import finish
from limbeck.distill.fit import fit_teacher, is_trained
from limbeck.distill.folder import START, Listener, RunFolder, content_hash, ignore, settings_hash
from limbeck.distill.outcome import Outcome, read_outcome
from limbeck.distill.pool_choice import rows_to_encode
from limbeck.distill.questions import AnswerBook, Questions, content_questions, questions
from limbeck.distill.recipes import check_objectives, expand, own_sources
from limbeck.distill.teacher import asked_by, load_teacher
from limbeck.distill.trust import Trust, fit_trust
from limbeck.distill.views import Subset
from limbeck.engines.config import RayConfig
from limbeck.errors import ConfigError
from limbeck.ledger import Ledger, SqliteLedger
from limbeck.objectives.base import Objective, Targets
from limbeck.storage import write_first
from limbeck.students import Student
from limbeck.students.base import Ragged
from limbeck.students.store import Store
from limbeck.teachers import Teacher, candidate_columns
from limbeck.teachers.config import TeacherConfig
from limbeck.teachers.imports import importable

if TYPE_CHECKING:
    from accelerate import Accelerator

LEAST_STEPS = 300

__all__ = ["Outcome", "distill", "load_teacher"]


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
        check_objectives(config, splits.schema.num_classes)
        check_student(config, splits)
        check_validation(config, splits)
        teacher = teacher_if_ready(config, splits, folder)
        asked = questions_of(splits, teacher)
        if not folder.claimed:
            check_spending(config, splits, teacher, asked, ledger)
        # The last thing that rows can be refused for; nothing is spent or trained before.
        rows = rows_to_encode(config, asked, teacher, ledger, folder)
        encoded = encode_rows(config, splits, rows, folder)
        folder.claim(config)
    if teacher is None:
        teacher = make_teacher(config, splits, folder, accelerator)
        asked = questions_of(splits, teacher)
    with main_first(), asked_by(config, splits, folder, teacher) as copies:
        acquired = acquire(
            config, splits, copies, ledger, folder, run_id(folder), asked=asked, within=rows
        )
    trust = fit_trust(config, splits, acquired)
    folder.log("trust", trust.summary())
    materials = prepare_materials(config, splits, encoded, acquired, trust)
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
    everyone = (config.teacher, *config.teacher.teachers)
    readers = [
        one
        for one in everyone
        if one.kind in ("table", "simulated") and one.path is None and not one.teachers
    ]
    if not readers:
        return ()
    pool = config.data.pool or config.data.labelled
    names = sample_rows(find_source(pool)).schema.names
    found = [name for one in readers for name in candidate_columns(names, label=one.label)]
    return tuple(dict.fromkeys(found))


def teacher_if_ready(config: DistillConfig, splits: Splits, folder: RunFolder) -> Teacher | None:
    """The teacher, or None where it has yet to be trained."""
    if config.teacher.kind == "fit" and not is_trained(config, folder):
        return None
    return load_teacher(config, splits, folder)


def questions_of(splits: Splits, teacher: Teacher | None) -> Questions:
    """What the teacher would be asked; one that is yet to be trained sees all inputs."""
    return content_questions(splits) if teacher is None else questions(splits, teacher)


def make_teacher(
    config: DistillConfig, splits: Splits, folder: RunFolder, accelerator: "Accelerator"
) -> Teacher:
    """The configured teacher; `fit` is trained first."""
    if config.teacher.kind == "fit":
        fit_teacher(config, splits, folder, accelerator)
    return load_teacher(config, splits, folder)


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


def prepare_materials(
    config: DistillConfig, splits: Splits, encoded: EncodedRows, acquired: Acquired, trust: Trust
) -> Materials:
    """Bring encoded rows and answers together."""
    student = encoded.student
    places = np.searchsorted(encoded.pool_rows, acquired.pool_rows)
    # Fewer than were encoded where some were not answered, or others were known meanwhile.
    everything = len(places) == len(encoded.pool_rows)
    pool: Store = encoded.pool if everything else Subset(encoded.pool, places)
    return Materials(
        student=student,
        labelled=encoded.labelled,
        validation=encoded.validation,
        evidence=Subset(encoded.validation.rows, acquired.validation_rows),
        test=encoded.test,
        pools=lambda objective: AnsweredPool(pool, acquired.book, acquired.pool_ids, objective),
        fit=lambda objective: objective.fit(
            acquired.book.batches(acquired.pool_ids), trust.evidence
        ),
        steps=steps_of(config, len(acquired.pool_rows)),
        learning_rate=encoded.learning_rate,
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
    rest = replace(rest, engine="local", ray=RayConfig())
    teacher = _answers_only(rest.teacher)
    rest = replace(
        rest, teacher=replace(teacher, teachers=tuple(map(_answers_only, teacher.teachers)))
    )
    return repr(replace(rest, decision=DecisionConfig()))


def _answers_only(teacher: TeacherConfig) -> TeacherConfig:
    """The settings without those of an endpoint that change no answer."""
    if teacher.endpoint is None:
        return teacher
    return replace(teacher, endpoint=teacher.endpoint.answers_only())


def _weights_hash(student: Student) -> str:
    """Hash of initial weights: a model folder or a network of the user's may have changed."""
    weights = {name: t.contiguous() for name, t in student.module.state_dict().items()}
    return hashlib.blake2b(safetensors.torch.save(weights), digest_size=16).hexdigest()


def run_id(folder: RunFolder) -> str:
    """Names the run in the ledger; a folder that is deleted and made anew is another run."""
    path = folder.root / "run.id"
    if not path.exists():
        # Two commands that begin at once in one folder are one run, and have one budget.
        write_first(path, uuid.uuid4().hex + "\n")
    return path.read_text().strip()
