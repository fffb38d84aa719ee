"""Real searches: `image_cnn` under half the multiply-adds of the default student.

    PYTHONPATH=src:. python -m benchmarks.search.students [--minutes 60] [--seeds 1]

`mnist` and `cifar10_jpeg`, 1,500 labelled and 1,000 validation rows, 60 trials of a short training
with labels alone, by LayerNAS, at random and by Optuna's TPE, which all see the same rows in the
same order. What each has found is then trained as a run does, four times as long, and looked at on
test rows once, beside the default student at its full cost. Each search is `limbeck search` itself,
in a folder that is gone on with when a run of this file was stopped.
"""

import os
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from benchmarks._common import Clock, Row, arguments, results

from limbeck.distill.arms import ArmTrainer
from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import RunFolder
from limbeck.distill.materials import labels_materials
from limbeck.distill.run import encode_only
from limbeck.distill.run_file import load_config
from limbeck.distill.search.alone import search_alone
from limbeck.distill.search.problem import search_problem
from limbeck.distill.search.trials import SearchRows, TrialTrainer
from limbeck.numerics.metrics import accuracy
from limbeck.search import Architecture
from limbeck.storage import write_text

SETS = ("mnist", "cifar10_jpeg")
METHODS = ("layernas", "random", "tpe")
ROWS = {"labelled": 1_500, "validation": 1_000, "test": 5_000, "pool": 64}
TRIALS, STEPS, FINAL = 60, 100, 400
RUN = """
budget = 64
out = "{out}"
seed = {seed}

[data]
labelled = "labelled.npz"
validation = "validation.npz"
test = "test.npz"
pool = "pool.npz"

[teacher]
kind = "fit"

[student]
kind = "image_cnn"

[student.settings]
augment = "none"

[train]
steps = {final}
labelled_batch = 64

[search]
trials = {trials}
method = "{method}"
cost = "macs"
share = 0.5
arm = "labels"
steps = {steps}
"""


def place() -> Path:
    """Where searches that are under way lie."""
    return Path(__file__).parents[1] / "results" / ".partial" / "search_students"


def prepare(name: str, seed: int) -> Path:
    """Cut the rows of a seed from a set; the test rows are the set's own."""
    data = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[3] / "shared" / "data"))
    folder = place() / f"{name}-{seed}"
    if (folder / "pool.npz").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data / "images" / f"{name}.npz") as found:
        x, y = found["x_train"], found["y_train"]
        test = found["x_test"][: ROWS["test"]], found["y_test"][: ROWS["test"]]
    order, start = np.random.default_rng(seed).permutation(len(x)), 0
    np.savez(folder / "test.npz", image=test[0], label=test[1])
    for part in ("labelled", "validation", "pool"):
        rows = order[start : start + ROWS[part]]
        start += ROWS[part]
        labels = {} if part == "pool" else {"label": y[rows]}
        np.savez(folder / f"{part}.npz", image=x[rows], **labels)
    return folder


def config_of(folder: Path, method: str, seed: int) -> DistillConfig:
    """The run file of one search."""
    path = folder / f"{method}.toml"
    text = RUN.format(out=method, seed=seed, method=method, trials=TRIALS, steps=STEPS, final=FINAL)
    write_text(path, text)
    return load_config(path)


def final(config: DistillConfig, architecture: Architecture | None) -> Row:
    """Train a student of the space as long as a run would; the default one where none is given."""
    place = config.out / ("final" if architecture else "base")
    folder = RunFolder(place, writes=False)
    splits, encoded = encode_only(config, RunFolder(config.out, writes=False))
    problem = search_problem(config, encoded.student)
    rows = SearchRows(splits, encoded, None, None)
    chosen = problem.base if architecture is None else architecture
    accelerator = Accelerator()
    found = TrialTrainer(config, problem, rows, folder, accelerator).rows_of(chosen)
    materials = labels_materials(config, splits, found)
    arm = ArmTrainer(config, materials, folder, accelerator).train("labels")
    assert splits.test.labels is not None
    return {
        "test_accuracy": round(accuracy(arm.test_log_probs.numpy(), splits.test.labels), 5),
        "validation_accuracy": round(arm.accuracy, 5),
        "macs": problem.cost.total(chosen),
        "parameters": problem.students.costs["parameters"].total(chosen),
    }


def searched(name: str, method: str, seed: int) -> Row:
    """One search and what it found."""
    config = config_of(prepare(name, seed), method, seed)
    outcome = search_alone(config)
    view, best = outcome.view, outcome.view.answer
    assert best is not None
    so_far, path = -1.0, []
    for trial in view.trials:
        if trial.in_range and trial.reward is not None:
            so_far = max(so_far, trial.reward)
        path.append(round(so_far, 5))
    return {
        "set": name,
        "method": method,
        "seed": seed,
        "reward": best.reward,
        "base_reward": view.base_reward,
        "share_of_base": round(best.cost / view.base_cost, 4),
        "out_of_range": sum(not one.in_range for one in view.trials),
        "found": outcome.settings,
        "best_so_far": path,
        "seconds": round(sum(one.seconds or 0.0 for one in view.trials), 1),
        **final(config, best.options),
    }


def base(name: str, seed: int) -> Row:
    """The default student at its full cost."""
    config = config_of(prepare(name, seed), "layernas", seed)
    return {"set": name, "method": "default student", "seed": seed, **final(config, None)}


def markdown(rows: list[Row]) -> str:
    """A line for each set and method, means over seeds."""
    lines = [
        "| set | method | seeds | validation after 20 | after 60 | out of range | multiply-adds, "
        "share of the default's | test accuracy, trained in full |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in SETS:
        for method in ("default student", *METHODS):
            mine = [row for row in rows if row["set"] == name and row["method"] == method]
            if mine:
                lines.append(_line(name, method, mine))
    return "\n".join(lines) + "\n"


def _line(name: str, method: str, rows: list[Row]) -> str:
    def mean(of: str, scale: float = 1.0) -> float:
        return scale * float(np.mean([float(str(row[of])) for row in rows]))

    early, late, away, share = "", "", "", "100 %"
    if method != "default student":
        paths = np.array([row["best_so_far"] for row in rows])
        early, late = f"{100 * paths[:, 19].mean():.1f} %", f"{100 * paths[:, -1].mean():.1f} %"
        away = f"{100 * mean('out_of_range') / TRIALS:.0f} %"
        share = f"{mean('share_of_base', 100):.0f} %"
    test = f"{mean('test_accuracy', 100):.1f} %"
    cells = (name, method, str(len(rows)), early, late, away, share, test)
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run what is missing and write the table."""
    parser = arguments(__doc__, minutes=60.0)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    clock, kept = Clock(options.minutes), results("search_students", fresh=options.fresh)
    for seed in range(options.seeds):
        for name in SETS:
            for method in ("default student", *METHODS):
                key = [name, method, seed]
                if clock.spent or kept.done(key):
                    continue
                row = base(name, seed) if method == "default student" else searched(*key)  # type: ignore[arg-type]
                kept.add(key, row)
    rows = list(kept.rows())
    (kept.path.parent / "search_students.md").write_text(markdown(rows))
    kept.write(
        claim="image_cnn under half the multiply-adds of the default student, found in 60 trials",
        config={"rows": ROWS, "trials": TRIALS, "steps": STEPS, "final_steps": FINAL},
        seeds=sorted({int(str(row["seed"])) for row in rows}),
        numbers=rows,
    )


if __name__ == "__main__":
    main()
