"""What a run would do and cost, before anything is spent."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.data import Splits
from limbeck.distill.buying import HUMAN
from limbeck.distill.choosing import make_rule
from limbeck.distill.config import DistillConfig
from limbeck.distill.encoding import make_student, student_kind
from limbeck.distill.estimate import Estimate, span
from limbeck.distill.fit import teacher_plan
from limbeck.distill.folder import Listener, RunFolder, ignore
from limbeck.distill.materials import steps_of
from limbeck.distill.needs import check_teacher
from limbeck.distill.recipes import check_objectives, expand, make_objective, title
from limbeck.distill.round_sizes import check_no_rounds
from limbeck.distill.run import questions_of, teacher_if_ready
from limbeck.distill.search.forecast import search_plan
from limbeck.distill.search.run import SEARCH
from limbeck.distill.staging import stage
from limbeck.distill.teacher import check_engine
from limbeck.distill.to_buy import count_answers, worst_price
from limbeck.ledger import Limit, SqliteLedger
from limbeck.ledger.show import summarize
from limbeck.objectives.base import StudentOut
from limbeck.students.base import Student
from limbeck.teachers import Money, Teacher
from limbeck.teachers.imports import importable

_TIMED_STEPS = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen.

    Args:
        out, ledger: Where it would write.
        rows: Rows of each split, overlaps removed.
        notes: What was guessed and removed.
        teacher, student: Kinds; no student where nothing is trained.
        owned: Answers among validation, test and pool that the ledger holds, free.
        validation, test, pool: Answers to buy for each.
        price: Most that they can cost.
        expected: What they will probably cost and take, once the teacher has answered.
        arms: Arms to train.
        steps: Gradient steps of each.
        seconds, seconds_low, seconds_high: Training time, teacher and cross-validation included,
            from a few timed steps.
        free_bytes: Room on the disk.
        limit: What all runs of the ledger may spend together and have spent; empty without one.
        search: What a search for the student would do; empty without one.
        heads: Of arms whose students have more outputs than classes: the outputs, and the weights
            that they are more.
        ends: Why fewer answers than that will be bought, or none; empty where all will be.
    """

    out: Path
    ledger: Path
    rows: dict[str, int]
    notes: tuple[str, ...]
    teacher: str
    student: str
    owned: int
    validation: int
    test: int
    pool: int
    price: Money
    expected: Estimate
    arms: tuple[str, ...]
    steps: int
    seconds: float
    seconds_low: float
    seconds_high: float
    free_bytes: int
    limit: str = ""
    ends: str = ""
    search: tuple[str, ...] = ()
    heads: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def spends(self) -> bool:
        """Whether the run itself buys answers; those of people are ordered by `limbeck ask`."""
        return self.teacher != HUMAN

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {**asdict(self), "out": str(self.out), "ledger": str(self.ledger)}

    def text(self) -> str:
        """A few lines for a person."""
        rows = ", ".join(f"{n:,} {name}" for name, n in self.rows.items())
        buy = self.validation + self.test + self.pool
        return "\n".join(
            [
                f"rows      {rows}",
                *(f"          {note}" for note in self.notes),
                *([f"student   {self.student}"] if self.student else []),
                f"teacher   {self.teacher}",
                f"answers   {buy:,} to buy ({self.validation:,} validation, {self.test:,} test, "
                f"{self.pool:,} pool); {self.owned:,} are in the ledger and free",
                *([f"ends      {self.ends}"] if self.ends else []),
                *self.expected.lines,
                *([self.limit] if self.limit else []),
                *self.search,
                *self._training(),
                f"writes    {self.out} and {self.ledger}",
            ]
        )

    def _training(self) -> list[str]:
        took = f"{span(self.seconds)} ({span(self.seconds_low)} to {span(self.seconds_high)})"
        if self.arms:
            wide = [
                f"          {title(arm)}: a head of {outputs:,} outputs, {more:,} weights more"
                for arm, (outputs, more) in self.heads.items()
            ]
            return [f"training  {len(self.arms)} arms of {self.steps:,} steps, about {took}", *wide]
        return [f"training  the teacher, about {took}"] if self.seconds else []


