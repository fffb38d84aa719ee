"""The training loop: one minibatch of pool rows and one of labelled rows a step.

The loss is the mean over the pool rows of the objective's loss plus `train.labelled_weight` times
the mean over the labelled rows of cross-entropy with their true labels. Whatever is random is a
function of the seed and the step, or lives in the checkpoint, so a run that was killed ends with
the same bytes as one that was not (same threads, same torch, same machine type).
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.distill import checkpoint
from limbeck.distill.checkpoint import CurvePoint, Progress
from limbeck.distill.feed import Feed
from limbeck.distill.job import Job
from limbeck.errors import ConfigError
from limbeck.numerics.metrics import accuracy, nll
from limbeck.objectives.base import Snapshot, StudentOut
from limbeck.students import rng
from limbeck.students.base import StudentModule
from limbeck.students.store import Store
from limbeck.trust.temperature import Temperature

if TYPE_CHECKING:
    from accelerate import Accelerator

SECONDS_AT_RISK = 60.0
"""A checkpoint is written when this much time has passed, also between evaluations."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What training gave; the student's module holds the weights of `best_step`."""

    best_step: int
    last_step: int
    seconds: float
    curve: tuple[CurvePoint, ...]

    @property
    def best(self) -> CurvePoint | None:
        """The evaluation at `best_step`, or None when nothing was held out."""
        return next((p for p in self.curve if p.step == self.best_step), None)


def train(
    job: Job,
    path: Path,
    settings: str,
    accelerator: "Accelerator",
    on_step: Callable[[int, CurvePoint | None], None],
) -> Trained:
    """Train a student, going on from the checkpoint at `path` when there is one.

    Args:
        job: What to train.
        path: The checkpoint's file; rewritten at every evaluation, and every minute between them.
        settings: Hash of everything that shapes the job.
        accelerator: Where to train; the caller made it, so that many jobs share it.
        on_step: Called after every step with the step and, after an evaluation, its point.

    Raises:
        StorageError: the checkpoint cannot be written or belongs to another job.
        ConfigError: the loss is no longer a number.
    """
    progress = checkpoint.load(path, settings) or Progress(settings)
    with rng.isolated(job.seed):
        run = _Run(job, accelerator, progress)
        run.restore()
        try:
            for step in run.steps():
                point = run.step(step)
                if point is not None or run.due():
                    run.keep()
                    if accelerator.is_main_process:
                        checkpoint.save(progress, path)
                on_step(step + 1, point)
        finally:
            run.close()
    return run.finish()


