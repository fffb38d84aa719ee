"""Who trains the trials: this process, processes of this machine, or actors of a Ray cluster.

This process alone asks and tells; workers open the run folder, train what they are given, and give
back a result. So the folder must lie at the same path on every node of a cluster.
"""

import multiprocessing
import queue
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from limbeck.distill.processes import STOP_GRACE_SECONDS, as_children_need_it, begin_child
from limbeck.distill.search.study import Asked
from limbeck.distill.search.trials import TrialResult
from limbeck.distill.search.worker import Shared, Worker
from limbeck.engines.cluster import Threads, join_cluster, require_ray
from limbeck.errors import LimbeckError, one_line


class Place(Protocol):
    """Where one trial at a time is trained."""

    def evaluate(self, asked: Asked) -> TrialResult: ...

    def close(self) -> None: ...


class Team:
    """Several places, a trial each.

    Args:
        places: Where trials are trained.
    """

    def __init__(self, places: list[Place]) -> None:
        self.size = len(places)
        self._places = places
        self._free: queue.SimpleQueue[Place] = queue.SimpleQueue()
        for place in places:
            self._free.put(place)
        self._threads = ThreadPoolExecutor(len(places), thread_name_prefix="limbeck-trial")

    def submit(self, asked: Asked) -> "Future[TrialResult]":
        """Begin a trial."""
        return self._threads.submit(self._evaluate, asked)

    def _evaluate(self, asked: Asked) -> TrialResult:
        place = self._free.get()
        try:
            return place.evaluate(asked)
        finally:
            self._free.put(place)

    def close(self) -> None:
        """End what was begun."""
        for place in self._places:
            place.close()
        self._threads.shutdown(wait=True, cancel_futures=True)


class Alone:
    """This process, one trial after the other."""

    size = 1

    def __init__(self, worker: Place) -> None:
        self._worker = worker

    def submit(self, asked: Asked) -> "Future[TrialResult]":
        """Train a trial now."""
        done: Future[TrialResult] = Future()
        try:
            done.set_result(self._worker.evaluate(asked))
        except LimbeckError as error:
            done.set_exception(error)
        return done

    def close(self) -> None:
        """End what was begun."""
        self._worker.close()


def processes(shared: Shared, count: int, threads: int) -> Team:
    """Processes of this machine."""
    return Team([_Process(shared, threads, i) for i in range(count)])


def actors(shared: Shared, count: int) -> Team:
    """Actors of the cluster of `ray.address`.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: no cluster can be used.
    """
    ray = require_ray()
    own = join_cluster(ray, shared.config.ray)
    threads, code = Threads.here(), Path(shared.config.code)
    ref = ray.put(shared)
    made = ray.remote(_Actor).options(
        num_cpus=threads.torch, num_gpus=shared.config.ray.gpus or None, max_restarts=0
    )
    return _Cluster(
        [_RayPlace(ray, made.remote(ref, code, threads)) for _ in range(count)], ray, own
    )


class _Process:
    """A child of this process, which is started with its first trial."""

    def __init__(self, shared: Shared, threads: int, number: int) -> None:
        self._shared = shared
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(shared, threads, theirs), name=f"trials-{number}"
        )
        with as_children_need_it(threads):
            self._process.start()
        theirs.close()

    def evaluate(self, asked: Asked) -> TrialResult:
        try:
            self._connection.send(asked)
            said = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(1.0)
            raise WorkerDiedError(
                f"a process that trained trial {asked.number} ended with code "
                f"{self._process.exitcode} and without a word; if memory was short, use fewer "
                f"search.workers. The same command goes on where it stopped."
            ) from error
        if isinstance(said, BaseException):
            raise said
        assert isinstance(said, TrialResult)
        return said

    def close(self) -> None:
        self._process.terminate()  # which the child takes for Ctrl-C
        self._process.join(STOP_GRACE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()


class WorkerDiedError(LimbeckError):
    """A worker has died or could not begin: no fault of the student that it was to train."""


def _serve(shared: Shared, threads: int, connection: Connection) -> None:
    """The life of a child."""
    begin_child(threads)
    try:
        try:
            worker = Worker(shared)
        except LimbeckError as error:
            connection.recv()
            connection.send(WorkerDiedError(str(error)))
            return
        while True:
            asked = connection.recv()
            connection.send(_said(worker, asked))
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        raise SystemExit(130) from None


def _said(worker: Worker, asked: Asked) -> TrialResult | LimbeckError:
    try:
        return worker.evaluate(asked)
    except LimbeckError as error:
        return error
    except Exception as error:
        return WorkerDiedError(f"trial {asked.number}: {type(error).__name__}: {one_line(error)}.")


class _Actor:
    """What lives in a Ray actor. Errors of ours are given back as values, so they stay whole."""

    def __init__(self, shared: Shared, code: Path, threads: Threads) -> None:
        threads.apply()
        self._made: Worker | LimbeckError
        try:
            self._made = Worker(shared)
        except LimbeckError as error:
            self._made = WorkerDiedError(str(error))
        threads.apply()

    def evaluate(self, asked: Asked) -> TrialResult | LimbeckError:
        return self._made if isinstance(self._made, LimbeckError) else _said(self._made, asked)


class _RayPlace:
    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def evaluate(self, asked: Asked) -> TrialResult:
        try:
            said = self._ray.get(self._actor.evaluate.remote(asked))
        except self._ray.exceptions.RayError as error:
            raise WorkerDiedError(
                f"the Ray actor that trained trial {asked.number} has died ({one_line(error)}); "
                f"the same command goes on where it stopped."
            ) from error
        if isinstance(said, LimbeckError):
            raise said
        assert isinstance(said, TrialResult)
        return said

    def close(self) -> None:
        self._ray.kill(self._actor)


class _Cluster(Team):
    """Actors, and the cluster where this process has started it."""

    def __init__(self, places: list[Place], ray: Any, own: bool) -> None:
        super().__init__(places)
        self._ray, self._own = ray, own

    def close(self) -> None:
        """End the actors, and the cluster if it is ours."""
        super().close()
        if self._own:
            self._ray.shutdown()
