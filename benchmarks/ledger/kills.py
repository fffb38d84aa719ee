"""Claim: a purchase that is killed 200 times asks for nothing recorded again and loses no count.

Run: `PYTHONPATH=src:. python -m benchmarks.ledger.kills`. A real purchase of 400 answers from a
chat server in a process of its own, which counts every request; eight questions in flight. SIGKILL
comes at a random moment: of the whole attempt for one in five, of its asking for the others. After
each kill the purchase goes on in a new process. Recorded answers that are asked for again, and
questions unknown after a kill, are counted from the server's own list.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import _common

SEEDS = (1, 2, 3, 4, 5)
KILLS = 40
IN_FLIGHT = 8


def main() -> None:
    """Kill 40 times for each seed and write the result file."""
    options = _common.arguments(__doc__, minutes=30).parse_args()
    clock = _common.Clock(options.minutes)
    results = _common.results("kills", fresh=options.fresh)
    for seed in SEEDS:
        if not results.done(seed) and not clock.spent:
            results.add(seed, measure(seed))
    rows = list(results.rows())
    numbers = {
        **{
            name: sum(int(row[name]) for row in rows)  # type: ignore[call-overload]  # all are counts
            for name in ("kills", "kills_while_asking", "purchases", "requests", "unknown",
                         "recorded_and_asked_again", "unanswered_in_the_end", "uncounted",
                         "unknown_not_named")
        },
        "most_unknown_after_a_kill": max(int(row["most_unknown_after_a_kill"]) for row in rows),  # type: ignore[call-overload]  # a count
        "rows": rows,
    }  # fmt: skip
    claim = (
        "200 kills of a purchase from a server: nothing recorded is asked for again, and at most "
        "the questions in flight are unknown"
    )
    config: _common.Row = {"kills_a_seed": KILLS, "in_flight": IN_FLIGHT, "answers_a_purchase": 400}
    results.write(claim=claim, config=config, seeds=SEEDS, numbers=numbers)
    print(json.dumps({name: value for name, value in numbers.items() if name != "rows"}, indent=1))


def measure(seed: int) -> _common.Row:
    """Forty kills."""
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.distill.endpoint_kills", folder, str(KILLS), str(seed)],
            cwd=root,
            env=os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
            capture_output=True,
            text=True,
            check=True,
        )
    seen = json.loads(done.stdout.splitlines()[-1])
    return {
        "seed": seed,
        "kills": seen["kills"],
        "kills_while_asking": seen["during"],
        "purchases": seen["runs"],
        "requests": seen["requests"],
        "unknown": sum(seen["unknown"]),
        "most_unknown_after_a_kill": max(seen["unknown"]),
        "recorded_and_asked_again": seen["asked_again"],
        "unanswered_in_the_end": seen["unanswered"],
        "uncounted": seen["over"],
        "unknown_not_named": seen["unnamed"],
    }


if __name__ == "__main__":
    main()
