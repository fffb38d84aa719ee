"""What the benchmarks of the main job share: names, draws from tables of texts, intervals, runs."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks._common import Clock, Row

from limbeck.numerics.intervals import paired_t

TITLES = {
    "teacher": "the teacher",
    "labels": "labels only",
    "labels_and_validation": "labels and validation",
    "hard_kd": "hard KD",
    "soft_kd": "soft KD",
    "slam_soft": "SLaM soft",
    "slam_hard": "SLaM hard",
    "taylor": "Taylor",
    "ups": "UPS",
    "fidelity": "fidelity",
    "alpha_weighted": "alpha as weight",
    "weighted": "weighted",
    "shipped": "what shipped",
}
"""Arms as tables and pictures call them, in their order there."""


def data_folder() -> Path:
    """Where the data lie."""
    return Path(os.environ.get("LIMBECK_DATA", "../shared/data"))


def draw_texts(
    source: Path, sizes: Mapping[str, int | None], rng: np.random.Generator, folder: Path
) -> None:
    """Write splits of the rows of `train.parquet` that share no text, and some of `test.parquet`.

    Args:
        source: Folder of both.
        sizes: Rows of each split, in the order in which they are drawn, and of "test"; None for
            all that are left. A split "pool" is written without labels.
        rng: Draws the rows.
        folder: Where `<split>.parquet` goes.
    """
    train, test = (pq.read_table(source / f"{part}.parquet") for part in ("train", "test"))
    # Some texts stand in train and in test: they may serve neither.
    shared = set(test.column("text").to_pylist())
    own = {text: i for i, text in enumerate(train.column("text").to_pylist()) if text not in shared}
    order, start = rng.permutation(np.array(sorted(own.values()))), 0
    for part, size in sizes.items():
        if part == "test":
            continue
        rows = train.take(order[start : None if size is None else start + size])
        start += rows.num_rows
        write(rows.select(["text"]) if part == "pool" else rows, folder / f"{part}.parquet")
    write(test.take(rng.permutation(test.num_rows)[: sizes["test"]]), folder / "test.parquet")


def write(table: pa.Table, path: Path) -> None:
    """Write a table without the texts that it repeats."""
    _, first = np.unique(
        np.array(table.column("text").to_pylist(), dtype=object), return_index=True
    )
    pq.write_table(table.take(np.sort(first)), path)


def score(row: Row, name: str) -> float:
    """Accuracy of an arm, of the teacher, or of what shipped."""
    return row["accuracy"][row["shipped"] if name == "shipped" else name]


def interval(values: list[float]) -> dict[str, float]:
    """Mean and 95 % t-interval."""
    found = paired_t(np.array(values))
    return {"mean": found.estimate, "low": found.low, "high": found.high}


def start(words: list[str], clock: Clock) -> Row | None:
    """A benchmark's run in a process of its own, on one thread; None when the time is up.

    Args:
        words: The benchmark's module and its options, which let it print one row as JSON.
        clock: Whether there is time.
    """
    if clock.spent:
        return None
    command = [sys.executable, "-m", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row
