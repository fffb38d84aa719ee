"""What a contrastive loss compares with: rows drawn from other classes, and what is remembered.

Every draw is a function of a seed and a step, and of a row's class or place in the pool, never of
the minibatch that the row happens to be in.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, eq=False)
class ClassIndex:
    """Pool rows sorted by class.

    Args:
        order: Rows, class after class, int64, shape (N,).
        place: Where each row is in `order`, int64, shape (N,).
        starts: Where each class begins, int64, shape (C,).
        counts: Rows of each class, int64, shape (C,).
    """

    order: Tensor
    place: Tensor
    starts: Tensor
    counts: Tensor

    @classmethod
    def build(cls, classes: Tensor, num_classes: int) -> Self:
        """Sort rows by their class, int64, shape (N,), in [0, C). 16 bytes a row are kept."""
        order = classes.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        counts = torch.bincount(classes, minlength=num_classes)
        return cls(order, place, counts.cumsum(0) - counts, counts)

    def __len__(self) -> int:
        return len(self.order)

    def others(self, spared: int | None, count: int, seed: int, step: int) -> Tensor:
        """Draw rows of every class but one.

        Args:
            spared: The class whose rows are left out; None leaves out none.
            count: Rows to draw, with replacement; where there are not more, each comes once.
            seed, step: Of the draw.

        Returns:
            Rows, int64, shape (min(count, rows there are),).
        """
        start, size = (
            (0, 0) if spared is None else (int(self.starts[spared]), int(self.counts[spared]))
        )
        there = len(self) - size
        if count >= there:
            drawn = torch.arange(there)
        else:
            generator = chance(seed, step, 0 if spared is None else spared + 1)
            drawn = torch.randint(there, (count,), generator=generator)
        return self.order[drawn + size * (drawn >= start)]

    def partners(self, rows: Tensor, seed: int, step: int) -> Tensor:
        """A random row of the same class for each row, itself not excluded, int64, shape (B,)."""
        random = torch.rand(len(self.counts), generator=chance(seed, step, len(self.counts) + 1))
        shift = (random * self.counts).long()
        place = self.place[rows]
        mine = torch.searchsorted(self.starts + self.counts, place, right=True)
        start, count = self.starts[mine], self.counts[mine]
        return self.order[start + (place - start + shift[mine]) % count]


def chance(seed: int, step: int, purpose: int) -> torch.Generator:
    """A generator for one purpose of one step."""
    words = np.random.SeedSequence([seed, step, purpose]).generate_state(1)
    return torch.Generator().manual_seed(int(words[0]))


@final
class Banks:
    """What both sides remember of every row, and all else that moves from step to step.

    Args:
        state: As `draw` makes it.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = dict(state)

    @classmethod
    def draw(cls, rows: int, width: int, generator: torch.Generator) -> Self:
        """Banks of random entries of about length 1, float32, shape (rows, width); Z is not known.

        Both together take 8 bytes times `rows` times `width`.
        """
        bound = math.sqrt(3 / width)
        student, teacher = (
            torch.empty(rows, width).uniform_(-bound, bound, generator=generator) for _ in range(2)
        )
        return cls(
            {
                "student": student,
                "teacher": teacher,
                "log_z": torch.full((2,), math.nan),
                "seed": torch.randint(2**31, (), generator=generator),
                "step": torch.zeros((), dtype=torch.long),
                "seen_row": torch.zeros(0, dtype=torch.long),
                "seen_student": torch.zeros(0, width),
                "seen_teacher": torch.zeros(0, width),
            }
        )

    def advance(self, momentum: float) -> None:
        """Put into the banks what was seen last, and go on to the next draw."""
        state = self.state
        for side in ("student", "teacher"):
            seen = f"seen_{side}"
            places, entries = remembered(state[side], state["seen_row"], state[seen], momentum)
            # In place: a copy of a large bank would take longer than the rest of a step.
            state[side].index_copy_(0, places, entries)
            state[seen] = state[seen][:0]
        state["seen_row"] = state["seen_row"][:0]
        state["step"] = state["step"] + 1

    def see(self, rows: Tensor, student: Tensor, teacher: Tensor) -> None:
        """Keep for `advance` what was seen of rows, on their device from now on."""
        self.state = {name: t.to(rows.device) for name, t in self.state.items()}
        self.state |= {
            "seen_row": rows,
            "seen_student": student.detach().float(),
            "seen_teacher": teacher.detach().float(),
        }


def remembered(bank: Tensor, rows: Tensor, seen: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    """What the entries of a bank become after their rows were seen.

    Args:
        bank: Entries of length 1, float32, shape (N, w); left as they are.
        rows: Which rows were seen, int64, shape (B,). One that comes twice counts with its mean.
        seen: What was seen of them, float32, shape (B, w).
        momentum: Share of the old entry, in [0, 1).

    Returns:
        The different rows, int64, shape (b,), and their new entries of length 1, shape (b, w).
    """
    unique, which = torch.unique(rows, return_inverse=True)
    total = bank.new_zeros(len(unique), bank.shape[1]).index_add_(0, which, seen)
    mean = total / torch.bincount(which, minlength=len(unique))[:, None]
    mixed = momentum * bank[unique] + (1 - momentum) * mean
    return unique, functional.normalize(mixed, dim=1)
