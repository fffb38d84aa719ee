"""What the benchmarks of a training step share: turns in a random order, and medians over seeds."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


def timed(
    turns: Mapping[str, Callable[[], float]], rounds: int, run: int, seed: int
) -> dict[str, list[float]]:
    """Seconds of a step, one a round, of ways that take turns.

    Args:
        turns: Each takes a step and says how long it took, in seconds.
        rounds: Rounds that count; the one before them allocates.
        run: Steps of a turn that count; the median stands for it.
        seed: Of the order of the turns.
    """
    times: dict[str, list[float]] = {name: [] for name in turns}
    order = np.random.default_rng(seed)
    for turn in range(1 + rounds):
        for name in order.permutation(list(turns)):
            # In training one loss follows itself; the first step after another finds cold caches.
            spent = [turns[name]() for _ in range(1 + run)]
            if turn:
                times[name].append(statistics.median(spent[1:]))
    return times


def summarise(
    rows: Sequence[dict[str, Any]], sizes: Sequence[tuple[int, int]], kinds: Sequence[str]
) -> list[dict[str, Any]]:
    """Medians over seeds for each size, in microseconds and in percent of the step.

    Args:
        rows: With length, classes, step_ms, and for each kind a dict of microseconds.
        sizes: Length and classes of the lines.
        kinds: Keys of the dicts, with "_us" in their names.
    """
    out = []
    for size in sizes:
        mine = [row for row in rows if (row["length"], row["classes"]) == size]
        if not mine:
            continue
        entry: dict[str, Any] = {"length": size[0], "classes": size[1], "seeds": len(mine)}
        entry["step_ms"] = statistics.median(row["step_ms"] for row in mine)
        for kind in kinds:
            entry[kind] = {
                name: statistics.median(row[kind][name] for row in mine) for name in mine[0][kind]
            }
            entry[kind.replace("_us", "_percent")] = {
                name: value / 10 / entry["step_ms"] for name, value in entry[kind].items()
            }
        out.append(entry)
    return out
