"""Networks as teachers: modules with safetensors weights, and saved students."""

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from limbeck.data.schema import Schema
from limbeck.engines.questions import batch_ids
from limbeck.errors import AnswerError, ConfigError
from limbeck.students.folder import load, save
from limbeck.students.kinds import build
from limbeck.teachers import ModuleTeacher, StudentTeacher, Teacher

CLASSES = ("no", "maybe", "yes")


class Net(nn.Module):
    """Two linear layers over the length of the text; `form` is how it gives its logits."""

    def __init__(self, form="tensor", width=3):
        super().__init__()
        self.body = nn.Linear(2, 4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, width)
        self.form = form

    def encode(self, rows):
        return torch.tensor([[len(row["text"]), ord(row["text"][0]) / 100] for row in rows])

    def forward(self, x):
        logits = self.head(self.drop(torch.relu(self.body(x))))
        if self.form == "logits":
            return type("Out", (), {"logits": logits})()
        forms = {"tensor": logits, "tuple": (logits, x), "dict": {"logits": logits}, "none": None}
        return forms[self.form]


def named_inputs():
    net = Net()
    return net, lambda rows: {"x": net.encode(rows)}


@pytest.fixture
def weights(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net().eval()
    safetensors.torch.save_model(net, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors", net


def ask(teacher, rows):
    return teacher.parse(teacher.ask(batch_ids(rows, teacher), rows))[0]


FACTORIES = {
    "tensor": Net,
    "tuple": lambda: Net("tuple"),
    "logits": lambda: Net("logits"),
    "dict": lambda: Net("dict"),
    "named inputs": named_inputs,
}


@pytest.mark.parametrize("form", FACTORIES)
def test_a_module_answers_like_itself_in_eval_mode(weights, rows, form):
    path, net = weights
    teacher = ModuleTeacher(FACTORIES[form], path, CLASSES, ("text",), device="cpu")
    assert isinstance(teacher, Teacher)
    answers = ask(teacher, rows)
    x = net.encode(rows.to_pylist())
    with torch.no_grad():
        assert torch.allclose(answers.probs, net(x).softmax(-1), atol=1e-6)
        assert torch.allclose(answers.embeddings, torch.relu(net.body(x)), rtol=2**-10)


def test_the_fingerprint_is_of_weights_factory_classes_and_columns(weights, tmp_path):
    path, net = weights

    def made(factory=Net, weights=path, classes=CLASSES, columns=("text",)):
        return ModuleTeacher(factory, weights, classes, columns).fingerprint

    with torch.no_grad():
        net.head.bias[0] += 1e-3
    safetensors.torch.save_model(net, tmp_path / "other.safetensors")
    others = [
        made(named_inputs),
        made(weights=tmp_path / "other.safetensors"),
        made(classes=CLASSES[::-1]),
        made(columns=("text", "size")),
    ]
    assert made() == made()
    assert len({made(), *others}) == 5


def broken():
    raise OSError("no vocabulary here")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (broken, "factory raised OSError: no vocabulary here"),
        (lambda: nn.Linear(2, 3), "gave Linear, expected an nn.Module with a method encode"),
        (lambda: 3, "gave int, expected"),
        (lambda: Net(width=5), "cannot be loaded into the factory's module"),
    ],
)
def test_factories_that_cannot_be_used_are_refused(weights, factory, message):
    with pytest.raises(ConfigError, match=message):
        ModuleTeacher(factory, weights[0], CLASSES, ("text",))


def test_weights_must_be_there_and_not_pickled(tmp_path):
    with pytest.raises(ConfigError, match=r"no \.safetensors file.*save_file"):
        ModuleTeacher(Net, tmp_path / "net.pt", CLASSES, ("text",))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        ModuleTeacher(Net, tmp_path / "none.safetensors", CLASSES, ("text",))


def test_outputs_of_the_wrong_width_or_kind_are_refused(weights, rows):
    with pytest.raises(AnswerError, match=r"logits of shape \(3, 3\) for 3 rows and 2 classes"):
        ask(ModuleTeacher(Net, weights[0], CLASSES[:2], ("text",)), rows)
    with pytest.raises(AnswerError, match="gave NoneType, expected logits"):
        ask(ModuleTeacher(lambda: Net("none"), weights[0], CLASSES, ("text",)), rows)


def test_nan_weights_are_refused_by_teacher_and_row(weights, rows, tmp_path):
    _, net = weights
    with torch.no_grad():
        net.head.bias[0] = float("nan")
    safetensors.torch.save_model(net, tmp_path / "nan.safetensors")
    with pytest.raises(AnswerError, match=r"Net.*row 0 holds NaN"):
        ask(ModuleTeacher(Net, tmp_path / "nan.safetensors", CLASSES, ("text",)), rows)


def test_a_saved_student_is_a_teacher_with_its_calibrated_probabilities(tmp_path, schema, rows):
    schema = Schema((), schema.numeric, (), None, schema.classes)
    student = build("tabular", {}, schema, [rows], 3, torch.Generator().manual_seed(0))
    save(student, tmp_path / "student", temperature=2.0)
    teacher = StudentTeacher(tmp_path / "student")
    assert isinstance(teacher, Teacher)
    answers = ask(teacher, rows)
    wanted = load(tmp_path / "student").predict_proba(rows)
    assert np.allclose(answers.probs.numpy(), wanted, atol=1e-6)
    assert answers.embeddings.shape == (3, student.module.embedding_dim)
    assert teacher.fingerprint == StudentTeacher(tmp_path / "student").fingerprint
    save(student, tmp_path / "other", temperature=1.0)
    assert teacher.fingerprint != StudentTeacher(tmp_path / "other").fingerprint
