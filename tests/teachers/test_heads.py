"""The layer behind the embeddings: over them it gives what the teacher answers."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch
from torch import nn

from limbeck.data.schema import Schema
from limbeck.data.tables import as_batch
from limbeck.engines.questions import batch_ids
from limbeck.numerics.classmap import ClassMap
from limbeck.students import build as build_student
from limbeck.students import save, with_outputs
from limbeck.teachers import (
    CallableTeacher,
    EnsembleTeacher,
    HasHead,
    HuggingfaceTeacher,
    MeanTeacher,
    ModuleTeacher,
    StudentTeacher,
    align_classes,
    with_price,
)
from limbeck.teachers.base import head_of
from tests.teachers import tiny_models

CLASSES = ("no", "maybe", "yes")
SCHEMA = Schema((), ("size", "weight"), (), None, CLASSES)


def made_up_rows():
    rng = np.random.default_rng(0)
    return as_batch({"size": rng.normal(size=9), "weight": rng.normal(size=9)}, SCHEMA)


@pytest.fixture
def rows():
    return made_up_rows()


def student_folder(folder, seed=0, class_map=None, temperature=2.5):
    generator = torch.Generator().manual_seed(seed)
    student = build_student("tabular", {"hidden": 8}, SCHEMA, [made_up_rows()], 3, generator)
    if class_map is not None:
        student = with_outputs(student, class_map, generator)
    with torch.no_grad():
        for weights in student.module.parameters():
            weights.mul_(2)  # a fresh head is nearly uniform
        student.module.head.bias += torch.arange(student.width) / 3
    save(student, folder, temperature=temperature)
    return folder


class Net(nn.Module):
    """How the logits are made of the last layer's output is told by `form`."""

    def __init__(self, form="plain", bias=True):
        super().__init__()
        self.body, self.form = nn.Linear(2, 5), form
        self.head = nn.Linear(5, 3, bias=bias)

    def encode(self, rows):
        return torch.tensor([[row["size"], row["weight"]] for row in rows], dtype=torch.float32)

    def forward(self, x):
        h = torch.relu(self.body(x))
        logits = self.head(h)
        if self.form == "scaled":
            return 2 * logits
        if self.form == "probe":  # another linear layer is called after the head
            self.body(x)
        return logits


def module_teacher(folder, form="plain", bias=True):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        path = folder / f"{form}{bias}.safetensors"
        safetensors.torch.save_model(Net(form, bias), path)
    return ModuleTeacher(lambda: Net(form, bias), path, CLASSES, SCHEMA.inputs, device="cpu")


def answers(teacher, rows):
    return teacher.parse(teacher.ask(batch_ids(rows, teacher), rows))[0]


def reproduced(teacher, rows):
    """Largest difference between the answers and what head and embeddings make."""
    said, found = answers(teacher, rows), head_of(teacher, rows.slice(0, 2))
    assert found is not None
    weight, bias = found
    assert weight.dtype == bias.dtype == torch.float32
    assert not weight.requires_grad
    assert said.probs.std(dim=0).max() > 0.01  # rows do differ
    made = torch.softmax(said.embeddings @ weight.T + bias, dim=1)
    return float((made - said.probs).abs().max())


TOLERANCE = 3e-3
"""Embeddings are kept as float16, and nothing else lies between."""


def test_of_a_student_folder_with_its_calibration(tmp_path, rows):
    assert reproduced(StudentTeacher(student_folder(tmp_path)), rows) < TOLERANCE


