"""What SLaM costs in a training step, against plain cross-entropy in the same step.

    PYTHONPATH=src python -m benchmarks.objectives.slam_step

The step is that of `limbeck distill` with the student `text_bag` as it comes: 256 pool rows and 64
labelled rows; forward, loss, backward, clipping, fused AdamW, one thread. Rows hold 60 n-grams, a
headline, or 900, a movie review. Beside it stands a student that is still small but no bag of
words: a transformer of two layers, 64 wide, on 24 tokens (2 seeds).

All losses take turns in every round, a few steps each, of which the first is not counted; the
extra cost is the median over rounds of the difference from plain cross-entropy in the same round,
and a percentage is that over the median step. Time is processor time of the process, so that
neighbours on a shared machine count for less; "cross-entropy again" shows what noise is left. What
depends on the teacher alone is prepared before the step, as `Objective.targets` does; what
preparing costs is told beside it. "Direct" calls `slam_loss` on raw teacher probabilities instead,
in each step.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from benchmarks.objectives._steps import summarise, timed
from torch import Tensor, nn
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.data.schema import Schema
from limbeck.objectives import Evidence, Slam, StudentOut, slam_loss
from limbeck.storage import write_text
from limbeck.students import TextBagConfig, build

CLAIM = (
    "Against plain cross-entropy, in percent of a training step: what SLaM adds with each target, "
    "prepared beside the step or computed in it; the aim is 2 % for C <= 1000."
)
WIDTH, TOKENS = 64, 24
"""Of the transformer."""
SIZES = [(length, classes) for length in (900, 60, TOKENS) for classes in (2, 10, 100, 1000)]
TRANSFORMER_SEEDS = 2
SEEDS = [0, 1, 2, 3, 4]
ROUNDS = 12
RUN = 4
POOL, LABELLED = 256, 64
K = 5
HARD, SOFT = "cross-entropy", "soft cross-entropy"
PREPARED = ("SLaM hard", "SLaM soft")


class Transformer(nn.Module):
    """A small encoder over tokens; it reads the inputs of `text_bag`, 24 ids a row."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(65536, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, inputs: dict[str, Tensor]) -> StudentOut:
        rows = self.table(inputs["ids"]).reshape(len(inputs["offsets"]), -1, WIDTH)
        embedding = self.layers(rows).mean(1)
        return StudentOut(self.head(embedding), embedding)