def make_plan(config: DistillConfig, listener: Listener = ignore, *, trains: bool = True) -> Plan:
    """Read the files, look into the ledger, time a few steps; ask nobody.

    The rows are staged into the run folder, where the run itself will find them.

    Args:
        config: What to do.
        listener: Told what happens.
        trains: False where answers are only bought, as `limbeck label` does.

    Raises:
        LimbeckError: whatever the run itself would refuse before it spends anything.
    """
    if not trains:
        check_no_rounds(config)
    folder = RunFolder(config.out, listener, writes=False)
    folder.check(config)
    with importable(config.code), folder.collecting_warnings():
        splits = stage(config, folder)
        if trains:
            check_objectives(config, splits.schema.num_classes)
            make_rule(config)
        teacher = teacher_if_ready(config, splits, folder)
        if trains:
            check_teacher(config, splits, teacher)
        check_engine(config, splits, folder, teacher)
        asked = questions_of(splits, teacher)
        buy = count_answers(config, splits, asked, teacher, folder)
        price = buy.at_most(worst_price(config, splits, teacher, buy.counts))
        arms = expand(config) if trains else ()
        steps = steps_of(config, buy.pool_rows) if trains else 0
        student = make_student(config, splits, folder)[0] if arms else None
        seconds = training_seconds(config, splits, folder, steps, teacher, arms, student)
        looked: tuple[str, ...] = ()
        if student is not None and config.student.arch == SEARCH:
            looked = search_plan(
                config,
                splits,
                student,
                folder,
                buy.pool_rows,
                partial(timed_steps, splits, student),
            )
        heads = {} if student is None else _wide_heads(config, student, arms)
    low, middle, high = np.quantile(seconds, (0.1, 0.5, 0.9)).tolist()
    assert splits.pool is not None
    names = ("labelled", "validation", "test", "pool")
    return Plan(
        out=config.out,
        ledger=config.ledger,
        rows={name: len(getattr(splits, name)) for name in names},
        notes=splits.notes,
        teacher=config.teacher.kind,
        student=student_kind(config, splits) if trains else "",
        owned=buy.owned,
        validation=buy.validation,
        test=buy.test,
        pool=buy.pool,
        price=price,
        expected=Estimate.of(buy.history, buy.total, price),
        arms=arms,
        steps=steps,
        seconds=middle,
        seconds_low=low,
        seconds_high=high,
        free_bytes=shutil.disk_usage(config.out).free,
        limit=_ledger_limit(config.ledger),
        ends=buy.ends,
        search=looked,
        heads=heads,
    )


def _wide_heads(
    config: DistillConfig, student: Student, arms: tuple[str, ...]
) -> dict[str, tuple[int, int]]:
    """Outputs, and weights beyond those of a plain head, of the arms that have any."""
    classes, dim = student.schema.num_classes, student.module.embedding_dim
    widths = {arm: make_objective(arm, config).width(classes) for arm in arms}
    return {
        arm: (width, (width - classes) * dim) for arm, width in widths.items() if width > classes
    }


def _ledger_limit(path: Path) -> str:
    """The limit of a ledger in words, empty where there is none."""
    if not path.exists():
        return ""
    with SqliteLedger(path) as ledger:
        return summarize(ledger, events=0).limit_line() if ledger.limit() != Limit() else ""


def training_seconds(
    config: DistillConfig,
    splits: Splits,
    folder: RunFolder,
    steps: int,
    teacher: Teacher | None,
    arms: tuple[str, ...],
    student: Student | None = None,
) -> NDArray[np.float64]:
    """Seconds that all training would take, once for each of a few timed steps."""
    seconds = np.zeros(_TIMED_STEPS)
    if arms:
        student = student or make_student(config, splits, folder)[0]
        seconds += _seconds_of_arms(config, splits, student, steps, arms)
    if teacher is None:
        job = teacher_plan(config, splits, folder)
        seconds += config.teacher.members * job.steps * timed_steps(splits, job.student, job.batch)
    return seconds


def _seconds_of_arms(
    config: DistillConfig,
    splits: Splits,
    student: Student,
    steps: int,
    names: tuple[str, ...],
) -> NDArray[np.float64]:
    labelled = config.train.labelled_batch if config.train.labelled_weight else 0
    both = config.train.pool_batch + labelled
    distilled = sum(name not in ("labels", "labels_and_validation") for name in names)
    plain = len(names) - distilled
    plain += config.train.folds if "labels_and_validation" in names else 0
    choosing = _choosing_steps(config, steps)
    seconds = (distilled * steps + choosing) * timed_steps(splits, student, both)
    return seconds + plain * steps * timed_steps(splits, student, config.train.labelled_batch)


def _choosing_steps(config: DistillConfig, steps: int) -> int:
    """Gradient steps of the students that choose, at most: one before each round, one at the end.

    Those of early rounds learn from fewer rows than the arms and take no more steps.
    """
    if not config.buy.in_rounds:
        return 0
    students = (config.buy.rounds + 1) * (2 if config.buy.beside else 1)
    return students * (config.buy.steps or steps)


def timed_steps(splits: Splits, student: Student, size: int) -> NDArray[np.float64]:
    """Seconds of a few training steps on real pool rows, which are encoded before."""
    assert splits.pool is not None
    rows = splits.pool.take(np.resize(np.arange(min(len(splits.pool), size)), size))
    encoded = student.encoder.encode(rows.select(list(splits.schema.inputs)))
    optimizer = torch.optim.AdamW(student.module.parameters(), lr=0.0, fused=True)

    def step() -> None:
        inputs = student.encoder.augment(student.encoder.collate(encoded), torch.Generator())
        out: StudentOut = student.module(inputs)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(out.outputs.square().mean())
        optimizer.step()

    step()
    return np.array([_seconds(step) for _ in range(_TIMED_STEPS)])


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
