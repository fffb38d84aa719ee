"""Claim: a pool of 2,000,000 rows adds less than 300 MB of memory.

Run: `PYTHONPATH=src python -m benchmarks.data.pool_memory`. Data: the sentences of `yelp_sent` in
`LIMBECK_DATA`, perturbed so that few are alike; made-up sentences when they are not there.

Each measurement is a fresh process that stages the rows with `prepare`, then draws minibatches of
256 rows at random from the pool. The baseline is the same process with a pool of 1,000 rows, so
what is reported is what the rows themselves cost. Peak resident memory counts the pages of the
memory-mapped pool that have been touched; the system takes these back when it needs them, so they
are shown apart too.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks import _common

from limbeck.data import DataConfig, prepare

ROWS = 2_000_000
BASELINE_ROWS = 1_000
BATCH = 256
TAKES = 400
SEEDS = (0, 1, 2, 3, 4)
_BLOCK = 65_536


def main() -> None:
    """Measure both layouts of a Parquet file and write the result file."""
    options = _common.arguments(__doc__, minutes=10).parse_args()
    results = _common.results("pool_memory", fresh=True)
    clock = _common.Clock(options.minutes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_labelled(folder / "labelled.csv")
        for layout, rows, group in (
            ("baseline", BASELINE_ROWS, _BLOCK),
            ("row groups of 1,048,576", ROWS, 1 << 20),
            ("one row group", ROWS, ROWS),
        ):
            if clock.spent:
                break
            pool = folder / "pool.parquet"
            write_pool(pool, rows, group)
            results.add(layout, {"layout": layout, "rows": rows} | measured(folder, pool))
    numbers = compared(list(results.rows()))
    results.write(
        claim="A pool of 2,000,000 rows adds less than 300 MB of memory.",
        config={"rows": ROWS, "batch": BATCH, "takes": TAKES * len(SEEDS), "data": data_name()},
        seeds=SEEDS,
        numbers=numbers,
    )
    print(json.dumps(numbers, indent=2))


def compared(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Subtract the baseline's memory from each layout's."""
    base = rows[0]
    for row in rows:
        for kind in ("staging", "run", "run_own"):
            added = float(str(row[f"{kind}_mb"])) - float(str(base[f"{kind}_mb"]))
            row[f"{kind}_added_mb"] = round(added, 1)
    return rows


def measured(folder: Path, pool: Path) -> dict[str, object]:
    """Run the child in a process of its own and read what it measured."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        command = [sys.executable, "-m", "benchmarks.data.pool_memory", "--child"]
        done = subprocess.run(
            [*command, str(folder / "labelled.csv"), str(pool), run],
            check=True,
            capture_output=True,
            text=True,
        )
    measurement: dict[str, object] = json.loads(done.stdout)
    return measurement


def child(labelled: Path, pool: Path, run: Path) -> None:
    """Stage, draw minibatches, and print seconds, milliseconds and megabytes as JSON."""
    own = OwnMemory()
    started = time.perf_counter()
    splits = prepare(DataConfig(labelled=labelled, pool=pool), run, 0)
    seconds = time.perf_counter() - started
    staging = peak_mb()
    assert splits.pool is not None
    times = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        for _ in range(TAKES):
            rows = rng.integers(0, len(splits.pool), BATCH)
            started = time.perf_counter()
            splits.pool.take(rows)
            times.append(1e3 * (time.perf_counter() - started))
    report = {
        "pool_rows": len(splits.pool),
        "stage_seconds": round(seconds, 2),
        "take_p50_ms": round(float(np.median(times)), 3),
        "take_p95_ms": round(float(np.quantile(times, 0.95)), 3),
        "staging_mb": staging,
        "run_mb": peak_mb(),
        "run_own_mb": own.stop(),
    }
    print(json.dumps(report))


def peak_mb() -> float:
    """Largest resident memory of this process so far, mapped files included, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


class OwnMemory:
    """Watches the memory that is this process's own, without pages of mapped files (Linux)."""

    def __init__(self) -> None:
        self._peak = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> float:
        """The largest value seen, in MB; 0 where the system does not tell."""
        self._end.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.exists() and not self._end.wait(0.02):
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon"):
                    self._peak = max(self._peak, float(line.split()[1]) / 1e3)


def sentences() -> list[str]:
    """Sentences of about nine words."""
    source = data_folder() / "text" / "yelp_sent" / "train.parquet"
    if source.exists():
        found: list[str] = pq.read_table(source, columns=["text"])["text"].to_pylist()
        return found
    words = [
        "the",
        "food",
        "was",
        "service",
        "good",
        "bad",
        "never",
        "again",
        "place",
        "love",
        "this",
        "staff",
        "price",
        "so",
    ]
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(words, 9)) for _ in range(50_000)]


def perturbed(rows: int) -> Iterator[pa.RecordBatch]:
    """Sentences over and over, each time with another pair of words exchanged for new ones."""
    base = sentences()
    words = sorted({word for text in base[:20_000] for word in text.split()})
    rng = np.random.default_rng(1)
    for start in range(0, rows, _BLOCK):
        count = min(_BLOCK, rows - start)
        drawn = rng.integers(0, len(words), (count, 2))
        texts = []
        for i in range(count):
            text = base[(start + i) % len(base)].split()
            text[-1:] = [words[drawn[i, 0]], words[drawn[i, 1]]]
            texts.append(" ".join(text))
        yield pa.record_batch({"text": pa.array(texts, pa.string())})


def write_pool(path: Path, rows: int, group: int) -> None:
    """Write a Parquet file with row groups of a given size."""
    pq.write_table(pa.Table.from_batches(perturbed(rows)), path, row_group_size=group)


def write_pool_apart(path: Path, rows: int, group: int) -> None:
    """The same in a process of its own, whose memory is not counted."""
    code = (
        "from pathlib import Path; import sys; from benchmarks.data.pool_memory import write_pool;"
        f"write_pool(Path(sys.argv[1]), {rows}, {group})"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def write_labelled(path: Path) -> None:
    """Write a few labelled rows; what the labels are does not matter here."""
    lines = [f'"{text} indeed, number {i}",{i % 2}' for i, text in enumerate(sentences()[:1500])]
    path.write_text("\n".join(["text,label", *(line.replace("\n", " ") for line in lines)]) + "\n")


def data_folder() -> Path:
    """Where shared data lies."""
    return Path(os.environ.get("LIMBECK_DATA", "../shared/data"))


def data_name() -> str:
    """What the sentences are, for the result file."""
    found = (data_folder() / "text" / "yelp_sent" / "train.parquet").exists()
    return "yelp_sent, two words a sentence exchanged" if found else "made-up sentences"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*(Path(word) for word in sys.argv[2:5]))
    else:
        main()
