"""What a comparison would do and cost over all its seeds, before anything is spent."""

import math
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.data import Splits, distinct
from limbeck.distill.choosing import make_rule
from limbeck.distill.compare_config import CompareConfig
from limbeck.distill.config import DistillConfig
from limbeck.distill.encoding import check_student, student_kind
from limbeck.distill.estimate import Estimate, span
from limbeck.distill.folder import RUN_FILE, Listener, RunFolder, ignore
from limbeck.distill.materials import steps_of
from limbeck.distill.needs import check_teacher
from limbeck.distill.plan import training_seconds
from limbeck.distill.pool_choice import draw_as_if_new, read_selection
from limbeck.distill.questions import Questions, check_budget, open_book
from limbeck.distill.recipes import check_objectives, expand
from limbeck.distill.round_sizes import forecast_rows
from limbeck.distill.run import check_validation, questions_of, teacher_if_ready
from limbeck.distill.staging import stage
from limbeck.distill.teacher import check_engine
from limbeck.distill.to_buy import worst_price
from limbeck.errors import ConfigError
from limbeck.ledger import SqliteLedger
from limbeck.ledger.history import History
from limbeck.teachers import Money, Teacher
from limbeck.teachers.imports import importable
from limbeck.teachers.mean import members_of


@dataclass(frozen=True, slots=True, eq=False)
class SeedPlan:
    """What one seed has to do.

    Args:
        config: Settings of its run.
        finished: Nothing.
        pool_rows: Pool rows to ask about, ascending, or None where the run has chosen them, or
            a student will.
        share: Share of the pool's distinct questions that they are.
    """

    config: DistillConfig
    finished: bool
    pool_rows: NDArray[np.int64] | None = None
    share: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class ComparePlan:
    """What would happen.

    Args:
        out, ledger: Where it would write.
        seeds: All seeds.
        left: Seeds that are not finished.
        each: What each of those has to do.
        rows: Rows of each split of the first seed.
        notes: What was guessed and removed.
        teacher, student: Kinds.
        arms, baseline: What is compared.
        steps: Gradient steps of each arm.
        budget: Answers that each seed may buy.
        needed: Answers that the seeds use, those that several share counted once.
        answers: Of these, the ones to buy.
        price: Most that they can cost.
        expected: What they will probably cost, and take if the seeds ask one after the other, once
            the teacher has answered.
        workers, threads: Processes, and threads of each.
        seconds, seconds_low, seconds_high: What the finished seeds took, for each that is left;
            where there are none, the training alone, from a few timed steps.
    """

    out: Path
    ledger: Path
    seeds: tuple[int, ...]
    left: tuple[int, ...]
    each: tuple[SeedPlan, ...]
    rows: dict[str, int]
    notes: tuple[str, ...]
    teacher: str
    student: str
    arms: tuple[str, ...]
    baseline: str
    steps: int
    budget: int
    needed: int
    answers: int
    price: Money
    expected: Estimate
    workers: int
    threads: int
    seconds: float
    seconds_low: float
    seconds_high: float

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name != "each"}
        return {
            **plain,
            "out": str(self.out),
            "ledger": str(self.ledger),
            "price": asdict(self.price),
            "expected": asdict(self.expected),
        }

    def text(self) -> str:
        """A few lines for a person."""
        rows = ", ".join(f"{n:,} {name}" for name, n in self.rows.items())
        done = len(self.seeds) - len(self.left)
        took = f"{span(self.seconds)} ({span(self.seconds_low)} to {span(self.seconds_high)})"
        at_once = (
            "one after the other" if self.workers == 1 else f"{self.workers} at once, in processes"
        )
        return "\n".join(
            [
                f"rows      {rows}",
                *(f"          {note}" for note in self.notes),
                f"student   {self.student}",
                f"teacher   {self.teacher}",
                f"seeds     {len(self.seeds)} ({_some(self.seeds)})"
                + (f", {done} finished" if done else "")
                + f"; {at_once}, {self.threads} {'thread' if self.threads == 1 else 'threads'} "
                f"each",
                f"arms      {', '.join(self.arms)}; compared with {self.baseline}",
                f"answers   {self.answers:,} to buy for all seeds ({self.needed - self.answers:,} "
                f"are in the ledger and free); {self.budget:,} at most for each seed",
                *self.expected.lines,
                f"training  {len(self.left)} x {len(self.arms)} arms of {self.steps:,} steps, "
                f"about {took}"
                + (", as the finished ones took" if done else ", and evaluations and reports"),
                f"writes    {self.out} and {self.ledger}",
            ]
        )


