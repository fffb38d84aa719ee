"""What the arms of a run are made from: encoded rows beside answers, and how long they train."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.answers import Answers
from limbeck.data import Splits
from limbeck.distill.acquire import Acquired
from limbeck.distill.arms import Materials
from limbeck.distill.config import DecisionConfig, DistillConfig
from limbeck.distill.encoding import EncodedRows
from limbeck.distill.folder import content_hash, settings_hash
from limbeck.distill.questions import AnswerBook
from limbeck.distill.recipes import own_sources
from limbeck.distill.search.config import SearchConfig
from limbeck.distill.trust import Trust
from limbeck.distill.views import Subset
from limbeck.engines.config import RayConfig
from limbeck.objectives.base import Objective, Targets
from limbeck.students import Student
from limbeck.students.base import Ragged
from limbeck.students.store import Store
from limbeck.teachers.config import TeacherConfig

LEAST_STEPS = 300
_READ_BATCH = 4096


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

    def answered(objective: Objective) -> AnsweredPool:
        return AnsweredPool(pool, acquired.book, acquired.pool_ids, objective, acquired.alpha)

    return Materials(
        student=student,
        labelled=encoded.labelled,
        validation=encoded.validation,
        evidence=Subset(encoded.validation.rows, acquired.validation_rows),
        test=encoded.test,
        pools=answered,
        fit=lambda objective: objective.fit(_Batches(answered(objective)), trust.evidence),
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


def labels_materials(config: DistillConfig, splits: Splits, encoded: EncodedRows) -> Materials:
    """The same where nobody is asked: for arms that learn from labels alone."""

    def nobody(_: Objective) -> AnsweredPool:
        raise AssertionError("an arm that learns from labels wants no pool")

    return Materials(
        student=encoded.student,
        labelled=encoded.labelled,
        validation=encoded.validation,
        evidence=Subset(encoded.validation.rows, np.arange(0)),
        test=encoded.test,
        pools=nobody,
        fit=lambda objective: objective,
        steps=steps_of(config, len(encoded.pool_rows)),
        learning_rate=encoded.learning_rate,
        settings=settings_hash(
            _shaping(config),
            encoded.student.encoder.to_config(),
            _weights_hash(encoded.student),
            content_hash(splits.labelled.content_ids, splits.validation.content_ids),
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
    alpha: Tensor | None = None
    """Trust in each answer, where more is known than trust can tell, float32, shape (n,)."""

    def __len__(self) -> int:
        return len(self.encoded)

    def take(self, rows: NDArray[np.int64]) -> tuple[Ragged, Targets]:
        """Rows by position and what the objective wants of them."""
        return self.encoded.take(rows), self.objective.targets(self.answers(rows))

    def answers(self, rows: NDArray[np.int64]) -> Answers:
        """The teacher's answers of rows by position."""
        found = self.book.read(self.ids[rows])
        if self.alpha is None:
            return found
        return replace(found, alpha=self.alpha[torch.from_numpy(rows)])


@dataclass(frozen=True, slots=True, eq=False)
class _Batches:
    """All answers of a pool, a few thousand at a time; they can be read again."""

    pool: AnsweredPool

    def __iter__(self) -> Iterator[Answers]:
        for start in range(0, len(self.pool), _READ_BATCH):
            yield self.pool.answers(np.arange(start, min(start + _READ_BATCH, len(self.pool))))


def _shaping(config: DistillConfig) -> str:
    """Every setting that shapes a trained arm."""
    rest = replace(config, out=Path(), ledger=Path(), code=Path(), budget=1, money=0.0)
    rest = replace(rest, engine="local", ray=RayConfig())
    teacher = _answers_only(rest.teacher)
    rest = replace(
        rest, teacher=replace(teacher, teachers=tuple(map(_answers_only, teacher.teachers)))
    )
    # What a search has found is in the weights of the student that it gave.
    return repr(replace(rest, decision=DecisionConfig(), search=SearchConfig()))


def _answers_only(teacher: TeacherConfig) -> TeacherConfig:
    """The settings without those of an endpoint that change no answer."""
    if teacher.endpoint is None:
        return teacher
    return replace(teacher, endpoint=teacher.endpoint.answers_only())


def _weights_hash(student: Student) -> str:
    """Hash of initial weights: a model folder or a network of the user's may have changed."""
    weights = {name: t.contiguous() for name, t in student.module.state_dict().items()}
    return hashlib.blake2b(safetensors.torch.save(weights), digest_size=16).hexdigest()
