"""The map over worker processes: the results of `map`, in order, and nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from limbeck.data.workers import ordered_map
from limbeck.errors import DataError, LimbeckError

from . import work


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_results_are_those_of_map_in_order(workers, count):
    assert list(ordered_map(work.double, range(count), workers=workers)) == [
        2 * i for i in range(count)
    ]


def test_a_slow_item_keeps_its_place():
    assert list(ordered_map(work.slow_first, range(5), workers=2)) == list(range(5))


def test_the_work_is_done_by_other_processes_which_end_with_it():
    pids = set(ordered_map(work.process, range(6), workers=2))
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert not any(map(alive, pids))


def test_items_and_results_larger_than_a_pipe_pass_through():
    items = [bytes([i]) * 3_000_000 for i in range(4)]
    assert list(ordered_map(work.length, items, workers=2)) == [item * 2 for item in items]


def test_items_are_taken_only_when_a_worker_is_free():
    taken = []
    results = ordered_map(work.double, (taken.append(i) or i for i in range(100)), workers=2)
    next(results)
    assert len(taken) <= 4
    results.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_function_is_raised_here_after_the_results_before_it(workers):
    results = ordered_map(work.fail_at_three, range(9), workers=workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"three is refused\."):
        next(results)


def test_an_error_that_cannot_be_sent_is_told_in_words():
    with pytest.raises(LimbeckError, match="Odd: cannot be sent"):
        list(ordered_map(work.odd, [1], workers=1))


def test_a_killed_worker_is_one_sentence():
    with pytest.raises(LimbeckError, match=r"ended before its work was done.*memory ran out"):
        list(ordered_map(work.die, range(3), workers=2))


def test_leaving_early_ends_the_workers():
    results = ordered_map(work.process, range(100), workers=2)
    pids = {next(results), next(results)}
    results.close()
    assert not any(map(alive, pids))


SCRIPT = """
import os, sys
from limbeck.data.workers import ordered_map
from tests.data import work
print("started", flush=True)  # without a guard: a worker that ran this again would say so
results = ordered_map(work.{function}, range(9), workers=2)
print(next(results), flush=True)
import time; time.sleep(60) if sys.argv[1] == "hold" else None
"""


def script(tmp_path, function, how):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(function=function))
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    return subprocess.Popen([sys.executable, str(path), how], stdout=subprocess.PIPE, env=env)


def test_a_script_needs_no_guard_around_its_main_part(tmp_path):
    out, _ = script(tmp_path, "double", "end").communicate(timeout=60)
    assert out.decode().split() == ["started", "0"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent_however_it_ends(tmp_path, how):
    parent = script(tmp_path, "process", "hold")
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"started\n"
    worker = int(parent.stdout.readline())
    parent.send_signal(how)
    parent.wait(timeout=30)
    parent.stdout.close()
    end = time.monotonic() + 10
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(worker)
