"""Run the seeds of a comparison: in this process one by one, or several at once in processes.

A seed is an ordinary run in a folder of its own, so whatever stops it, the next attempt goes on
from its last checkpoint. A seed that fails is told in one sentence and the others go on.
"""

import multiprocessing
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from limbeck.distill.compare_plan import SeedPlan
from limbeck.distill.folder import WARNING, Event, Listener, RunFolder
from limbeck.distill.pool_choice import read_selection, write_selection
from limbeck.distill.processes import (
    STOP_GRACE_SECONDS,
    alone_in,
    as_children_need_it,
    begin_child,
)
from limbeck.distill.run import distill
from limbeck.errors import LimbeckError, one_line
from limbeck.storage import write_text

_PULSE_SECONDS = 0.2
FAILURE = "failure.txt"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a seed has no result."""

    seed: int
    sentence: str
    exit_code: int


def run_seeds(
    plans: Sequence[SeedPlan], *, workers: int, threads: int, listener: Listener
) -> dict[int, Failure]:
    """Run seeds until each has finished or failed.

    Args:
        plans: What each has to do.
        workers: Processes at once; 1 works in this process.
        threads: Threads of each process.
        listener: Told of the events of each seed; `Event.stage` begins with "seed <number>".

    Returns:
        The seeds that failed.

    Raises:
        KeyboardInterrupt: the processes are stopped first, each at a point from which it can go on.
    """
    if workers == 1 or len(plans) < 2:
        found = (attempt(plan, _named(plan.config.seed, listener)) for plan in plans)
        return {failure.seed: failure for failure in found if failure is not None}
    crew = _Crew(plans, workers, threads, listener)
    return crew.work()


def attempt(plan: SeedPlan, listener: Listener) -> Failure | None:
    """Run one seed in this process; give what went wrong."""
    seed, folder = plan.config.seed, RunFolder(plan.config.out)
    (folder.root / FAILURE).unlink(missing_ok=True)
    try:
        with alone_in(folder.root):
            # Before anything is paid for; what was chosen once stays.
            if plan.pool_rows is not None and (
                not folder.claimed or read_selection(folder) is None
            ):
                write_selection(folder, plan.pool_rows, plan.share)
            # Other seeds may be at work: what a row takes would be their doing.
            distill(plan.config, listener, timed=False)
    except LimbeckError as error:
        return Failure(seed, str(error), error.exit_code)
    except Exception as error:
        write_text(folder.root / FAILURE, traceback.format_exc())
        return Failure(
            seed,
            f"{type(error).__name__}: {one_line(error)} (traceback in {folder.root / FAILURE}).",
            1,
        )
    return None


def _named(seed: int, listener: Listener) -> Listener:
    """A listener of one seed's events that says whose they are."""

    def tell(event: Event) -> None:
        listener(
            Event(
                f"seed {seed}: {event.stage}",
                event.message,
                event.done,
                event.total,
                event.detail,
                event.note,
            )
        )

    return tell


class _Crew:
    """Processes at work, one for each seed, at most `workers` at a time."""

    def __init__(
        self, plans: Sequence[SeedPlan], workers: int, threads: int, listener: Listener
    ) -> None:
        self._waiting = deque(plans)
        self._workers = workers
        self._threads = threads
        self._listener = listener
        self._running: dict[Connection, tuple[SeedPlan, BaseProcess]] = {}
        self._failed: dict[int, Failure] = {}
        self._done: set[int] = set()

    def work(self) -> dict[int, Failure]:
        """Run all; whatever happens, no process is left behind."""
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._workers:
                    self._start(self._waiting.popleft())
                for ready in wait(list(self._running)):
                    assert isinstance(ready, Connection)
                    self._hear(ready)
        finally:
            self._stop()
        return self._failed

    def _start(self, plan: SeedPlan) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(plan, self._threads, theirs), name=f"seed-{plan.config.seed}"
        )
        with as_children_need_it(self._threads):
            process.start()
        theirs.close()
        self._running[ours] = (plan, process)

    def _hear(self, connection: Connection) -> None:
        plan, process = self._running[connection]
        seed = plan.config.seed
        try:
            message = connection.recv()
        except (EOFError, OSError):
            process.join()
            del self._running[connection]
            connection.close()
            if seed not in self._done and seed not in self._failed:
                self._failed[seed] = _died(seed, process.exitcode or 0)
            return
        if isinstance(message, Event):
            _named(seed, self._listener)(message)
        elif isinstance(message, Failure):
            self._failed[seed] = message
        else:
            self._done.add(seed)

    def _stop(self) -> None:
        for _, process in self._running.values():
            process.terminate()  # which `_work` takes for Ctrl-C
        end = time.monotonic() + STOP_GRACE_SECONDS
        for connection, (_, process) in self._running.items():
            connection.close()
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._running.clear()


def _died(seed: int, code: int) -> Failure:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return Failure(
        seed,
        f"the process of seed {seed} {how} without a word; if memory was short, use fewer workers. "
        f"The same command goes on where it stopped.",
        1,
    )


def _work(plan: SeedPlan, threads: int, connection: Connection) -> None:
    """The life of a child."""
    begin_child(threads)
    try:
        failure = attempt(plan, _throttled(connection))
        connection.send("done" if failure is None else failure)
    except (KeyboardInterrupt, BrokenPipeError):
        # The run has unwound: what was in flight is recorded or given back.
        raise SystemExit(130) from None


def _throttled(connection: Connection) -> Listener:
    """Send lines at once, and progress a few times a second."""
    last: dict[str, float] = {}

    def tell(event: Event) -> None:
        now = time.monotonic()
        if event.total and event.done < event.total:
            if now - last.get(event.stage, -1.0) < _PULSE_SECONDS:
                return
            last[event.stage] = now
        if event.total or event.stage in {"answers", WARNING, "done"}:
            connection.send(event)

    return tell