def make_compare_plan(config: CompareConfig, listener: Listener = ignore) -> ComparePlan:
    """Stage every seed's rows, look into the ledger, time a few steps; ask nobody.

    Raises:
        LimbeckError: whatever a run would refuse before it spends anything, a folder that holds
            something else, or a limit in money that could end the seeds' purchases early.
    """
    if (config.run.out / RUN_FILE).exists():
        raise ConfigError(
            f"{config.run.out} holds a run, not a comparison; choose another folder with --out."
        )
    looks = [_look(config.of_seed(seed), listener) for seed in config.all_seeds]
    _check_budgets(config, looks)
    left = [look for look in looks if not look.plan.finished]
    one = (left or looks)[0]
    needed, counts, history = _answers(left)
    answers = sum(counts)
    workers = config.at_once(len(left))
    threads = threads_of(workers)
    steps = steps_of(one.plan.config, one.pool_size)
    seconds = _seconds(one, looks, steps, threads) * math.ceil(len(left) / workers)
    low, middle, high = np.quantile(seconds, (0.1, 0.5, 0.9)).tolist()
    price = worst_price(one.plan.config, one.splits, one.teacher, counts, runs=len(left))
    names = ("labelled", "validation", "test", "pool")
    return ComparePlan(
        out=config.run.out,
        ledger=config.run.ledger,
        seeds=config.all_seeds,
        left=tuple(look.plan.config.seed for look in left),
        each=tuple(look.plan for look in left),
        rows={name: len(getattr(one.splits, name)) for name in names},
        notes=one.splits.notes,
        teacher=config.run.teacher.kind,
        student=student_kind(config.run, one.splits),
        arms=config.arms,
        baseline=config.compared_with,
        steps=steps,
        budget=config.run.budget,
        needed=needed,
        answers=answers,
        price=price,
        expected=Estimate.of(history, answers, price),
        workers=workers,
        threads=threads,
        seconds=middle,
        seconds_low=low,
        seconds_high=high,
    )


def threads_of(workers: int) -> int:
    """Threads of each process: all of them for one alone, its share of the cores for several."""
    if workers == 1:
        return torch.get_num_threads()
    return max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // workers))


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Let torch use this many threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """One seed as it stands."""

    plan: SeedPlan
    splits: Splits
    teacher: Teacher | None
    asked: Questions
    rows: NDArray[np.int64]
    """Pool rows that it will learn from; where a student chooses them, as many others."""
    new: bool
    """Whether they have yet to be chosen."""

    @property
    def pool_size(self) -> int:
        return len(self.rows)

    def everything(self, member: int) -> NDArray[np.uint8]:
        """Question ids of everything that it asks a teacher of an ensemble, or its only one."""
        asked = (self.asked.members or (self.asked,))[member]
        test = [asked.test] if self.plan.config.ask_test else []
        return np.concatenate([asked.validation, *test, asked.pool[self.rows]])


def _look(config: DistillConfig, listener: Listener) -> _Look:
    folder = RunFolder(config.out, listener, writes=False)
    folder.check(config)
    with importable(config.code), folder.collecting_warnings():
        splits = stage(config, folder)
        check_objectives(config, splits.schema.num_classes)
        check_student(config, splits)
        check_validation(config, splits)
        teacher = teacher_if_ready(config, splits, folder)
        check_teacher(config, splits, teacher)
        check_engine(config, splits, folder, teacher)
    asked = questions_of(splits, teacher)
    rows = read_selection(folder) if folder.claimed else None
    finished = folder.claimed and folder.metrics.exists()
    if rows is not None:
        return _Look(SeedPlan(config, finished), splits, teacher, asked, rows, new=False)
    check_budget(config, asked, None)
    _check_money(config, splits, teacher)
    if config.buy.in_rounds:
        make_rule(config)
        some = forecast_rows(config, asked)
        return _Look(SeedPlan(config, finished), splits, teacher, asked, some, new=True)
    drawn, share = draw_as_if_new(config, asked)
    return _Look(SeedPlan(config, finished, drawn, share), splits, teacher, asked, drawn, new=True)


