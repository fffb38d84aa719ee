"""Objectives that read embeddings: what a run gives them."""

import itertools
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from limbeck.data.schema import Schema
from limbeck.distill.compare_config import CompareConfig
from limbeck.distill.compare_plan import make_compare_plan
from limbeck.distill.plan import make_plan
from limbeck.distill.run import distill
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError
from limbeck.teachers import (
    CallableTeacher,
    EnsembleTeacher,
    HumanTeacher,
    MeanTeacher,
    SimulatedTeacher,
    SklearnTeacher,
    StudentTeacher,
    TeacherConfig,
    align_classes,
    build,
    with_price,
)
from limbeck.teachers.endpoint import EndpointTeacher
from tests.distill import material

OBJECTIVE = """
from pathlib import Path

import numpy as np

from limbeck.objectives import Objective, Targets

SEEN = Path(__file__).with_suffix(".npz")


class Reads(Objective):
    '''Writes down the last layer that it is given, and learns nothing.'''

    name = "reads"
    needs_embeddings = True

    def fit(self, answers, evidence):
        head = evidence.head
        none = np.zeros(0)
        np.savez(SEEN, weight=none if head is None else head.weight.numpy(),
                 bias=none if head is None else head.bias.numpy(),
                 rows=sum(len(part) for part in answers),
                 width=np.array([part.embeddings.shape[1] for part in answers]))
        return self

    def targets(self, answers):
        return Targets({"embedding": answers.embeddings})

    def loss(self, out, targets, labels):
        return self.label_loss(out, labels) if targets is None else 0 * out.outputs.sum(dim=1)
"""
_numbers = itertools.count()


def task(folder, teacher, *, more=""):
    """A run with an arm that reads embeddings; `teacher` is the table of that name."""
    made = material.make(folder, more=more)
    module = f"reads_{next(_numbers)}"
    (folder / f"{module}.py").write_text(OBJECTIVE)
    text = made.run_file.read_text().replace('"labels", "slam"', f'"labels", "{module}:Reads"')
    old = text[text.index("[teacher]") : text.index("[student.settings]")]
    made.run_file.write_text(text.replace(old, f"[teacher]\n{teacher}\n\n"))
    return made, folder / f"{module}.npz"


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "\n[buy]\nrule = 'uniform'\nrounds = 2\n"])
def test_it_is_given_the_layer_behind_the_embeddings_of_a_trained_teacher(tmp_path, more):
    made, seen = task(tmp_path, 'kind = "fit"', more=more)
    distill(load_config(made.run_file))
    weight, bias = StudentTeacher(tmp_path / "run/teacher").head(None)
    found = np.load(seen)
    np.testing.assert_array_equal(found["weight"], weight.numpy())
    np.testing.assert_array_equal(found["bias"], bias.numpy())
    assert (found["width"] == weight.shape[1]).all()


EMBEDS = """

def embed(rows):
    return ask(rows), [[row["a"], row["b"], 1.0] for row in rows]
"""


@pytest.mark.parametrize("more", ["", "\n[buy]\nrule = 'uniform'\nrounds = 2\n"])
def test_an_answer_without_embedding_is_refused_before_the_pool_is_paid_for(tmp_path, more):
    made, seen = task(tmp_path, 'kind = "callable"\nfunction = "MODULE:ask"', more=more)
    name_teacher(made)
    with pytest.raises(ConfigError, match=r"Reads' needs the teacher's embeddings.*a tuple"):
        distill(load_config(made.run_file))
    assert len(made.questions()) == 30  # validation alone
    assert not seen.exists()


def test_a_function_that_gives_embeddings_is_welcome_and_has_no_known_layer(tmp_path):
    made, seen = task(tmp_path, 'kind = "callable"\nfunction = "MODULE:embed"')
    module = name_teacher(made)
    module.write_text(module.read_text() + EMBEDS)
    distill(load_config(made.run_file))
    found = np.load(seen)
    assert found["weight"].size == 0
    assert (found["width"] == 3).all()
    assert found["rows"] == 80  # what the budget leaves for the pool


def name_teacher(made):
    """Put the name of the task's own module of a teacher into its run file; the module's path."""
    (module,) = made.folder.glob("teacher_*.py")
    made.run_file.write_text(made.run_file.read_text().replace("MODULE", module.stem))
    return module


