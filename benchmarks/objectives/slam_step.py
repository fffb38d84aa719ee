"""What SLaM costs in a training step, against plain cross-entropy in the same step.

    PYTHONPATH=src python -m benchmarks.objectives.slam_step

The step is that of a small text student: an embedding bag of 65536 x 16 over 40 hashed n-grams a
row, a layer of 64, a head of C classes, AdamW; forward, backward and update, one thread. All losses
take turns in every round, and a ratio is the median over rounds of (step with this loss) / (step
with plain cross-entropy, same round). Time is processor time of the process, so that neighbours on
a shared machine count for less; "cross-entropy again" shows what noise is left. What depends on the
teacher alone (alpha, the label, the top k) is prepared before the step, as `Objective.targets`
does; what preparing costs is told beside it. "everything each step" calls the public function on
raw teacher probabilities instead.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from torch import Tensor, nn
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.objectives import Evidence, Slam, StudentOut, slam_loss
from limbeck.storage import write_text

CLAIM = (
    "SLaM with a hard target costs at most 2 % more than plain cross-entropy per training step for "
    "C <= 1000; with a soft target it costs more."
)
SIZES = [(256, 2), (256, 10), (256, 100), (256, 1000), (2048, 10), (2048, 1000)]
SEEDS = [0, 1, 2, 3, 4]
ROUNDS = 60
GRAMS = 40
K = 5


class Step:
    """One student with its optimiser and a batch."""

    def __init__(self, rows: int, classes: int, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.bag = nn.EmbeddingBag(65536, 16, mode="mean")
        self.net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, classes))
        parameters = [*self.bag.parameters(), *self.net.parameters()]
        for parameter in parameters:
            nn.init.normal_(parameter, 0, 0.1, generator=g)
        self.optimiser = torch.optim.AdamW(parameters, 1e-3)
        self.grams = torch.randint(0, 65536, (rows * GRAMS,), generator=g)
        self.offsets = torch.arange(0, rows * GRAMS, GRAMS)
        self.teacher = torch.softmax(3 * torch.randn(rows, classes, generator=g), 1)
        self.alpha = 0.5 + 0.5 * torch.rand(rows, generator=g)

    def seconds(self, loss: Callable[[Tensor], Tensor]) -> float:
        """Processor seconds of one training step with this loss, shape (B,)."""
        start = time.process_time()
        self.optimiser.zero_grad()
        loss(self.net(self.bag(self.grams, self.offsets))).mean().backward()
        self.optimiser.step()
        return time.process_time() - start


def losses(step: Step) -> dict[str, Callable[[Tensor], Tensor]]:
    """The losses that take turns; the first one is the baseline."""
    teacher, alpha = step.teacher, step.alpha
    labels, k = teacher.argmax(1), min(K, teacher.shape[1])
    told = Answers(np.zeros((len(teacher), 16), np.uint8), teacher)
    known = Evidence(teacher, labels, lambda _: alpha, k)
    out: dict[str, Callable[[Tensor], Tensor]] = {
        "cross-entropy": lambda z: functional.cross_entropy(z, labels, reduction="none"),
        "cross-entropy again": lambda z: functional.cross_entropy(z, labels, reduction="none"),
        "cross-entropy, soft target": lambda z: functional.cross_entropy(
            z, teacher, reduction="none"
        ),
    }
    for target in ("hard", "soft"):
        slam = Slam(target=target).fit([], known)
        ready = slam.targets(told)
        out[f"SLaM {target}"] = lambda z, slam=slam, ready=ready: slam.loss(
            StudentOut(z, z), ready, None
        )
        out[f"SLaM {target}, everything each step"] = lambda z, target=target: slam_loss(
            z, teacher, alpha, k, target=target
        )
    return out


def preparation(step: Step) -> dict[str, float]:
    """Processor milliseconds of `targets` for one batch, beside evaluating alpha itself."""
    teacher = step.teacher
    told = Answers(np.zeros((len(teacher), 16), np.uint8), teacher)
    known = Evidence(teacher, teacher.argmax(1), lambda _: step.alpha, min(K, teacher.shape[1]))
    out = {}
    for target in ("hard", "soft"):
        slam = Slam(target=target).fit([], known)
        times = []
        for _ in range(ROUNDS):
            start = time.process_time()
            slam.targets(told)
            times.append(time.process_time() - start)
        out[target] = 1e3 * statistics.median(times)
    return out


def measure(rows: int, classes: int, seed: int) -> dict[str, Any]:
    """Ratios of one size and seed."""
    step = Step(rows, classes, seed)
    turns = losses(step)
    times: dict[str, list[float]] = {name: [] for name in turns}
    order = np.random.default_rng(seed)
    for turn in range(ROUNDS + 3):
        for name in order.permutation(list(turns)):
            spent = step.seconds(turns[name])
            if turn >= 3:  # the first rounds allocate
                times[name].append(spent)
    base = times["cross-entropy"]
    return {
        "rows": rows,
        "classes": classes,
        "seed": seed,
        "step_ms": 1e3 * statistics.median(base),
        "ratio": {n: ratio(values, base) for n, values in times.items() if n != "cross-entropy"},
        "ratio to the same target": {
            n: ratio(values, times["cross-entropy, soft target"])
            for n, values in times.items()
            if n.startswith("SLaM soft")
        },
        "preparation_ms": preparation(step),
    }


def ratio(times: list[float], base: list[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over seeds for each size, as extra cost in percent."""
    out = []
    for size in SIZES:
        mine = [row for row in rows if (row["rows"], row["classes"]) == size]
        if not mine:
            continue
        entry: dict[str, Any] = {"rows": size[0], "classes": size[1], "seeds": len(mine)}
        entry["step_ms"] = statistics.median(row["step_ms"] for row in mine)
        for kind in ("ratio", "ratio to the same target"):
            entry[kind.replace("ratio", "extra percent")] = {
                name: 100 * (statistics.median(row[kind][name] for row in mine) - 1)
                for name in mine[0][kind]
            }
        entry["preparation_ms"] = {
            name: statistics.median(row["preparation_ms"][name] for row in mine)
            for name in mine[0]["preparation_ms"]
        }
        out.append(entry)
    return out


