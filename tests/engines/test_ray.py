"""The Ray engine beside the local one: two nodes, one of them killed in the middle."""

import collections
import os
import sqlite3
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from limbeck.data.dataset import Dataset
from limbeck.data.schema import Schema
from limbeck.engines import purchase
from limbeck.engines.config import RayConfig
from limbeck.errors import ConfigError, MissingExtraError
from limbeck.ledger import Budget, SqliteLedger
from limbeck.teachers import build
from limbeck.teachers.config import TeacherConfig

ROWS, BATCH = 240, 8
SCHEMA = Schema((), ("x", "y"), (), None, ("low", "high"))
TEACHER = '''
import os
import time
from pathlib import Path

import torch

LOG = Path(__file__).with_name("asked.txt")
SLOW = Path(__file__).with_name("slow")


def ask(rows):
    """Answers that depend on the whole batch, and on how sums are split over threads."""
    with LOG.open("a") as log:
        log.write("".join(f"{os.getpid()} {row['x']!r}\\n" for row in rows))
    if SLOW.exists():
        time.sleep(0.15)
    values = torch.tensor([[row["x"], row["y"]] for row in rows], dtype=torch.float32)
    wide = torch.sin(values @ torch.linspace(-1, 1, 2 * 4096).reshape(2, 4096))
    centred = wide - wide.mean(dim=0)
    probs = torch.softmax(centred[:, :2] + wide.sum(dim=1, keepdim=True) * 1e-3, dim=1)
    return probs.numpy(), centred[:, :16].numpy()
'''


@pytest.fixture
def task(tmp_path):
    (tmp_path / "batch_teacher.py").write_text(TEACHER)
    rng = np.random.default_rng(0)
    data = Dataset.from_table({"x": rng.normal(size=ROWS), "y": rng.normal(size=ROWS)}, SCHEMA)
    config = TeacherConfig(kind="callable", function="batch_teacher:ask")
    yield tmp_path, data, partial(build, config, SCHEMA, tmp_path)
    sys.modules.pop("batch_teacher", None)


def asked(folder):
    lines = [line.split() for line in (folder / "asked.txt").read_text().splitlines()]
    return [(int(pid), float(x)) for pid, x in lines]


def buy(teacher, data, path):
    with SqliteLedger(path) as ledger:
        rows = np.arange(len(data))
        report = purchase(
            teacher, ledger, data, rows, run="run", budget=Budget(ROWS), batch_size=BATCH
        )
        return report, ledger.answers(teacher.fingerprint, report.ids)


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of a head without room and two nodes with room for one actor each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Ray tells whoever asks for a device that this will change; nobody here asks.
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 1024 * 1024, "include_dashboard": False}
    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500,
             "health_check_failure_threshold": 3}  # fmt: skip
    head = small | {"num_cpus": 0, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_node_killed_in_the_middle_changes_no_answer_and_no_settled_row_is_asked_again(
    task, two_nodes
):
    from limbeck.engines.ray import RayTeacher

    folder, data, recipe = task
    cluster, nodes = two_nodes
    plain = recipe()
    _, expected = buy(plain, data, folder / "local.sqlite")
    assert len(asked(folder)) == ROWS
    (folder / "asked.txt").unlink()
    (folder / "slow").touch()
    killed = []

    def kill():
        """SIGKILL every process of a node once both actors are at work and a third is done."""
        end = time.monotonic() + 60
        log = folder / "asked.txt"
        while time.monotonic() < end:
            known = asked(folder) if log.exists() else []
            if len(known) > ROWS / 3 and len({pid for pid, _ in known}) == 2:
                cluster.remove_node(nodes[1], allow_graceful=False)
                killed.append(len(asked(folder)))
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    config = RayConfig(address=cluster.address, actors=2)
    with RayTeacher(plain, recipe, config, code=folder) as copies:
        report, found = buy(copies, data, folder / "ray.sqlite")
    killer.join()
    assert killed
    assert killed[0] < ROWS
    assert report.answered.all()
    assert found.probs.numpy().tobytes() == expected.probs.numpy().tobytes()
    assert found.embeddings.numpy().tobytes() == expected.embeddings.numpy().tobytes()
    assert (report.bought, report.failed, report.spent.queries) == (ROWS, 0, ROWS)
    # Nothing was computed in this process, and by two others.
    pids = {pid for pid, _ in asked(folder)}
    assert os.getpid() not in pids
    assert len(pids) == 2
    with sqlite3.connect(folder / "ray.sqlite") as connection:
        given_back = {key for (key,) in connection.execute(
            "SELECT question FROM attempts WHERE state = 'released'")}  # fmt: skip
        states = [s for (s,) in connection.execute("SELECT DISTINCT state FROM attempts")]
    assert sorted(states) == ["released", "settled"]
    # Two batches at most died with the node; what was asked twice was among them.
    assert 0 < len(given_back) <= 2 * BATCH
    often = collections.Counter(x for _, x in asked(folder))
    xs = np.asarray(data.table["x"].to_numpy())
    again = {bytes(report.ids[i]) for i in range(ROWS) if often[xs[i]] > 1}
    assert max(often.values()) <= 2
    assert again <= given_back


def test_a_teacher_behind_a_network_is_refused(task):
    pytest.importorskip("ray")
    from limbeck.engines.ray import RayTeacher

    _, _, recipe = task
    teacher = recipe()
    teacher.connect = None
    with pytest.raises(ConfigError, match='use engine = "local"'):
        RayTeacher(teacher, recipe, RayConfig())


def test_a_missing_extra_names_its_install_line(task, monkeypatch):
    from limbeck.engines import cluster as engine

    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'limbeck\[ray\]'"):
        engine.require_ray()


@pytest.mark.parametrize("settings", [{"actors": -1}, {"gpus": -0.5}, {"gpus": float("inf")}])
def test_settings_of_the_cluster_are_checked(settings):
    with pytest.raises(ConfigError, match=rf"ray\.{next(iter(settings))}="):
        RayConfig(**settings)


@pytest.mark.parametrize(
    ("resources", "threads", "gpus", "actors"),
    [
        ({"CPU": 16}, 4, 0, 4),
        ({"CPU": 2}, 4, 0, 1),
        ({"CPU": 16, "GPU": 2}, 1, 0.5, 4),
        ({}, 1, 0, 1),
    ],
)
def test_as_many_actors_as_there_is_room_for(resources, threads, gpus, actors):
    from limbeck.engines.ray import _room

    assert _room(resources, threads, gpus) == actors


def test_paths_are_enough_to_make_a_copy(task):
    """The recipe, and not the teacher, travels: it must survive being pickled."""
    import pickle

    _, _, recipe = task
    again = pickle.loads(pickle.dumps(recipe))()
    assert again.fingerprint == recipe().fingerprint
    assert isinstance(again.fingerprint, str)
    assert Path(recipe.args[2]).exists()
