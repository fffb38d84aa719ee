"""Every objective in the main job: sentences of reviews, digits as pictures, and long reviews.

    PYTHONPATH=src python -m benchmarks.distill.objectives yelp --minutes 60
    PYTHONPATH=src python -m benchmarks.distill.objectives mnist --minutes 60
    PYTHONPATH=src python -m benchmarks.distill.objectives imdb --minutes 60

Rows are drawn anew for each seed, every split from rows of its own; the teacher is the larger model
that `fit` trains on labelled rows that nobody else has. Every arm takes the same gradient steps
from the same initial weights. Each run is a process of its own, on one thread. Needs the folders
`text` and `images` in the folder that LIMBECK_DATA names.
"""

import json
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from benchmarks._common import RESULTS, Clock, Results, Row, arguments, results
from benchmarks._picture import whiskers
from benchmarks.distill._shared import TITLES, data_folder, draw_texts, interval, score, start

from limbeck.storage import write_text

ALL = ("labels", "labels_and_validation", "hard_kd", "soft_kd", "slam", "taylor", "ups", "fidelity",
       "alpha_weighted", "weighted")  # fmt: skip
PLAIN = ("labels", "labels_and_validation", "hard_kd", "soft_kd", "slam")


@dataclass(frozen=True, slots=True)
class Task:
    """What is drawn, and how the main job is called.

    Args:
        source: Folder or file below LIMBECK_DATA.
        sizes: Rows of labelled, validation, teacher, pool and test.
        arms: Ways of training.
        options: Further settings of the main job.
        seeds: How many.
        at_once: Runs side by side.
    """

    source: str
    sizes: dict[str, int]
    arms: tuple[str, ...]
    options: tuple[str, ...]
    seeds: int = 5
    at_once: int = 2


TASKS = {
    "yelp": Task(
        "text/yelp_sent",
        {
            "labelled": 300,
            "validation": 300,
            "teacher": 10_000,
            "pool": 90_000,
            "test": 10_000,
        },
        ALL,
        ("--student.kind=text_bag", "--train.epochs=3"),
    ),
    "mnist": Task(
        "images/mnist.npz",
        {"labelled": 200, "validation": 200, "teacher": 2_000, "pool": 6_000, "test": 3_000},
        ALL,
        ("--student.kind=image_cnn", "--train.steps=300", "--train.folds=2"),
        at_once=1,
    ),
    "imdb": Task(
        "text/imdb",
        {"labelled": 500, "validation": 300, "teacher": 5_000, "pool": 5_000, "test": 2_000},
        PLAIN,
        ("--student.kind=text_transformer", "--train.steps=60", "--train.folds=2"),
        seeds=2,
    ),
}


def draw(name: str, seed: int, folder: Path) -> str:
    """Write the files of one seed; their ending."""
    task, rng = TASKS[name], np.random.default_rng(seed)
    source = data_folder() / task.source
    if source.suffix == ".npz":
        _draw_images(task, rng, source, folder)
        return "npz"
    draw_texts(source, task.sizes, rng, folder)
    return "parquet"


def _draw_images(task: Task, rng: np.random.Generator, source: Path, folder: Path) -> None:
    with np.load(source) as arrays:
        images, labels = arrays["x_train"], arrays["y_train"]
        order, start = rng.permutation(len(images)), 0
        for part in ("labelled", "validation", "teacher", "pool"):
            rows = order[start : start + task.sizes[part]]
            start += task.sizes[part]
            told = {} if part == "pool" else {"label": labels[rows]}
            np.savez(folder / f"{part}.npz", image=images[rows], **told)
        rows = rng.permutation(len(arrays["x_test"]))[: task.sizes["test"]]
        np.savez(folder / "test.npz", image=arrays["x_test"][rows], label=arrays["y_test"][rows])


