"""Minibatches for the training loop, read one step ahead in a thread where that is quicker.

Reading ahead hides what a minibatch costs behind the step before it, but the two threads take
Python's lock from each other, and a core from PyTorch's own threads: beside a step of a few
milliseconds on two cores that can cost more than it hides. So the first steps are read both ways,
and the quicker way is kept. What a minibatch holds does not depend on how it was read.
"""

import statistics
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.distill.batches import EndlessPermutation
from limbeck.distill.job import Job
from limbeck.objectives.base import Targets
from limbeck.students.base import Encoder, Ragged

TRIAL = 12
"""Steps of each way that are timed."""
WARM_UP = 3
"""Steps before that: the first ones allocate."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A minibatch: pool rows first, labelled rows after them.

    Args:
        inputs: What the module reads, for all rows.
        pool_rows: How many of the rows are pool rows.
        targets: Of the pool rows, or None without a pool.
        labels: Of the labelled rows, int64, or None without labelled rows.
    """

    inputs: dict[str, Tensor]
    pool_rows: int
    targets: Targets | None
    labels: Tensor | None


class Feed:
    """Gives the minibatch of every step."""

    def __init__(self, job: Job, rank: int, world: int) -> None:
        self._job = job
        self._rank = rank
        self._world = world
        train = job.train
        self._pool_rows = self._labelled_rows = None
        if job.pool is not None:
            self._pool_rows = EndlessPermutation(
                len(job.pool), train.pool_batch * world, 2 * job.seed
            )
        if job.labelled is not None:
            self._labelled_rows = EndlessPermutation(
                len(job.labelled), train.labelled_batch * world, 2 * job.seed + 1
            )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="limbeck-feed")
        self._ahead: dict[int, Future[Batch]] = {}
        self._pace = Pace()
        # Beside a step of a millisecond even a generator that nobody draws from takes its time.
        self._varies = type(job.student.encoder).augment is not Encoder.augment

    def prefetch(self, step: int, stop: int) -> None:
        """Begin to read this step and the next, if reading ahead is quicker or has to be tried."""
        if not self._pace.ahead(time.perf_counter()):
            return
        for ahead in range(step, min(step + 2, stop)):
            if ahead not in self._ahead:
                self._ahead[ahead] = self._thread.submit(self._read, ahead)

    def get(self, step: int) -> Batch:
        """The minibatch of a step."""
        future = self._ahead.pop(step, None)
        return self._read(step) if future is None else future.result()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _read(self, step: int) -> Batch:
        parts: list[Ragged] = []
        targets = labels = None
        if self._pool_rows is not None and self._job.pool is not None:
            rows = self._mine(self._pool_rows.rows(step))
            ragged, targets = self._job.pool.take(rows)
            objective = self._job.objective
            if objective.refresh_every is not None or objective.needs_rows:
                targets = Targets({**targets.tensors, "row": torch.from_numpy(rows)})
            parts.append(ragged)
        pool_rows = len(parts[0]) if parts else 0
        if self._labelled_rows is not None and self._job.labelled is not None:
            rows = self._mine(self._labelled_rows.rows(step))
            parts.append(self._job.labelled.rows.take(rows))
            labels = self._job.labelled.labels[torch.from_numpy(rows)]
        encoder = self._job.student.encoder
        inputs = _collate(encoder, parts)
        if self._varies:
            inputs = encoder.augment(inputs, self._chance(step))
        return Batch(inputs, pool_rows, targets, labels)

    def _chance(self, step: int) -> torch.Generator:
        """What this process draws in this step, however often the run was stopped before it."""
        words = np.random.SeedSequence([self._job.seed, step, self._rank]).generate_state(1)
        return torch.Generator().manual_seed(int(words[0]))

    def _mine(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return rows[self._rank :: self._world]


class Pace:
    """Times steps both ways, first with minibatches read in the step, then read ahead."""

    def __init__(self) -> None:
        self._steps = 0
        self._began = 0.0
        self._times: dict[bool, list[float]] = {False: [], True: []}
        self._choice: bool | None = None

    def ahead(self, now: float) -> bool:
        """Whether the step that begins at `now`, in seconds, should be read ahead."""
        if self._choice is not None:
            return self._choice
        before = self._steps - 1  # the step that has just ended
        if before >= WARM_UP and before != WARM_UP + TRIAL:  # the first one ahead had to wait
            self._times[before > WARM_UP + TRIAL].append(now - self._began)
        if len(self._times[True]) == TRIAL:
            self._choice = statistics.median(self._times[True]) < statistics.median(
                self._times[False]
            )
            return self._choice
        self._steps, self._began = self._steps + 1, now
        return self._steps > WARM_UP + TRIAL


def _collate(encoder: Encoder, parts: list[Ragged]) -> dict[str, Tensor]:
    if len(parts) == 1:
        return encoder.collate(parts[0])
    joined = Ragged(
        np.concatenate([p.values for p in parts]), np.concatenate([p.lengths for p in parts])
    )
    return encoder.collate(joined)