class Step:
    """One student with its optimiser and a batch."""

    def __init__(self, length: int, classes: int, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        schema = Schema(("text",), (), (), "label", tuple(f"class {c}" for c in range(classes)))
        if length == TOKENS:
            self.module: nn.Module = Transformer(classes)
        else:
            self.module = build("text_bag", TextBagConfig(), schema, [], classes, g).module.train()
        parameters = list(self.module.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        # So low a rate that the student stays as it is: on one batch it would soon be certain.
        self.optimiser = torch.optim.AdamW(groups, 1e-5, fused=True)
        rows = POOL + LABELLED
        self.inputs = {
            "ids": torch.randint(1, 65536, (rows * length,), generator=g),
            "offsets": torch.arange(0, rows * length, length),
        }
        self.labels = torch.randint(0, classes, (LABELLED,), generator=g)
        self.teacher = torch.softmax(3 * torch.randn(POOL, classes, generator=g), 1)
        # One row in six is trusted wholly, as isotonic trust does with the teacher's surest rows.
        self.alpha = (0.5 + 0.6 * torch.rand(POOL, generator=g)).clamp_max(1)

    def seconds(self, loss: Callable[[Tensor], Tensor]) -> float:
        """Processor seconds of one training step with this loss of the pool rows, shape (B,)."""
        start = time.process_time()
        self.optimiser.zero_grad(set_to_none=True)
        logits = self.module(self.inputs).outputs
        labelled = functional.cross_entropy(logits[POOL:], self.labels)
        (loss(logits[:POOL]).mean() + labelled).backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimiser.step()
        return time.process_time() - start


def objectives(step: Step) -> dict[str, tuple[Slam, Answers]]:
    """SLaM with each target, fitted, and what the teacher said."""
    teacher, alpha = step.teacher, step.alpha
    told = Answers(np.zeros((POOL, 16), np.uint8), teacher)
    known = Evidence(teacher, teacher.argmax(1), lambda _: alpha, min(K, teacher.shape[1]))
    return {
        name: (Slam(target=target).fit([], known), told)
        for name, target in zip(PREPARED, ("hard", "soft"), strict=True)
    }


def losses(step: Step) -> dict[str, Callable[[Tensor], Tensor]]:
    """The losses that take turns; the first one is the baseline."""
    teacher, alpha = step.teacher, step.alpha
    labels, k = teacher.argmax(1), min(K, teacher.shape[1])
    out: dict[str, Callable[[Tensor], Tensor]] = {
        HARD: lambda z: functional.cross_entropy(z, labels, reduction="none"),
        f"{HARD} again": lambda z: functional.cross_entropy(z, labels, reduction="none"),
        SOFT: lambda z: functional.cross_entropy(z, teacher, reduction="none"),
    }
    for name, (slam, told) in objectives(step).items():
        ready, target = slam.targets(told), slam.target
        out[name] = lambda z, slam=slam, ready=ready: slam.loss(StudentOut(z, z), ready, None)
        out[f"{name}, direct"] = lambda z, target=target: slam_loss(
            z, teacher, alpha, k, target=target
        )
    return out


def preparation(step: Step) -> dict[str, float]:
    """Processor microseconds of `targets` for one batch, alpha itself left out."""
    out = {}
    for name, (slam, told) in objectives(step).items():
        times = []
        for _ in range(ROUNDS):
            start = time.process_time()
            slam.targets(told)
            times.append(time.process_time() - start)
        out[name] = 1e6 * statistics.median(times)
    return out


def measure(length: int, classes: int, seed: int) -> dict[str, Any]:
    """Extra cost of every loss for one size and seed."""
    step = Step(length, classes, seed)
    turns = losses(step)
    taken = {name: partial(step.seconds, turn) for name, turn in turns.items()}
    times = timed(taken, ROUNDS, RUN, seed)
    return {
        "length": length,
        "classes": classes,
        "seed": seed,
        "step_ms": 1e3 * statistics.median(times[HARD]),
        "extra_us": {n: extra(t, times[HARD]) for n, t in times.items() if n != HARD},
        "extra_us over soft": {
            n: extra(t, times[SOFT]) for n, t in times.items() if n.startswith("SLaM soft")
        },
        "preparation_us": preparation(step),
    }


def extra(times: list[float], base: list[float]) -> float:
    """Median of the rounds' differences, in microseconds."""
    return 1e6 * statistics.median(a - b for a, b in zip(times, base, strict=True))


def cell(here: dict[str, Any], kind: str, name: str) -> str:
    """A table's cell: percent, and microseconds in brackets."""
    return f"{here[kind + '_percent'][name]:+.1f} % ({here[kind + '_us'][name]:+.0f})"


def table(numbers: list[dict[str, Any]]) -> str:
    """A markdown table: extra cost in percent of the step, and in microseconds."""
    names = list(numbers[0]["extra_us"])
    soft = list(numbers[0]["extra_us over soft"])
    titles = [*names, *(f"{n}, over soft cross-entropy" for n in soft)]
    titles += [f"preparing {n}" for n in PREPARED]
    lines = [
        "| student: n-grams a row | C | step, ms | " + " | ".join(titles) + " |",
        "|--:|--:|--:|" + "--:|" * len(titles),
    ]
    for here in numbers:
        over = "extra_us over soft"
        cells = [cell(here, "extra", n) for n in names]
        for n in soft:
            percent = here[over.replace("_us", "_percent")][n]
            cells.append(f"{percent:+.1f} % ({here[over][n]:+.0f})")
        cells += [cell(here, "preparation", n) for n in PREPARED]
        name = "transformer" if here["length"] == TOKENS else here["length"]
        start = f"| {name} | {here['classes']} | {here['step_ms']:.1f} | "
        lines.append(start + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the result and the table."""
    options = arguments(__doc__, minutes=5).parse_args()
    torch.set_num_threads(1)
    clock, found = Clock(options.minutes), results("slam_step", fresh=options.fresh)
    for seed in SEEDS:
        for length, classes in SIZES:
            few = length == TOKENS and seed >= TRANSFORMER_SEEDS
            if few or found.done([length, classes, seed]) or clock.spent:
                continue
            row = measure(length, classes, seed)
            found.add([length, classes, seed], row)
            shown = {name: round(value) for name, value in row["extra_us"].items()}
            print(length, classes, seed, round(row["step_ms"], 2), shown, flush=True)
    numbers = summarise(
        list(found.rows()), SIZES, ("extra_us", "extra_us over soft", "preparation_us")
    )
    found.write(
        claim=CLAIM,
        config={
            "sizes": SIZES,
            "rounds": ROUNDS,
            "steps a turn": RUN,
            "rows": [POOL, LABELLED],
            "k": K,
        },
        seeds=SEEDS,
        numbers=numbers,
    )
    write_text(RESULTS / "slam_step.md", table(numbers))
    print(table(numbers))


if __name__ == "__main__":
    main()
