"""Claim: what an answer costs in the ledger, read, recorded and opened, beside `diskcache`.

Run: `PYTHONPATH=src:. python -m benchmarks.ledger.throughput`; install the peer by hand first
(`pip install -c constraints.txt diskcache`), without it its rows are missing. One thread, 10
classes, embeddings of 64 values, random question ids. Both write the same 168 bytes an answer. The
peer keeps a value under a key and nothing else: no budget, no price, no raw reply. It waits for the
disk only when told to (`sqlite_synchronous=2`), as the ledger always does. The large ledger holds
2,000,000 answers without embeddings. Beside the time on the clock stands the time of the processor,
which does not see waits for the disk or for other processes of a busy machine.
"""

import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from benchmarks import _common

from limbeck.answers import Answers
from limbeck.ledger import Budget, Reservation, SqliteLedger
from limbeck.ledger.show import summarize
from limbeck.ledger.verify import verify
from limbeck.teachers.base import Money, Replies

ANSWERS = 100_000
LARGE = 2_000_000
CLASSES = 10
EMBEDDING = 64
READS = 25_600
SINGLE = 1_024
GROUP = 64
SEEDS = (0, 1, 2, 3, 4)
TEACHER = "benchmark"
PROCESSOR = " (processor)"
CLAIM = (
    "at least 50,000 cached answers a second read in batches, at least 10,000 a second recorded "
    "durably in batches of 256, a ledger of 2,000,000 answers opened in under 0.2 s"
)


def main() -> None:
    """Measure each seed, then the large ledger, and write the result file and the table."""
    torch.set_num_threads(1)
    options = _common.arguments(__doc__, minutes=15).parse_args()
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
    summary = {key: spread_of([float(row[key]) for row in small]) for key in small[0]}  # type: ignore[arg-type]
    config: _common.Row = {
        "answers": ANSWERS,
        "classes": CLASSES,
        "embedding": EMBEDDING,
        "large": LARGE,
        "group": GROUP,
        # Above the number of cores, the clock measures other people's work too.
        "load_average": round(os.getloadavg()[0], 1),
    }
    numbers = {"summary": summary, "rows": rows}
    results.write(claim=CLAIM, config=config, seeds=SEEDS, numbers=numbers)
    large = next((row for row in rows if "large" in row), None)
    (_common.RESULTS / "ledger.md").write_text(table(summary, large), encoding="utf-8")


