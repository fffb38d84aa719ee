"""Processes of our own: one at a time in a folder, children that end with their parent."""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

from limbeck.errors import StorageError

STOP_GRACE_SECONDS = 15.0
"""How long processes may take to write down what is in flight when they are stopped."""
_LOCK_SECONDS = 20.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run folder.

    Raises:
        StorageError: another process works in it, and has not ended after some seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        end = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise StorageError(
                        f"another process is working in {folder}; wait until it is done, or stop "
                        f"it, then run the same command again."
                    ) from None
                time.sleep(0.1)
        yield


@contextlib.contextmanager
def as_children_need_it(threads: int) -> Iterator[None]:
    """Set what a child reads when it starts, before torch is there.

    The number of threads; and that Ctrl-C, which a terminal sends to all processes, is the
    parent's to answer.
    """
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    here = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def begin_child(threads: int) -> None:
    """What a child does first: compute with so many threads, unwind on SIGTERM as on Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; let it unwind
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """A child without its parent would go on unseen, beside the next attempt."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_GRACE_SECONDS)
    os._exit(1)
