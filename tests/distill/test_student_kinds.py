"""Every kind of student, killed and resumed in training; networks of a user's in the main job."""

import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from limbeck.distill.config import TrainConfig
from limbeck.distill.job import Job, Labelled
from limbeck.distill.loop import train
from limbeck.distill.plan import make_plan
from limbeck.distill.run import distill
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError, StorageError
from limbeck.objectives import Supervised
from limbeck.students import MemoryStore
from tests.conformance.test_students import NAMES, make, rows_of
from tests.distill import material


class Stop(Exception):
    pass


def job_of(name):
    student, rows = make(name), rows_of(name)
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, rows.num_rows))
    labelled = Labelled(MemoryStore.build(student.encoder, [rows]), labels)
    return Job(
        name="test",
        student=student,
        objective=Supervised(),
        labelled=labelled,
        pool=None,
        held_out=labelled,
        train=TrainConfig(labelled_batch=6, evaluations=3),
        steps=6,
        stop_at=6,
        learning_rate=0.01,
        seed=5,
    )


@pytest.mark.parametrize("name", NAMES)
def test_stopped_and_resumed_it_ends_with_the_same_bytes(name, tmp_path):
    accelerator = Accelerator(cpu=True)
    whole = job_of(name)
    assert any(m.p > 0 for m in whole.student.module.modules() if isinstance(m, torch.nn.Dropout))
    expected = train(whole, tmp_path / "whole", "s", accelerator, lambda step, point: None)

    def stop(step, point):
        if step == 4:
            raise Stop

    with pytest.raises(Stop):
        train(job_of(name), tmp_path / "stopped", "s", accelerator, stop)
    job = job_of(name)
    again = train(job, tmp_path / "stopped", "s", accelerator, lambda step, point: None)
    assert again.curve == expected.curve
    other = whole.student.module.state_dict()
    assert all(torch.equal(v, other[k]) for k, v in job.student.module.state_dict().items())
    # It bites: another seed of dropout gives other bytes.
    odd = replace(job_of(name), seed=6)
    train(odd, tmp_path / "odd", "s", accelerator, lambda step, point: None)
    assert not all(torch.equal(v, other[k]) for k, v in odd.student.module.state_dict().items())


NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.hidden, self.out = nn.Linear(2, 8), nn.Linear(8, outputs)

    def forward(self, x):
        {line}
        return self.out(torch.relu(self.hidden(x)))


def build(outputs):
    return Net(outputs), lambda rows: torch.tensor([[r["a"], r["b"]] for r in rows]).float()
"""


def with_network(folder, *, line="", spec="build", onnx=False):
    """The small task with a network whose code lies beside the run file, not where we are."""
    made = material.make(folder, onnx=onnx)
    module = f"network_{abs(hash(str(folder)))}"
    (folder / f"{module}.py").write_text(NETWORK.format(line=line or "pass"))
    text = made.run_file.read_text().replace(
        "[student.settings]\nhidden = 8",
        f'[student]\nkind = "factory"\n[student.settings]\nfactory = "{module}:{spec}"',
    )
    made.run_file.write_text(text)
    return made


def test_a_network_that_cannot_be_used_is_refused_before_anything_is_asked(tmp_path):
    made = with_network(tmp_path, spec="nowhere")
    with pytest.raises(ConfigError, match="nowhere"):
        make_plan(load_config(made.run_file))
    with pytest.raises(ConfigError, match="nowhere"):
        distill(load_config(made.run_file))
    assert made.questions() == []


@pytest.mark.slow
@pytest.mark.parametrize("line", ["", "x = torch.tensor(x.numpy() + 0.0)"])
def test_a_network_of_ones_own_goes_all_the_way_with_onnx_or_a_note(tmp_path, line):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    made = with_network(tmp_path, line=line, onnx=True)
    outcome = distill(load_config(made.run_file))
    missing = json.loads((tmp_path / "run" / "metrics.json").read_text())["missing"]
    student = tmp_path / "run" / "student"
    assert (student / "model.onnx").exists() == (not line)
    assert ("cannot be written as ONNX" in missing.get("export", "")) == bool(line)
    assert outcome.record.size.parameters == 2 * 8 + 8 + 2 * 8 + 2


@pytest.mark.slow
def test_a_run_does_not_go_on_with_a_network_that_has_changed(tmp_path):
    made = with_network(tmp_path)
    config = load_config(made.run_file)
    distill(config)
    distill(config)  # nothing has changed
    (file,) = tmp_path.glob("network_*.py")
    file.write_text(file.read_text().replace("torch.relu", "torch.tanh"))
    del sys.modules[file.stem]
    importlib.invalidate_caches()
    with pytest.raises(StorageError, match="other settings"):
        distill(config)
