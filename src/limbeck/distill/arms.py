"""The arms of a comparison: every way of training gets the same student and the same steps.

All arms start from the same weights and see rows in the same order, so that differences between
them are differences of the objective. Steps are chosen on validation, never on test.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from limbeck.distill.checkpoint import CurvePoint
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import Event, RunFolder
from limbeck.distill.job import Job, Labelled, Pool
from limbeck.distill.loop import Trained, predict, train
from limbeck.distill.recipes import make_objective, title
from limbeck.distill.views import folds, stack, subset
from limbeck.numerics.classmap import ClassMap
from limbeck.objectives import Supervised
from limbeck.objectives.base import Objective
from limbeck.students import Student, with_outputs
from limbeck.students.store import Store

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, slots=True, eq=False)
class Materials:
    """What every arm is made from.

    Args:
        student: Freshly initialised; arms train copies.
        labelled, validation: Encoded rows with true labels.
        evidence: Encoded validation rows that have an answer: those that objectives are fitted on.
        test: Encoded test rows.
        pools: Gives the pool, with targets, of a fitted objective.
        fit: Fits an objective on the answers and the evidence.
        steps: Length of every arm's schedule.
        learning_rate: Peak of every arm's schedule.
        settings: Hash of what all arms share.
    """

    student: Student
    labelled: Labelled
    validation: Labelled
    evidence: Store
    test: Labelled
    pools: Callable[[Objective], Pool]
    fit: Callable[[Objective], Objective]
    steps: int
    learning_rate: float
    settings: str


@dataclass(frozen=True, slots=True, eq=False)
class Arm:
    """A trained arm and its predictions.

    Args:
        name, title: For programs and for people.
        student: With the weights of the best step.
        objective: Reads the student's outputs.
        test_log_probs: float32, shape (n, C), before temperature scaling.
        validation_log_probs: The same on validation, by models that have not trained on the row.
        held_out: The arm itself has not trained on validation rows.
        trained: Steps, seconds, curve.
        accuracy, nll: On validation; cross-validated where the arm trained on validation.
        temperature: Fitted on validation (geometric mean over folds where cross-validated).
    """

    name: str
    title: str
    student: Student
    objective: Objective
    test_log_probs: Tensor
    validation_log_probs: Tensor
    held_out: bool
    trained: Trained
    accuracy: float
    nll: float
    temperature: float


def choose(arms: Sequence[Arm]) -> Arm:
    """The arm that ships: best accuracy on validation, then best likelihood, then first."""
    return max(arms, key=lambda arm: (arm.accuracy, -arm.nll))


Watch = Callable[[CurvePoint], None]


def ignore_objective(name: str, objective: Objective) -> None:
    """Look at no fitted objective."""


class ArmTrainer:
    """Trains arms one after the other, each from its own checkpoint."""

    def __init__(
        self,
        config: DistillConfig,
        materials: Materials,
        folder: RunFolder,
        accelerator: "Accelerator",
        look: Callable[[str, Objective], None] = ignore_objective,
    ) -> None:
        """Keep what all arms share; `look` sees each fitted objective before its arm trains."""
        self._config = config
        self._m = materials
        self._folder = folder
        self._accelerator = accelerator
        self._look = look

    def train(self, name: str) -> Arm:
        """Train one arm, or read it back when it is done."""
        self._folder.log(name, f"training: {title(name)}")
        arm = self._on_validation_too(name) if name == "labels_and_validation" else self._arm(name)
        self._folder.log(
            name,
            f"{title(name)}: validation accuracy {arm.accuracy:.1%} at step "
            f"{arm.trained.best_step} of {self._m.steps}",
            accuracy=arm.accuracy,
            best_step=arm.trained.best_step,
            train_seconds=round(arm.trained.seconds, 3),
        )
        return arm

    def fitted(
        self, name: str, checkpoint: str, watch: Watch | None = None, *, choose_step: bool = True
    ) -> tuple[Job, Trained]:
        """Train a student as an arm does, under a checkpoint of its own; test rows are not seen.

        Args:
            name: Of the arm.
            checkpoint: Name of the file, and of the student in messages.
            watch: Called after every evaluation; what it raises ends the training.
            choose_step: Keep the weights of the best step on validation; else those of the last.
        """
        job = replace(self._job_of(name), name=checkpoint)
        if not choose_step:
            job = replace(job, held_out=None)
        return job, self._run(job, watch)

    def _arm(self, name: str) -> Arm:
        job = self._job_of(name)
        self._look(name, job.objective)
        trained = self._run(job)
        point = trained.best
        assert point is not None
        return Arm(
            name=name,
            title=title(name),
            student=job.student,
            objective=job.objective,
            test_log_probs=self._predict(job, self._m.test),
            validation_log_probs=self._predict(job, self._m.validation),
            held_out=True,
            trained=trained,
            accuracy=point.accuracy,
            nll=point.calibrated_nll,
            temperature=point.temperature,
        )

    def _job_of(self, name: str) -> Job:
        """An arm with labelled rows, with the pool where it learns from answers, or with both."""
        objective = make_objective(name, self._config)
        pool = None
        if objective.needs_answers:
            generator = torch.Generator().manual_seed(self._config.seed)
            dim = self._m.student.module.embedding_dim
            objective = self._m.fit(objective).attach(dim, generator)
            pool = self._m.pools(objective)
        left_out = pool is not None and self._config.train.labelled_weight == 0
        labelled = None if left_out else self._m.labelled
        return self._job(name, objective, labelled, pool, self._m.validation)

    def _on_validation_too(self, name: str) -> Arm:
        """Train on labelled and validation rows, for as many steps as cross-validation says."""
        both = stack(self._m.labelled, self._m.validation)
        point, out_of_fold = self._cross_validate(name, both)
        job = self._job(name, Supervised(), both, None, None)
        job = replace(job, stop_at=point.step)
        trained = self._run(job)
        return Arm(
            name=name,
            title=title(name),
            student=job.student,
            objective=job.objective,
            test_log_probs=self._predict(job, self._m.test),
            validation_log_probs=out_of_fold,
            held_out=False,
            trained=trained,
            accuracy=point.accuracy,
            nll=point.calibrated_nll,
            temperature=point.temperature,
        )

    def _cross_validate(self, name: str, both: Labelled) -> tuple[CurvePoint, Tensor]:
        """The best number of steps, and what models that have not seen a validation row say."""
        count, seed = self._config.train.folds, self._config.seed
        labelled, validation = len(self._m.labelled), len(self._m.validation)
        fold = np.concatenate(
            [
                folds(part.labels.numpy(), count, seed)
                for part in (self._m.labelled, self._m.validation)
            ]
        )
        # Scored on validation rows alone, which is where all other arms are scored.
        scored = np.arange(labelled + validation) >= labelled
        out_of_fold = torch.empty(validation, self._m.student.schema.num_classes)
        curves = []
        for i in range(count):
            mine = np.flatnonzero((fold == i) & scored)
            kept = subset(both, np.flatnonzero(fold != i))
            job = self._job(f"{name}.fold{i}", Supervised(), kept, None, subset(both, mine))
            # Without patience, so that every fold is evaluated at the same steps.
            job = replace(job, train=replace(job.train, patience=0))
            curves.append(self._run(job).curve)
            out_of_fold[torch.from_numpy(mine - labelled)] = self._predict(job, subset(both, mine))
        means = [_mean_point(points) for points in zip(*curves, strict=True)]
        return max(means, key=lambda p: (p.accuracy, -p.calibrated_nll)), out_of_fold

    def _job(
        self,
        name: str,
        objective: Objective,
        labelled: Labelled | None,
        pool: Pool | None,
        held_out: Labelled | None,
    ) -> Job:
        return Job(
            name=name,
            student=self._fresh(objective.class_map(self._m.student.schema.num_classes)),
            objective=objective,
            labelled=labelled,
            pool=pool,
            held_out=held_out,
            train=self._config.train,
            steps=self._m.steps,
            stop_at=self._m.steps,
            learning_rate=self._m.learning_rate,
            seed=self._config.seed,
            evidence=self._m.evidence,
        )

    def _fresh(self, class_map: ClassMap) -> Student:
        """The student that all arms start from; with another head where the map needs one."""
        start = self._m.student
        if class_map.is_plain:
            return replace(start, module=copy.deepcopy(start.module))
        return with_outputs(start, class_map, torch.Generator().manual_seed(self._config.seed))

    def _predict(self, job: Job, rows: Labelled) -> Tensor:
        return predict(job.student.module, job, rows.rows, self._accelerator.device)

    def _run(self, job: Job, watch: Watch | None = None) -> Trained:
        folder = self._folder

        def on_step(step: int, point: CurvePoint | None) -> None:
            detail = {} if point is None else {"accuracy": point.accuracy}
            folder.tell(Event(job.name, "training", step, job.stop_at, detail))
            if watch is not None and point is not None:
                watch(point)

        path = folder.checkpoints / f"{job.name}.safetensors"
        settings = f"{self._m.settings}.{job.name}.{job.stop_at}"
        return train(job, path, settings, self._accelerator, on_step)


def _mean_point(points: Sequence[CurvePoint]) -> CurvePoint:
    return CurvePoint(
        step=points[0].step,
        train_loss=fmean(p.train_loss for p in points),
        accuracy=fmean(p.accuracy for p in points),
        nll=fmean(p.nll for p in points),
        calibrated_nll=fmean(p.calibrated_nll for p in points),
        # A temperature is a scale, so its mean is geometric.
        temperature=float(np.exp(fmean(float(np.log(p.temperature)) for p in points))),
    )
