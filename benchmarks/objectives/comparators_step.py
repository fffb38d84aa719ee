"""What the comparators cost in a training step, against plain distillation in the same step.

    PYTHONPATH=src python -m benchmarks.objectives.comparators_step

The student is a network of two layers over 256 numbers with an embedding of 128; the teacher has
embeddings of 768, two or ten classes, and a pool of 20,000 rows. A step holds 256 pool rows:
forward, loss, backward, fused AdamW over the student and what the objective trains, one thread.

All losses take turns in every round, a few steps each, of which the first is not counted. Extra
time is the median over rounds of the difference from plain distillation in the same round, in
processor time, so that neighbours on a shared machine count for less; "soft_kd again" shows what
noise is left.
"""

import statistics
import time
import warnings
from typing import Any

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from benchmarks.objectives._steps import timed
from torch import Tensor, nn

from limbeck.answers import Answers
from limbeck.errors import LimbeckWarning
from limbeck.objectives import Crd, Objective, StudentOut, Targets, objective_class
from limbeck.storage import write_text

CLAIM = "What each comparator of few-class distillation adds to a step of plain distillation."
POOL, BATCH, INPUTS, WIDTH, TEACHER = 20_000, 256, 256, 128, 768
CLASSES = (2, 10)
SEEDS = [0, 1, 2, 3, 4]
ROUNDS, RUN = 5, 3
BASE = "soft_kd"
NAMES = ("dkd", "dist", "rkd", "embedding", "fitnet", "vid", "crd")
FEWER = 1024
"""Negatives of a second row of crd."""


class Student(nn.Module):
    """Two layers and a head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(INPUTS, 512), nn.ReLU(), nn.Linear(512, WIDTH), nn.ReLU()
        )
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> StudentOut:
        embedding = self.body(x)
        return StudentOut(self.head(embedding), embedding)


class Step:
    """A student with one objective, its optimiser, and a pool."""

    def __init__(self, objective: Objective, classes: int, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        self.student = Student(classes)
        probs = torch.softmax(3 * torch.randn(POOL, classes, generator=g), 1)
        self.answers = Answers(
            np.zeros((POOL, 16), np.uint8), probs, torch.randn(POOL, TEACHER, generator=g)
        )
        self.inputs = torch.randn(POOL, INPUTS, generator=g)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LimbeckWarning)  # two classes are meant
            self.objective = objective.fit([self.answers], None).attach(WIDTH, g)
        parameters = [*self.student.parameters(), *self.objective.parameters()]
        self.trained = sum(p.numel() for p in self.objective.parameters())
        self.optimiser = torch.optim.AdamW(parameters, 1e-4, fused=True)
        self.targets = self.objective.targets(self.answers).tensors
        self.g, self.taken = g, 0

    def seconds(self) -> float:
        """Processor seconds of one step; picking its rows is left out."""
        rows = torch.randint(POOL, (BATCH,), generator=self.g)
        targets = Targets({**{n: t[rows] for n, t in self.targets.items()}, "row": rows})
        x = self.inputs[rows]
        start = time.process_time()
        self.optimiser.zero_grad(set_to_none=True)
        self.objective.begin_step(self.taken / 10**6)
        self.objective.loss(self.student(x), targets, None).mean().backward()
        self.optimiser.step()
        self.taken += 1
        return time.process_time() - start


def objectives() -> dict[str, Objective]:
    """What takes turns; the first is the baseline."""
    named = {name: objective_class(name)() for name in (BASE, *NAMES)}
    return {**named, f"{BASE} again": objective_class(BASE)(), "crd, few": Crd(negatives=FEWER)}


def measure(classes: int, seed: int) -> dict[str, Any]:
    """Milliseconds of every loss for one number of classes and seed."""
    steps = {name: Step(made, classes, seed) for name, made in objectives().items()}
    times = timed({name: step.seconds for name, step in steps.items()}, ROUNDS, RUN, seed)
    base = times[BASE]
    return {
        "classes": classes,
        "seed": seed,
        "step_ms": 1e3 * statistics.median(base),
        "trained": {name: step.trained for name, step in steps.items()},
        "extra_ms": {
            name: 1e3 * statistics.median(a - b for a, b in zip(mine, base, strict=True))
            for name, mine in times.items()
            if name != BASE
        },
    }


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over seeds for each number of classes."""
    out = []
    for classes in CLASSES:
        mine = [row for row in rows if row["classes"] == classes]
        if mine:
            extra = {
                name: statistics.median(row["extra_ms"][name] for row in mine)
                for name in mine[0]["extra_ms"]
            }
            step = statistics.median(row["step_ms"] for row in mine)
            out.append(
                {
                    "classes": classes,
                    "seeds": len(mine),
                    "step_ms": step,
                    "extra_ms": extra,
                    "trained": mine[0]["trained"],
                }
            )
    return out


def table(numbers: list[dict[str, Any]]) -> str:
    """A markdown table: milliseconds over plain distillation, and numbers that are trained."""
    titles = " | ".join(f"C = {n['classes']}: step of {n['step_ms']:.1f} ms" for n in numbers)
    lines = [f"| objective | {titles} | trained beside the student |", "|---|" + "--:|" * 3]
    for name in numbers[0]["extra_ms"]:
        cells = " | ".join(f"{n['extra_ms'][name]:+.1f} ms" for n in numbers)
        lines.append(f"| {name} | {cells} | {numbers[0]['trained'][name]:,} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the result and the table."""
    options = arguments(__doc__, minutes=10).parse_args()
    torch.set_num_threads(1)
    clock, found = Clock(options.minutes), results("comparators_step", fresh=options.fresh)
    for seed in SEEDS:
        for classes in CLASSES:
            if found.done([classes, seed]) or clock.spent:
                continue
            row = measure(classes, seed)
            found.add([classes, seed], row)
            print(classes, seed, {n: round(x, 1) for n, x in row["extra_ms"].items()}, flush=True)
    numbers = summarise(list(found.rows()))
    found.write(
        claim=CLAIM,
        config={
            "pool": POOL,
            "rows a step": BATCH,
            "widths": [INPUTS, WIDTH, TEACHER],
            "rounds": ROUNDS,
            "steps a turn": RUN,
            "fewer negatives": FEWER,
        },
        seeds=SEEDS,
        numbers=numbers,
    )
    write_text(RESULTS / "comparators_step.md", table(numbers))
    print(table(numbers))


if __name__ == "__main__":
    main()
