"""What a run would do and cost, before anything is spent."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.data import Splits
from limbeck.data.ids import GatheredIds
from limbeck.distill.acquire import HUMAN, draw_pool, has_ended, read_selection
from limbeck.distill.config import DistillConfig
from limbeck.distill.encoding import make_student, student_kind
from limbeck.distill.estimate import A_HANDFUL, Estimate, span
from limbeck.distill.fit import teacher_plan
from limbeck.distill.folder import Listener, RunFolder, ignore
from limbeck.distill.questions import (
    AnswerBook,
    Questions,
    check_budget,
    check_money,
    count_distinct,
    open_book,
    worst_money,
)
from limbeck.distill.recipes import check_objectives, expand
from limbeck.distill.run import questions_of, run_id, stage, steps_of, teacher_if_ready
from limbeck.distill.teacher import check_engine
from limbeck.ledger import Limit, SqliteLedger
from limbeck.ledger.history import History
from limbeck.ledger.show import summarize
from limbeck.objectives.base import StudentOut
from limbeck.students.base import Student
from limbeck.teachers import Money, Teacher
from limbeck.teachers.base import worst_prices
from limbeck.teachers.imports import importable
from limbeck.teachers.mean import members_of

_TIMED_STEPS = 6
_PRICED_ROWS = 512


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
                *self._training(),
                f"writes    {self.out} and {self.ledger}",
            ]
        )

    def _training(self) -> list[str]:
        took = f"{span(self.seconds)} ({span(self.seconds_low)} to {span(self.seconds_high)})"
        if self.arms:
            return [f"training  {len(self.arms)} arms of {self.steps:,} steps, about {took}"]
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
    folder = RunFolder(config.out, listener, writes=False)
    folder.check(config)
    with importable(config.code), folder.collecting_warnings():
        splits = stage(config, folder)
        if trains:
            check_objectives(config, splits.schema.num_classes)
        teacher = teacher_if_ready(config, splits, folder)
        check_engine(config, splits, folder, teacher)
        asked = questions_of(splits, teacher)
        buy = _to_buy(config, splits, asked, teacher, folder)
        price = buy.at_most(worst_price(config, splits, teacher, buy.counts))
        arms = expand(config) if trains else ()
        steps = steps_of(config, buy.pool_rows) if trains else 0
        seconds = training_seconds(config, splits, folder, steps, teacher, arms)
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
    )


def _ledger_limit(path: Path) -> str:
    """The limit of a ledger in words, empty where there is none."""
    if not path.exists():
        return ""
    with SqliteLedger(path) as ledger:
        return summarize(ledger, events=0).limit_line() if ledger.limit() != Limit() else ""


@dataclass(frozen=True, slots=True)
class _Room:
    """What may still be spent: answers, or millionths of the currency; None: without a limit."""

    name: str
    queries: int | None
    micros: int | None


def _rooms(config: DistillConfig, ledger: SqliteLedger | None, run: str) -> list[_Room]:
    """What the money of a run and the limit of its ledger leave; people are ordered elsewhere."""
    rooms: list[_Room] = []
    if config.teacher.kind == HUMAN:
        return rooms
    if config.money:
        money = Money(round(config.money * 1e6), config.teacher.currency)
        spent = 0 if ledger is None else ledger.spent(run).money.micros
        rooms.append(_Room(f"the money ({money})", None, max(0, money.micros - spent)))
    if ledger is not None and (limit := ledger.limit()) != Limit():
        total = summarize(ledger, events=0).total
        queries = None if limit.queries is None else max(0, limit.queries - total.queries)
        micros = None if limit.money is None else max(0, limit.money.micros - total.money.micros)
        rooms.append(_Room("the limit of the ledger", queries, micros))
    return rooms


@dataclass(frozen=True, slots=True)
class _Purchase:
    """Answers to buy, and how many pool rows will have one."""

    validation: int
    test: int
    pool: int
    owned: int
    pool_rows: int
    history: History
    counts: tuple[int, ...]
    """The same for each teacher that is asked."""
    ends: str = ""
    """Why fewer of them will be bought, or none."""
    room: int | None = None
    """Most that they may still cost, in millionths."""

    @property
    def total(self) -> int:
        return self.validation + self.test + self.pool

    def at_most(self, worst: Money) -> Money:
        """The worst price, but no more than may still be spent."""
        return worst if self.room is None else Money(min(worst.micros, self.room), worst.currency)

    def within(self, rooms: Sequence[_Room], splits: Splits, teacher: Teacher) -> Self:
        """The same where money or the ledger's limit may end first: then it says so.

        Where not even the cheapest question fits, there is nothing to buy.
        """
        if not self.total or not rooms:
            return self
        least, mean = self._prices(splits, teacher)
        money = [room.micros for room in rooms if room.micros is not None]
        found = replace(self, room=min(money, default=None))
        fits, name = self.total, ""
        for room in rooms:
            count = self.total if room.queries is None else min(self.total, room.queries)
            if room.micros is not None and least > room.micros:
                count = 0
            elif room.micros is not None and mean > 0:
                count = min(count, max(1, int(room.micros / mean)))
            if count < fits:
                fits, name = count, room.name
        if fits == self.total:
            return found
        if fits:
            return replace(found, ends=f"{name} ends after about {fits:,} of them")
        ends = f"{name} is spent: nothing will be bought; raise it to buy the other {self.total:,}"
        nothing = tuple(0 for _ in self.counts)
        return replace(found, validation=0, test=0, pool=0, counts=nothing, ends=ends)

    def _prices(self, splits: Splits, teacher: Teacher) -> tuple[int, float]:
        """The worst price of the cheapest of some questions, and the usual price of one."""
        assert splits.pool is not None
        sample = splits.pool.take(np.arange(min(_PRICED_ROWS, len(splits.pool))))
        asked = [
            worst_prices(member, sample)[0]
            for member, count in zip(members_of(teacher), self.counts, strict=True)
            if count
        ]
        if len(self.history.prices) >= A_HANDFUL:
            return min(int(one.min()) for one in asked), float(np.mean(self.history.prices))
        worst = worst_money(teacher, splits.pool, self.counts).micros
        return min(int(one.min()) for one in asked), worst / self.total


def _to_buy(
    config: DistillConfig,
    splits: Splits,
    asked: Questions,
    teacher: Teacher | None,
    folder: RunFolder,
) -> _Purchase:
    if teacher is None or not config.ledger.exists():
        buy = _count(config, asked, None, spent=0, folder=folder)
        return buy if teacher is None else buy.within(_rooms(config, None, ""), splits, teacher)
    with SqliteLedger(config.ledger) as ledger:
        run = run_id(folder) if folder.claimed else ""
        book = open_book(ledger, teacher, asked, run=run)
        spent = 0
        if run:
            spending = ledger.spent(run)
            # What is in flight, or out with people, is counted among the answers to come.
            spent = spending.queries - spending.reserved
        if spent == 0:
            check_money(config, splits, teacher, asked, book)
        buy = _count(config, asked, book, spent=spent, folder=folder)
        return buy.within(_rooms(config, ledger, run), splits, teacher)


def _count(
    config: DistillConfig,
    asked: Questions,
    book: AnswerBook | None,
    *,
    spent: int,
    folder: RunFolder,
) -> _Purchase:
    if spent == 0:
        check_budget(config, asked, book)
    none = (0,) * (len(asked.members) or 1)
    names = ("validation", "test")[: 1 + config.ask_test]
    # Each purchase ends once; what has failed then is not asked about again.
    before = [none if has_ended(folder, one) else asked.to_buy(book, one) for one in names]
    rows = read_selection(folder)
    chosen = rows is not None
    pool_ids = GatheredIds(asked.pool, rows)
    distinct_rows = count_distinct(pool_ids)
    missing = asked.unanswered(book, "pool", rows)
    left = max(0, config.budget - spent - sum(map(sum, before)))
    if rows is None and asked.members:
        rows = draw_pool(config, asked, book, left=left)
    ended = has_ended(folder, "pool")
    wanted = none if ended else asked.to_buy(book, "pool", rows)
    pool = min(sum(wanted), left)
    questions = [asked.validation, asked.test][: len(before)]
    everything = distinct_rows + sum(count_distinct(part) for part in questions)
    incomplete = missing
    if asked.members and book is not None:
        incomplete = int(pool_ids.without(pool_ids.leads(), book.known).sum())
    elif asked.members:
        incomplete = distinct_rows
    # Where the budget ends before the rows do, it falls on all teachers alike.
    shares = [-(-count * pool // max(1, sum(wanted))) for count in wanted]
    lacking = missing + sum(asked.unanswered(book, name) for name in names)
    ends = ""
    if ended and missing:
        ends = (
            f"the purchase of the pool has ended without {missing:,} of its "
            f"{len(wanted) * distinct_rows:,} answers, and nothing more is bought in this folder; "
            f"another --out buys them"
        )
    elif chosen and pool < sum(wanted):
        # Failures and lost replies have taken places that these rows were drawn for.
        ends = (
            f"the budget of {config.budget:,} answers leaves {pool:,} for the pool; raise it to "
            f"buy the other {sum(wanted) - pool:,}"
        )
    return _Purchase(
        validation=sum(before[0]),
        test=sum(sum(counts) for counts in before[1:]),
        pool=pool,
        owned=max(0, len(wanted) * everything - lacking),
        pool_rows=distinct_rows - incomplete + incomplete * pool // max(1, missing),
        history=History.empty() if book is None else book.history(),
        counts=tuple(sum(counts) for counts in zip(*before, shares, strict=True)),
        ends=ends,
    )


def worst_price(
    config: DistillConfig,
    splits: Splits,
    teacher: Teacher | None,
    counts: tuple[int, ...],
    *,
    runs: int = 1,
) -> Money:
    """Each teacher's worst case for a sample of the pool, scaled to its answers of some runs."""
    if teacher is None:
        return Money(0, config.teacher.currency)
    assert splits.pool is not None
    worst = worst_money(teacher, splits.pool, counts)
    cap = runs * round(config.money * 1e6)
    return Money(min(worst.micros, cap) if cap else worst.micros, worst.currency)


