"""Trains trials from what a run folder holds, in whichever process."""

from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from limbeck.distill.acquire import Purchased, known_of
from limbeck.distill.config import DistillConfig
from limbeck.distill.encoding import encode_labelled, encode_rows
from limbeck.distill.folder import RunFolder
from limbeck.distill.questions import open_book, questions
from limbeck.distill.search.one_shot import make_trainer
from limbeck.distill.search.problem import search_problem
from limbeck.distill.search.storage import make_look
from limbeck.distill.search.study import Asked
from limbeck.distill.search.trials import SearchRows, TrialResult, TrialTrainer
from limbeck.distill.staging import stage
from limbeck.distill.teacher import load_teacher
from limbeck.distill.trust import fit_trust
from limbeck.ledger import Spending, SqliteLedger
from limbeck.teachers.imports import importable


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """What a worker must be told, beside what lies in the run folder.

    Args:
        config: The run's settings.
        study: Name of the study.
        encoded_rows: Pool rows that are encoded, int64.
        validation_rows, pool_rows: Rows that have an answer, int64; None where none is needed.
        spending: Of the run.
        alpha: As in `Acquired`.
    """

    config: DistillConfig
    study: str
    encoded_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64] | None
    pool_rows: NDArray[np.int64] | None
    spending: Spending | None
    alpha: Tensor | None


def share(config: DistillConfig, study: str, rows: SearchRows) -> Shared:
    """What to tell a worker of the rows that this process has."""
    known = rows.acquired
    return Shared(
        config=config,
        study=study,
        encoded_rows=rows.encoded.pool_rows,
        validation_rows=None if known is None else known.validation_rows,
        pool_rows=None if known is None else known.pool_rows,
        spending=None if known is None else known.spending,
        alpha=None if known is None else known.alpha,
    )


class Here:
    """This process as a place for trials.

    Args:
        trainer: Trains them.
        config, folder, study: Where trials report to.
    """

    def __init__(
        self, trainer: TrialTrainer, config: DistillConfig, folder: RunFolder, study: str
    ) -> None:
        self._trainer, self._config = trainer, config
        self._folder, self._study = folder, study

    def evaluate(self, asked: Asked) -> TrialResult:
        """Train one trial."""
        look = make_look(self._config, self._folder, self._study, asked.number)
        return self._trainer.evaluate(asked.name, asked.architecture, look)

    def close(self) -> None:
        """Nothing."""


class Worker:
    """Trains trials from what a run folder holds; buys nothing."""

    def __init__(self, shared: Shared) -> None:
        """Open the folder, the ledger, the teacher's last layer where an arm needs it."""
        from accelerate import Accelerator

        self._shared = shared
        config = shared.config
        self._folder = RunFolder(config.out, writes=False)
        self._open = ExitStack()
        self._open.enter_context(importable(config.code))
        splits = stage(config, self._folder)
        if shared.pool_rows is None:
            encoded = encode_labelled(config, splits, self._folder)
            rows = SearchRows(splits, encoded, None, None)
        else:
            encoded = encode_rows(config, splits, shared.encoded_rows, self._folder)
            rows = self._with_answers(SearchRows(splits, encoded, None, None))
        problem = search_problem(config, encoded.student)
        trainer = make_trainer(config, problem, rows, self._folder, Accelerator())
        self._here = Here(trainer, config, self._folder, shared.study)

    def _with_answers(self, rows: SearchRows) -> SearchRows:
        shared, config = self._shared, self._shared.config
        assert shared.validation_rows is not None
        assert shared.pool_rows is not None
        assert shared.spending is not None
        ledger = self._open.enter_context(SqliteLedger(config.ledger))
        teacher = load_teacher(config, rows.splits, self._folder)
        asked = questions(rows.splits, teacher)
        bought = Purchased(
            book=open_book(ledger, teacher, asked),
            asked=asked,
            validation_rows=shared.validation_rows,
            pool_rows=shared.pool_rows,
            tallies=(),
            spending=shared.spending,
        )
        acquired = replace(known_of(config, bought), alpha=shared.alpha)
        trust = fit_trust(config, rows.splits, acquired, teacher)
        return replace(rows, acquired=acquired, trust=trust)

    def evaluate(self, asked: Asked) -> TrialResult:
        """Train one trial."""
        return self._here.evaluate(asked)

    def close(self) -> None:
        """Close the ledger."""
        self._open.close()