def measure(folder: Path, seed: int) -> _common.Row:
    """Rates of one ledger and of its peer, in answers a second."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 256, (ANSWERS, 16), dtype=np.uint8)
    single = rng.integers(0, 256, (3 * SINGLE, 16), dtype=np.uint8)
    row: _common.Row = {}
    path = folder / "ledger.sqlite"
    with SqliteLedger(path) as ledger:
        whole, recording = fill(ledger, ids, 256, EMBEDDING, seed)
        row |= recording.rates("recorded, batches of 256", ANSWERS)
        row |= whole.rates("reserved and recorded, batches of 256", ANSWERS)
        for size in (256, 1024):
            row |= rate(
                f"read, batches of {size}",
                lambda rows: ledger.answers(TEACHER, ids[rows]),
                size,
                rng,
            )
        row |= rate(
            "read, one at a time",
            lambda rows: [ledger.answers(TEACHER, ids[i : i + 1]) for i in rows],
            256,
            rng,
        )
        with Watch() as watch:
            ledger.known(TEACHER, ids)
        row |= watch.rates("known or not", ANSWERS)
        row |= singles(ledger, single[:SINGLE], 1)
        row |= singles(ledger, single[SINGLE:], GROUP)
    row["bytes an answer"] = path.stat().st_size / ANSWERS
    begin = time.perf_counter()
    SqliteLedger(path).close()
    row["milliseconds to open"] = 1e3 * (time.perf_counter() - begin)
    return row | peer(folder, ids, single, rng)


def peer(
    folder: Path, ids: np.ndarray, single: np.ndarray, rng: np.random.Generator
) -> _common.Row:
    """The same reads and writes by diskcache; nothing when it is not installed."""
    try:
        from diskcache import Cache
    except ImportError:
        return {}
    value = bytes(4 * CLASSES + 2 * EMBEDDING)
    row: _common.Row = {}
    for name, synchronous in (("durable", 2), ("as it comes", 1)):
        with Cache(folder / name, sqlite_synchronous=synchronous, eviction_policy="none") as cache:
            for what, keys, batch in (
                ("batches of 256", ids, 256),
                ("one at a time", single[:SINGLE], 1),
            ):
                with Watch() as watch:
                    write(cache, keys, batch, value)
                row |= watch.rates(f"diskcache {name}: written, {what}", len(keys))
            row |= rate(
                f"diskcache {name}: read, one at a time",
                lambda rows, cache=cache: [cache[ids[i].tobytes()] for i in rows],
                256,
                rng,
            )

            def together(rows: np.ndarray, cache: Any = cache) -> None:
                with cache.transact():
                    for i in rows:
                        cache[ids[i].tobytes()]

            row |= rate(f"diskcache {name}: read, batches of 256", together, 256, rng)
    return row


def write(cache: Any, ids: np.ndarray, batch: int, value: bytes) -> None:
    """Put a value under each key, `batch` of them a transaction."""
    for start in range(0, len(ids), batch):
        part: AbstractContextManager[object] = cache.transact() if batch > 1 else nullcontext()
        with part:
            for key in ids[start : start + batch]:
                cache[key.tobytes()] = value


def measure_large(folder: Path) -> _common.Row:
    """Opening a large ledger, asking it about as many questions, showing and checking it."""
    ids = np.random.default_rng(0).integers(0, 256, (LARGE, 16), dtype=np.uint8)
    path = folder / "ledger.sqlite"
    with SqliteLedger(path) as ledger:
        whole, _ = fill(ledger, ids, 4096, 0, 0)
    opened = []
    for _ in range(9):
        begin = time.perf_counter()
        SqliteLedger(path).close()
        opened.append(time.perf_counter() - begin)
    ledger = SqliteLedger(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    assert ledger.known(TEACHER, ids).all()
    known = time.perf_counter() - begin
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    begin = time.perf_counter()
    summarize(ledger)
    shown = time.perf_counter() - begin
    ledger.close()
    begin = time.perf_counter()
    assert verify(path) == []
    checked = time.perf_counter() - begin
    return {
        "large": LARGE,
        **whole.rates("recorded, batches of 4,096", LARGE),
        "seconds to open": statistics.median(opened),
        "seconds to open, longest": max(opened),
        "seconds known": known,
        "bytes of memory added by known": grown * 1024,
        "seconds to show": shown,
        "seconds to verify": checked,
        "megabytes": path.stat().st_size / 1e6,
    }


class Watch:
    """Time on the clock and time of the processor, over one block or several."""

    def __init__(self) -> None:
        self.seconds = self.processor = 0.0

    def __enter__(self) -> Self:
        self._begin = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._begin[0]
        self.processor += time.process_time() - self._begin[1]

    def rates(self, name: str, count: int) -> _common.Row:
        """Things a second, by either time."""
        return {name: count / self.seconds, name + PROCESSOR: count / self.processor}


def fill(
    ledger: SqliteLedger, ids: np.ndarray, batch: int, width: int, seed: int
) -> tuple[Watch, Watch]:
    """Buy an answer to every question; give the time in all, and that of recording alone."""
    generator = torch.Generator().manual_seed(seed)
    budget = Budget(2 * len(ids))
    whole, recording = Watch(), Watch()
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        n = len(part)
        probs = torch.rand(n, CLASSES, generator=generator).softmax(1)
        embeddings = torch.rand(n, width, generator=generator) if width else None
        replies = Replies(part, [b""] * n, np.zeros(n, np.int64), [None] * n)
        answers = Answers(part, probs, embeddings)
        with whole:
            reservation = ledger.reserve("run", TEACHER, part, Money(0), budget)
            with recording:
                ledger.record(reservation, replies, answers, False)
    return whole, recording


def singles(ledger: SqliteLedger, ids: np.ndarray, group: int) -> _common.Row:
    """Questions that have a reservation of their own each, `group` of them a transaction."""
    budget = Budget(10 * ANSWERS)
    probs, embeddings = torch.full((1, CLASSES), 1 / CLASSES), torch.zeros(1, EMBEDDING)

    def reserve(part: np.ndarray) -> list[Reservation]:
        return [
            ledger.reserve("singles", TEACHER, part[i : i + 1], Money(0), budget)
            for i in range(len(part))
        ]

    def record(reservation: Reservation) -> None:
        replies = Replies(reservation.ids, [b""], np.zeros(1, np.int64), [None])
        ledger.record(reservation, replies, Answers(reservation.ids, probs, embeddings), False)

    held: list[Reservation] = []
    with Watch() as watch:
        for start in range(0, len(ids), group):
            with ledger.together() if group > 1 else nullcontext():
                for reservation in held:
                    record(reservation)
                held = reserve(ids[start : start + group])
        for reservation in held:
            record(reservation)
    how = f"singly, {group} together" if group > 1 else "one at a time"
    return watch.rates(f"reserved and recorded, {how}", len(ids))


def rate(
    name: str, read: Callable[[np.ndarray], object], size: int, rng: np.random.Generator
) -> _common.Row:
    """Rows a second over random batches, the middle one of three rounds."""
    rounds = []
    for _ in range(3):
        batches = [rng.integers(0, ANSWERS, size) for _ in range(READS // size)]
        with Watch() as watch:
            for rows in batches:
                read(rows)
        rounds.append(watch.rates(name, READS))
    return {key: statistics.median(float(row[key]) for row in rounds) for key in rounds[0]}  # type: ignore[arg-type]


def spread_of(values: Sequence[float]) -> _common.Row:
    """Median, least and most, mean and half the width of its 95 % t-interval."""
    row: _common.Row = {
        "median": statistics.median(values),
        "least": min(values),
        "most": max(values),
        "mean": statistics.mean(values),
        "plus_minus": None,
    }
    if len(values) > 1:
        t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}[len(values)]
        row["plus_minus"] = t * statistics.stdev(values) / len(values) ** 0.5
    return row


def table(summary: dict[str, Any], large: _common.Row | None) -> str:
    """The numbers for a person."""
    lines = [
        "| answers a second, 5 seeds | median | least | most | median, by the processor's time |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {name} | {row['median']:,.0f} | {row['least']:,.0f} | {row['most']:,.0f} | "
        f"{summary[name + PROCESSOR]['median']:,.0f} |"
        for name, row in summary.items()
        if name + PROCESSOR in summary
    ]
    if large is not None:
        lines += ["", f"| ledger of {LARGE:,} answers | |", "| --- | ---: |"]
        lines += [
            f"| {name} | {number(value)} |" for name, value in large.items() if name != "large"
        ]
    return "\n".join(lines) + "\n"


def number(value: Any) -> str:
    """Whole numbers from 100 on, three digits below."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