class _Run:
    """State of one call of `train`."""

    def __init__(self, job: Job, accelerator: "Accelerator", progress: Progress) -> None:
        self.job = job
        self.accelerator = accelerator
        self.progress = progress
        self.module: StudentModule = job.student.module.to(accelerator.device)
        for parameter in job.objective.parameters():
            parameter.data = parameter.data.to(accelerator.device)
        self.trained = [*self.module.parameters(), *job.objective.parameters()]
        self.optimizer = build_optimizer(job)
        self.wrapped, self.optimizer = accelerator.prepare(self.module, self.optimizer)
        self.plain = _is_plain(accelerator)
        self.stepper = _bare(self.optimizer) if self.plain else self.optimizer
        self.feed = Feed(job, accelerator.process_index, accelerator.num_processes)
        self.every = max(1, job.steps // job.train.evaluations)
        self.refreshes = refresh_steps(job, accelerator.num_processes)
        # Summed on the device: reading the loss at every step would make a GPU wait.
        self.loss_sum = torch.zeros((), device=accelerator.device)
        self.kept_at = time.monotonic()

    def restore(self) -> None:
        """Go on from the checkpoint, if it has taken any step."""
        if self.progress.step == 0:
            return
        self.module.load_state_dict(self.progress.group("model"))
        checkpoint.load_optimizer(_bare(self.optimizer), self.progress.group("optimizer"))
        self.job.objective.load_state_dict(self.progress.group("objective"))
        rng.restore(self.progress.group("rng"))
        self.loss_sum += self.progress.loss_sum

    def steps(self) -> Iterator[int]:
        """Steps still to take, each prepared while the one before it runs."""
        while not self.progress.finished:
            self.feed.prefetch(self.progress.step, self.job.stop_at)
            yield self.progress.step

    def step(self, step: int) -> CurvePoint | None:
        """Take one gradient step; evaluate when it is time."""
        began = time.perf_counter()
        if step in self.refreshes:
            self.job.objective.refresh(self._snapshot())
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.job, step)
        if not self.module.training:  # walking through all layers takes longer than some of them
            self.wrapped.train()
        self.stepper.zero_grad(set_to_none=True)
        self.job.objective.begin_step(step / self.job.steps)
        loss = self._loss(step)
        self._descend(loss)
        progress = self.progress
        self.loss_sum += loss.detach()
        progress.step = step + 1
        last = progress.step >= self.job.stop_at
        point = self._evaluate() if last or progress.step % self.every == 0 else None
        progress.finished = last or self._out_of_patience()
        progress.seconds += time.perf_counter() - began
        return point

    def _descend(self, loss: Tensor) -> None:
        clip = self.job.train.clip_norm
        if self.plain:
            torch.autograd.backward(loss)
        else:
            self.accelerator.backward(loss)
        self._average_objective()
        if clip > 0 and self.plain:
            torch.nn.utils.clip_grad_norm_(self.trained, clip)
        elif clip > 0:
            self.accelerator.clip_grad_norm_(self.trained, clip)
        self.stepper.step()

    def _loss(self, step: int) -> Tensor:
        batch = self.feed.get(step)
        device = self.accelerator.device
        out = self.wrapped({name: t.to(device) for name, t in batch.inputs.items()})
        n = batch.pool_rows
        parts: list[Tensor] = []
        if batch.targets is not None and step >= pretrain_steps(self.job):
            part = StudentOut(out.outputs[:n], out.embedding[:n])
            parts.append(self.job.objective.loss(part, batch.targets.to(device), None).mean())
        if batch.labels is not None:
            # A slice of everything would be copied into zeros on the way back.
            part = StudentOut(out.outputs[n:], out.embedding[n:]) if n else out
            loss = self.job.objective.loss(part, None, batch.labels.to(device)).mean()
            parts.append(loss * self.job.train.labelled_weight if parts else loss)
        return sum(parts[1:], parts[0])

    def _snapshot(self) -> Snapshot:
        """What the student says now of the objective's validation rows and of the whole pool."""
        job = self.job
        if job.evidence is None or job.pool is None:
            raise ConfigError(
                f"{job.objective.name} learns from the student as it trains and needs validation "
                f"rows and a pool; give Job.evidence and Job.pool."
            )
        return Snapshot(
            torch.cat([logs for _, logs in self._said(job.evidence)]),
            ((job.pool.answers(rows), logs) for rows, logs in self._said(job.pool.encoded)),
        )

    def _said(self, rows: Store) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        return log_probabilities(self.module, self.job, rows, self.accelerator.device)

    def _average_objective(self) -> None:
        """Average over processes the gradients that the wrapper of the student does not see."""
        if self.accelerator.num_processes > 1:
            for parameter in self.job.objective.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")

    def _evaluate(self) -> CurvePoint:
        progress = self.progress
        since = progress.step - (progress.curve[-1].step if progress.curve else 0)
        train_loss = float(self.loss_sum) / since
        self.loss_sum.zero_()
        _check_finite(self.job, train_loss, progress.step)
        held_out = self.job.held_out
        if held_out is None:
            point = CurvePoint(progress.step, train_loss, 0.0, 0.0, 0.0, 1.0)
        else:
            log_probs = predict(self.module, self.job, held_out.rows, self.accelerator.device)
            temperature = Temperature.fit(log_probs, held_out.labels)
            labels = held_out.labels.numpy()
            point = CurvePoint(
                step=progress.step,
                train_loss=train_loss,
                accuracy=accuracy(log_probs.numpy(), labels),
                nll=nll(log_probs.numpy(), labels),
                calibrated_nll=nll(temperature.apply(log_probs).numpy(), labels),
                temperature=temperature.value,
            )
        progress.curve.append(point)
        last = len(progress.curve) - 1
        if held_out is None or last == 0 or _score(point) > _score(progress.curve[progress.best]):
            progress.best = last
        return point

    def due(self) -> bool:
        """Whether so much time has gone by that it would be a pity to lose it."""
        return time.monotonic() - self.kept_at > SECONDS_AT_RISK

    def keep(self) -> None:
        """Copy the state into the progress, and the weights beside it when they are the best."""
        progress, job = self.progress, self.job
        self.kept_at = time.monotonic()
        progress.loss_sum = float(self.loss_sum)
        weights = self.module.state_dict()
        evaluated = bool(progress.curve) and progress.curve[-1].step == progress.step
        if evaluated and progress.best == len(progress.curve) - 1:
            progress.set_group("best", weights)
        progress.set_group("model", weights)
        progress.set_group("optimizer", checkpoint.optimizer_tensors(_bare(self.optimizer)))
        progress.set_group("objective", job.objective.state_dict())
        progress.set_group("rng", rng.states())

    def _out_of_patience(self) -> bool:
        progress, patience = self.progress, self.job.train.patience
        return patience > 0 and len(progress.curve) - 1 - progress.best >= patience

    def finish(self) -> Trained:
        """Load the best weights into the student."""
        progress = self.progress
        self.module.load_state_dict(progress.group("best"))
        self.module.eval()
        return Trained(
            best_step=progress.curve[progress.best].step,
            last_step=progress.step,
            seconds=progress.seconds,
            curve=tuple(progress.curve),
        )

    def close(self) -> None:
        self.feed.close()


