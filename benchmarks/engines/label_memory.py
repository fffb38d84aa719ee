"""Claim: from 100,000 to 2,000,000 pool rows, labelling and reading grow by less than 50 MB.

Run: `PYTHONPATH=src python -m benchmarks.engines.label_memory`. Data: as for
`benchmarks.data.pool_memory`.

Each size is a fresh process that stages the rows, plans, buys an answer to every row of a teacher
that costs nothing (`limbeck label`), and reads all answers back: once in order, as objectives are
fitted, and in random minibatches of 256, as students are trained. What is compared is the largest
amount of memory of the process's own, less 24 bytes a row: ids and what a selection keeps of every
row grow with the pool by design. Pages of mapped files that were touched are shown apart: the
system takes them back when it needs them.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks._common import Row, arguments, results
from benchmarks.data.pool_memory import OwnMemory, peak_mb, write_labelled, write_pool_apart

SIZES = (100_000, 2_000_000)
BYTES_A_ROW = 24
LIMIT_MB = 50
BATCH = 256
MINIBATCHES = 2_000


def measure(size: int) -> Row:
    """One labelling in this process."""
    from limbeck.distill.folder import RunFolder
    from limbeck.distill.label import label
    from limbeck.distill.plan import make_plan
    from limbeck.distill.questions import AnswerBook, questions
    from limbeck.distill.run import load_teacher, stage
    from limbeck.distill.run_file import load_config
    from limbeck.ledger import SqliteLedger

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_labelled(folder / "labelled.csv")
        write_pool_apart(folder / "pool.parquet", size, 1 << 16)
        options = [
            *("--data.labelled", str(folder / "labelled.csv")),
            *("--data.pool", str(folder / "pool.parquet")),
            *("--teacher.kind", "callable"),
            *("--teacher.function", "benchmarks.distill.large_pool:ask"),
            *("--budget", str(size + 10_000)),
            *("--out", str(folder / "run"), "--ledger", str(folder / "ledger.sqlite")),
        ]
        config = load_config(None, options)
        row: Row = {}
        phase(row, "planning", lambda: make_plan(config, trains=False))
        found = phase(row, "labelling", lambda: label(config))
        row |= {"pool_rows": found.tallies[-1].rows, "rate": found.rate}
        splits = stage(config, RunFolder(config.out))
        teacher = load_teacher(config, splits, RunFolder(config.out))
        with SqliteLedger(config.ledger) as ledger:
            book = AnswerBook(ledger, teacher.fingerprint)
            ids = questions(splits, teacher).pool
            phase(row, "reading_all", lambda: [len(part) for part in book.batches(ids)])
            rng = np.random.default_rng(0)
            phase(
                row,
                "reading_minibatches",
                lambda: [
                    len(book.read(ids[rng.integers(0, len(ids), BATCH)]))
                    for _ in range(MINIBATCHES)
                ],
            )
    return row | {"resident_mb": peak_mb()}


def phase(row: Row, name: str, work: Callable[[], Any]) -> Any:
    """Do a part of the work; note its seconds and the largest memory of the process's own."""
    own, began = OwnMemory(), time.perf_counter()
    try:
        return work()
    finally:
        row[f"{name}_seconds"] = round(time.perf_counter() - began, 1)
        row[f"{name}_mb"] = own.stop()


def main() -> None:
    """Run both sizes and write the result file."""
    parser = arguments(__doc__, minutes=20)
    parser.add_argument("--one", type=int, help="one size, as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    kept = results("label_memory", fresh=options.fresh)
    for size in SIZES:
        if kept.done(size):
            continue
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.engines.label_memory", "--one", str(size)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        kept.add(size, json.loads(done.stdout.splitlines()[-1]))
    small, large = kept.rows()
    allowed = BYTES_A_ROW * (float(str(large["pool_rows"])) - float(str(small["pool_rows"]))) / 1e6
    grown = {
        name: round(float(str(large[name])) - float(str(small[name])) - allowed, 1)
        for name in large
        if name.endswith("_mb")
    }
    own = [value for name, value in grown.items() if name != "resident_mb"]
    kept.write(
        claim=f"from {SIZES[0]:,} to {SIZES[1]:,} pool rows the memory of labelling and reading "
        f"grows by less than {LIMIT_MB} MB beside {BYTES_A_ROW} bytes a row",
        config={"batch": BATCH, "minibatches": MINIBATCHES, "teacher": "callable, 2 classes"},
        seeds=[0],
        numbers={
            "runs": [small, large],
            "allowed_mb": round(allowed, 1),
            "grown_beside_that_mb": grown,
            "holds": max(own) < LIMIT_MB,
        },
    )


if __name__ == "__main__":
    main()
