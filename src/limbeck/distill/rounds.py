"""Buy answers in rounds: train a student, let a rule choose rows by what it says, ask, go on.

Everything that a round decides is in files before its first row is paid for (see `round_files`).
So a run that was stopped between choosing and paying, or between paying and training, goes on with
the same batch, and pays for nothing twice.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.distill.acquire import (
    Acquired,
    Acquisition,
    Opened,
    end_pool,
    known_of,
    open_purchase,
    read_back,
)
from limbeck.distill.arms import ArmTrainer
from limbeck.distill.batch_trust import error_by_margin, trust_in_batch
from limbeck.distill.buying import HUMAN, Tally, has_ended
from limbeck.distill.choosing import choose_batch, draw_beside
from limbeck.distill.encoding import EncodedRows
from limbeck.distill.job import Job
from limbeck.distill.materials import prepare_materials, steps_of
from limbeck.distill.pool_choice import write_selection
from limbeck.distill.pool_scores import verdicts
from limbeck.distill.questions import Questions
from limbeck.distill.recipes import expand_arm
from limbeck.distill.round_files import (
    BESIDE,
    RULE,
    Batch,
    Look,
    RoundFiles,
    RoundHistory,
    keep_sizes,
    keep_stop,
    read_stop,
)
from limbeck.distill.round_sizes import round_sizes
from limbeck.distill.stopping import reason_to_stop
from limbeck.distill.trust import fit_trust

if TYPE_CHECKING:
    from accelerate import Accelerator


def buy_in_rounds(
    task: Acquisition, asked: Questions, encoded: EncodedRows, accelerator: "Accelerator"
) -> Acquired:
    """Buy what the run needs, round by round; then the arms may be trained.

    Args:
        task: As for `acquire`.
        asked: Questions of all splits.
        encoded: The student, and the pool rows among which the rule chooses.
        accelerator: Where the student that chooses is trained.

    Raises:
        ConfigError, TeacherError, BudgetError: as `acquire`; the budget does not hold the rounds.
        WaitingError: people have to answer first.
    """
    with accelerator.main_process_first():
        sizes = round_sizes(task.config, asked, len(encoded.pool_rows))
        sizes = keep_sizes(task.folder, sizes)
        opened = open_purchase(task)
    return _Rounds(task, opened, encoded, accelerator).run(sizes)


class _Rounds:
    """One run's rounds."""

    def __init__(
        self, task: Acquisition, opened: Opened, encoded: EncodedRows, accelerator: "Accelerator"
    ) -> None:
        self._config = task.config
        self._splits = task.splits
        self._folder = task.folder
        self._opened = opened
        self._encoded = encoded
        self._accelerator = accelerator
        known = self._known(_no_rows())
        self._trust = fit_trust(task.config, task.splits, known, task.teacher)
        self._rule = _Series(RoundFiles(task.folder, RULE))
        self._beside = _Series(RoundFiles(task.folder, BESIDE)) if task.config.buy.beside else None
        self._tallies: list[Tally] = []

    def run(self, sizes: tuple[int, ...]) -> Acquired:
        """Make the rounds that are left."""
        for number, size in enumerate(sizes, start=1):
            if not self._chosen(number, size):
                break
            if self._buy(number, whole=number < len(sizes)):
                break
        made = len(self._rule.batches)
        for series in self._series():
            self._look(series, made + 1)
        return self._end(sizes, made)

    def _series(self) -> "list[_Series]":
        return [self._rule, *([self._beside] if self._beside else [])]

    def _chosen(self, number: int, size: int) -> bool:
        """See to it that a round's rows are written down; False where no more are to be bought."""
        files = self._rule.files
        if files.batch(number) is None:
            if has_ended(self._folder, "pool"):
                return False
            job = self._look(self._rule, number)
            if self._stops(number):
                return False
            if self._beside is not None:
                self._look(self._beside, number)
            job = job or self._student(self._rule, number)  # by all processes together
            with self._accelerator.main_process_first():
                if files.batch(number) is None:
                    self._choose(number, size, job)
        for series in self._series():
            series.read(number)
        return True

    def _stops(self, number: int) -> bool:
        """Whether the rounds before this one have shown that it is not worth its price."""
        labels = self._splits.validation.labels
        looks = [self._rule.files.look(n) for n in range(1, number + 1)]
        right = [look.classes == labels for look in looks if look is not None]
        teacher = self._trust.correct.numpy()
        reason = reason_to_stop(right, teacher, self._answered(), self._config.buy)
        if reason:
            with self._accelerator.main_process_first():
                if not read_stop(self._folder):
                    self._folder.log("answers", f"round {number} is not bought: {reason}")
                    keep_stop(self._folder, reason)
        return bool(reason)

    def _choose(self, number: int, size: int, job: Job) -> None:
        """Decide a round: first the rows beside it, then its own."""
        config, encoded = self._config, self._encoded
        if self._beside is not None:
            batch = draw_beside(config, encoded, self._beside.rows(), size)
            self._beside.files.keep(number, batch, {})
        files = self._rule.files
        before = self._rule.batches[-1].rows if self._rule.batches else _no_rows()
        batch, memory = choose_batch(
            config,
            encoded,
            job,
            self._accelerator.device,
            number=number,
            size=size,
            bought=self._rule.rows(),
            last=before,
            memory=files.memory(number - 1),
            teacher_error=1 - self._trust.accuracy,
            error_at=error_by_margin(self._trust, self._looked(number), self._answered()),
            pool_size=len(self._opened.asked.pool),
        )
        files.keep(number, batch, memory)
        self._folder.log(
            "select",
            f"round {number}: {config.buy.rule} chose {len(batch.rows):,} of "
            f"{batch.candidates:,} rows, {int(batch.audit.sum()):,} of them at random",
        )

    def _buy(self, number: int, *, whole: bool) -> bool:
        """Buy a round; True where the budget has ended it."""
        assert self._splits.pool is not None
        with self._accelerator.main_process_first():
            for series in self._series():
                name, rows = series.files.name(number), series.batches[-1].rows
                tally = self._opened.buyer.buy(name, self._splits.pool, rows, whole=whole)
                self._tallies.append(tally)
        return bool(self._opened.buyer.short)

    def _look(self, series: "_Series", number: int) -> Job | None:
        """Train the student before a round and write down what it says; None if that is done."""
        if series.files.look(number) is not None:
            return None
        job = self._student(series, number)
        device = self._accelerator.device
        margins, classes = verdicts(job, self._encoded.validation.rows, device)
        answers = len(self._known(series.rows()).pool_rows)
        with self._accelerator.main_process_first():
            if series.files.look(number) is None:
                series.files.keep_look(number, Look(answers, margins, classes))
                right = float((classes == self._splits.validation.labels).mean())
                self._folder.log(
                    "select",
                    f"{series.files.name(number)}: a student of {answers:,} pool answers is right "
                    f"on {right:.1%} of the validation rows",
                )
        return job

    def _student(self, series: "_Series", number: int) -> Job:
        """The student before a round, trained on what was bought before it."""
        config = self._config
        known = self._known(series.rows())
        count = len(known.pool_rows)
        materials = prepare_materials(config, self._splits, self._encoded, known, self._trust)
        steps = config.buy.steps or steps_of(config, count)
        materials = replace(materials, steps=steps, settings=f"{materials.settings}.{steps}")
        trainer = ArmTrainer(config, materials, self._folder, self._accelerator)
        name = expand_arm(config.buy.arm, config)[0] if count else "labels"
        return trainer.fitted(name, series.files.name(number))[0]

    def _known(self, rows: NDArray[np.int64]) -> Acquired:
        """What is known of the teacher with these pool rows bought."""
        return known_of(self._config, self._opened.so_far(np.sort(rows)))

    def _end(self, sizes: tuple[int, ...], made: int) -> Acquired:
        """Close the pool and read back everything."""
        config, folder = self._config, self._folder
        batches = tuple(self._rule.batches)
        rows = self._rule.rows()
        order = np.argsort(rows)
        alphas = tuple(self._alpha(n, batch) for n, batch in enumerate(batches, start=1))
        with self._accelerator.main_process_first():
            probs = np.concatenate([batch.probs for batch in batches])
            write_selection(folder, rows[order], probs[order])
            bought = self._opened.purchased(rows[order], self._tallies)
            if config.teacher.kind != HUMAN:
                end_pool(folder, bought)
        acquired = read_back(config, bought, folder)
        alpha = None
        if config.buy.rule != "uniform":
            there = np.isin(rows[order], acquired.pool_rows)
            free = torch.from_numpy(np.concatenate(alphas)[order][there])
            alpha = free.clamp_min(self._trust.lower)
        history = RoundHistory(
            sizes=sizes,
            batches=batches,
            looks=_looks(self._rule.files, made + 1),
            beside=_looks(self._beside.files, made + 1) if self._beside else (),
            alphas=alphas,
            stopped=read_stop(folder),
        )
        return replace(acquired, alpha=alpha, history=history)

    def _alpha(self, number: int, batch: Batch) -> NDArray[np.float32]:
        """Trust in the answers of a batch."""
        look, book = self._looked(number), self._opened.book
        ids = self._opened.asked.pool[batch.rows]
        return trust_in_batch(self._trust, look, self._answered(), batch, book, ids)

    def _looked(self, number: int) -> Look:
        """What the student that chose in a round said of validation."""
        look = self._rule.files.look(number)
        assert look is not None  # it is written before the batch
        return look

    def _answered(self) -> NDArray[np.int64]:
        """Validation rows that have an answer."""
        return self._known(_no_rows()).validation_rows


class _Series:
    """The batches of one series that are decided, in order."""

    def __init__(self, files: RoundFiles) -> None:
        self.files = files
        self.batches: list[Batch] = []

    def read(self, number: int) -> None:
        """Read a round's batch, once."""
        batch = self.files.batch(number)
        assert batch is not None  # it was decided
        if len(self.batches) < number:
            self.batches.append(batch)

    def rows(self) -> NDArray[np.int64]:
        """All rows chosen so far, in the order of the rounds."""
        return np.concatenate([_no_rows(), *(batch.rows for batch in self.batches)])


def _looks(files: RoundFiles, count: int) -> tuple[Look, ...]:
    found = (files.look(number) for number in range(1, count + 1))
    return tuple(look for look in found if look is not None)


def _no_rows() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)