def training_seconds(
    config: DistillConfig,
    splits: Splits,
    folder: RunFolder,
    steps: int,
    teacher: Teacher | None,
    arms: tuple[str, ...],
) -> NDArray[np.float64]:
    """Seconds that all training would take, once for each of a few timed steps."""
    seconds = np.zeros(_TIMED_STEPS)
    if arms:
        seconds += _seconds_of_arms(config, splits, folder, steps, arms)
    if teacher is None:
        job = teacher_plan(config, splits, folder)
        seconds += config.teacher.members * job.steps * _timed_steps(splits, job.student, job.batch)
    return seconds


def _seconds_of_arms(
    config: DistillConfig,
    splits: Splits,
    folder: RunFolder,
    steps: int,
    names: tuple[str, ...],
) -> NDArray[np.float64]:
    student, _ = make_student(config, splits, folder)
    both = config.train.pool_batch + config.train.labelled_batch
    distilled = sum(name not in ("labels", "labels_and_validation") for name in names)
    plain = len(names) - distilled
    plain += config.train.folds if "labels_and_validation" in names else 0
    seconds = distilled * steps * _timed_steps(splits, student, both)
    return seconds + plain * steps * _timed_steps(splits, student, config.train.labelled_batch)


def _timed_steps(splits: Splits, student: Student, size: int) -> NDArray[np.float64]:
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
