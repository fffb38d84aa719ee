"""Asking a local teacher on a Ray cluster: copies of it in actors, a batch at a time.

The batches are those of the local engine, and this process alone writes to the ledger. Two batches
for each actor are under way at most: one that it works on and one that waits, so that neither does
an actor idle nor do rows or replies pile up. An actor that dies takes at most these two with it;
they were not recorded, so they are asked again, each as the same batch.
"""

import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.engines.cluster import Threads, join_cluster, require_ray
from limbeck.engines.config import RayConfig
from limbeck.errors import (
    ConfigError,
    LimbeckError,
    TeacherError,
    WorkerLostError,
    one_line,
)
from limbeck.teachers.base import Replies, Teacher
from limbeck.teachers.wrappers import Wrapped

START_SECONDS = 300.0
"""How long the first actor may take to be ready, and all of them together to come back."""
PLACES = 2
"""Batches of an actor: one in work, one waiting."""
MOST_DEATHS = 3
"""Deaths on one batch after which the batch is to blame."""
_LOOK_SECONDS = 0.2

Build = Callable[[], Teacher]


class RayTeacher(Wrapped):
    """A teacher whose questions are answered by copies of it on a cluster.

    Ray is started, or joined, when the first question is put, and not before.

    Args:
        teacher: What the copies are copies of; its prices and its parser are used here.
        build: Makes a copy. It is sent to the actors, so it must be picklable (a partial of a
            module's function, say), and what it reads must lie at the same paths everywhere.
        config: The cluster.
        code: Folder in which Python modules are looked for first.

    Guarantee: for a teacher whose answers depend on the batch alone, they are those of the local
    engine bit for bit on machines of one type, since an actor computes with as many threads as this
    process.

    Raises:
        ConfigError: the teacher does not compute here (it is asked over a network).
        MissingExtraError: Ray is not installed.
    """

    def __init__(
        self, teacher: Teacher, build: Build, config: RayConfig, *, code: Path | None = None
    ) -> None:
        if hasattr(teacher, "connect"):
            raise ConfigError(
                'engine = "ray" runs copies of a teacher that computes, but this one is asked over '
                'a network, many questions at a time from here; use engine = "local".'
            )
        super().__init__(teacher)
        self._ray = require_ray()
        self._build = build
        self._code = code
        self._config = config
        self._crew: _Crew | None = None
        self._own = False
        self._deaths: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the actors, and Ray where this object has started it; closing twice is fine."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None
        if self._own:
            self._ray.shutdown()
            self._own = False

    @property
    def max_in_flight(self) -> int:
        """Two batches for each actor."""
        return PLACES * self._workers().size

    def ask(self, ids: NDArray[np.uint8], rows: pa.RecordBatch) -> Replies:
        """Let an actor answer; several threads may call this at once.

        Raises:
            WorkerLostError: the actor died; the batch may be put again.
            TeacherError, AnswerError: what the teacher raised, or the same batch has killed three
                actors, or no actor is left.
        """
        crew = self._workers()
        worker = crew.take()
        errors = self._ray.exceptions
        try:
            said = self._ray.get(worker.ask.remote(ids, rows.select(list(self.columns))))
        except errors.RayTaskError as error:
            crew.give_back(worker)
            raise TeacherError(
                f"a Ray actor failed on {rows.num_rows} rows: {one_line(error)}"
            ) from error
        except errors.RayError as error:
            crew.bury(worker)
            raise self._lost(ids, error) from error
        crew.give_back(worker)
        if isinstance(said, LimbeckError):
            raise said
        assert isinstance(said, Replies)
        return said

    def _workers(self) -> "_Crew":
        with self._lock:
            if self._crew is None:
                self._crew = self._start()
            return self._crew

    def _start(self) -> "_Crew":
        ray, config = self._ray, self._config
        self._own = join_cluster(ray, config) or self._own
        threads = Threads.here()
        return _Crew(
            ray,
            lambda: self._hire(threads),
            config.actors or _room(ray.cluster_resources(), threads.torch, config.gpus),
            self.fingerprint,
        )

    def _hire(self, threads: "Threads") -> Any:
        """A new actor; it waits where the cluster has no room yet."""
        actor = self._ray.remote(_Copy).options(
            num_cpus=threads.torch, num_gpus=self._config.gpus or None, max_restarts=0
        )
        return actor.remote(self._build, self._code, threads)

    def _lost(self, ids: NDArray[np.uint8], error: Exception) -> LimbeckError:
        key = bytes(ids[0]) if len(ids) else b""
        self._deaths[key] += 1
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if self._deaths[key] >= MOST_DEATHS:
            return TeacherError(
                f"{MOST_DEATHS} Ray actors have died on the same batch of {len(ids)} rows ({why}); "
                f"look for what kills them, such as too little memory, and run the same command "
                f"again."
            )
        return WorkerLostError(f"a Ray actor died while it answered {len(ids)} rows ({why}).")