def _check_budgets(config: CompareConfig, looks: list[_Look]) -> None:
    """Refuse to add seeds with a budget that is not that of the earlier ones.

    A run may go on with a larger budget, since its rows are chosen; new seeds would choose more.
    """
    if not any(look.new for look in looks):
        return
    for look in looks:
        file = look.plan.config.out / RUN_FILE
        budget = tomllib.loads(file.read_text())["budget"] if file.exists() else config.run.budget
        if budget != config.run.budget:
            raise ConfigError(
                f"seed {look.plan.config.seed} in {config.run.out} had a budget of {budget:,} "
                f"answers but {config.run.budget:,} are asked for now, so new seeds would learn "
                f"from more or fewer rows; give the budget of before, or choose another --out."
            )


def _check_money(config: DistillConfig, splits: Splits, teacher: Teacher | None) -> None:
    """Refuse a limit that would end some seeds' purchases before others'."""
    if not config.money or teacher is None:
        return
    assert splits.pool is not None
    sample = splits.pool.take(np.arange(min(512, len(splits.pool))))
    # Each row takes an answer of every teacher that is asked.
    answers = len(members_of(teacher)) * sample.num_rows
    worst = -(-teacher.quote(sample).micros * config.budget // answers)
    if worst > round(config.money * 1e6):
        price = Money(worst, config.teacher.currency)
        raise ConfigError(
            f"money={config.money:g} {config.teacher.currency} may end the purchase of some seeds "
            f"before that of others: {config.budget:,} answers may cost {price}; raise money to "
            f"that, or lower budget."
        )


def _seconds(one: _Look, looks: list[_Look], steps: int, threads: int) -> NDArray[np.float64]:
    """Seconds of one seed, once for each observation."""
    finished = [RunFolder(look.plan.config.out).seconds() for look in looks if look.plan.finished]
    if finished:
        return np.array(finished)
    with importable(one.plan.config.code), thread_count(threads):
        config = one.plan.config
        folder = RunFolder(config.out)
        return training_seconds(config, one.splits, folder, steps, one.teacher, expand(config))


def _answers(looks: list[_Look]) -> tuple[int, tuple[int, ...], History]:
    """Answers of all seeds, those to buy for each teacher that is asked, and how the last went."""
    needed = 0
    missing: list[list[int]] = []
    history = History.empty()
    by_teacher: dict[str, list[_Look]] = {}
    for look in looks:
        # A teacher that is yet to be trained is another one in every seed.
        name = f"seed {look.plan.config.seed}" if look.teacher is None else look.teacher.fingerprint
        by_teacher.setdefault(name, []).append(look)
    for group in by_teacher.values():
        count = len(group[0].asked.members) or 1
        each = [
            np.concatenate([one.everything(member) for one in group]) for member in range(count)
        ]
        each = [ids[distinct(ids)[0]] for ids in each]
        needed += sum(map(len, each))
        teacher, ledger = group[0].teacher, group[0].plan.config.ledger
        if teacher is None or not ledger.exists():
            missing.append([len(ids) for ids in each])
        else:
            with SqliteLedger(ledger) as opened:
                book = open_book(opened, teacher)
                known = [book.member(member).known(ids) for member, ids in enumerate(each)]
                missing.append([int((~found).sum()) for found in known])
                history = book.history()
    return needed, tuple(sum(counts) for counts in zip(*missing, strict=True)), history


def _some(seeds: tuple[int, ...]) -> str:
    return f"{seeds[0]} to {seeds[-1]}"
