"""Kill a real purchase from a server at random moments, again and again.

    python -m tests.distill.endpoint_kills FOLDER KILLS SEED

The server is a process of its own and counts every request. Each attempt is a forked child that
runs what `limbeck label` runs; a kill is SIGKILL. When a purchase has ended well, the next begins
in a new folder, until there were enough kills. Prints what was seen as JSON.
"""

import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa

from limbeck.data.ids import question_ids
from limbeck.distill.label import label
from limbeck.distill.run_file import load_config
from limbeck.ledger import SqliteLedger
from tests.teachers.server import GOOD

CONCURRENCY = 8
DELAY_SECONDS = 0.02
LIFE_SECONDS = 2.5
ASKING_SECONDS = 0.8
ASKING_SHARE = 0.8
BAD = ("dull", "weak", "cold", "grey")
SIZES = {"labelled": 12, "validation": 40, "test": 40, "pool": 320}
QUESTIONS = 400
RUN = """
budget = {budget}
out = "run"

[data]
labelled = "labelled.csv"
validation = "validation.csv"
test = "test.csv"
pool = "pool.csv"
text = ["text"]
label = "label"

[teacher]
kind = "endpoint"

[teacher.endpoint]
base_url = "{url}"
model = "words"
price_in = 1_000_000
price_out = 2_000_000
concurrency = {concurrency}
"""


@dataclass
class Seen:
    """What came of the kills.

    Args:
        kills: Attempts that were killed.
        during: Kills while questions were in flight.
        runs: Purchases that ended well.
        unknown: Questions unknown after each kill.
        asked_again: Requests about questions whose answer was recorded before.
        requests: Requests in all.
        unanswered: Questions without an answer at the end of a purchase.
        over: Millionths by which a run's own account was below what its requests have cost.
        unnamed: Purchases whose report did not name its unknown questions.
    """

    kills: int = 0
    during: int = 0
    runs: int = 0
    unknown: list[int] = field(default_factory=list)
    asked_again: int = 0
    requests: int = 0
    unanswered: int = 0
    over: int = 0
    unnamed: int = 0


@contextmanager
def serving():
    """A server in a process of its own; gives its address."""
    command = [sys.executable, "-m", "tests.teachers.server", "--delay", str(DELAY_SECONDS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def asked(url: str) -> list[str]:
    """Every question that the server was asked, in order."""
    return get(f"{url}/asked")


def get(url: str):
    with urllib.request.urlopen(url) as reply:
        return json.loads(reply.read())


def make(folder: Path, url: str) -> Path:
    """Write a task whose questions no other folder has; gives its run file."""
    folder.mkdir(parents=True)
    for name, count in SIZES.items():
        lines = ["text" if name == "pool" else "text,label"]
        for i in range(count):
            word = (GOOD if i % 2 else BAD)[i % 4]
            truth = "" if name == "pool" else ",good" if i % 2 else ",bad"
            lines.append(f"{word} {folder.name} {name} {i}{truth}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    file = folder / "run.toml"
    file.write_text(RUN.format(url=url, concurrency=CONCURRENCY, budget=10 * QUESTIONS))
    return file


def recorded(folder: Path) -> set[bytes]:
    """Questions whose answer is recorded."""
    if not (folder / "ledger.sqlite").exists():
        return set()
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        try:
            return {row[0] for row in connection.execute("SELECT question FROM answers")}
        except sqlite3.OperationalError:  # it was killed before there were tables
            return set()


def spent(folder: Path):
    """What the run has spent; None before it began."""
    if not (folder / "run/run.id").exists() or not (folder / "ledger.sqlite").exists():
        return None
    with SqliteLedger(folder / "ledger.sqlite") as ledger:
        return ledger.spent((folder / "run/run.id").read_text().strip())


def ids_of(texts: list[str]) -> set[bytes]:
    batch = pa.RecordBatch.from_pydict({"text": pa.array(texts, pa.large_string())})
    return {bytes(key) for key in question_ids(batch, ("text",))}


def attempt(file: Path, seconds: float | None, *, asks: Callable[[], bool]) -> bool:
    """Buy in a child that is killed some seconds after `asks` is true; gives whether it was."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            done = label(load_config(file))
            (file.parent / "said.txt").write_text(done.text())
            code = 0
        finally:
            os._exit(code)
    end = math.inf
    while time.monotonic() < end:
        if end == math.inf and seconds is not None and asks():
            end = time.monotonic() + seconds
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status != 0:
                raise SystemExit(f"an attempt failed by itself with status {status}")
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def buy_and_kill(file: Path, url: str, seen: Seen, wanted: int, rng: random.Random) -> None:
    """Attempts on one purchase until it ends well."""
    folder = file.parent
    killed, unknown = True, 0
    while killed:
        before, already = recorded(folder), len(asked(url))
        seconds, asks = rng.uniform(0.0, LIFE_SECONDS), lambda: True
        if rng.random() < ASKING_SHARE:  # while it asks, however long it takes to begin
            seconds = rng.uniform(0.0, ASKING_SECONDS)
            asks = lambda: get(f"{url}/count") > already  # noqa: B023, E731  # used at once
        killed = attempt(file, seconds if seen.kills < wanted else None, asks=asks)
        new = asked(url)[already:]
        seen.requests += len(new)
        seen.asked_again += len(before & ids_of(new)) if new else 0
        account = spent(folder)
        if killed:
            seen.kills += 1
            now = account.unknown if account else 0
            seen.unknown.append(now - unknown)
            seen.during += now > unknown
            unknown = now
    seen.runs += 1
    seen.unanswered += QUESTIONS - len(recorded(folder))
    texts = [text for text in asked(url) if f" {folder.name} " in text]
    # Each request was paid for or is held at its worst price; none is forgotten.
    seen.over += max(0, len(texts) - account.queries)
    named = f"{unknown:,} unknown" in (folder / "said.txt").read_text()
    seen.unnamed += bool(unknown) and not named


def main() -> None:
    """See the module's docstring."""
    root, wanted, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng, seen = random.Random(seed), Seen()
    with serving() as url:
        while seen.kills < wanted:
            buy_and_kill(make(root / f"task{seen.runs}", url), url, seen, wanted, rng)
    print(json.dumps(asdict(seen)))


if __name__ == "__main__":
    main()
