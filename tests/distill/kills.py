"""Kill a real run again and again: before every write, or at random moments.

    python -m tests.distill.kills writes|rounds|moments FOLDER KILLS

`rounds` is the same with a purchase in rounds, before its own files.

Each attempt is a forked child, so a kill is a kill: no `finally` block runs, buffers are lost, the
process id is gone. Prints the number of kills and the folders of the finished runs as JSON.
"""

import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from limbeck import storage
from limbeck.distill import folder as run_folder
from limbeck.distill.run import distill
from limbeck.distill.run_file import load_config
from limbeck.ledger import SqliteLedger

from .material import ROUNDS, Material, make

ROUND_WRITES = ("file rounds.json", "file round-2", "file pool.parquet")
OPERATIONS = {"describe", "reserve", "record", "release"}


def attempt(material: Material, arm: Callable[[], None]) -> int:
    """Fork a child that prepares with `arm` and runs; give its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            arm()
            distill(load_config(material.run_file))
            code = 0
        finally:
            os._exit(code)
    return child


def settled_questions(material: Material) -> set[str]:
    """Questions whose answer is recorded, by their hash."""
    ledger = material.folder / "ledger.sqlite"
    if not ledger.exists():
        return set()
    with sqlite3.connect(ledger) as connection:
        return {row[0].hex() for row in connection.execute("SELECT question FROM answers")}


def kill_before_new_writes(material: Material, *, of_rounds: bool = False) -> None:
    """Make this process die the first time that any attempt comes to a write."""
    seen_file = material.folder / "seen.txt"
    seen = set(seen_file.read_text().splitlines()) if seen_file.exists() else set()

    def step(label: str) -> None:
        if of_rounds and not label.startswith(ROUND_WRITES):
            return
        if label not in seen:
            with seen_file.open("a") as log:
                log.write(label + "\n")
            os._exit(9)

    rename, append, commit = os.replace, storage.append_line, SqliteLedger._commit

    def replace(source: Path, target: Path) -> None:
        step(f"file {Path(target).name} {checkpoint_step(Path(source))}")
        rename(source, target)

    def append_line(path: Path, line: str) -> None:
        event = json.loads(line)
        step(f"log {event['stage']} {event['message']}")
        append(path, line)

    def commit_(self: SqliteLedger, connection: sqlite3.Connection) -> None:
        frame, names = sys._getframe(1), []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        operation = next((name for name in names if name in OPERATIONS), "open")
        count = connection.execute("SELECT COUNT(*) FROM answers").fetchone()[0]
        step(f"commit {operation} {count}")
        commit(self, connection)

    storage.os.replace = replace
    run_folder.append_line = append_line
    SqliteLedger._commit = commit_


def checkpoint_step(path: Path) -> str:
    """Tell the checkpoints of one arm apart: each is a write of its own."""
    if ".safetensors." not in path.name or "checkpoints" not in path.parts:
        return ""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as handle:
        return str(json.loads(handle.metadata()["progress"])["step"])


def check(material: Material, settled_before: int, asked_before: int) -> None:
    """Write down whether a settled question was asked in the attempt that has just ended.

    150 questions are needed in all. With s of them settled before an attempt, it may ask 150 - s
    distinct ones; each more is one that was settled already.
    """
    asked = material.questions()[asked_before:]
    log = material.folder / "asked_though_settled.txt"
    with log.open("a") as handle:
        for _ in range(len(set(asked)) - (150 - settled_before)):
            handle.write("one\n")


def run_until_done(
    material: Material, arm: Callable[[], None], life: Callable[[], float | None]
) -> int:
    """Start and kill until a run ends well; give the number of kills."""
    kills = 0
    while True:
        settled, asked = len(settled_questions(material)), len(material.questions())
        child = attempt(material, arm)
        seconds = life()
        if seconds is not None:
            end = time.monotonic() + seconds
            while time.monotonic() < end and os.waitpid(child, os.WNOHANG) == (0, 0):
                time.sleep(0.002)
            if time.monotonic() >= end:
                os.kill(child, signal.SIGKILL)
        try:
            _, status = os.waitpid(child, 0)
        except ChildProcessError:  # it ended by itself and was waited for above
            status = 0 if (material.folder / "run" / "metrics.json").exists() else 256
        check(material, settled, asked)
        if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 9:
            kills += 1
        elif os.WEXITSTATUS(status) == 0:
            return kills
        else:
            raise SystemExit(f"attempt {kills + 1} failed by itself")


def main() -> None:
    """See the module's docstring."""
    mode, root, wanted = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(0)
    folders, kills = [], 0
    while True:
        more = ROUNDS if mode == "rounds" else ""
        material = make(root / f"run{len(folders)}", more=more)
        if mode in ("writes", "rounds"):
            kills += run_until_done(
                material,
                lambda m=material: kill_before_new_writes(m, of_rounds=mode == "rounds"),
                lambda: None,
            )
        else:
            left = iter(range(wanted - kills))
            kills += run_until_done(
                material,
                lambda: None,
                lambda left=left: rng.uniform(0.01, 1.5) if next(left, None) is not None else None,
            )
        folders.append(str(material.folder))
        if mode in ("writes", "rounds") or kills >= wanted:
            break
    print(json.dumps([kills, folders]))


if __name__ == "__main__":
    main()