def build_optimizer(job: Job) -> torch.optim.Optimizer:
    """AdamW over the student and what the objective trains with it; no decay of vectors."""
    parameters = [*job.student.module.parameters(), *job.objective.parameters()]
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": job.train.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=job.learning_rate,
        fused=True,
    )


def learning_rate(job: Job, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero at the end of the schedule."""
    warmup = max(1, round(job.train.warmup * job.steps))
    if step < warmup:
        return job.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, job.steps - warmup)
    return job.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def predict(
    module: StudentModule, job: Job, rows: Store, device: torch.device, batch: int = 0
) -> Tensor:
    """Log-probabilities of all rows in eval mode, float32, shape (n, C), on the CPU."""
    return torch.cat([logs for _, logs in log_probabilities(module, job, rows, device, batch)])


@torch.no_grad()
def log_probabilities(
    module: StudentModule, job: Job, rows: Store, device: torch.device, batch: int = 0
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """The same a batch at a time, each with the positions of its rows."""
    for places, out in outputs(job, rows, device, module=module, batch=batch):
        yield places, job.objective.class_log_probs(out).cpu()


@torch.no_grad()
def outputs(
    job: Job,
    rows: Store,
    device: torch.device,
    *,
    module: StudentModule | None = None,
    batch: int = 0,
) -> Iterator[tuple[NDArray[np.int64], StudentOut]]:
    """What a student makes of rows in eval mode, a batch at a time, with the rows' positions."""
    module = module or job.student.module
    module.eval()
    batch = batch or module.rows_at_once
    for start in range(0, len(rows), batch):
        places = np.arange(start, min(start + batch, len(rows)), dtype=np.int64)
        inputs = job.student.encoder.collate(rows.take(places))
        yield places, module({name: t.to(device) for name, t in inputs.items()})


def pretrain_steps(job: Job) -> int:
    """Steps at the start in which only labelled rows teach."""
    return round(job.objective.pretrain * job.steps)


def refresh_steps(job: Job, processes: int = 1) -> range:
    """Steps before which the objective learns from the student; empty for most objectives."""
    every, first = job.objective.refresh_every, pretrain_steps(job)
    if every is None or job.pool is None:
        return range(0)
    if every == 0:
        return range(first, first + 1)
    epoch = len(job.pool) / (job.train.pool_batch * processes)
    return range(first, job.steps, max(1, round(every * epoch)))


def _score(point: CurvePoint) -> tuple[float, float]:
    """Accuracy first; a tie goes to the better calibrated likelihood."""
    return (point.accuracy, -point.calibrated_nll)


def _check_finite(job: Job, loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise ConfigError(
            f"the mean loss of the arm {job.name} up to step {step} is {loss}: training has "
            f"diverged; lower train.learning_rate={job.learning_rate:g}, or, where the network or "
            f"the loss is yours, find what makes it so."
        )


def _is_plain(accelerator: "Accelerator") -> bool:
    """Whether Accelerate's part of a step would only call PyTorch.

    It looks anew at every step for packages that it could use, which takes as long as a whole step
    of a small student.
    """
    from accelerate import DistributedType

    plain = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    whole = accelerator.gradient_accumulation_steps == 1
    return accelerator.distributed_type in plain and accelerator.scaler is None and whole


def _bare(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimiser inside Accelerate's wrapper."""
    inner = getattr(optimizer, "optimizer", optimizer)
    assert isinstance(inner, torch.optim.Optimizer)
    return inner
