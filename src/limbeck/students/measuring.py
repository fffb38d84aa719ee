"""Measuring many small things fairly on a machine that does other work too.

Four kinds of noise, four remedies. Other work that takes the core for a while: time is what the
calling thread has computed, where it computes alone. On an idle machine that is the time that
passes; on a busy one, calls longer than the scheduler's slice would else be interrupted, and others
not. What still interrupts a call: the median of a burst. A machine that is slow for a while: all is
measured once a round, in a new order, and what a round is slower than the others is taken off (a
median polish of the logarithms). Where weights lie in memory, which decides what stays in the
caches (9 and 14 ms were seen for one block): each round builds everything anew, and the middle half
of the rounds is averaged, since the median of two levels would be one of them.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import thread_time

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.errors import ConfigError
from limbeck.students.block_modules import Runnable

Run = Callable[[], object]
"""One call."""
Build = Callable[[], Run]
"""Builds anew what is called."""
Meter = Callable[[Run], float]
"""Cost of one call, > 0: milliseconds, joules."""
Clock = Callable[[], float]

CALLS, WARM_UP = 5, 2
_SWEEPS = 10


def milliseconds(run: Run, clock: Clock = thread_time) -> float:
    """Median of 5 calls after 2 that are not counted.

    Args:
        run: What is called.
        clock: Seconds. Default: those that this thread has computed; where several compute, give
            `time.perf_counter`.
    """
    for _ in range(WARM_UP):
        run()
    times = np.empty(CALLS)
    for i in range(CALLS):
        start = clock()
        run()
        times[i] = clock() - start
    return float(np.median(times) * 1e3)


def measure_round(
    builds: Mapping[str, Build], meter: Meter, seed: int
) -> Iterator[tuple[str, float]]:
    """Measure each once, in an order that is drawn from the seed; one is built at a time."""
    names = list(builds)
    random.Random(seed).shuffle(names)
    for name in names:
        yield name, meter(builds[name]())


def typical(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One value each, from rounds that all have the same names and values > 0."""
    names = list(rounds[0])
    logs = np.log([[one[name] for name in names] for one in rounds])
    level = np.zeros(len(rounds))
    for _ in range(_SWEEPS):
        level = np.median(logs - np.median(logs - level[:, None], axis=0), axis=1)
        level -= np.median(level)
    values = np.exp(_middle(logs - level[:, None]))
    return dict(zip(names, values.tolist(), strict=True))


def repeatability(
    rounds: Sequence[Mapping[str, float]], names: Sequence[str]
) -> NDArray[np.float64]:
    """How far apart every other round and the rest are, relative, for each name.

    Both halves build and measure by themselves, so this is what the same thing differs by when it
    is measured twice with half of the rounds.
    """
    if len(rounds) == 1:
        raise ConfigError("rounds=1: noise shows between two rounds at least.")
    first, second = typical(rounds[::2]), typical(rounds[1::2])
    return np.array([abs(first[name] / second[name] - 1) for name in names])


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads, without gradients, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def torch_run(made: Runnable) -> Run:
    """Calls of a module with PyTorch; its weights are drawn and laid out as they are."""
    module, example = made
    return lambda: module(example)


def _middle(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the middle half of each column; of all where there are fewer than four rows."""
    cut = len(values) // 4
    return np.asarray(np.sort(values, axis=0)[cut : len(values) - cut].mean(axis=0))
