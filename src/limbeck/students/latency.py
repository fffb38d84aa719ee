"""How long one row takes on one core, with PyTorch, from raw row to probabilities.

Measured in a process of its own: the number of threads of this one stays as it is.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from limbeck.errors import DataError, StudentError

_WARM_UP = 20
_CHILD = "import sys; from limbeck.students.latency import _main; _main(*sys.argv[1:])"
_ARGUMENTS = 3


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles over single calls, in milliseconds.

    Args:
        p50_ms: Half of the calls were at least this fast.
        p95_ms: 95 % of the calls were at least this fast.
    """

    p50_ms: float
    p95_ms: float


def time_calls(calls: Callable[[int], object], n: int) -> Latency:
    """Time `calls(i)` for i in 0 to n - 1, after a warm-up that is not counted."""
    for i in range(min(_WARM_UP, n)):
        calls(i)
    times = np.empty(n)
    for i in range(n):
        start = time.perf_counter()
        calls(i)
        times[i] = time.perf_counter() - start
    p50, p95 = np.quantile(times * 1e3, (0.5, 0.95))
    return Latency(float(p50), float(p95))


def measure_latency(folder: Path, rows: pa.RecordBatch) -> Latency:
    """Time a saved student on single rows, one thread, in a fresh process.

    Args:
        folder: A student folder.
        rows: Rows with the student's columns; each is timed once, so give some hundred.

    Raises:
        DataError: there are no rows.
        StudentError: the folder cannot be opened.

    Cost: about 3 s, most of it the start of the process.
    """
    if not rows.num_rows:
        raise DataError("latency is measured on real rows but got 0; give some hundred.")
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "rows.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_batch(rows)
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(folder), str(path)],
            env={**os.environ, **dict.fromkeys(threads, "1"), "PYTHONPATH": _import_path()},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StudentError(f"the latency of {folder} could not be measured: {last}")
    return Latency(**json.loads(done.stdout))


def _import_path() -> str:
    """Let the new process find this very package, installed or not, and a network of yours."""
    package = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, (package, *sys.path, os.environ.get("PYTHONPATH"))))


def _main(folder: str, path: str) -> None:
    """Run in the fresh process: print the latency as JSON, which is all that comes back."""
    import torch

    from limbeck.students.folder import load

    torch.set_num_threads(1)
    predictor = load(folder)
    rows = pa.ipc.open_file(path).get_batch(0)
    taken = time_calls(lambda i: predictor.probabilities(rows.slice(i, 1)), rows.num_rows)
    sys.stdout.write(json.dumps({"p50_ms": taken.p50_ms, "p95_ms": taken.p95_ms}))
