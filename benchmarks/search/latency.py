"""Milliseconds of image_cnn on this processor: blocks, their sums, a search under a limit.

    PYTHONPATH=src:. python -m benchmarks.search.latency

For images of 28 pixels in grey and of 32 in colour, with PyTorch and with onnxruntime on one core:
every block is measured, 24 whole networks correct the sums, 24 others judge them. Then LayerNAS
searches under a limit that a quarter of all networks keep, and the ten best of each of five seeds
are measured. The reward is a proxy, multiply-adds: it draws the search to networks that the table
thinks faster than they are, which is the hardest test of a table, and says nothing of accuracy.

Twelve networks of the fit are measured again beside the ten best: what these have become slower by
is the machine's doing (others work on it), and the errors are given with and without it.

Time is what the thread computed, so that other work on the machine counts only through its caches.
"""

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from benchmarks._common import RESULTS, Results, arguments, results

from limbeck.distill.cost_task import CostFitConfig, CostTask, build_run, meter_of
from limbeck.search import LayerNAS
from limbeck.search.space import Architecture
from limbeck.storage import append_line, write_text
from limbeck.students import ImageCnnConfig, ImageCnnEncoder, StudentSpace, student_space
from limbeck.students.block_costs import BlockTable
from limbeck.students.block_fit import draw_networks
from limbeck.students.block_modules import student_module
from limbeck.students.blocks import all_blocks
from limbeck.students.measuring import measure_round, repeatability, torch_threads, typical

SEEDS, TRIALS, BEST = (0, 1, 2, 3, 4), 150, 10
IMAGES = {"28 px grey": (28, 1), "32 px colour": (32, 3)}
RUNTIMES = ("torch", "onnxruntime")
REFERENCES = 12
NEAR = 0.1
SHARE = 0.25
"""Of all networks that keep the limit."""


def space_of(size: int, channels: int) -> StudentSpace:
    """The usual space for images of a size; nothing is learnt from rows."""
    config = ImageCnnConfig(size=size, channels=channels)
    encoder = ImageCnnEncoder("image", config, (128.0,) * channels, (64.0,) * channels)
    return student_space("image_cnn", encoder, ImageCnnConfig(), 10)


def best_of(space: StudentSpace, table: BlockTable, limit: float, seed: int) -> list[Architecture]:
    """Networks with the highest rewards of a search under the limit."""
    search = LayerNAS(table.cost(space), limit, generator=torch.Generator().manual_seed(seed))
    rewards: dict[Architecture, float] = {}
    while (trial := search.ask()) is not None and len(rewards) < TRIALS:
        reward = float(np.log(space.costs["macs"].total(trial.architecture)))
        search.tell(trial.number, reward)
        if table.total(space, trial.architecture) <= limit:
            rewards[trial.architecture] = reward
    return sorted(rewards, key=rewards.__getitem__, reverse=True)[:BEST]


def measured(
    space: StudentSpace, found: list[Architecture], settings: CostFitConfig, log: Path
) -> list[dict[str, float]]:
    """Rounds of measurements of whole networks; those of a run that was stopped are kept."""
    generator = torch.Generator().manual_seed(1)
    builds = {
        str(one): partial(
            build_run, settings, student_module, space=space, generator=generator, architecture=one
        )
        for one in found
    }
    rounds = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    with torch_threads(1):
        for number in range(len(rounds), settings.rounds):
            rounds.append(dict(measure_round(builds, meter_of(settings), number)))
            append_line(log, json.dumps(rounds[-1]))
    return rounds


def named(one: Architecture) -> str:
    """How the fit calls a whole network."""
    return "network " + " ".join(map(str, one))


