"""What LELP costs in a training step, against plain distillation in the same step.

    PYTHONPATH=src python -m benchmarks.objectives.lelp_step

The steps and students are those of `benchmarks.objectives.slam_step`: `text_bag` with 60 or 900
n-grams a row, and a small transformer. The baseline has a head of C outputs and the loss of
`soft_kd`; LELP has a head of C S outputs (S = 8 for two classes, 2 for ten) and its own loss, so
what is measured includes the wider head. Time is processor time of one thread, and losses take
turns in every round. It is measured twice: in whole steps, where "distillation again" shows how
much noise there is; and, far more sharply, for head and loss by themselves, forward and backward,
on a fixed embedding, as the median over rounds of the difference from the baseline in the same
round, whose share of the median whole step is the figure that counts. What depends on the teacher
alone is made before the step, as `Objective.targets` does; making it, from embeddings of 768
numbers, is told beside it.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from benchmarks.objectives._steps import summarise, timed
from benchmarks.objectives.slam_step import LABELLED, POOL, TOKENS, Step
from torch import Tensor, nn
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

CLAIM = "What LELP adds to a training step, the wider head included; the aim is under 3 %."
SIZES = [(length, classes) for length in (900, 60, TOKENS) for classes in (2, 10)]
SEEDS = [0, 1, 2, 3, 4]
TRANSFORMER_SEEDS = 2
ROUNDS, FEW_ROUNDS = 12, 4
"""Of whole steps; the transformer's take 25 times as long."""
ALONE = 400
"""Rounds of head and loss by themselves."""
RUN = 4
WIDE = 768
BASE = "distillation"


WORDS = {"alone": "head and loss: ", "extra": "whole step: ", "preparation": "preparing "}


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


class Alone:
    """Head and loss of pool rows by themselves."""

    def __init__(self, turn: Turn, embedding: Tensor) -> None:
        self.head = nn.Linear(
            embedding.shape[1], turn.step.module(turn.step.inputs).outputs.shape[1]
        )
        self.embedding = embedding.clone().requires_grad_()
        self.turn = turn

    def seconds(self) -> float:
        """Processor seconds, forward and backward."""
        start = time.process_time()
        out = StudentOut(self.head(self.embedding), self.embedding)
        self.turn.objective.loss(out, self.turn.targets, None).mean().backward()
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


def alone(turns: dict[str, Turn]) -> dict[str, float]:
    """Extra processor microseconds of head and loss by themselves."""
    step = turns[BASE].step
    embedding = step.module(step.inputs).embedding[:POOL].detach()
    made = {name: Alone(turn, embedding) for name, turn in turns.items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(ALONE + 20):
        for name, one in made.items():
            spent = one.seconds()
            if turn >= 20:
                times[name].append(spent)
    return extra(times)


def extra(times: dict[str, list[float]]) -> dict[str, float]:
    """Median difference from the baseline of the same round, in microseconds."""
    return {
        name: 1e6 * statistics.median(a - b for a, b in zip(own, times[BASE], strict=True))
        for name, own in times.items()
        if name != BASE
    }


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
    rounds = FEW_ROUNDS if length == TOKENS else ROUNDS
    times = timed({name: turn.seconds for name, turn in turns.items()}, rounds, RUN, seed)
    return {
        "length": length,
        "classes": classes,
        "seed": seed,
        "step_ms": 1e3 * statistics.median(times[BASE]),
        "extra_us": extra(times),
        "alone_us": alone(turns),
        "preparation_us": preparation(classes, seed),
    }


def table(numbers: list[dict[str, Any]]) -> str:
    """A markdown table: extra cost in percent of the step, and in microseconds."""
    kinds = [(kind, name) for kind in WORDS for name in numbers[0][f"{kind}_us"]]
    titles = [f"{WORDS[kind]}{name}" for kind, name in kinds]
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
            few = length == TOKENS and seed >= TRANSFORMER_SEEDS
            if few or found.done([length, classes, seed]) or clock.spent:
                continue
            row = measure(length, classes, seed)
            found.add([length, classes, seed], row)
            shown = {name: round(value) for name, value in row["alone_us"].items()}
            print(length, classes, seed, round(row["step_ms"], 2), shown, flush=True)
    numbers = summarise(list(found.rows()), SIZES, ("alone_us", "extra_us", "preparation_us"))
    config = {"sizes": SIZES, "rounds": ROUNDS, "steps a turn": RUN, "rows": [POOL, LABELLED],
              "embedding": WIDE}  # fmt: skip
    found.write(claim=CLAIM, config=config, seeds=SEEDS, numbers=numbers)
    write_text(RESULTS / "lelp_step.md", table(numbers))
    print(table(numbers))


if __name__ == "__main__":
    main()
