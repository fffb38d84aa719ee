"""A function over many items in worker processes: ordered, bounded, nothing left behind.

Workers are fresh interpreters that speak through pipes. They are not forked, since threads may run
here; and they do not import the user's main script again, as those of `multiprocessing` do, so a
script needs no guard. What goes through the pipes is pickled by this process and its own workers;
no pickle is ever read from a file.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import cycle, islice
from typing import IO, Any, TypeVar

from limbeck.errors import LimbeckError

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8
ALONE_SECONDS = 1.0
"""Work that this process does alone, before it is worth starting others: decoding about 30,000
images of 28 x 28 pixels, or 120 photographs of 2 megapixels."""
_BOOT = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from limbeck.data.workers import serve; serve()"
)


def worker_count() -> int:
    """Workers that this machine has cores for, at most `MOST_WORKERS`; 0 where it has one core."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return 0 if cores == 1 else min(cores, MOST_WORKERS)


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[Result]:
    """Apply a function to items, results in the order of the items.

    Args:
        function: Of an importable module; it is sent by name.
        items: Taken when a worker is free, so at most `workers` of them are under way.
        workers: Processes; 0 computes here.

    Yields:
        One result an item.

    Raises:
        LimbeckError: a worker was killed. What the function raises is raised here.

    Cost: a few tenths of a second to start; each item and result is pickled once.
    """
    if workers == 0 or not sys.executable:
        yield from map(function, items)
        return
    rest = iter(items)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        # A worker holds one item at a time: it reads the next only after its answer is read, so
        # neither side can wait for a full pipe.
        for item in islice(rest, workers):
            processes.append(_start())
            _send(processes[-1], (function, item))
        waiting = len(processes)
        for process in cycle(processes):
            if not waiting:
                break
            result = _receive(process)
            waiting -= 1
            for item in islice(rest, 1):
                _send(process, (function, item))
                waiting += 1
            yield result
    finally:
        _end(processes)


def map_with_help(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The same, in this process for a second and then in as many workers as there are cores.

    Args:
        function, items: As for `ordered_map`.

    Yields:
        One result an item, in the order of the items.

    Raises:
        LimbeckError: a worker was killed. What the function raises is raised here.
    """
    rest = iter(items)
    busy = 0.0
    for item in rest:
        begin = time.perf_counter()
        result = function(item)
        busy += time.perf_counter() - begin
        yield result
        if busy > ALONE_SECONDS:
            break
    yield from ordered_map(function, rest, workers=worker_count())


def serve() -> None:
    """Answer requests until the pipe is closed: what a worker process runs."""
    # An interrupt reaches the whole group of processes; the parent is the one that handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = sys.stdin.buffer
    # What the function prints must not get between the answers.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            function, item = pickle.load(requests)
        except EOFError:
            return
        try:
            reply: tuple[bool, Any] = (True, function(item))
        except Exception as error:
            reply = (False, error)
        _dump(replies, reply)


def _dump(replies: IO[bytes], reply: tuple[bool, Any]) -> None:
    try:
        data = pickle.dumps(reply)
    except Exception as error:
        kept = reply[1] if isinstance(reply[1], Exception) else error
        data = pickle.dumps((False, LimbeckError(f"{type(kept).__name__}: {kept}")))
    try:
        replies.write(data)
        replies.flush()
    except BrokenPipeError:
        os._exit(0)  # nobody waits for the answer any more


def _start() -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", _BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    _send(process, sys.path)
    return process


def _send(process: "subprocess.Popen[bytes]", message: object) -> None:
    assert process.stdin is not None
    try:
        pickle.dump(message, process.stdin)
        process.stdin.flush()
    except BrokenPipeError:
        raise _dead(process) from None


def _receive(process: "subprocess.Popen[bytes]") -> Any:
    assert process.stdout is not None
    try:
        fine, value = pickle.load(process.stdout)
    except (EOFError, pickle.UnpicklingError):
        raise _dead(process) from None
    if not fine:
        raise value
    return value


def _dead(process: "subprocess.Popen[bytes]") -> LimbeckError:
    return LimbeckError(
        f"a worker process ended before its work was done (exit status {process.wait()}), which "
        f"often means that memory ran out; free some and run the same command again."
    )


def _end(processes: list["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # what was still to be sent has no reader
                pipe.close()
        process.wait()
