"""The main job on movie reviews, with a strong and a weak teacher.

    PYTHONPATH=src python -m benchmarks.distill.imdb --minutes 120

500 labelled, 500 validation, 20,000 pool and 5,000 test reviews, drawn anew for each seed. Both
teachers are the larger model that `fit` trains: the strong one on the labelled reviews that are
left (about 21,000), the weak one on the 500 that the student has too. Every arm takes the same
gradient steps. Each run is a process of its own, so that its peak memory is its own. Needs the
folder `text/imdb` in the folder that LIMBECK_DATA names, with `train`, `unlabelled` and `test` in
Parquet.

With two classes k is 2, and the normalised form of SLaM is the un-normalised one, letter by letter;
so its two forms are one row here.
"""

import json
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from benchmarks._common import Clock, Results, Row, arguments, results
from benchmarks._picture import whiskers
from benchmarks.distill._shared import (
    TITLES,
    data_folder,
    draw_texts,
    interval,
    score,
    start,
    write,
)

SEEDS = 5
AT_ONCE = 2
SIZES = {"labelled": 500, "validation": 500, "pool": 20_000, "test": 5_000}
TEACHERS = ("strong", "weak")
BUDGET = 25_500
ARMS = ("labels", "labels_and_validation", "hard_kd", "soft_kd", "slam_soft", "slam_hard")
PICTURE = Path(__file__).parents[2] / "docs" / "methods" / "imdb.svg"
SHOWN = (*ARMS, "shipped", "teacher")
COMPARED = [
    *((arm, "labels_and_validation") for arm in ("hard_kd", "soft_kd", "slam_soft", "slam_hard")),
    *((slam, other) for slam in ("slam_soft", "slam_hard") for other in ("hard_kd", "soft_kd")),
    ("shipped", "labels_and_validation"),
    ("shipped", "teacher"),
]


def draw(seed: int, folder: Path) -> None:
    """Write the files of one seed: splits that share no text."""
    rng = np.random.default_rng(seed)
    source = data_folder() / "text" / "imdb"
    sizes = {name: SIZES[name] for name in ("labelled", "validation", "test")}
    draw_texts(source, {**sizes, "rest": None}, rng, folder)
    unlabelled = pq.read_table(source / "unlabelled.parquet")
    rows = rng.permutation(unlabelled.num_rows)[: SIZES["pool"]]
    write(unlabelled.take(rows).select(["text"]), folder / "pool.parquet")


def run_one(teacher: str, seed: int) -> Row:
    """One run of the main job, in this process."""
    from limbeck.distill.run import distill
    from limbeck.distill.run_file import load_config

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(seed, folder)
        options = [
            *("--budget", str(BUDGET), "--seed", str(seed), "--no-onnx"),
            *("--out", str(folder / "run"), "--ledger", str(folder / "ledger.sqlite")),
            *("--teacher.kind", "fit", "--data.drop_test_overlap"),
            *(["--teacher.path", str(folder / "rest.parquet")] if teacher == "strong" else []),
        ]
        for split in SIZES:
            options += [f"--data.{split}", str(folder / f"{split}.parquet")]
        outcome = distill(load_config(None, options))
    record = outcome.record
    found = record.evaluation
    accuracy = {arm.name: arm.accuracy.estimate for arm in found.arms}
    return {
        "teacher_kind": teacher,
        "seed": seed,
        "accuracy": {**accuracy, "teacher": found.arm("teacher").accuracy.estimate},
        "nll": {arm.name: arm.nll_calibrated for arm in found.arms},
        "shipped": found.shipped,
        "verdict": record.verdict.kind,
        "steps": found.arms[0].steps,
        "minutes": record.cost.minutes,
        "peak_megabytes": record.cost.peak_memory_bytes / 1e6,
        "student_bytes": dict(record.size.files)["model.safetensors"],
        "rows": {view.name: view.rows for view in record.data.splits},
    }


def summary(rows: Iterable[Row]) -> dict[str, object]:
    """Means and 95 % t-intervals over seeds, and of paired differences, for each teacher."""
    everything = list(rows)
    numbers: dict[str, object] = {}
    for teacher in TEACHERS:
        mine = [row for row in everything if row["teacher_kind"] == teacher]
        if len(mine) < 2:
            continue
        scores = {
            name: [score(row, name) for row in mine] for name in (*ARMS, "teacher", "shipped")
        }
        numbers[teacher] = {
            "seeds": len(mine),
            "accuracy": {name: interval(values) for name, values in scores.items()},
            "differences": {
                f"{a} - {b}": interval([x - y for x, y in zip(scores[a], scores[b], strict=True)])
                for a, b in COMPARED
            },
            "verdicts": [row["verdict"] for row in mine],
            "minutes": interval([row["minutes"] for row in mine]),
            "peak_megabytes": max(row["peak_megabytes"] for row in mine),
        }
    return numbers


def picture(numbers: dict[str, object]) -> None:
    """Draw the accuracy of every arm, a panel a teacher."""
    panels = {}
    for teacher, found in numbers.items():
        shown = {TITLES[name]: found["accuracy"][name] for name in SHOWN}
        panels[f"{teacher} teacher"] = {
            title: tuple(100 * row[key] for key in ("mean", "low", "high"))
            for title, row in shown.items()
        }
    whiskers(panels, PICTURE, label="test accuracy, %", accent="SLaM")


def main() -> None:
    """Run what is not done yet and write the result file."""
    parser = arguments(__doc__, minutes=120)
    parser.add_argument("--one", nargs=2, metavar=("TEACHER", "SEED"), help="one run, as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options.one[0], int(options.one[1]))))
        return
    clock, kept = Clock(options.minutes), results("imdb", fresh=options.fresh)
    todo = [(t, s) for s in range(SEEDS) for t in TEACHERS if not kept.done([t, s])]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [
            pool.submit(start, ["benchmarks.distill.imdb", "--one", teacher, str(seed)], clock)
            for teacher, seed in todo
        ]
        for (teacher, seed), job in zip(todo, jobs, strict=True):
            if (row := job.result()) is not None:
                kept.add([teacher, seed], row)
                write_results(kept)


def write_results(kept: Results) -> None:
    """Write the result file from the rows that are there."""
    kept.write(
        claim="500 labels and 20,000 answers of a strong or a weak teacher, movie reviews",
        config={
            "sizes": SIZES,
            "budget": BUDGET,
            "student": "text_bag, defaults",
            "runs_at_once": AT_ONCE,
            "threads_each": 1,
        },
        seeds=range(SEEDS),
        numbers={"summary": summary(kept.rows()), "runs": list(kept.rows())},
    )
    if numbers := summary(kept.rows()):
        picture(numbers)


if __name__ == "__main__":
    main()
