"""What a run would do and cost, before anything is spent."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.data import Splits, distinct
from limbeck.distill.acquire import AnswerBook, Questions, check_budget, questions, unanswered
from limbeck.distill.arms import expand
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import Listener, RunFolder, ignore
from limbeck.distill.run import load_teacher, make_student, stage, steps_of, student_kind
from limbeck.ledger import SqliteLedger
from limbeck.objectives.base import StudentOut
from limbeck.students.base import Student
from limbeck.students.folder import SUMS
from limbeck.teachers import Money, Teacher

_TIMED_STEPS = 6
_SAMPLE_ROWS = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen.

    Args:
        out, ledger: Where it would write.
        rows: Rows of each split, overlaps removed.
        notes: What was guessed and removed.
        teacher, student: Kinds.
        owned: Answers among validation, test and pool that the ledger holds, free.
        validation, test, pool: Answers to buy for each.
        price: Most that they can cost.
        arms: Arms to train, cross-validation included in their time.
        steps: Gradient steps of each.
        seconds, seconds_low, seconds_high: Training time, from a few timed steps; None where the
            teacher has to be trained first.
        free_bytes: Room on the disk.
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
    arms: tuple[str, ...]
    steps: int
    seconds: float
    seconds_low: float
    seconds_high: float
    free_bytes: int

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
                f"student   {self.student}",
                f"teacher   {self.teacher}",
                f"answers   {buy:,} to buy ({self.validation:,} validation, {self.test:,} test, "
                f"{self.pool:,} pool); {self.owned:,} are in the ledger and free",
                f"price     at most {self.price}",
                f"training  {len(self.arms)} arms of {self.steps:,} steps, about "
                f"{_span(self.seconds)} ({_span(self.seconds_low)} to {_span(self.seconds_high)})",
                f"writes    {self.out} and {self.ledger}",
            ]
        )


def make_plan(config: DistillConfig, listener: Listener = ignore) -> Plan:
    """Read the files, look into the ledger, time a few steps; ask nobody.

    The rows are staged into the run folder, where the run itself will find them.

    Raises:
        LimbeckError: whatever the run itself would refuse before it spends anything.
    """
    folder = RunFolder(config.out, listener)
    folder.claim(config)
    with folder.collecting_warnings():
        splits = stage(config, folder)
        teacher = _teacher_if_ready(config, splits, folder)
        asked = _questions(splits, teacher)
        buy, owned = _to_buy(config, asked, teacher)
        price = _price(config, splits, teacher, sum(buy))
        pool_rows = max(1, buy[2] + owned)
        student, _ = make_student(config, splits)
        times = _timed_steps(config, splits, student)
    steps = steps_of(config, pool_rows)
    arms = expand(config)
    runs = len(arms) + (config.train.folds if "labels_and_validation" in arms else 0)
    low, middle, high = (float(np.quantile(times, q)) * steps * runs for q in (0.1, 0.5, 0.9))
    assert splits.pool is not None
    names = ("labelled", "validation", "test", "pool")
    return Plan(
        out=config.out,
        ledger=config.ledger,
        rows={name: len(getattr(splits, name)) for name in names},
        notes=splits.notes,
        teacher=config.teacher.kind,
        student=student_kind(config, splits),
        owned=owned,
        validation=buy[0],
        test=buy[1],
        pool=buy[2],
        price=price,
        arms=arms,
        steps=steps,
        seconds=middle,
        seconds_low=low,
        seconds_high=high,
        free_bytes=shutil.disk_usage(config.out).free,
    )


def _teacher_if_ready(config: DistillConfig, splits: Splits, folder: RunFolder) -> Teacher | None:
    """The teacher, or None where it has yet to be trained."""
    if config.teacher.kind == "fit" and not (folder.teacher / SUMS).exists():
        return None
    return load_teacher(config, splits, folder)


def _questions(splits: Splits, teacher: Teacher | None) -> Questions:
    if teacher is not None:
        return questions(splits, teacher)
    assert splits.pool is not None
    return Questions(
        splits.validation.content_ids, splits.test.content_ids, splits.pool.content_ids
    )


def _to_buy(
    config: DistillConfig, asked: Questions, teacher: Teacher | None
) -> tuple[tuple[int, int, int], int]:
    """Answers to buy for validation, test and pool, and answers that are owned."""
    if teacher is None or not config.ledger.exists():
        return _counts(config, asked, None)
    with SqliteLedger(config.ledger) as ledger:
        return _counts(config, asked, AnswerBook(ledger, teacher.fingerprint))


def _counts(
    config: DistillConfig, asked: Questions, book: AnswerBook | None
) -> tuple[tuple[int, int, int], int]:
    check_budget(config, asked, book)
    validation = unanswered(asked.validation, book)
    test = unanswered(asked.test, book) if config.ask_test else 0
    missing = unanswered(asked.pool, book)
    pool = min(missing, config.budget - validation - test)
    parts: list[NDArray[np.uint8]] = [asked.validation, asked.pool]
    parts += [asked.test] if config.ask_test else []
    everything = sum(len(distinct(part)[0]) for part in parts)
    return (validation, test, pool), everything - validation - test - missing


def _price(config: DistillConfig, splits: Splits, teacher: Teacher | None, count: int) -> Money:
    """The teacher's worst case for a sample of the pool, scaled to all answers."""
    if teacher is None:
        return Money(0, config.teacher.currency)
    assert splits.pool is not None
    sample = min(_SAMPLE_ROWS, len(splits.pool))
    quote = teacher.quote(splits.pool.take(np.arange(sample)))
    worst = -(-quote.micros * count // sample)
    cap = round(config.money * 1e6)
    return Money(min(worst, cap) if cap else worst, quote.currency)


def _timed_steps(config: DistillConfig, splits: Splits, student: Student) -> list[float]:
    """Seconds of a few training steps on real pool rows, encoding included."""
    assert splits.pool is not None
    size = config.train.pool_batch + config.train.labelled_batch
    rows = np.resize(np.arange(len(splits.pool)), size)
    optimizer = torch.optim.AdamW(student.module.parameters(), lr=0.0, fused=True)

    def step() -> None:
        inputs = student.encoder.collate(student.encoder.encode(splits_take(rows)))
        out: StudentOut = student.module(inputs)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(out.outputs.square().mean())
        optimizer.step()

    splits_take = splits.pool.take
    step()
    return [_seconds(step) for _ in range(_TIMED_STEPS)]


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
