"""What a student says of pool rows, read a batch at a time by a rule that chooses among them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.distill.job import Job
from limbeck.distill.loop import outputs
from limbeck.distill.views import Subset
from limbeck.students.store import Store


@dataclass(frozen=True, slots=True, eq=False)
class PoolScores:
    """Candidates of a pool, as `limbeck.select` asks for them: evaluated when they are asked for.

    Rows are read as they are encoded, without augmentation, and the student is in evaluation mode.

    Args:
        job: The trained student and the objective that reads its outputs.
        device: Where it is evaluated.
        encoded: Encoded pool rows.
        positions: Where each of them lies in the pool, int64, ascending.
        places: Which of the encoded rows may be chosen, int64, ascending.
        known_rows: Encoded rows that are labelled or bought.
        pool_size: Rows of the pool.
        teacher_error: Share of validation rows that the teacher gets wrong; or the probability
            that it is wrong at each candidate, shape (n,).

    Cost: each call of `probs` or `embeddings` runs the student over the rows once.
    """

    job: Job
    device: torch.device
    encoded: Store
    positions: NDArray[np.int64]
    places: NDArray[np.int64]
    known_rows: Sequence[Store]
    pool_size: int
    teacher_error: float | Tensor | None

    @property
    def rows(self) -> Tensor:
        """Positions in the pool, int64, shape (n,)."""
        return torch.from_numpy(self.positions[self.places])

    def probs(self) -> Iterator[Tensor]:
        """Probabilities in blocks, float32, (b, C)."""
        for _, out in outputs(self.job, Subset(self.encoded, self.places), self.device):
            yield self.job.objective.class_log_probs(out).detach().exp().cpu()

    def embeddings(self, at: Tensor | None = None) -> Tensor:
        """Inputs of the last layer of some candidates, or of all, float32, shape (m, d)."""
        places = self.places if at is None else self.places[at.numpy()]
        return self._embedded(Subset(self.encoded, places))

    def known_embeddings(self) -> Tensor:
        """The same of rows that are labelled or bought."""
        return torch.cat([self._embedded(rows) for rows in self.known_rows])

    def _embedded(self, rows: Store) -> Tensor:
        parts = [out.embedding.float().cpu() for _, out in outputs(self.job, rows, self.device)]
        if not parts:
            return torch.zeros(0, self.job.student.module.embedding_dim)
        return torch.cat(parts)


def verdicts(
    job: Job, rows: Store, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Margin between the two largest probabilities, and the most probable class, (n,) each."""
    margins, classes = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    for _, out in outputs(job, rows, device):
        top = job.objective.class_log_probs(out).detach().exp().topk(2, dim=1)
        margins.append((top.values[:, 0] - top.values[:, 1]).cpu().numpy())
        classes.append(top.indices[:, 0].cpu().numpy())
    return np.concatenate(margins), np.concatenate(classes)
