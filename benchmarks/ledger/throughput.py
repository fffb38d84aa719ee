"""Claim: cached answers are read at 50,000 a second and more, in batches of 256 to 1,024.

Run: `PYTHONPATH=src python -m benchmarks.ledger.throughput`. One thread, 10 classes, embeddings of
64 values, random question ids. Beside the ledger stand a plain SELECT for each question over the
same file and, where it is installed, `diskcache`. The large ledger holds 2,000,000 answers without
embeddings.
"""

import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from benchmarks import _common

from limbeck.answers import Answers
from limbeck.ledger import Budget, SqliteLedger
from limbeck.teachers.base import Money, Replies

ANSWERS = 100_000
LARGE = 2_000_000
CLASSES = 10
EMBEDDING = 64
READS = 51_200
SEEDS = (0, 1, 2, 3, 4)
TEACHER = "benchmark"


def main() -> None:
    """Measure each seed, then the large ledger, and write the result file."""
    torch.set_num_threads(1)
    options = _common.arguments(__doc__, minutes=10).parse_args()
    clock = _common.Clock(options.minutes)
    results = _common.results("ledger", fresh=options.fresh)
    for seed in SEEDS:
        if not results.done(seed) and not clock.spent:
            with tempfile.TemporaryDirectory() as folder:
                results.add(seed, measure(Path(folder), seed))
    if not results.done("large") and not clock.spent:
        with tempfile.TemporaryDirectory() as folder:
            results.add("large", measure_large(Path(folder)))
    rows = list(results.rows())
    small = [row for row in rows if "large" not in row]
    numbers = {"mean": {k: mean_and_interval(small, k) for k in small[0]}, "rows": rows}
    config: _common.Row = {
        "answers": ANSWERS,
        "classes": CLASSES,
        "embedding": EMBEDDING,
        "large": LARGE,
    }
    claim = "cached answers: at least 50,000 a second in batches of 256 to 1,024, one thread"
    results.write(claim=claim, config=config, seeds=SEEDS, numbers=numbers)
    print(numbers["mean"])


def measure(folder: Path, seed: int) -> _common.Row:
    """Rates of one ledger, in answers a second."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 256, (ANSWERS, 16), dtype=np.uint8)
    row: _common.Row = {}
    with SqliteLedger(folder / "ledger.sqlite") as ledger:
        begin = time.perf_counter()
        fill(ledger, ids, 256, EMBEDDING, seed)
        row["reserved_and_recorded_durably_batch_256"] = ANSWERS / (time.perf_counter() - begin)
        for size in (256, 1024):
            row[f"read_batch_{size}"] = rate(
                lambda rows: ledger.answers(TEACHER, ids[rows]), size, rng
            )
        row["read_one_select_a_question"] = rate(
            lambda rows: [ledger.answers(TEACHER, ids[i : i + 1]) for i in rows], 256, rng
        )
        begin = time.perf_counter()
        ledger.known(TEACHER, ids)
        row["known"] = ANSWERS / (time.perf_counter() - begin)
    row["bytes_an_answer"] = (folder / "ledger.sqlite").stat().st_size / ANSWERS
    begin = time.perf_counter()
    SqliteLedger(folder / "ledger.sqlite").close()
    row["open_seconds"] = time.perf_counter() - begin
    peer = diskcache_rate(folder, ids, rng)
    if peer is not None:
        row["diskcache_read"] = peer
    return row


def measure_large(folder: Path) -> _common.Row:
    """Opening a large ledger, and asking it about as many questions."""
    ids = np.random.default_rng(0).integers(0, 256, (LARGE, 16), dtype=np.uint8)
    with SqliteLedger(folder / "ledger.sqlite") as ledger:
        begin = time.perf_counter()
        fill(ledger, ids, 4096, 0, 0)
        recorded = LARGE / (time.perf_counter() - begin)
    begin = time.perf_counter()
    ledger = SqliteLedger(folder / "ledger.sqlite")
    opened = time.perf_counter() - begin
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    assert ledger.known(TEACHER, ids).all()
    known = time.perf_counter() - begin
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    ledger.close()
    return {
        "large": LARGE,
        "recorded_batch_4096": recorded,
        "open_seconds": opened,
        "known_seconds": known,
        "known_peak_bytes_added": grown * 1024,
    }


def fill(ledger: SqliteLedger, ids: np.ndarray, batch: int, width: int, seed: int) -> None:
    """Buy an answer to every question."""
    generator = torch.Generator().manual_seed(seed)
    budget = Budget(len(ids))
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        n = len(part)
        probs = torch.rand(n, CLASSES, generator=generator).softmax(1)
        embeddings = torch.rand(n, width, generator=generator) if width else None
        reservation = ledger.reserve("run", TEACHER, part, Money(0), budget)
        replies = Replies(part, [b""] * n, np.zeros(n, np.int64), [None] * n)
        ledger.record(reservation, replies, Answers(part, probs, embeddings), False)


def rate(read: Callable[[np.ndarray], object], size: int, rng: np.random.Generator) -> float:
    """Rows a second over random batches."""
    batches = [rng.integers(0, ANSWERS, size) for _ in range(READS // size)]
    begin = time.perf_counter()
    for rows in batches:
        read(rows)
    return READS / (time.perf_counter() - begin)


def diskcache_rate(folder: Path, ids: np.ndarray, rng: np.random.Generator) -> float | None:
    """Reads a second of the peer, or None when it is not installed."""
    try:
        import diskcache
    except ImportError:
        return None
    value = np.zeros(CLASSES, np.float32).tobytes() + np.zeros(EMBEDDING, np.float16).tobytes()
    with diskcache.Cache(folder / "peer") as cache, cache.transact():
        for key in ids:
            cache[bytes(key)] = value
    with diskcache.Cache(folder / "peer") as cache:
        return rate(lambda rows: [cache[bytes(ids[i])] for i in rows], 256, rng)


def mean_and_interval(rows: list[_common.Row], key: str) -> _common.Row:
    """Mean over seeds and half the width of its 95 % t-interval."""
    values = [float(row[key]) for row in rows]  # type: ignore[arg-type]  # all are numbers
    if len(values) < 2:
        return {"mean": values[0], "plus_minus": None}
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}[len(values)]
    half = t * statistics.stdev(values) / len(values) ** 0.5
    return {"mean": statistics.mean(values), "plus_minus": half}


if __name__ == "__main__":
    main()
