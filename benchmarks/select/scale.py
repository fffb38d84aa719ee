"""Claims: how many rows the rules choose from in seconds, and how much faster than their peers.

    PYTHONPATH=src:. python -m benchmarks.select.scale [--minutes 30] [--only NAME]

The peers are `scikit-activeml` and `modAL-python`. Install them by hand, for this benchmark only
(`pip install -c constraints.txt scikit-activeml modAL-python`); without one its rows are missing.

Each measurement is a process of its own with two threads, which makes its inputs first. What is
timed is the call that a user makes, on arrays in memory; the least of several runs counts. "wall"
is the time on the clock; "processor" is that of all threads together, which hardly sees what else a
busy machine does. Memory is the peak of resident memory during the first run less what was resident
just before it, so that inputs and libraries do not count; the peak with them stands beside it.

Peers get the same numbers as float32 arrays, from a classifier that has them ready. Where a peer
keeps a matrix of k x n scores, n is what fits into memory. The ratio is that of the processor
times at the same n.
"""

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import _common

from limbeck.storage import write_text

Run = Callable[[], object]
Prepared = tuple[Run, Callable[[], _common.Row]]
"""What is measured, and what else is to be told of it afterwards."""
THREADS, K, CLASSES, WIDTH, KNOWN = 2, 1_000, 10, 128, 1_000
CASES = [
    # name, who, n, runs
    ("RAD, capped, with rounding", "limbeck", 1_000_000, 5),
    ("RAD, capped, with rounding", "limbeck", 10_000_000, 3),
    ("AdaProd+, one round", "limbeck", 1_000_000, 5),
    ("margin", "limbeck", 1_000_000, 5),
    ("margin", "modAL", 1_000_000, 5),
    ("margin", "limbeck", 100_000, 5),
    ("margin", "scikit-activeml", 100_000, 5),
    ("coreset", "limbeck", 100_000, 5),
    ("coreset", "scikit-activeml", 100_000, 2),
    ("BADGE", "limbeck", 100_000, 5),
    ("BADGE", "scikit-activeml", 100_000, 1),
]
CLAIM = (
    "two cores: RAD, capped, with rounding, of 1,000,000 rows under 1 s, of 10,000,000 under 12 s "
    "and 2 GB; a round of AdaProd+ on 1,000,000 rows, k = 1,000, under 1 s; coreset and BADGE on "
    "100,000 rows of 128 numbers, k = 1,000, under 60 s and at least 5 times faster than the peer"
)


def main() -> None:
    """Measure what is missing; write the result and the table."""
    parser = _common.arguments(__doc__, minutes=30)
    parser.add_argument("--only", help="cases whose name has this in it")
    options = parser.parse_args()
    clock, found = _common.Clock(options.minutes), _common.results("scale", fresh=options.fresh)
    for name, who, n, runs in CASES:
        if clock.spent or found.done([name, who, n]) or (options.only or "") not in name:
            continue
        row = measured(name, who, n, runs)
        if row is not None:
            found.add([name, who, n], row)
            print(row, flush=True)
    rows = with_ratios(list(found.rows()))
    found.write(
        claim=CLAIM,
        config={"threads": THREADS, "k": K, "classes": CLASSES, "width": WIDTH, "known": KNOWN},
        seeds=[0],
        numbers=rows,
    )
    write_text(_common.RESULTS / "scale.md", table(rows))


