"""The main job with each kind of teacher and student, and in two processes at once."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import limbeck
from limbeck.distill.run import distill
from limbeck.distill.run_file import load_config
from limbeck.errors import DataError
from limbeck.teachers.config import TeacherConfig

from .material import make

pytestmark = pytest.mark.slow  # each test is a whole run

TRAIN = ["--train.steps", "12", "--train.evaluations", "3", "--train.pool_batch", "32",
         "--train.labelled_batch", "16", "--train.folds", "2", "--no-onnx"]  # fmt: skip
GOOD, BAD = ("fine", "lovely", "great", "warm"), ("dull", "awful", "weak", "cold")


def sentences(n, seed):
    """Texts of a few words and their class, "good" or "bad"."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    texts = [
        " ".join([*rng.choice(GOOD if y else BAD, 2), f"film {seed} {i}"])
        for i, y in enumerate(labels)
    ]
    return texts, np.where(labels == 1, "good", "bad")


def text_files(folder, *, answers=False):
    """Parquet files of reviews; with `answers`, the teacher's are columns of all but labelled."""
    for seed, (name, n) in enumerate(
        {"labelled": 60, "validation": 60, "test": 80, "pool": 200, "own": 150}.items()
    ):
        texts, labels = sentences(n, seed)
        columns = {"review": texts} if name == "pool" else {"review": texts, "label": labels}
        if answers and name not in ("own", "labelled"):
            sure = np.where(labels == "good", 0.1, 0.8)
            columns |= {"prob_bad": sure, "prob_good": 1 - sure}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    options = ["--budget", "300", "--out", str(folder / "run"),
               "--ledger", str(folder / "ledger.sqlite"), *TRAIN]  # fmt: skip
    for name in ("labelled", "validation", "test", "pool"):
        options += [f"--data.{name}", str(folder / f"{name}.parquet")]
    return options


@pytest.mark.parametrize("own", [True, False])
def test_fit_trains_a_teacher_on_text(tmp_path, own):
    options = [*text_files(tmp_path), "--teacher.kind", "fit"]
    if own:
        options += ["--teacher.path", str(tmp_path / "own.parquet")]
    outcome = distill(load_config(None, options))
    assert outcome.evaluation.teacher.accuracy.estimate > 0.9
    assert len(limbeck.load(tmp_path / "run" / "teacher").predict(["lovely warm film"])) == 1
    student = limbeck.load(outcome.student)
    assert student.student.encoder.kind == "text_bag"
    assert student.predict_proba(["great fine film", ""]).shape == (2, 2)


def test_a_teacher_trained_on_validation_rows_is_refused(tmp_path):
    options = [*text_files(tmp_path), "--teacher.kind", "fit"]
    options += ["--teacher.path", str(tmp_path / "validation.parquet")]
    with pytest.raises(DataError, match="60 of the teacher's own training rows are validation"):
        distill(load_config(None, options))


def test_answers_in_columns_of_the_rows(tmp_path):
    options = [*text_files(tmp_path, answers=True), "--teacher.kind", "table"]
    outcome = distill(load_config(None, [*options, "--data.text", "review"]))
    assert outcome.evaluation.teacher.accuracy.estimate == 1.0
    assert outcome.record.cost.bought == 300


def test_columns_of_answers_are_never_inputs(tmp_path):
    """Numbers beside numbers: guessing must not take the teacher's for the rows' own."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2)).round(6)
    noise = rng.random(300) < 0.3
    up = (x[:, 0] > 0) ^ noise
    pq.write_table(
        pa.table(
            {"a": x[:, 0], "b": x[:, 1], "prob_down": np.where(up, 0.2, 0.7),
             "prob_up": np.where(up, 0.8, 0.3), "label": np.where(x[:, 0] > 0, "up", "down")}
        ),
        tmp_path / "labelled.parquet",
    )  # fmt: skip
    pool = pa.table(
        {"a": x[:100, 1], "b": x[:100, 0], "prob_down": [0.5] * 100, "prob_up": [0.5] * 100}
    )
    pq.write_table(pool, tmp_path / "pool.parquet")
    options = ["--data.labelled", str(tmp_path / "labelled.parquet"), "--data.pool",
               str(tmp_path / "pool.parquet"), "--teacher.kind", "table", "--budget", "200",
               "--out", str(tmp_path / "run"), "--ledger",
               str(tmp_path / "l.sqlite"), *TRAIN]  # fmt: skip
    outcome = distill(load_config(None, options))
    assert limbeck.load(outcome.student).student.schema.inputs == ("a", "b")
    notes = " ".join(outcome.record.data.guesses)
    assert "'prob_down', 'prob_up' are ignored: it holds the teacher's answers" in notes
    assert outcome.evaluation.teacher.accuracy.estimate < 0.9


def test_a_teacher_that_only_names_classes(tmp_path):
    folder = tmp_path
    options = text_files(folder)
    (folder / "namer.py").write_text(
        "def ask(rows):\n"
        "    return [[0.0, 1.0] if any(w in r['review'] for w in ('fine', 'great')) else"
        " [1.0, 0.0] for r in rows]\n"
    )
    options += ["--teacher.kind", "callable", "--teacher.function", "namer:ask"]
    outcome = distill(load_config(None, [*options, "--code", str(folder)]))
    assert 0.6 < outcome.evaluation.teacher.accuracy.estimate < 1.0


MODULE = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(2, 2)

    def encode(self, rows):
        return torch.tensor([[row["a"], row["b"]] for row in rows])

    def forward(self, x):
        return self.head(x)


def make():
    return Net()
"""


def test_a_network_with_its_weights(tmp_path):
    material = make(tmp_path)
    (tmp_path / "net_of_mine.py").write_text(MODULE)
    weights = {"head.weight": torch.tensor([[-3.0, 0.0], [3.0, 0.0]]), "head.bias": torch.zeros(2)}
    save_file(weights, tmp_path / "net.safetensors")
    teacher = TeacherConfig(
        kind="module", factory="net_of_mine:make", weights=tmp_path / "net.safetensors"
    )
    outcome = distill(replace(load_config(material.run_file), teacher=teacher))
    # Classes are sorted, so column 1 is "up": the network is right by construction.
    assert outcome.evaluation.teacher.accuracy.estimate == 1.0


def test_a_student_can_teach_the_next(tmp_path):
    material = make(tmp_path)
    config = load_config(material.run_file)
    first = distill(config)
    teacher = TeacherConfig(kind="student", path=first.student)
    second = distill(replace(config, teacher=teacher, out=tmp_path / "second"))
    taught = second.evaluation.teacher.accuracy.estimate
    assert taught == first.evaluation.arm(first.evaluation.shipped).accuracy.estimate


@pytest.mark.slow
def test_two_processes_make_one_run(tmp_path):
    material = make(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
               "-m", "limbeck", "distill", str(material.run_file), "--json"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('"verdict"') == 1
    assert len(material.questions()) == len(set(material.questions())) == 150
    assert limbeck.load(material.folder / "run" / "student").classes == ("down", "up")