SIMULATED = 'kind = "simulated"\nlabel = "label"\npath = "test.csv"'


@pytest.mark.parametrize(
    ("teacher", "hint"),
    [
        (SIMULATED, "teacher simulated gives none; take a teacher that has them"),
        ('kind = "human"', "teacher human gives none"),
        ('kind = "table"\npath = "test.csv"\nlabel = "label"', "table gives none; add a column"),
    ],
)
def test_a_teacher_that_never_gives_embeddings_is_refused_at_once(tmp_path, teacher, hint):
    made, _ = task(tmp_path, teacher)
    for job in (make_plan, distill):
        with pytest.raises(ConfigError, match=hint):
            job(load_config(made.run_file))
    with pytest.raises(ConfigError, match=hint):
        make_compare_plan(CompareConfig(load_config(made.run_file), seeds=2))


def test_the_arm_by_which_rows_are_chosen_counts_too(tmp_path):
    made, _ = task(tmp_path, SIMULATED)
    text = made.run_file.read_text()
    (module,) = (path.stem for path in tmp_path.glob("reads_*.py"))
    text = text.replace(f'"labels", "{module}:Reads"', '"labels", "soft_kd"')
    rounds = f"\n[buy]\nrule = 'uniform'\nrounds = 2\narm = '{module}:Reads'\n"
    made.run_file.write_text(text + rounds)
    with pytest.raises(ConfigError, match="Reads' needs the teacher's embeddings"):
        make_plan(load_config(made.run_file))
    made.run_file.write_text(text)
    assert make_plan(load_config(made.run_file)).pool


def test_kinds_say_whether_they_embed(tmp_path):
    """Where a kind does not say, its first answers do."""
    table = pa.RecordBatch.from_pydict({"text": ["a"], "prob_no": [0.1], "prob_yes": [0.9]})
    with_one = table.append_column("embedding", pa.array([[1.0, 2.0]]))
    schema = Schema(("text",), (), (), None, ("no", "yes"))
    for batch, embeds in ((table, False), (with_one, True)):
        (tmp_path / f"{embeds}").mkdir()
        pq.write_table(pa.table(batch), tmp_path / f"{embeds}/answers.parquet")
        in_file = TeacherConfig(kind="table", path=tmp_path / f"{embeds}/answers.parquet")
        for config in (TeacherConfig(kind="table"), in_file):
            teacher = build(config, schema, tmp_path, names=batch.schema.names)
            assert teacher.embeds is embeds
            turned = replace(schema, classes=("yes", "no"))
            if config.path is None:
                assert with_price(teacher, 3).embeds is embeds
                assert align_classes(teacher, turned.classes).embeds is embeds
    silent = CallableTeacher(lambda rows: [], ("no", "yes"), ("text",), fingerprint="silent")
    assert silent.embeds is None
    assert MeanTeacher([teacher, silent]).embeds is True
    assert MeanTeacher([silent, teacher]).embeds is None
    assert SimulatedTeacher(teacher).embeds is False
    assert (SklearnTeacher.embeds, EndpointTeacher.embeds, HumanTeacher.embeds) == (False,) * 3
    assert StudentTeacher.embeds is EnsembleTeacher.embeds is True


@pytest.mark.slow
def test_answers_alone_may_teach_and_the_labels_then_change_no_arm_but_their_own(tmp_path):
    made = []
    for folder, swap in (("as_it_is", False), ("swapped", True)):
        one = material.make(tmp_path / folder)
        text = one.run_file.read_text().replace("steps = 8", "steps = 8\nlabelled_weight = 0")
        one.run_file.write_text(text)
        if swap:
            file = tmp_path / folder / "labelled.csv"
            turned = {"up": "down", "down": "up", "label": "label"}
            rows = [line.rpartition(",") for line in file.read_text().splitlines()]
            file.write_text("".join(f"{x},{turned[label]}\n" for x, _, label in rows))
        distill(load_config(one.run_file))
        names = ("labels", "slam_hard")
        made.append(
            {
                name: load_file(tmp_path / folder / f"run/checkpoints/{name}.safetensors")
                for name in names
            }
        )
    for name, same in (("labels", False), ("slam_hard", True)):
        pairs = [
            torch.equal(made[0][name][key], made[1][name][key])
            for key in made[0][name]
            if key.startswith("model")
        ]
        assert pairs
        assert all(pairs) is same