def table(numbers: list[dict[str, Any]]) -> str:
    """A markdown table: extra cost of a step in percent."""
    names = list(numbers[0]["extra percent"])
    lines = [
        "| B | C | step, ms | " + " | ".join(names) + " | SLaM soft against its own target |",
        "|--:|--:|--:|" + "--:|" * (len(names) + 1),
    ]
    for here in numbers:
        cells = [f"{here['extra percent'][name]:+.1f} %" for name in names]
        own = f"{here['extra percent to the same target']['SLaM soft']:+.1f} %"
        lines.append(
            f"| {here['rows']} | {here['classes']} | {here['step_ms']:.1f} | "
            + " | ".join([*cells, own])
            + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the result and the table."""
    options = arguments(__doc__, minutes=5).parse_args()
    torch.set_num_threads(1)
    clock, found = Clock(options.minutes), results("slam_step", fresh=options.fresh)
    for seed in SEEDS:
        for rows, classes in SIZES:
            if found.done([rows, classes, seed]) or clock.spent:
                continue
            row = measure(rows, classes, seed)
            found.add([rows, classes, seed], row)
            print(
                rows, classes, seed, {k: round(v, 3) for k, v in row["ratio"].items()}, flush=True
            )
    numbers = summarise(list(found.rows()))
    found.write(
        claim=CLAIM,
        config={"sizes": SIZES, "rounds": ROUNDS, "n-grams a row": GRAMS, "k": K},
        seeds=SEEDS,
        numbers=numbers,
    )
    write_text(RESULTS / "slam_step.md", table(numbers))
    print(table(numbers))


if __name__ == "__main__":
    main()
