"""How long LELP's projections take to fit, and how much memory, beside one pass of a teacher.

    PYTHONPATH=src python -m benchmarks.objectives.lelp_fit

Embeddings are made chunk by chunk, as they would be read from disk, so that the memory measured is
that of the fit; making them is timed by itself and left out. Each case runs in a process of its
own, whose peak memory is read, before the fit and after it. Time is processor time of one thread,
so that neighbours on a shared machine count for less; two free cores take less time than that.

The teacher's pass is that of a transformer encoder as wide as the embedding, 12 layers over 64
tokens, and, as the cheapest teacher that one may think of, of a single layer over 16 tokens: a few
batches are timed and scaled to the number of rows.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from torch import Tensor, nn

from limbeck.objectives import LinearProjections
from limbeck.storage import write_text

CLAIM = (
    "Fit of the projections: 1,000,000 x 768 embeddings in under 60 s and 3 GB, even on one "
    "thread, and under 5 % of a teacher's pass."
)
CASES = [(100_000, 768, 2), (1_000_000, 768, 2), (1_000_000, 768, 10), (50_000, 8192, 2)]
"""Rows, numbers in an embedding, classes."""
CHUNK = 8192
SUBCLASSES = 8
SEEDS = [0, 1, 2, 3, 4]
SEEDS_OF = dict(zip(CASES, (5, 2, 1, 1), strict=True))
"""A fit takes the same steps whatever the numbers are: few seeds will do for long ones."""
TEACHERS = {"12 layers, 64 tokens": (12, 64), "1 layer, 16 tokens": (1, 16)}


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Chunks:
    """Embeddings with classes, made as they are read; `seconds` is what making them took."""

    def __init__(self, rows: int, dim: int, classes: int, seed: int) -> None:
        self.rows, self.dim, self.classes, self.seed = rows, dim, classes, seed
        self.seconds = 0.0
        g = torch.Generator().manual_seed(seed)
        self.means = torch.randn(classes, dim, generator=g)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        g = torch.Generator().manual_seed(self.seed)
        for start in range(0, self.rows, CHUNK):
            begun = time.process_time()
            count = min(CHUNK, self.rows - start)
            classes = torch.randint(self.classes, (count,), generator=g)
            chunk = torch.randn(count, self.dim, generator=g) + self.means[classes]
            self.seconds += time.process_time() - begun
            yield chunk, classes


def fit_once(rows: int, dim: int, classes: int, seed: int) -> dict[str, float]:
    """Processor seconds and peak bytes of one fit, in this process."""
    torch.set_num_threads(1)
    before, clock = peak_bytes(), time.perf_counter()
    chunks = Chunks(rows, dim, classes, seed)
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(classes, dim, generator=g)
    begun = time.process_time()
    LinearProjections.fit_batches(
        chunks, SUBCLASSES, num_classes=classes, classifier_weight=weight, generator=g
    )
    spent = time.process_time() - begun - chunks.seconds
    return {
        "fit_seconds": spent,
        "wall_seconds": time.perf_counter() - clock,
        "making_seconds": chunks.seconds,
        "peak_bytes": peak_bytes(),
        "start_bytes": before,
    }


def peak_bytes() -> int:
    """Most memory that this process has held; `getrusage` would count its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def teacher_seconds(dim: int, layers: int, tokens: int, rows: int) -> float:
    """Processor seconds that a transformer encoder would take for so many rows."""
    heads = dim // 64
    layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).eval()
    batch = torch.randn(16, tokens, dim)
    times = []
    with torch.inference_mode():
        for _ in range(4):
            begun = time.process_time()
            encoder(batch)
            times.append(time.process_time() - begun)
    return statistics.median(times[1:]) * rows / len(batch)


def measure(rows: int, dim: int, classes: int, seed: int) -> dict[str, Any]:
    """One case in a process of its own, and teachers beside it."""
    code = (
        "import json, sys; from benchmarks.objectives.lelp_fit import fit_once; "
        "print(json.dumps(fit_once(*map(int, sys.argv[1:]))))"
    )
    words = [sys.executable, "-c", code, *map(str, (rows, dim, classes, seed))]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=ONE_THREAD)
    row = {"rows": rows, "dim": dim, "classes": classes, "seed": seed, **json.loads(done.stdout)}
    for name, (layers, tokens) in TEACHERS.items():
        row[name] = teacher_seconds(dim, layers, tokens, rows) if dim < 4096 else None
    return row


def summarise(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over seeds."""
    out = []
    for case in CASES:
        mine = [row for row in found if (row["rows"], row["dim"], row["classes"]) == case]
        if not mine:
            continue
        names = ("fit_seconds", "wall_seconds", "making_seconds", "peak_bytes", "start_bytes",
                 *TEACHERS)  # fmt: skip
        entry: dict[str, Any] = dict(zip(("rows", "dim", "classes"), case, strict=True))
        entry["seeds"] = len(mine)
        entry |= {
            name: None if mine[0][name] is None else statistics.median(row[name] for row in mine)
            for name in names
        }
        out.append(entry)
    return out


def table(numbers: list[dict[str, Any]]) -> str:
    """A markdown table."""
    heads = " | ".join(f"of a pass of a teacher with {name}" for name in TEACHERS)
    lines = [
        f"| rows | D | C | seeds | fit, processor s | peak, GB | above start, GB | {heads} |",
        "|--:|--:|--:|--:|--:|--:|--:|" + "--:|" * len(TEACHERS),
    ]
    for n in numbers:
        shares = [
            "not run" if n[name] is None else f"{100 * n['fit_seconds'] / n[name]:.2f} %"
            for name in TEACHERS
        ]
        more = n["peak_bytes"] - n["start_bytes"]
        lines.append(
            f"| {n['rows']:,} | {n['dim']} | {n['classes']} | {n['seeds']} | "
            f"{n['fit_seconds']:.1f} | {n['peak_bytes'] / 1e9:.2f} | {more / 1e9:.2f} | "
            + " | ".join(shares)
            + " |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, then write the result and the table."""
    options = arguments(__doc__, minutes=12).parse_args()
    torch.set_num_threads(1)
    clock, found = Clock(options.minutes), results("lelp_fit", fresh=options.fresh)
    for seed in SEEDS:
        for case in CASES:
            if seed >= SEEDS_OF[case] or found.done([*case, seed]) or clock.spent:
                continue
            row = measure(*case, seed)
            found.add([*case, seed], row)
            print(*case, seed, round(row["fit_seconds"], 1), row["peak_bytes"] >> 20, flush=True)
    numbers = summarise(list(found.rows()))
    config = {"cases": CASES, "chunk": CHUNK, "subclasses": SUBCLASSES, "teachers": TEACHERS,
              "threads": 1}  # fmt: skip
    found.write(claim=CLAIM, config=config, seeds=SEEDS, numbers=numbers)
    write_text(RESULTS / "lelp_fit.md", table(numbers))
    print(table(numbers))


if __name__ == "__main__":
    main()
