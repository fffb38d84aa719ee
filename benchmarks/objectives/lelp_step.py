"""What LELP costs in a training step, against plain distillation in the same step.

    PYTHONPATH=src python -m benchmarks.objectives.lelp_step

The steps and students are those of `benchmarks.objectives.slam_step`: `text_bag` with 60 or 900
n-grams a row, and a small transformer. The baseline has a head of C outputs and the loss of
`soft_kd`; LELP has a head of C S outputs (S = 8 for two classes, 2 for ten) and its own loss, so
what is measured includes the wider head. Losses take turns in every round; the extra cost is the
median over rounds of the difference from the baseline in the same round, in processor time of one
thread; "distillation again" shows what noise is left. What depends on the teacher alone is made
before the step, as `Objective.targets` does; making it, from embeddings of 768 numbers, is told
beside it.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from benchmarks.objectives.slam_step import LABELLED, POOL, TOKENS, Step
from torch import nn
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.objectives import (
    Evidence,
    Lelp,
    Objective,
    SoftKD,
    StudentOut,
    Targets,
    TeacherHead,
)
from limbeck.storage import write_text

CLAIM = "LELP adds under 3 % to a training step, the wider head included."
SIZES = [(length, classes) for length in (900, 60, TOKENS) for classes in (2, 10)]
SEEDS = [0, 1, 2, 3, 4]
ROUNDS = 12
RUN = 4
WIDE = 768
BASE = "distillation"


class Turn:
    """One objective with a student whose head it wants."""

    def __init__(self, objective: Objective, step: Step, told: Answers, classes: int) -> None:
        self.step = step
        self.objective = objective
        self.targets: Targets = objective.targets(told)
        self.labels = torch.arange(LABELLED) % classes

    def seconds(self) -> float:
        """Processor seconds of one training step."""
        step = self.step
        start = time.process_time()
        step.optimiser.zero_grad(set_to_none=True)
        out = step.module(step.inputs)
        pool = StudentOut(out.outputs[:POOL], out.embedding[:POOL])
        labelled = functional.cross_entropy(out.outputs[POOL:], self.labels)
        (self.objective.loss(pool, self.targets, None).mean() + labelled).backward()
        nn.utils.clip_grad_norm_(step.module.parameters(), 1.0)
        step.optimiser.step()
        return time.process_time() - start


def told_of(classes: int, seed: int) -> tuple[Answers, Evidence]:
    """Answers of a teacher with a last layer, and this layer."""
    g = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(POOL, WIDE, generator=g)
    head = TeacherHead(torch.randn(classes, WIDE, generator=g) / 10, torch.zeros(classes))
    probs = torch.softmax(embeddings @ head.weight.T, dim=1)
    told = Answers(np.zeros((POOL, 16), np.uint8), probs, embeddings)
    known = Evidence(probs, probs.argmax(1), lambda p: p.max(dim=1).values, 2, head=head)
    return told, known


def turns_of(length: int, classes: int, seed: int) -> dict[str, Turn]:
    """What takes turns; the first one is the baseline."""
    told, known = told_of(classes, seed)
    made: dict[str, Callable[[], Objective]] = {
        BASE: lambda: SoftKD(temperature=2.0),
        f"{BASE} again": lambda: SoftKD(temperature=2.0),
        "LELP": Lelp,
        "LELP with trust": lambda: Lelp(trust=True),
    }
    out = {}
    for name, make in made.items():
        fitted = make().fit([told], known)
        out[name] = Turn(fitted, Step(length, fitted.width(classes), seed), told, classes)
    return out


def preparation(classes: int, seed: int) -> dict[str, float]:
    """Processor microseconds of `targets` for one batch of pool rows."""
    told, known = told_of(classes, seed)
    out = {}
    for name, trust in (("LELP", False), ("LELP with trust", True)):
        fitted = Lelp(trust=trust).fit([told], known)
        times = []
        for _ in range(ROUNDS):
            start = time.process_time()
            fitted.targets(told)
            times.append(time.process_time() - start)
        out[name] = 1e6 * statistics.median(times)
    return out


def measure(length: int, classes: int, seed: int) -> dict[str, Any]:
    """Extra cost for one size and seed."""
    turns = turns_of(length, classes, seed)
    times: dict[str, list[float]] = {name: [] for name in turns}
    order = np.random.default_rng(seed)
    for turn in range(ROUNDS + 1):
        for name in order.permutation(list(turns)):
            # In training one loss follows itself; the first step after another finds cold caches.
            spent = [turns[name].seconds() for _ in range(1 + RUN)]
            if turn:  # the first round allocates
                times[name].append(statistics.median(spent[1:]))
    base = times[BASE]
    return {
        "length": length,
        "classes": classes,
        "seed": seed,
        "step_ms": 1e3 * statistics.median(base),
        "extra_us": {
            n: 1e6 * statistics.median(a - b for a, b in zip(t, base, strict=True))
            for n, t in times.items()
            if n != BASE
        },
        "preparation_us": preparation(classes, seed),
    }


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over seeds for each size, in microseconds and in percent of the step."""
    out = []
    for size in SIZES:
        mine = [row for row in rows if (row["length"], row["classes"]) == size]
        if not mine:
            continue
        entry: dict[str, Any] = {"length": size[0], "classes": size[1], "seeds": len(mine)}
        entry["step_ms"] = statistics.median(row["step_ms"] for row in mine)
        for kind in ("extra_us", "preparation_us"):
            entry[kind] = {
                name: statistics.median(row[kind][name] for row in mine) for name in mine[0][kind]
            }
            entry[kind.replace("_us", "_percent")] = {
                name: value / 10 / entry["step_ms"] for name, value in entry[kind].items()
            }
        out.append(entry)
    return out


def table(numbers: list[dict[str, Any]]) -> str:
    """A markdown table: extra cost in percent of the step, and in microseconds."""
    kinds = [(kind, name) for kind in ("extra", "preparation") for name in numbers[0][f"{kind}_us"]]
    titles = [name if kind == "extra" else f"preparing {name}" for kind, name in kinds]
    lines = [
        "| student: n-grams a row | C | step, ms | " + " | ".join(titles) + " |",
        "|--:|--:|--:|" + "--:|" * len(titles),
    ]
    for here in numbers:
        cells = [f"{here[k + '_percent'][n]:+.1f} % ({here[k + '_us'][n]:+.0f})" for k, n in kinds]
        name = "transformer" if here["length"] == TOKENS else here["length"]
        lines.append(
            f"| {name} | {here['classes']} | {here['step_ms']:.1f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the result and the table."""
    options = arguments(__doc__, minutes=8).parse_args()
    torch.set_num_threads(1)
    clock, found = Clock(options.minutes), results("lelp_step", fresh=options.fresh)
    for seed in SEEDS:
        for length, classes in SIZES:
            if found.done([length, classes, seed]) or clock.spent:
                continue
            row = measure(length, classes, seed)
            found.add([length, classes, seed], row)
            shown = {name: round(value) for name, value in row["extra_us"].items()}
            print(length, classes, seed, round(row["step_ms"], 2), shown, flush=True)
    numbers = summarise(list(found.rows()))
    config = {"sizes": SIZES, "rounds": ROUNDS, "steps a turn": RUN, "rows": [POOL, LABELLED],
              "embedding": WIDE}  # fmt: skip
    found.write(claim=CLAIM, config=config, seeds=SEEDS, numbers=numbers)
    write_text(RESULTS / "lelp_step.md", table(numbers))
    print(table(numbers))


if __name__ == "__main__":
    main()
