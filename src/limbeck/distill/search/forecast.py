"""What a search would do, before it begins."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from limbeck.data import Splits
from limbeck.distill.config import DistillConfig
from limbeck.distill.estimate import span
from limbeck.distill.folder import RunFolder
from limbeck.distill.search.one_shot import shared_steps
from limbeck.distill.search.run import check_search
from limbeck.distill.search.trials import expected_rows, trial_steps
from limbeck.students import Student


def search_plan(
    config: DistillConfig,
    splits: Splits,
    student: Student,
    folder: RunFolder,
    answers: int,
    timed: Callable[[int], NDArray[np.float64]],
) -> tuple[str, ...]:
    """A few lines for a person.

    Args:
        config, splits, student, folder: Of the run.
        answers: Pool rows that will have one.
        timed: Seconds of a few gradient steps of a batch of so many rows.

    Raises:
        ConfigError: as `check_search`.
    """
    problem, wanted = check_search(config, student, folder), config.search
    plain = problem.arm == "labels"
    known = expected_rows(config, splits) if plain else answers
    shared = config.search.one_shot
    steps = shared_steps(config, known) if shared else trial_steps(config, known)
    batch = config.train.labelled_batch + (0 if plain else config.train.pool_batch)
    trained = 1 if shared else wanted.trials + 1
    seconds = trained * steps * float(np.median(timed(batch)))
    what = f"{wanted.trials:,} trials of {steps:,} steps"
    if shared:
        what = f"{wanted.trials:,} trials in one shared network of {steps:,} steps"
    low, high = problem.cost.bounds(())
    base = problem.cost.total(problem.base)
    return (
        f"search    {what} of the arm {problem.arm}, by "
        f"{wanted.method}; about {span(seconds / wanted.workers)}, were all as large as the "
        f"student of student.settings",
        f"          {problem.students.space.size:,} students of {low:,.6g} to {high:,.6g} "
        f"{problem.unit}; at most {problem.limit.high:,.6g} are wanted, that student has "
        f"{base:,.6g}",
    )
