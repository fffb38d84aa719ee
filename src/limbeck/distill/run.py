"""The main job from end to end: the way of a row through the house.

Every stage reads what the one before left in the run folder, and writes whole files. So the same
call resumes a run that was stopped at any moment, and does nothing twice.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from limbeck.data import Splits
from limbeck.distill.acquire import Acquired, Acquisition, acquire, check_spending
from limbeck.distill.arms import ArmTrainer, choose, ignore_objective
from limbeck.distill.choosing import make_rule
from limbeck.distill.config import DistillConfig
from limbeck.distill.embedding_study import EmbeddingStudy
from limbeck.distill.encoding import EncodedRows, check_student, encode_labelled, encode_rows
from limbeck.distill.finish import finish
from limbeck.distill.fit import fit_teacher, is_trained
from limbeck.distill.folder import START, Listener, RunFolder, ignore
from limbeck.distill.materials import prepare_materials
from limbeck.distill.needs import check_answers, check_teacher
from limbeck.distill.outcome import Outcome, read_outcome
from limbeck.distill.pool_choice import rows_to_encode
from limbeck.distill.questions import Questions, content_questions, questions
from limbeck.distill.recipes import check_objectives, expand
from limbeck.distill.round_sizes import round_sizes
from limbeck.distill.rounds import buy_in_rounds
from limbeck.distill.search.run import SEARCH, check_search, find_student
from limbeck.distill.search.trials import SearchRows
from limbeck.distill.staging import stage
from limbeck.distill.teacher import asked_by, load_teacher
from limbeck.distill.trust import fit_trust
from limbeck.errors import ConfigError, WaitingError
from limbeck.ledger import Ledger, SqliteLedger
from limbeck.storage import write_first
from limbeck.teachers import Teacher
from limbeck.teachers.imports import importable

if TYPE_CHECKING:
    from accelerate import Accelerator

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
    with begun(config, listener) as (folder, ledger, accelerator):
        bought = buy(config, folder, ledger, accelerator)
        outcome = _train(config, folder, bought, accelerator, timed=timed)
    folder.log("done", f"verdict: {outcome.verdict.title}")
    return outcome


def choose_next(config: DistillConfig, listener: Listener = ignore) -> bool:
    """Go on with a run until people are to be asked again, and stop there.

    Returns:
        Whether they are; False where all that the run asks about is answered.

    Raises:
        LimbeckError: as `distill`.
    """
    try:
        with begun(config, listener) as (folder, ledger, accelerator):
            buy(config, folder, ledger, accelerator)
    except WaitingError:
        return True
    return False


@contextmanager
def begun(
    config: DistillConfig, listener: Listener
) -> "Iterator[tuple[RunFolder, Ledger, Accelerator]]":
    """The run's folder and ledger, and where it computes."""
    from accelerate import Accelerator

    accelerator = Accelerator()
    folder = RunFolder(config.out, listener, writes=accelerator.is_main_process)
    folder.check(config)
    folder.log(START, f"run folder {folder.root}")
    code = importable(config.code)
    with code, folder.collecting_warnings(), SqliteLedger(config.ledger) as ledger:
        yield folder, ledger, accelerator


def encode_only(config: DistillConfig, folder: RunFolder) -> tuple[Splits, EncodedRows]:
    """Rows and a student of a run of which no teacher is asked; nothing is claimed."""
    splits = stage(config, folder)
    check_student(config, splits)
    check_validation(config, splits)
    return splits, encode_labelled(config, splits, folder)


@dataclass(frozen=True, slots=True, eq=False)
class Bought:
    """What a run has when nothing more is bought."""

    splits: Splits
    encoded: EncodedRows
    teacher: Teacher
    acquired: Acquired


def buy(
    config: DistillConfig, folder: RunFolder, ledger: Ledger, accelerator: "Accelerator"
) -> Bought:
    """The first half: rows, the teacher, its answers."""
    main_first = accelerator.main_process_first
    # Helpers of a distributed run wait at each of these, then find the work done.
    with main_first():
        splits = stage(config, folder)
        check_objectives(config, splits.schema.num_classes)
        check_student(config, splits)
        check_validation(config, splits)
        teacher = teacher_if_ready(config, splits, folder)
        check_teacher(config, splits, teacher)
        asked = questions_of(splits, teacher)
        if not folder.claimed:
            check_spending(config, splits, teacher, asked, ledger)
        # The last thing that rows can be refused for; nothing is spent or trained before.
        rows = rows_to_encode(config, asked, teacher, ledger, folder)
        if config.buy.in_rounds:
            make_rule(config)
            round_sizes(config, asked, len(rows))
        encoded = encode_rows(config, splits, rows, folder)
        if config.student.arch == SEARCH:
            check_search(config, encoded.student, folder)
        folder.claim(config)
    if teacher is None:
        teacher = make_teacher(config, splits, folder, accelerator)
        asked = questions_of(splits, teacher)
    with asked_by(config, splits, folder, teacher) as copies:
        accept = partial(check_answers, config)
        task = Acquisition(config, splits, copies, ledger, folder, run_id(folder), asked, accept)
        if config.buy.in_rounds:
            acquired = buy_in_rounds(task, asked, encoded, accelerator)
        else:
            with main_first():
                acquired = acquire(task, within=rows)
    return Bought(splits, encoded, teacher, acquired)


def _train(
    config: DistillConfig,
    folder: RunFolder,
    bought: Bought,
    accelerator: "Accelerator",
    *,
    timed: bool,
) -> Outcome:
    """The second half: trust, arms, report."""
    splits, acquired = bought.splits, bought.acquired
    trust = fit_trust(config, splits, acquired, bought.teacher)
    folder.log("trust", trust.summary())
    encoded, found = bought.encoded, None
    if config.student.arch == SEARCH:
        rows = SearchRows(splits, encoded, acquired, trust)
        encoded, found = find_student(config, rows, folder, run_id(folder), accelerator)
    materials = prepare_materials(config, splits, encoded, acquired, trust)
    study = EmbeddingStudy(splits, acquired, trust, folder)
    look = study.look if accelerator.is_main_process else ignore_objective
    trainer = ArmTrainer(config, materials, folder, accelerator, look)
    arms = [trainer.train(name) for name in expand(config)]
    if accelerator.is_main_process:
        chosen = choose(arms)
        finish(
            config,
            splits,
            acquired,
            trust,
            arms,
            chosen,
            bought.teacher,
            folder,
            timed=timed,
            embeddings=study.view(),
            search=found,
        )
    accelerator.wait_for_everyone()
    return read_outcome(folder)


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


def run_id(folder: RunFolder) -> str:
    """Names the run in the ledger; a folder that is deleted and made anew is another run."""
    path = folder.root / "run.id"
    if not path.exists():
        # Two commands that begin at once in one folder are one run, and have one budget.
        write_first(path, uuid.uuid4().hex + "\n")
    return path.read_text().strip()
