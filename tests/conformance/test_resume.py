"""A training run that is stopped and resumed ends with the bytes of one that never was.

For every student and every objective, whoever wrote it: whatever changes from step to step must be
a function of the seed and the step, or lie in the checkpoint.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.distill.config import TrainConfig
from limbeck.distill.job import Job, Labelled
from limbeck.distill.loop import train
from limbeck.objectives import (
    Evidence,
    Objective,
    Slam,
    Targets,
    TeacherHead,
    objective_class,
)
from limbeck.students import MemoryStore, Ragged, Store, Student, with_outputs
from limbeck.trust import NeighbourTrust
from tests.conformance import test_objectives, test_students

STEPS = 4
EVERY = (0.1, 0.7)
"""Epochs of three steps: the objective learns before every step, or before every second one, and
then a stop between the two finds what it has learnt in the checkpoint or not at all."""
C = len(test_students.FULL.classes)
WIDE = 12
"""Numbers in the teacher's embedding."""


@dataclass(frozen=True)
class Told:
    """Pool rows with answers."""

    encoded: Store
    probs: Tensor
    embeddings: Tensor
    objective: Objective

    def __len__(self) -> int:
        return len(self.encoded)

    def answers(self, rows: NDArray[np.int64]) -> Answers:
        places = torch.from_numpy(rows)
        probs, embeddings = self.probs[places], self.embeddings[places]
        return Answers(np.zeros((len(rows), 16), np.uint8), probs, embeddings, 0.1 * probs)

    def take(self, rows: NDArray[np.int64]) -> tuple[Ragged, Targets]:
        return self.encoded.take(rows), self.objective.targets(self.answers(rows))


def make_job(student: Student, objective: Objective, name: str) -> Job:
    """The rows of the suite of students, in every role, with a teacher that errs now and then."""
    g = torch.Generator().manual_seed(4)
    store = MemoryStore.build(student.encoder, [test_students.rows_of(name)])
    labels = torch.randint(C, (len(store),), generator=g)
    embeddings = torch.randn(len(store), WIDE, generator=g)
    count = objective.width(C) if objective.name == "subclass" else C
    head = TeacherHead(torch.randn(count, WIDE, generator=g), torch.zeros(count))
    probs = torch.softmax(embeddings @ head.weight.T, dim=1).view(len(store), C, -1).sum(dim=2)
    evidence = Evidence(
        probs,
        labels,
        lambda p: p.max(dim=1).values.clamp(0.5, 1.0),
        2,
        lambda logs: NeighbourTrust.fit(probs, logs, labels),
        head,
    )
    told = Told(store, probs, embeddings, objective).answers(np.arange(len(store)))
    class_map = objective.class_map(C)
    if not class_map.is_plain:
        student = with_outputs(student, class_map, torch.Generator().manual_seed(6))
    fitted = objective.fit([told], evidence).attach(student.module.embedding_dim, g)
    return Job(
        name="test",
        student=student,
        objective=fitted,
        labelled=Labelled(store, labels),
        pool=Told(store, probs, embeddings, fitted) if fitted.needs_answers else None,
        held_out=Labelled(store, labels),
        train=TrainConfig(pool_batch=8, labelled_batch=4, evaluations=STEPS),
        steps=STEPS,
        stop_at=STEPS,
        learning_rate=0.01,
        seed=5,
        evidence=store,
    )


class Stop(Exception):
    """The moment at which a run is stopped."""


def trained(job: Job, path: Path, *, stop: int = 0) -> dict[str, Tensor]:
    """Weights and state after training, stopped for good after `stop` steps."""

    def on_step(step: int, point: object) -> None:
        if step == stop:
            raise Stop

    train(job, path, "s", Accelerator(cpu=True), on_step)
    return {**job.student.module.state_dict(), **job.objective.state_dict()}


def check(jobs: Iterator[Job], folder: Path) -> None:
    """Compare a run that was never stopped with one that was stopped at every step."""
    whole = trained(next(jobs), folder / "whole")
    for stop in range(1, STEPS):
        with pytest.raises(Stop):
            trained(next(jobs), folder / "stopped", stop=stop)
    resumed = trained(next(jobs), folder / "stopped")
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", test_students.NAMES)
def test_every_student_resumes_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    def jobs() -> Iterator[Job]:
        while True:
            yield make_job(test_students.make(name), Slam(target="hard"), name)

    check(jobs(), tmp_path)


def schedules(name: str) -> tuple[float | None, ...]:
    """Epochs between two refreshes: none where the objective has no such schedule."""
    return EVERY if objective_class(name)().refresh_every else (None,)


@pytest.mark.filterwarnings("ignore::limbeck.errors.LimbeckWarning")  # so few rows a class
@pytest.mark.parametrize(
    ("name", "every"),
    [(name, every) for name in test_objectives.NAMES for every in schedules(name)],
)
def test_every_objective_resumes_with_the_same_bytes(
    name: str, every: float | None, tmp_path: Path
) -> None:
    def jobs() -> Iterator[Job]:
        while True:
            objective = objective_class(name)()
            if every is not None:
                objective.refresh_every = every
            yield make_job(test_students.make("tabular"), objective, "tabular")

    check(jobs(), tmp_path)


def test_two_seeds_give_different_bytes(tmp_path: Path) -> None:
    """The comparison above can fail: training is not the same whatever happens."""
    job = make_job(test_students.make("tabular"), Slam(target="hard"), "tabular")
    first = trained(job, tmp_path / "a")
    again = make_job(test_students.make("tabular"), Slam(target="hard"), "tabular")
    second = trained(replace(again, seed=6), tmp_path / "b")
    assert any(not torch.equal(first[name], second[name]) for name in first)