def test_of_a_wide_student_as_sums_over_a_class(tmp_path, rows):
    class_map = ClassMap((0, 0, 1, 1, 2, 2, 2), 3.0)
    folder = student_folder(tmp_path, class_map=class_map, temperature=3.0)
    teacher = StudentTeacher(folder)
    said, (weight, bias) = answers(teacher, rows), teacher.head(rows)
    each = torch.softmax(said.embeddings @ weight.T + bias, dim=1)
    made = torch.stack([each[:, :2].sum(1), each[:, 2:4].sum(1), each[:, 4:].sum(1)], dim=1)
    torch.testing.assert_close(made, said.probs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("bias", [True, False])
def test_of_a_network(tmp_path, rows, bias):
    assert reproduced(module_teacher(tmp_path, bias=bias), rows) < TOLERANCE


@pytest.mark.parametrize("form", ["scaled", "probe"])
def test_a_network_whose_embedding_is_not_what_makes_its_logits_has_none(tmp_path, rows, form):
    assert head_of(module_teacher(tmp_path, form), rows) is None


def test_a_network_is_found_out_on_a_row_and_is_left_as_it_was(tmp_path, rows):
    teacher = module_teacher(tmp_path)
    before = answers(teacher, rows)
    assert teacher.head(rows.slice(0, 0)) is None
    first, one = teacher.head(rows), teacher.head(rows.slice(3, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, one, strict=True))
    first[0].zero_()
    assert torch.equal(answers(teacher, rows).probs, before.probs)


@pytest.mark.parametrize("name", ["bert", "decoder", "vit"])
def test_of_a_model_folder(tmp_path, name):
    pytest.importorskip("transformers", reason="needs the extra text")
    from tests.teachers import test_huggingface_teacher as models

    batch, schema = models.rows_for(name)
    teacher = HuggingfaceTeacher(getattr(tiny_models, name)(tmp_path / name), schema)
    assert reproduced(teacher, batch) < 5e-3


def test_a_model_folder_without_a_last_layer_has_none(tmp_path):
    pytest.importorskip("transformers", reason="needs the extra text")
    teacher = object.__new__(HuggingfaceTeacher)
    teacher._layer = None
    assert teacher.head(pa.RecordBatch.from_pydict({})) is None


def test_in_the_order_of_the_task_and_behind_a_price(tmp_path, rows):
    teacher = StudentTeacher(student_folder(tmp_path))
    turned = align_classes(with_price(teacher, 5), ("yes", "no", "maybe"))
    assert reproduced(turned, rows) < TOLERANCE


def test_outputs_that_are_no_classes_keep_their_order(tmp_path, rows):
    folder = student_folder(tmp_path, class_map=ClassMap((0, 1, 2, 2)))
    teacher = StudentTeacher(folder)
    turned = align_classes(teacher, CLASSES[::-1])
    assert torch.equal(head_of(turned, rows)[0], teacher.head(rows)[0])


def test_of_several_it_is_that_of_the_first_whose_embedding_is_kept(tmp_path, rows):
    folders = [student_folder(tmp_path / f"member{i}", seed=i) for i in range(2)]
    first = StudentTeacher(folders[0])
    for teacher in (EnsembleTeacher(folders), MeanTeacher([first, module_teacher(tmp_path)])):
        weight, bias = head_of(teacher, rows)
        made = torch.softmax(answers(teacher, rows).embeddings @ weight.T + bias, dim=1)
        torch.testing.assert_close(made, answers(first, rows).probs, rtol=0, atol=TOLERANCE)


def test_a_teacher_without_layers_has_none(rows):
    teacher = CallableTeacher(
        lambda given: np.full((len(given), 3), 1 / 3), CLASSES, SCHEMA.inputs, fingerprint="flat"
    )
    assert not isinstance(teacher, HasHead)
    assert head_of(teacher, rows) is None
    assert head_of(with_price(teacher, 1), rows) is None
    other = replace(SCHEMA, classes=CLASSES[::-1])
    assert head_of(align_classes(teacher, other.classes), rows) is None


def test_a_layer_that_is_called_head_is_no_method_of_that_name(rows):
    teacher = CallableTeacher(
        lambda given: np.full((len(given), 3), 1 / 3), CLASSES, SCHEMA.inputs, fingerprint="flat"
    )
    teacher.head = nn.Linear(5, 3)
    assert head_of(teacher, rows) is None