def run_one(name: str, seed: int) -> Row:
    """One run of the main job, in this process."""
    from limbeck.distill.run import distill
    from limbeck.distill.run_file import load_config

    task = TASKS[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ending = draw(name, seed, folder)
        options = [
            *("--budget", str(sum(task.sizes.values())), "--seed", str(seed), "--no-onnx"),
            *("--out", str(folder / "run"), "--ledger", str(folder / "ledger.sqlite")),
            *("--teacher.kind", "fit", "--data.drop_test_overlap"),
            *("--teacher.path", str(folder / f"teacher.{ending}")),
            *(f"--objective.arms={arm}" for arm in task.arms),
            *task.options,
        ]
        for split in ("labelled", "validation", "pool", "test"):
            options += [f"--data.{split}", str(folder / f"{split}.{ending}")]
        outcome = distill(load_config(None, options))
    record = outcome.record
    found = record.evaluation
    accuracy = {arm.name: arm.accuracy.estimate for arm in found.arms}
    return {
        "seed": seed,
        "accuracy": {**accuracy, "teacher": found.arm("teacher").accuracy.estimate},
        "nll": {arm.name: arm.nll_calibrated for arm in found.arms},
        "seconds": {arm.name: arm.seconds for arm in found.arms},
        "shipped": found.shipped,
        "verdict": record.verdict.kind,
        "steps": found.arms[0].steps,
        "minutes": record.cost.minutes,
        "peak_megabytes": record.cost.peak_memory_bytes / 1e6,
        "student_bytes": dict(record.size.files)["model.safetensors"],
    }


def summary(rows: Iterable[Row]) -> dict[str, object]:
    """Means and 95 % t-intervals over seeds, of accuracies and of paired differences."""
    mine = list(rows)
    if len(mine) < 2:
        return {}
    names = [*mine[0]["accuracy"], "shipped"]
    scores = {name: [score(row, name) for row in mine] for name in names}

    def less(a: str, b: str) -> dict[str, float]:
        return interval([x - y for x, y in zip(scores[a], scores[b], strict=True)])

    best_labels = "labels_and_validation"
    return {
        "seeds": len(mine),
        "accuracy": {name: interval(values) for name, values in scores.items()},
        "less soft KD": {name: less(name, "soft_kd") for name in names if name != "soft_kd"},
        "less labels": {name: less(name, best_labels) for name in names if name != best_labels},
        "gain kept": {
            name: (np.mean(scores[name]) - np.mean(scores[best_labels]))
            / (np.mean(scores["teacher"]) - np.mean(scores[best_labels]))
            for name in names
        },
        "verdicts": [row["verdict"] for row in mine],
        "minutes": interval([row["minutes"] for row in mine]),
        "peak_megabytes": max(row["peak_megabytes"] for row in mine),
    }


def table(numbers: dict[str, object]) -> str:
    """A markdown table: accuracy in percent, difference from soft KD, share of the gain kept."""
    lines = ["| arm | accuracy, % | less soft KD | of the teacher's gain |", "|---|--:|--:|--:|"]
    for name, title in TITLES.items():
        if name not in numbers["accuracy"]:
            continue
        gap = numbers["less soft KD"].get(name)
        less = "" if gap is None else f"{100 * gap['mean']:+.1f} ± {half(gap):.1f}"
        kept = "" if name in ("labels", "teacher") else f"{numbers['gain kept'][name]:.0%}"
        here = numbers["accuracy"][name]
        lines.append(f"| {title} | {100 * here['mean']:.1f} ± {half(here):.1f} | {less} | {kept} |")
    return "\n".join(lines) + "\n"


def half(found: dict[str, float]) -> float:
    """Half the width of an interval, in points."""
    return 50 * (found["high"] - found["low"])


def write_results(name: str, kept: Results) -> None:
    """Write the result file, the table and the picture from the rows that are there."""
    task = TASKS[name]
    numbers = summary(kept.rows())
    kept.write(
        claim=f"all objectives in the main job, {name}",
        config={
            "sizes": task.sizes,
            "options": task.options,
            "runs_at_once": task.at_once,
            "threads_each": 1,
        },
        seeds=sorted(row["seed"] for row in kept.rows()),
        numbers={"summary": numbers, "runs": list(kept.rows())},
    )
    if numbers:
        write_text(RESULTS / f"objectives_{name}.md", table(numbers))
        shown = {
            title: tuple(100 * numbers["accuracy"][arm][key] for key in ("mean", "low", "high"))
            for arm, title in TITLES.items()
            if arm in numbers["accuracy"]
        }
        picture = Path(__file__).parents[2] / "docs" / "methods" / f"objectives_{name}.svg"
        whiskers({name: shown}, picture, label="test accuracy, %", accent="SLaM")


def main() -> None:
    """Run what is not done yet and write the result file."""
    parser = arguments(__doc__, minutes=60)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--one", type=int, metavar="SEED", help="one run, as JSON")
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(run_one(options.task, options.one)))
        return
    name, task = options.task, TASKS[options.task]
    clock, kept = Clock(options.minutes), results(f"objectives_{name}", fresh=options.fresh)
    todo = [seed for seed in range(task.seeds) if not kept.done(seed)]
    with ThreadPoolExecutor(task.at_once) as pool:
        jobs = [
            pool.submit(start, ["benchmarks.distill.objectives", name, "--one", str(seed)], clock)
            for seed in todo
        ]
        for seed, job in zip(todo, jobs, strict=True):
            if (row := job.result()) is not None:
                kept.add(seed, row)
                write_results(name, kept)


if __name__ == "__main__":
    main()