def measured(name: str, who: str, n: int, runs: int) -> _common.Row | None:
    """A row from a process of its own; None where the peer is not installed."""
    threads = {f"{library}_NUM_THREADS": str(THREADS) for library in ("OMP", "MKL", "OPENBLAS")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.select.scale", "--child", name, who, str(n), str(runs)],
        env=os.environ | threads,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    row: _common.Row | None = json.loads(done.stdout.splitlines()[-1])
    return row


def child(name: str, who: str, n: int, runs: int) -> _common.Row | None:
    """Make the inputs, then run and measure."""
    import torch

    torch.set_num_threads(THREADS)
    warnings.simplefilter("ignore")
    try:
        run, more = PREPARED[name, who](n)
    except ImportError as error:
        print(f"{who} is not installed: {error}", file=sys.stderr)
        return None
    release()
    before, seconds, processor, peak = memory("VmRSS"), [], [], 0.0
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far was that of making the inputs
    for turn in range(runs):
        began = time.perf_counter(), time.process_time()
        chosen = run()
        seconds.append(time.perf_counter() - began[0])
        processor.append(time.process_time() - began[1])
        if turn == 0:
            peak = memory("VmHWM")
    told = more()
    assert len(np.unique(chosen)) == told.get("k", K)  # type: ignore[call-overload]
    return {
        "rule": name,
        "by": who,
        "n": n,
        "runs": runs,
        "wall_seconds": round(min(seconds), 3),
        "processor_seconds": round(min(processor), 3),
        "peak_added_mb": round(peak - before, 1),
        "peak_mb": round(peak, 1),
        "load_average": round(os.getloadavg()[0], 1),
        **told,
    }


def release() -> None:
    """Give memory that is free back to the system, so that what is taken next is seen."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def memory(what: str) -> float:
    """Resident memory of this process in MB: now (VmRSS), or at most so far (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return float(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"no {what} in /proc/self/status")


def rad(n: int) -> Prepared:
    """A fifth of the rows, with a tenth of mistakes; gains as margins have them."""
    import torch

    from limbeck.select import dependent_rounding, rad_inclusion

    gains = torch.from_numpy(np.random.default_rng(0).beta(0.5, 2, n).astype(np.float32))
    generator, k, m = torch.Generator().manual_seed(0), n // 5, n // 10

    def run() -> object:
        return dependent_rounding(rad_inclusion(gains, m, k), generator).numpy()

    def more() -> _common.Row:
        p = rad_inclusion(gains, m, k)
        support, sure = int((p > 0).sum()), int((p >= 1).sum())
        return {"k": k, "mistakes": m, "support": support, "sure": sure}

    return run, more


def adaprod(n: int) -> Prepared:
    """A round with a prediction, after one that has left surprises."""
    import torch

    from limbeck.select import SleepingExperts

    generator = torch.Generator().manual_seed(0)
    first = torch.rand(n, generator=generator)
    second = (first + 0.2 * torch.randn(n, generator=generator)).clamp_(0, 1)
    learner = SleepingExperts(n)
    learner.predict()
    learner.update(first)

    def run() -> object:
        learner.predict(None, first)
        rows, _ = learner.select(K, generator)
        learner.update(second)
        learner.sleep(rows)
        return rows.numpy()

    return run, dict


def probabilities(n: int) -> Any:
    """Probabilities of a classifier that is unsure of some rows, float32, (n, classes)."""
    probs = np.exp(2 * np.random.default_rng(0).standard_normal((n, CLASSES), np.float32))
    probs /= probs.sum(axis=1, keepdims=True)
    return probs


def embeddings(n: int) -> Any:
    """Rows in 100 clouds, float32, (n, width)."""
    rng = np.random.default_rng(1)
    middles = rng.standard_normal((100, WIDTH), np.float32)
    return middles[rng.integers(100, size=n)] + rng.standard_normal((n, WIDTH), np.float32)


def ours(rule: str) -> Callable[[int], Prepared]:
    """A selector of ours on arrays."""

    def prepare(n: int) -> Prepared:
        import torch

        from limbeck.select import Arrays, selector_class

        selector, generator = selector_class(rule)(), torch.Generator().manual_seed(0)
        rows, known = None, None
        if "embeddings" in selector.needs:
            whole = torch.from_numpy(embeddings(n + KNOWN))
            rows, known = whole[:n], whole[n:]
        probs = torch.from_numpy(probabilities(n))
        arrays = Arrays(torch.arange(n), probs, rows, known)

        def run() -> object:
            return selector.select(arrays, K, generator).rows.numpy()

        return run, dict

    return prepare


def skactiveml(rule: str) -> Callable[[int], Prepared]:
    """A query strategy of scikit-activeml; the classifier has its answers ready."""

    def prepare(n: int) -> Prepared:
        from skactiveml.base import SkactivemlClassifier
        from skactiveml.pool import Badge, CoreSet, UncertaintySampling

        class Ready(SkactivemlClassifier):  # type: ignore[misc]  # no types
            def fit(self, X: Any, y: Any) -> Any:
                return self

            def predict_proba(self, X: Any) -> Any:
                return ready

        unknown = np.full(n, np.nan)
        if rule == "coreset":
            x = embeddings(n + KNOWN)
            y = np.concatenate([unknown, np.zeros(KNOWN)])
            strategy = CoreSet(random_state=0)
            return lambda: strategy.query(x, y, batch_size=K), dict
        classifier = Ready(classes=list(range(CLASSES)))
        if rule == "badge":
            x = embeddings(n)
            ready = (probabilities(n), x)
            strategy = Badge(random_state=0)
        else:
            x, ready = np.zeros((n, 1), np.float32), probabilities(n)
            strategy = UncertaintySampling(method="margin_sampling", random_state=0)
        return lambda: strategy.query(x, unknown, classifier, fit_clf=False, batch_size=K), dict

    return prepare


def modal(n: int) -> Prepared:
    """Margin sampling of modAL; the classifier has its answers ready."""
    from modAL.uncertainty import margin_sampling

    class Ready:
        def predict_proba(self, x: Any) -> Any:
            return ready

    ready = probabilities(n)
    return lambda: margin_sampling(Ready(), ready, n_instances=K)[0], dict


PREPARED: dict[tuple[str, str], Callable[[int], Prepared]] = {
    ("RAD, capped, with rounding", "limbeck"): rad,
    ("AdaProd+, one round", "limbeck"): adaprod,
    ("margin", "limbeck"): ours("greedy"),
    ("margin", "modAL"): modal,
    ("margin", "scikit-activeml"): skactiveml("margin"),
    ("coreset", "limbeck"): ours("coreset"),
    ("coreset", "scikit-activeml"): skactiveml("coreset"),
    ("BADGE", "limbeck"): ours("badge"),
    ("BADGE", "scikit-activeml"): skactiveml("badge"),
}


def with_ratios(rows: list[_common.Row]) -> list[_common.Row]:
    """Rows in the order of `CASES`, with each peer's times over ours at the same number of rows."""
    order = [case[:3] for case in CASES]
    rows = sorted(rows, key=lambda row: order.index((row["rule"], row["by"], row["n"])))  # type: ignore[arg-type]
    ours_of = {(row["rule"], row["n"]): row for row in rows if row["by"] == "limbeck"}
    found = []
    for row in rows:
        mine = ours_of.get((row["rule"], row["n"]))
        if row["by"] != "limbeck" and mine is not None:
            row = row | {  # noqa: PLW2901 # the row, and two numbers more
                f"{time}_ratio": round(float(str(row[name])) / float(str(mine[name])), 1)
                for time, name in (("wall", "wall_seconds"), ("processor", "processor_seconds"))
            }
        found.append(row)
    return found


def table(rows: list[_common.Row]) -> str:
    """The numbers for a person."""
    lines = [
        "| rule | by | rows | k | seconds | of the processor | MB added | times ours |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        k = int(str(row.get("k", K)))
        ratio = row.get("processor_ratio", "")
        lines.append(
            f"| {row['rule']} | {row['by']} | {row['n']:,} | {k:,} | {row['wall_seconds']} | "
            f"{row['processor_seconds']} | {row['peak_added_mb']:,.0f} | {ratio} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
    else:
        main()