def _room(resources: dict[str, float], threads: int, gpus: float) -> int:
    """Actors that a cluster has room for, at least one."""
    fit = resources.get("CPU", 0.0) / threads
    if gpus:
        fit = min(fit, resources.get("GPU", 0.0) / gpus)
    return max(1, int(fit))


class _Copy:
    """What lives in an actor. Errors of ours are given back as values, so that they stay whole."""

    def __init__(self, build: Build, code: Path | None, threads: Threads) -> None:
        self._build = build
        self._code = code
        self._threads = threads
        self._teacher: Teacher | None = None

    def prepare(self) -> str | LimbeckError:
        """Make the copy; give its fingerprint."""
        self._threads.apply()
        if self._code is not None:
            sys.path.insert(0, str(self._code.resolve()))
        try:
            self._teacher = self._build()
        except LimbeckError as error:
            return error
        self._threads.apply()  # to what it has loaded
        return self._teacher.fingerprint

    def ask(self, ids: NDArray[np.uint8], rows: pa.RecordBatch) -> Replies | LimbeckError:
        """Answer a batch."""
        assert self._teacher is not None
        try:
            return self._teacher.ask(ids, rows)
        except LimbeckError as error:
            return error


class _Crew:
    """Actors, of which only those that are ready are given work.

    Args:
        ray: The module.
        hire: Makes an actor.
        size: How many there should be.
        fingerprint: What each must say that it is.
    """

    def __init__(
        self, ray: ModuleType, hire: Callable[[], Any], size: int, fingerprint: str
    ) -> None:
        self.size = size
        self._ray = ray
        self._hire = hire
        self._fingerprint = fingerprint
        self._places: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._actors: dict[Any, Any] = {}
        """Handle by the reference of its preparation; none of those that have died."""
        self._unfit: LimbeckError | None = None
        self._closed = False
        self._stillborn = 0
        self._lock = threading.Lock()
        for _ in range(size):
            self._add()

    def take(self) -> Any:
        """A place with an actor that is ready; waits for one.

        Raises:
            TeacherError: none is ready for five minutes, or a copy cannot be made.
        """
        end = time.monotonic() + START_SECONDS
        while True:
            if self._unfit is not None:
                raise self._unfit
            if self._closed:
                raise TeacherError("the Ray actors have been stopped.")
            try:
                worker = self._places.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if time.monotonic() > end:
                    raise self._nobody() from None
                continue
            with self._lock:
                if worker in self._actors.values():  # else its other place is still in the queue
                    return worker

    def give_back(self, worker: Any) -> None:
        """The batch is done."""
        self._places.put(worker)

    def bury(self, worker: Any) -> None:
        """The actor has died: hire another one, once for both of its batches."""
        with self._lock:
            reference = next((key for key, one in self._actors.items() if one == worker), None)
            if reference is None or self._closed:
                return
            del self._actors[reference]
        self._add()

    def close(self) -> None:
        """End all actors."""
        self._closed = True
        with self._lock:
            actors, self._actors = list(self._actors.values()), {}
        for actor in actors:
            self._ray.kill(actor)

    def _add(self) -> None:
        actor = self._hire()
        reference = actor.prepare.remote()
        with self._lock:
            self._actors[reference] = actor
        thread = threading.Thread(
            target=self._welcome, args=(actor, reference), name="limbeck-ray", daemon=True
        )
        thread.start()

    def _welcome(self, actor: Any, reference: Any) -> None:
        """Wait until an actor is ready, and give it places."""
        try:
            said = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            self._unfit = TeacherError(f"a Ray actor could not make its teacher: {one_line(error)}")
            return
        except Exception as error:
            if not self._closed:
                self._stillborn += 1
                if self._stillborn >= MOST_DEATHS * self.size:
                    self._unfit = TeacherError(
                        f"{self._stillborn} Ray actors have died before they were ready "
                        f"({one_line(error)}); "
                        f"look for what kills them, such as too little memory."
                    )
                self.bury(actor)
            return
        if isinstance(said, LimbeckError):
            self._unfit = said
        elif said != self._fingerprint:
            self._unfit = TeacherError(
                f"a Ray actor made a teacher with fingerprint {str(said)[:16]} but it is "
                f"{self._fingerprint[:16]} here: its files or code differ on that node; give every "
                f"node the same files at the same paths."
            )
        else:
            for _ in range(PLACES):
                self._places.put(actor)

    def _nobody(self) -> TeacherError:
        there = self._ray.cluster_resources()
        shown = ", ".join(f"{there.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
        return TeacherError(
            f"no Ray actor has become ready in {START_SECONDS:.0f} s: {self.size} were asked for "
            f"and the cluster has {shown}; add nodes, or lower ray.actors, ray.gpus or the number "
            f"of threads (OMP_NUM_THREADS)."
        )