def row_of(name: str, runtime: str, rounds: int, folder: Path) -> dict[str, object]:
    """Fit, judge, search, and measure what was found."""
    space = space_of(*IMAGES[name])
    settings = CostFitConfig(runtime=runtime, rounds=rounds)  # type: ignore[arg-type] # of RUNTIMES
    networks = draw_networks(space, 2 * settings.samples, 0)
    task = CostTask(space, settings, None, all_blocks(space), networks, meter_of(settings), 0)
    began = time.monotonic()
    rounds_of_fit = task.rounds(folder, lambda _: None)
    table = task.table(rounds_of_fit)
    seconds = time.monotonic() - began
    cost = table.cost(space)
    totals = np.array([cost.total(one) for one in np.ndindex(*space.space.sizes)])
    limit = float(np.quantile(totals, SHARE))
    ten = {seed: best_of(space, table, limit, seed) for seed in SEEDS}
    found = list(dict.fromkeys(one for best in ten.values() for one in best))
    # Networks of the fit among them tell whether the machine is as fast as it was then.
    known = networks[:REFERENCES]
    both = list(dict.fromkeys((*found, *known)))
    again = measured(space, both, settings, folder / f"best {name} {runtime}.jsonl")
    values, before = typical(again), typical(rounds_of_fit)
    drift = float(np.median([values[str(one)] / before[named(one)] for one in known]))
    errors = {one: table.total(space, one) / values[str(one)] - 1 for one in found}
    level = {one: (1 + error) * drift - 1 for one, error in errors.items()}
    twice = repeatability(again, [str(one) for one in found])
    worst = [[max(abs(e[one]) for one in best) for best in ten.values()] for e in (errors, level)]
    told = ("r2", "worst_error", "median_error", "noise", "worst_noise", "correction")
    saved = table.to_dict()
    return {
        "images": name,
        "runtime": runtime,
        "blocks": len(table.blocks),
        "rounds": rounds,
        "fit_seconds": seconds,
        **{key: saved[key] for key in told},
        "prunes": table.good,
        "range_ms": [float(totals.min()), float(totals.max())],
        "limit_ms": limit,
        "drift": drift - 1,
        "ten_best_worst_by_seed": worst[0],
        "ten_best_worst_by_seed_less_drift": worst[1],
        "ten_best_median": float(np.median(np.abs(list(errors.values())))),
        "ten_best_median_less_drift": float(np.median(np.abs(list(level.values())))),
        "ten_best_distinct": len(found),
        "ten_best_within_10": float(np.mean(np.abs(list(errors.values())) <= NEAR)),
        "ten_best_within_10_less_drift": float(np.mean(np.abs(list(level.values())) <= NEAR)),
        "ten_best_noise": [float(np.median(twice)), float(twice.max())],
        "ten_best": [
            [list(one), table.total(space, one), values[str(one)]] for one in ten[SEEDS[0]]
        ],
    }


def table_of(kept: Results) -> str:
    """The rows for people."""
    lines = [
        "# Milliseconds from blocks, and a search under a limit",
        "",
        "| images, runtime | r2 | worst, median error of 24 held out | worst, median noise | may "
        "prune | limit, ms | ten best: worst, median error | within 10 % | their noise | machine "
        "since the fit | less that: worst, median error | within 10 % |",
        "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in kept.rows():
        lines.append(
            f"| {row['images']}, {row['runtime']} | {row['r2']:.3f} | {row['worst_error']:.1%}, "
            f"{row['median_error']:.1%} | {row['worst_noise']:.1%}, {row['noise']:.1%} | "
            f"{'yes' if row['prunes'] else 'no'} | {row['limit_ms']:.2f} | "
            f"{max(row['ten_best_worst_by_seed']):.1%}, {row['ten_best_median']:.1%} | "
            f"{row['ten_best_within_10']:.0%} of {row['ten_best_distinct']} | "
            f"{row['ten_best_noise'][1]:.1%}, {row['ten_best_noise'][0]:.1%} | {row['drift']:+.1%} "
            f"| {max(row['ten_best_worst_by_seed_less_drift']):.1%}, "
            f"{row['ten_best_median_less_drift']:.1%} | "
            f"{row['ten_best_within_10_less_drift']:.0%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the result files."""
    parser = arguments(__doc__, minutes=60.0)
    parser.add_argument("--rounds", type=int, default=12, help="times that all is measured")
    options = parser.parse_args()
    kept = results("search_latency", fresh=options.fresh)
    end = time.monotonic() + 60 * options.minutes
    for runtime in RUNTIMES:
        for name in IMAGES:
            key = [name, runtime, options.rounds]
            if not kept.done(key) and time.monotonic() < end:
                kept.add(
                    key, row_of(name, runtime, options.rounds, RESULTS / ".partial" / "latency")
                )
    kept.write(
        claim="predicted against measured latency of the ten best of a search within 10 %",
        config={"samples": 24, "held_out": 24, "trials": TRIALS, "reward": "log multiply-adds"},
        seeds=SEEDS,
        numbers=list(kept.rows()),
    )
    write_text(RESULTS / "search_latency.md", table_of(kept))


if __name__ == "__main__":
    main()
