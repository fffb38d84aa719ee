"""What a search would do, before it begins."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from limbeck.data import Splits
from limbeck.distill.config import DistillConfig
from limbeck.distill.estimate import span
from limbeck.distill.folder import RunFolder
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
    steps = trial_steps(config, expected_rows(config, splits) if plain else answers)
    batch = config.train.labelled_batch + (0 if plain else config.train.pool_batch)
    seconds = (wanted.trials + 1) * steps * float(np.median(timed(batch)))
    low, high = problem.cost.bounds(())
    base = problem.cost.total(problem.base)
    return (
        f"search    {wanted.trials:,} trials of {steps:,} steps of the arm {problem.arm}, by "
        f"{wanted.method}; about {span(seconds / wanted.workers)}, were all as large as the "
        f"student of student.settings",
        f"          {problem.students.space.size:,} students of {low:,.6g} to {high:,.6g} "
        f"{problem.unit}; at most {problem.limit.high:,.6g} are wanted, that student has "
        f"{base:,.6g}",
    )
