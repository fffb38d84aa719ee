"""One-shot search: one network is trained that holds all students, and trials borrow its weights.

A trial is cut out, its batch normalisation is measured anew on training rows, and it is scored on
validation: no training. Such ranks favour what learns fast, so some students are trained on their
own as well, and Kendall's tau says how far the two ways agree. A reconstruction; see
`limbeck.students.supernet` for its sources.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from limbeck.distill.arms import ArmTrainer
from limbeck.distill.checkpoint import CurvePoint
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import RunFolder
from limbeck.distill.job import Job
from limbeck.distill.loop import predict
from limbeck.distill.materials import steps_of
from limbeck.distill.search.problem import SearchProblem
from limbeck.distill.search.trials import Look, SearchRows, TrialResult, TrialTrainer
from limbeck.numerics.metrics import accuracy, nll
from limbeck.report.search import SearchTrial
from limbeck.search import Architecture
from limbeck.students import Student
from limbeck.students.store import Store
from limbeck.students.supernet import ImageCnnSupernet, measure_statistics
from limbeck.trust.temperature import Temperature

if TYPE_CHECKING:
    from accelerate import Accelerator

NAME = "search.supernet"
LONGER = 2
"""Steps of the shared network, in those of an arm."""
_ROWS, _BATCH = 1024, 256
"""Rows of each source that statistics are measured on, and of a batch."""
_FEWEST = 4


class SharedTrainer(TrialTrainer):
    """Scores architectures with the weights of one network, which it trains first."""

    _job: Job | None = None

    def evaluate(self, name: str, architecture: Architecture, look: Look) -> TrialResult:
        """Cut an architecture out and score it; nothing is trained but the shared network, once."""
        job = self._shared()
        began = time.perf_counter()
        supernet = job.student.module
        assert isinstance(supernet, ImageCnnSupernet)
        module = supernet.cut_out(architecture, supernet.head.out_features)
        module.to(self._accelerator.device)
        measure_statistics(module, self._batches())
        held_out = self._rows.encoded.validation
        log_probs = predict(module, job, held_out.rows, self._accelerator.device)
        point = _scored(log_probs, held_out.labels)
        return TrialResult(
            self._reward(point),
            point.accuracy,
            point.calibrated_nll,
            0,
            time.perf_counter() - began,
        )

    @property
    def steps(self) -> int:
        """Gradient steps of the shared network."""
        return shared_steps(self._config, self.answered)

    def alone(self) -> TrialTrainer:
        """Trains students on their own, as a search without a shared network does."""
        search = replace(self._config.search, one_shot=False, steps=0)
        config = replace(self._config, search=search)
        return TrialTrainer(config, self._problem, self._rows, self._folder, self._accelerator)

    def _shared(self) -> Job:
        """The shared network, trained, or read back."""
        if self._job is not None:
            return self._job
        base = self.rows_of(self._problem.base)
        generator = torch.Generator().manual_seed(self._config.seed)
        module = ImageCnnSupernet(
            self._problem.students, base.student.schema.num_classes, generator
        )
        student = Student(base.student.encoder, module, base.student.schema)
        made = self._made_from(replace(base, student=student))
        made = replace(made, steps=self.steps, settings=f"{made.settings}.shared")
        trainer = ArmTrainer(self._config, made, self._folder, self._accelerator)
        # The best step of the largest student need not be that of the others.
        job, _ = trainer.fitted(self._problem.arm, NAME, choose_step=False)
        self._job = job
        return job

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        """Training rows, labelled and of the pool, without augmentation."""
        encoded = self._rows.encoded
        sources: Sequence[Store] = (encoded.labelled.rows, encoded.pool)
        for rows in sources:
            count = min(len(rows), _ROWS)
            for start in range(0, count, _BATCH):
                places = np.arange(start, min(start + _BATCH, count))
                if len(places) > 1 or count == 1:
                    inputs = encoded.student.encoder.collate(rows.take(places))
                    device = self._accelerator.device
                    yield {name: tensor.to(device) for name, tensor in inputs.items()}


def shared_steps(config: DistillConfig, pool_rows: int) -> int:
    """Gradient steps of the shared network."""
    return config.search.steps or LONGER * steps_of(config, pool_rows)


def to_check(trials: Sequence[SearchTrial], count: int) -> list[SearchTrial]:
    """Trials to train on their own: in range, spread evenly from the worst reward to the best."""
    found = [one for one in trials if one.in_range and one.reward is not None]
    found.sort(key=lambda one: (one.reward or 0.0, one.number))
    if len(found) <= count:
        return found
    return [found[round(i * (len(found) - 1) / max(1, count - 1))] for i in range(count)]


def agreement(pairs: Sequence[tuple[float, float]]) -> str:
    """How far the two ways agree, as a sentence; empty where too few pairs can tell."""
    from scipy.stats import kendalltau

    if len(pairs) < _FEWEST:
        return ""
    shared, alone = zip(*pairs, strict=True)
    tau = float(kendalltau(shared, alone).statistic)
    said = "nothing, since one side is constant" if np.isnan(tau) else f"{tau:.2f}"
    return (
        f"Trials were scored with shared weights (a reconstruction). Kendall's tau with the "
        f"rewards of {len(pairs)} of them trained on their own: {said}; 1 is the same order, "
        f"0 is none."
    )


def _scored(log_probs: Tensor, labels: Tensor) -> CurvePoint:
    temperature = Temperature.fit(log_probs, labels)
    truth = labels.numpy()
    cool = temperature.apply(log_probs)
    return CurvePoint(
        0, 0.0, accuracy(log_probs.numpy(), truth), nll(log_probs.numpy(), truth),
        nll(cool.numpy(), truth), temperature.value,
    )  # fmt: skip


def make_trainer(
    config: DistillConfig,
    problem: SearchProblem,
    rows: SearchRows,
    folder: RunFolder,
    accelerator: "Accelerator",
) -> TrialTrainer:
    """The trainer that the settings ask for."""
    kind = SharedTrainer if config.search.one_shot else TrialTrainer
    return kind(config, problem, rows, folder, accelerator)
