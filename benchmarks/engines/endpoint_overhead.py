"""Claim: buying an answer from a server adds less than 1 ms to the bare client.

Run: `PYTHONPATH=src:. python -m benchmarks.engines.endpoint_overhead`. A chat server without any
latency, in a process of its own. The bare client is `AsyncOpenAI` with 64 workers that send the
same requests and keep nothing; the purchase sends them through limits, a ledger on the disk and the
parser, 64 in flight. The purchase sends with the client's plain `post`, which is much cheaper than
its `chat.completions.create`, so that would hide what the rest costs: a third way is workers that
post as the purchase does. All take turns. They share their cores with the server, so CPU seconds of
the client's process stand beside wall-clock seconds.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from benchmarks import _common

from limbeck.data.dataset import Dataset
from limbeck.data.schema import Schema
from limbeck.engines import purchase
from limbeck.ledger import Budget, SqliteLedger
from limbeck.teachers.endpoint import EndpointTeacher
from limbeck.teachers.endpoint_config import EndpointConfig

ANSWERS = 2000
CONCURRENCY = 64
TURNS = 9
SCHEMA = Schema(("text",), (), (), None, ("bad", "good"))


def main() -> None:
    """Take turns, and write the result file."""
    options = _common.arguments(__doc__, minutes=15).parse_args()
    clock = _common.Clock(options.minutes)
    results = _common.results("endpoint_overhead", fresh=options.fresh)
    with serving() as url:
        teacher = EndpointTeacher(
            EndpointConfig(
                base_url=url, model="words", concurrency=CONCURRENCY, price_in=1, price_out=1
            ),
            SCHEMA,
        )
        turn(teacher, url, -1, 200)  # imports and the first connections
        for number in range(TURNS):
            if not results.done(number) and not clock.spent:
                results.add(number, turn(teacher, url, number, ANSWERS))
                print(json.dumps(list(results.rows())[-1]), flush=True)
    rows = list(results.rows())
    numbers = {
        "median": {name: statistics.median(float(row[name]) for row in rows) for name in rows[0]},  # type: ignore[arg-type]  # all are numbers
        "rows": rows,
    }
    results.write(
        claim="an answer bought from a server: less than 1 ms beyond the bare AsyncOpenAI client",
        config={"answers_a_turn": ANSWERS, "concurrency": CONCURRENCY, "turns": TURNS},
        seeds=list(range(TURNS)),
        numbers=numbers,
    )
    print(json.dumps(numbers["median"], indent=1))


def turn(teacher: EndpointTeacher, url: str, number: int, count: int) -> _common.Row:
    """All ways, one after the other; which one is first changes."""
    texts = [f"a fine film, seat {number} {i}" for i in range(count)]
    ways = {
        "bought": lambda: bought(teacher, texts),
        "bare": lambda: bare(teacher, url, texts),
        "posted": lambda: bare(teacher, url, texts, plain=True),
    }
    names, first = list(ways), number % len(ways)
    row: _common.Row = {}
    for name in names[first:] + names[:first]:
        wall, cpu = timed(ways[name])
        row[f"{name}_ms"] = 1000 * wall / count
        row[f"{name}_cpu_ms"] = 1000 * cpu / count
    for added, peer in (("added", "bare"), ("added_to_post", "posted")):
        for unit in ("ms", "cpu_ms"):
            row[f"{added}_{unit}"] = float(row[f"bought_{unit}"]) - float(row[f"{peer}_{unit}"])  # type: ignore[arg-type]  # numbers
    return row


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the clock and of this process's CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def bare(teacher: EndpointTeacher, url: str, texts: list[str], *, plain: bool = False) -> None:
    """The client alone, with workers that take the next request as soon as they are free.

    It makes objects of requests and replies, or with `plain` sends and reads JSON alone.
    """
    from openai import AsyncOpenAI

    async def run() -> None:
        bodies = iter([teacher.next_request(b"", {"text": text}, ()) for text in texts])
        async with AsyncOpenAI(api_key="none", base_url=url, max_retries=0) as client:

            async def work() -> None:
                for body in bodies:
                    if plain:
                        raw = await client.post("/chat/completions", cast_to=bytes, body=body)
                        assert json.loads(raw)["choices"]
                        continue
                    reply = await client.chat.completions.create(**body)  # type: ignore[call-overload]  # a body made elsewhere
                    assert reply.choices

            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))

    asyncio.run(run())


def bought(teacher: EndpointTeacher, texts: list[str]) -> None:
    """A purchase, every answer on the disk when it ends."""
    data = Dataset.from_table({"text": texts}, SCHEMA)
    with tempfile.TemporaryDirectory() as folder, SqliteLedger(Path(folder) / "l.sqlite") as ledger:
        rows = np.arange(len(texts))
        report = purchase(teacher, ledger, data, rows, run="run", budget=Budget(len(texts)))
        assert report.bought == len(texts)


@contextmanager
def serving() -> Iterator[str]:
    """A server in a process of its own; gives its address."""
    command = [sys.executable, "-m", "tests.teachers.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


if __name__ == "__main__":
    main()
