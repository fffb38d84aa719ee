"""The whole main job on a pool of 2,000,000 rows: what do the rows cost in memory and time?

    PYTHONPATH=src python -m benchmarks.distill.large_pool

The same job, with the same 10,000 answers of a callable teacher, on a pool of 20,000 rows and on
one of 2,000,000, each in a process of its own. The difference of their peak memories is what the
rows cost; pages of mapped files that were touched count, although the system can take them back.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._common import Row, arguments, results
from benchmarks.data.pool_memory import write_labelled, write_pool_apart

SIZES = (20_000, 2_000_000)
ANSWERS = 10_000
LIMIT_MB = 300


def ask(rows: list[dict[str, str]]) -> list[list[float]]:
    """A teacher that costs nothing: long sentences are of class 1."""
    return [[0.2, 0.8] if len(row["text"]) > 45 else [0.7, 0.3] for row in rows]


def run_one(size: int) -> Row:
    """One job in this process."""
    from limbeck.distill.run import distill
    from limbeck.distill.run_file import load_config

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_labelled(folder / "labelled.csv")
        write_pool_apart(folder / "pool.parquet", size, 1 << 20)
        options = [
            *("--data.labelled", str(folder / "labelled.csv")),
            *("--data.pool", str(folder / "pool.parquet")),
            *("--teacher.kind", "callable"),
            *("--teacher.function", "benchmarks.distill.large_pool:ask"),
            *("--budget", str(ANSWERS), "--train.steps", "100", "--no-onnx"),
            *("--objective.arms", "labels", "--objective.arms", "soft_kd"),
            *("--out", str(folder / "run"), "--ledger", str(folder / "ledger.sqlite")),
        ]
        outcome = distill(load_config(None, options))
    cost = outcome.record.cost
    pool = next(view.rows for view in outcome.record.data.splits if view.name == "pool")
    return {
        "pool_rows": pool,
        "answers": cost.bought,
        "peak_megabytes": cost.peak_memory_bytes / 1e6,
        "minutes": cost.minutes,
    }


def main() -> None:
    """Run both sizes and write the result file."""
    parser = arguments(__doc__, minutes=20)
    parser.add_argument("--one", type=int, help="one job, as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(options.one)))
        return
    kept = results("large_pool", fresh=options.fresh)
    for size in SIZES:
        if kept.done(size):
            continue
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.distill.large_pool", "--one", str(size)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        kept.add(size, json.loads(done.stdout.splitlines()[-1]))
    small, large = kept.rows()
    added = large["peak_megabytes"] - small["peak_megabytes"]
    kept.write(
        claim=f"2,000,000 pool rows add less than {LIMIT_MB} MB to the memory of a whole run",
        config={"answers": ANSWERS, "student": "text_bag, defaults"},
        seeds=[0],
        numbers={"runs": [small, large], "added_megabytes": added, "holds": added < LIMIT_MB},
    )


if __name__ == "__main__":
    main()
