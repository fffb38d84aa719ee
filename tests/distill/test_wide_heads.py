"""An objective with two outputs a class, through the whole job and out of it."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import limbeck
from limbeck.data.tables import as_batch
from limbeck.distill import arms
from limbeck.distill.plan import make_plan
from limbeck.distill.run import distill
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError, StudentError
from limbeck.numerics.classmap import ClassMap
from limbeck.students import build, load, save, with_outputs
from limbeck.teachers.student import StudentTeacher
from tests.distill import material
from tests.students.test_student_folder import ROWS, SCHEMA

OBJECTIVE = """
import torch

from limbeck.numerics.classmap import ClassMap
from limbeck.objectives import Objective, Targets


class Twofold(Objective):
    '''Answers split in two unequal parts: outputs 0 to C - 1, and C to 2 C - 1, are one each.'''

    name = "twofold"

    def width(self, num_classes):
        return 2 * num_classes

    def class_map(self, num_classes):
        return ClassMap(2 * tuple(range(num_classes)), 2.0)

    def class_log_probs(self, out):
        return self.class_map(out.outputs.shape[1] // 2).log_probs(out.outputs)

    def fit(self, answers, evidence):
        return self

    def targets(self, answers):
        return Targets({"split": torch.cat([0.7 * answers.probs, 0.3 * answers.probs], dim=1)})

    def loss(self, out, targets, labels):
        if targets is None:
            return self.label_loss(out, labels)
        return -(targets["split"] * torch.log_softmax(out.outputs.float() / 2, dim=1)).sum(dim=1)


class Silent(Twofold):
    def class_map(self, num_classes):
        return ClassMap.plain(num_classes)


class Odd(Twofold):
    def class_log_probs(self, out):
        return ClassMap((0, 1, 0, 1), 1.0).log_probs(out.outputs)


class Unready(Twofold):
    def class_log_probs(self, out):
        return self.fitted(out)
"""


class Stop(Exception):
    """The moment at which a run is stopped."""


def task(folder, *, arm="Twofold", onnx=False, steps=60):
    made = material.make(folder, onnx=onnx)
    module = f"wide_{abs(hash(str(folder)))}"
    (folder / f"{module}.py").write_text(OBJECTIVE)
    text = made.run_file.read_text().replace('"labels", "slam"', f'"labels", "{module}:{arm}"')
    made.run_file.write_text(text.replace("steps = 8", f"steps = {steps}"))
    return made, f"{module}:{arm}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    made, name = task(tmp_path_factory.mktemp("wide"), onnx=True)
    patch = pytest.MonkeyPatch()
    # Whatever is better on these few rows, the wide one ships.
    patch.setattr("limbeck.distill.run.choose", lambda trained: trained[-1])
    outcome = distill(load_config(made.run_file))
    patch.undo()
    return made, name, outcome


def rows(n):
    values = np.random.default_rng(3).normal(size=(n, 2))
    return [{"a": float(a), "b": float(b)} for a, b in values]


@pytest.mark.slow
def test_the_student_predicts_classes_in_a_fresh_process(finished):
    made, name, outcome = finished
    folder = made.folder / "run" / "student"
    assert outcome.record.evaluation.shipped == name
    predictor = load(folder)
    module = predictor.student.module
    assert module.head.out_features == 4
    inputs = predictor.student.encoder.collate(
        predictor.student.encoder.encode(limbeck.data.as_batch(rows(20), predictor.student.schema))
    )
    with torch.no_grad():
        out = module(inputs)
    pairs = torch.softmax(out.outputs / 2.0, dim=1)
    tempered = (pairs[:, :2] + pairs[:, 2:]) ** (2.0 / predictor.temperature)
    expected = (tempered / tempered.sum(dim=1, keepdim=True)).numpy()
    code = (
        f"import json, limbeck; rows = json.loads({json.dumps(rows(20))!r}); "
        f"print(json.dumps(limbeck.load({str(folder)!r}).predict_proba(rows).tolist()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(said.stdout), expected, atol=1e-6)
    assert out.embedding.shape == (20, module.embedding_dim)


@pytest.mark.slow
def test_onnx_gives_the_same_probabilities(finished):
    made, _, outcome = finished
    from limbeck.distill.export import open_session
    from limbeck.students import pad_rows

    predictor = load(made.folder / "run" / "student")
    batch = limbeck.data.as_batch(rows(50), predictor.student.schema)
    session = open_session(made.folder / "run/student/model.onnx")
    padded = pad_rows(predictor.student.encoder.encode(batch))
    found = session.run(None, {"rows": padded})[0]
    np.testing.assert_allclose(found, predictor.predict_proba(batch), atol=1e-4)
    assert found.shape == (50, 2)
    assert outcome.record.size.onnx_difference <= 1e-4
    assert "outputs of the head | 4, summed" in (made.folder / "run/student/README.md").read_text()


@pytest.mark.slow
def test_what_the_report_measures_is_what_the_folder_predicts(finished):
    """Accuracy and likelihood on test, from the folder alone."""
    made, name, outcome = finished
    lines = [line.split(",") for line in (made.folder / "test.csv").read_text().splitlines()[1:]]
    predictor = load(made.folder / "run" / "student")
    probs = predictor.predict_proba([{"a": float(a), "b": float(b)} for a, b, _ in lines])
    truth = np.array([predictor.classes.index(label) for *_, label in lines])
    arm = outcome.record.evaluation.arm(name)
    assert arm.accuracy.estimate == pytest.approx((probs.argmax(1) == truth).mean())
    loss = -np.log(probs[np.arange(len(truth)), truth]).mean()
    assert arm.nll_calibrated == pytest.approx(loss, abs=1e-5)


@pytest.mark.slow
def test_stopped_and_resumed_it_ends_with_the_same_bytes(finished, tmp_path, monkeypatch):
    made, _, _ = finished
    again, other = task(tmp_path)
    monkeypatch.setattr("limbeck.distill.run.choose", lambda trained: trained[-1])
    config = replace(load_config(again.run_file), onnx=False)

    def stop(event):
        if event.stage == other and event.done == 45:
            raise Stop

    with pytest.raises(Stop):
        distill(config, stop)
    distill(config)
    weights = "run/student/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (made.folder / weights).read_bytes()


@pytest.mark.slow
def test_arms_share_the_weights_below_their_heads(finished, monkeypatch):
    """Or a difference between arms would not be one of the objective alone."""
    made, _, _ = finished
    seen, fresh = {}, arms.ArmTrainer._fresh

    def watch(self, class_map):
        student = fresh(self, class_map)
        seen[class_map.width] = {
            key: tensor.clone()
            for key, tensor in student.module.state_dict().items()
            if not key.startswith("head.")
        }
        return student

    monkeypatch.setattr(arms.ArmTrainer, "_fresh", watch)
    monkeypatch.setattr("limbeck.distill.run.choose", lambda trained: trained[-1])
    distill(load_config(made.run_file))
    assert seen.keys() == {2, 4}
    assert all(torch.equal(tensor, seen[4][key]) for key, tensor in seen[2].items())


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("Silent", "names 2 classes for 2 outputs"),
        ("Odd", "are not what its class_map says"),
        ("Unready", "before it is fitted .*AttributeError"),
    ],
)
def test_what_a_saved_student_could_not_say_is_refused_before_anything_is_asked(
    tmp_path, arm, message
):
    made, _ = task(tmp_path, arm=arm)
    for job in (make_plan, distill):
        with pytest.raises(ConfigError, match=message):
            job(load_config(made.run_file))
    assert made.questions() == []


def test_a_factory_that_cannot_be_wider_is_refused_before_anything_is_asked(tmp_path):
    made, _ = task(tmp_path)
    (tmp_path / "narrow.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef build(outputs):\n"
        "    if outputs > 2:\n        raise ValueError('too wide')\n"
        "    return nn.Linear(2, outputs), lambda rows: "
        "torch.tensor([[r['a'], r['b']] for r in rows]).float()\n"
    )
    made.run_file.write_text(
        made.run_file.read_text().replace(
            "[student.settings]\nhidden = 8",
            '[student]\nkind = "factory"\n[student.settings]\nfactory = "narrow:build"',
        )
    )
    with pytest.raises(ConfigError, match="too wide"):
        distill(load_config(made.run_file))
    assert made.questions() == []


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_folder_keeps_its_class_map_and_an_older_one_has_none(tmp_path, temperature):
    plain = build("text_bag", {"buckets": 512}, SCHEMA, [], 3, torch.Generator().manual_seed(0))
    class_map = ClassMap((0, 1, 2, 2, 0), temperature)
    student = with_outputs(plain, class_map, torch.Generator().manual_seed(0))
    save(student, tmp_path / "wide")
    loaded = load(tmp_path / "wide")
    assert loaded.student.class_map == class_map
    assert loaded.predict_proba(ROWS).shape == (4, 3)
    loaded.student.module.replace_head(3, torch.Generator())
    save(replace(loaded.student, class_map=None), tmp_path / "plain")
    config = json.loads((tmp_path / "plain/config.json").read_text())
    assert config.pop("class_map") is None
    (tmp_path / "plain/config.json").write_text(json.dumps(config))
    limbeck.students.seal(tmp_path / "plain")
    assert load(tmp_path / "plain").predict_proba(ROWS).shape == (4, 3)


def test_a_wide_student_teaches_with_the_probabilities_that_it_predicts(tmp_path):
    plain = build("text_bag", {"buckets": 512}, SCHEMA, [], 3, torch.Generator().manual_seed(0))
    student = with_outputs(plain, ClassMap((0, 1, 2, 2, 0), 2.0), torch.Generator().manual_seed(0))
    save(student, tmp_path)
    said = StudentTeacher(tmp_path).say(as_batch(ROWS, SCHEMA))
    np.testing.assert_allclose(said.probs, load(tmp_path).predict_proba(ROWS), rtol=1e-6)


def test_a_head_and_a_map_that_disagree_are_not_saved(tmp_path):
    student = build("text_bag", {"buckets": 512}, SCHEMA, [], 3, torch.Generator())
    with pytest.raises(StudentError, match=r"the head has 3 outputs .* needs 4 outputs"):
        save(replace(student, class_map=ClassMap((0, 1, 2, 2))), tmp_path)
    with pytest.raises(StudentError, match="the class map names 2 classes but the task has 3"):
        save(replace(student, class_map=ClassMap((0, 1, 1))), tmp_path)
