"""What every benchmark does: a time limit, rows that survive a kill, one result file a claim."""

import argparse
import datetime
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from limbeck.storage import append_line, write_json

RESULTS = Path(__file__).parent / "results"

Row = dict[str, object]


class Clock:
    """A limit in minutes: `clock.spent` turns true when no new row should be begun."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def spent(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end


class Results:
    """Finished rows of a benchmark, kept line by line so that a killed run goes on where it was.

    Args:
        path: The claim's JSON file; rows in progress live in `.partial/<name>.jsonl` beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log = path.parent / ".partial" / f"{path.stem}.jsonl"
        self._rows: dict[str, Row] = {}
        if self._log.exists():
            for line in self._log.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the line that a kill has torn; its row is simply computed again
                self._rows[entry["key"]] = entry["row"]

    def __len__(self) -> int:
        return len(self._rows)

    def done(self, key: object) -> bool:
        """Whether this row is there already."""
        return _name(key) in self._rows

    def add(self, key: object, row: Row) -> None:
        """Keep a row; it is on disk when this returns."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._rows[_name(key)] = row
        append_line(self._log, json.dumps({"key": _name(key), "row": row}))

    def rows(self) -> Iterator[Row]:
        """All rows, in the order in which they were added."""
        yield from self._rows.values()

    def write(self, *, claim: str, config: Row, seeds: Sequence[int], numbers: object) -> None:
        """Write the result file with all that is needed to judge and repeat it."""
        write_json(
            self.path,
            {
                "claim": claim,
                "config": config,
                "seeds": list(seeds),
                "numbers": numbers,
                "machine": machine(),
                "versions": versions(),
                "commit": commit(),
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            },
        )


def arguments(description: str | None, *, minutes: float) -> argparse.ArgumentParser:
    """Start a parser with the two options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="begin no new row after this many minutes"
    )
    parser.add_argument("--fresh", action="store_true", help="forget rows of an earlier run")
    return parser


def results(name: str, *, fresh: bool = False) -> Results:
    """Open `results/<name>.json`, with the rows of an earlier run unless `fresh`."""
    if fresh:
        (RESULTS / ".partial" / f"{name}.jsonl").unlink(missing_ok=True)
    return Results(RESULTS / f"{name}.json")


def machine() -> Row:
    """The machine, as far as it matters for a number: cores, processor, system, threads."""
    import torch

    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions() -> dict[str, str]:
    """Python and the packages that a number may depend on."""
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "scikit-learn", "pyarrow", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit that was measured, with "+changes" when the tree differs from it."""
    folder = Path(__file__).parent
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    return head + ("+changes" if _git(folder, "status", "--porcelain", "--", "../src") else "")


def _git(folder: Path, *words: str) -> str | None:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _name(key: object) -> str:
    return json.dumps(key)
