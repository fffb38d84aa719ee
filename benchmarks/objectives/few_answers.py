"""How many answers LELP and soft KD need: accuracy against the rows that were asked about.

    PYTHONPATH=src:. python -m benchmarks.objectives.few_answers --minutes 30

The set-ups of `few_classes` and `few_images`, the latter with a student of `width` 16 and 600
steps: an answer is a row's probabilities and its embedding, and all methods get the same ones.
Projections are fitted to the bought answers alone. Each method picks one of its four settings by
validation, anew for every seed and number of answers.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, Results, Row, arguments, results
from benchmarks._picture import whiskers
from benchmarks.objectives import few_classes, few_images
from benchmarks.objectives._few_features import texts
from benchmarks.objectives._few_methods import GRIDS, TITLES
from benchmarks.objectives._few_runs import SEEDS, Task
from benchmarks.objectives._few_tables import shown

from limbeck.numerics.intervals import Interval, paired_t
from limbeck.storage import write_text

SHARES = (0.01, 0.03, 0.1, 0.3, 1.0)
METHODS = ("soft_kd", "lelp", "random_projections")
SETS = ("mnist by parity", "clinc10 by parity", "sst2", "cifar10 by parity")
IMAGES = {"width": 16, "augment": "none"}


def task_of(name: str, share: float, seed: int) -> tuple[Task, int]:
    """The task with answers about this share of its pool, and how many those are."""
    if name in few_images.SOURCES:
        source = few_images.SOURCES[name]
        count = round(share * source.train)
        source = replace(source, pool=count, steps=600, student=IMAGES)
        return few_images.ImageTask(name, seed, False, source=source), count
    count = round(share * len(texts(name).splits["pool"]))
    return few_classes.TextTask(name, seed, False, answers=count), count


def run(name: str, share: float, seed: int) -> list[Row]:
    """All methods at one number of answers; a row each, of the setting that validation chose."""
    task, count = task_of(name, share, seed)
    wanted = [(method, settings) for method in METHODS for settings in GRIDS[method]]
    scores = task.play([task.arm(*one) for one in wanted], pool="pool")
    rows: list[Row] = []
    for method in METHODS:
        own = [pair for pair in zip(wanted, scores, strict=True) if pair[0][0] == method]
        (_, settings), score = max(own, key=lambda pair: pair[1].validation)
        row: Row = {"set": name, "share": share, "answers": count, "seed": seed, "method": method}
        rows.append(
            {**row, "settings": settings, "test": score.test, "teacher": task.accuracy[False]}
        )
    return rows


def less(rows: Sequence[Row], name: str, share: float, method: str) -> Interval | None:
    """Difference from soft KD paired by seed, points."""
    found: dict[str, dict[int, float]] = {"soft_kd": {}, method: {}}
    for row in rows:
        if (row["set"], row["share"]) == (name, share) and row["method"] in found:
            found[row["method"]][row["seed"]] = 100 * row["test"]
    both = sorted(found["soft_kd"].keys() & found[method].keys())
    if len(both) < 2:
        return None
    return paired_t(np.array([found[method][seed] - found["soft_kd"][seed] for seed in both]))


def table(rows: Sequence[Row]) -> list[str]:
    """Accuracies and differences, a line for each number of answers."""
    others = METHODS[1:]
    titles = [f"{TITLES[method]} less soft KD" for method in others]
    lines = ["| set | answers | soft KD, % | " + " | ".join(titles) + " |"]
    lines.append("|---|--:|--:|" + "--:|" * len(others))
    for name in dict.fromkeys(row["set"] for row in rows):
        for share in SHARES:
            mine = [row for row in rows if (row["set"], row["share"]) == (name, share)]
            if not mine:
                continue
            plain = np.mean([100 * row["test"] for row in mine if row["method"] == "soft_kd"])
            cells = [shown(less(rows, name, share, method)) for method in others]
            lines.append(
                f"| {name} | {mine[0]['answers']:,} | {plain:.1f} | " + " | ".join(cells) + " |"
            )
    return lines


def write(kept: Results) -> str:
    """Write the result file, the table and the picture."""
    rows = list(kept.rows())
    kept.write(
        claim="accuracy against answers bought, LELP and soft KD",
        config={"shares": SHARES, "grids": {method: GRIDS[method] for method in METHODS}},
        seeds=sorted({row["seed"] for row in rows}),
        numbers=rows,
    )
    text = "\n".join(table(rows)) + "\n"
    write_text(RESULTS / "few_answers.md", text)
    panels = {}
    for name in dict.fromkeys(row["set"] for row in rows):
        found = {f"{share:.0%}": less(rows, name, share, "lelp") for share in SHARES}
        panels[name] = {k: (d.estimate, d.low, d.high) for k, d in found.items() if d is not None}
    if panels and all(len(panel) == len(SHARES) for panel in panels.values()):
        path = Path(__file__).parents[2] / "docs" / "methods" / "few_answers.svg"
        whiskers(panels, path, label="LELP less soft KD, points", accent="")
    return text


def main() -> None:
    """Run what is missing, then write."""
    parser = arguments(__doc__, minutes=30)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    options = parser.parse_args()
    clock, kept = Clock(options.minutes), results("few_answers", fresh=options.fresh)
    torch.set_num_threads(1)
    for name in options.sets:
        for share in SHARES:
            for seed in options.seeds:
                key = [name, share, seed]
                if kept.done([*key, METHODS[-1]]) or clock.spent:
                    continue
                for row in run(name, share, seed):
                    kept.add([*key, row["method"]], row)
    print(write(kept))


if __name__ == "__main__":
    main()
