"""What a split says, from a run on text: through the report, the student folder and ONNX."""

import csv
import json
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import limbeck
from limbeck.distill.embedding_study import gain_in_words, splitter, words
from limbeck.distill.run import distill
from limbeck.distill.run_file import load_config
from limbeck.objectives import Combined, Evidence, Lelp, SoftKD, SubclassTeacher, TeacherHead
from limbeck.objectives.embedding_figures import SplitGain, collapse, split_gain
from limbeck.report.embeddings import Embeddings
from limbeck.report.record import RunRecord
from limbeck.students import load, pad_rows
from limbeck.teachers import StudentTeacher
from tests.docs.conftest import made_up, write

RUN = """
budget = 700
out = "run"

[data]
labelled = "labelled.csv"
validation = "validation.csv"
test = "test.csv"
pool = "pool.csv"

[teacher]
kind = "fit"

[train]
steps = 60
evaluations = 3

[objective]
arms = ["labels", "soft_kd", "lelp", "soft_kd+vid"]

[objective.settings.lelp]
subclasses = 4
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on short reviews whose arm of LELP ships, and what was logged."""
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    folder = tmp_path_factory.mktemp("reviews")
    rows = made_up(900, random.Random(1))
    cuts = {"labelled": 200, "validation": 80, "test": 120, "pool": 500}
    for name, count in cuts.items():
        part, rows = rows[:count], rows[count:]
        if name == "pool":
            write(folder / "pool.csv", ["text"], [[text] for text, _ in part])
        else:
            write(folder / f"{name}.csv", ["text", "label"], part)
    (folder / "run.toml").write_text(RUN)
    logged = []
    patch = pytest.MonkeyPatch()
    # Whatever is better on these few rows, the wide one ships.
    patch.setattr("limbeck.distill.run.choose", lambda arms: next(a for a in arms if wide(a)))
    distill(load_config(folder / "run.toml"), logged.append)
    patch.undo()
    return folder, [(event.stage, event.message) for event in logged]


def wide(arm):
    return arm.student.class_map is not None


def texts(path):
    with path.open(newline="", encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file)]


def told(folder, name):
    """The teacher's answers as the ledger keeps them, and its last layer."""
    teacher = StudentTeacher(folder / "run/teacher")
    predictor = load(folder / "run/teacher")
    batch = limbeck.data.as_batch(texts(folder / f"{name}.csv"), predictor.student.schema)
    ids = np.zeros((batch.num_rows, 16), np.uint8)
    return teacher.parse(teacher.ask(ids, batch))[0], teacher.head(batch)


@pytest.mark.slow
def test_a_wide_student_folder_predicts_at_the_temperature_of_its_training(finished):
    folder, _ = finished
    predictor = load(folder / "run/student")
    student = predictor.student
    assert student.module.head.out_features == 8
    assert student.class_map.temperature == 2.0
    batch = limbeck.data.as_batch(texts(folder / "test.csv"), student.schema)
    with torch.no_grad():
        out = student.module(student.encoder.collate(student.encoder.encode(batch))).outputs
    classes = torch.softmax(out / 2.0, dim=1).view(-1, 2, 4).sum(dim=2)
    tempered = classes ** (2.0 / predictor.temperature)
    wanted = tempered / tempered.sum(dim=1, keepdim=True)
    np.testing.assert_allclose(predictor.predict_proba(batch), wanted, atol=1e-6)


@pytest.mark.slow
def test_the_command_and_onnx_say_what_the_folder_says(finished, tmp_path):
    from limbeck.distill.export import open_session

    folder, _ = finished
    predictor, pool = load(folder / "run/student"), folder / "pool.csv"
    batch = limbeck.data.as_batch(texts(pool), predictor.student.schema)
    probs = predictor.predict_proba(batch)
    out = tmp_path / "predictions.csv"
    words_of = ["predict", str(folder / "run/student"), str(pool), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "limbeck", *words_of], check=True, capture_output=True)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = np.array([[float(row[f"prob_{name}"]) for name in predictor.classes] for row in rows])
    np.testing.assert_allclose(found, probs, atol=1e-5)
    assert [row["prediction"] for row in rows] == predictor.predict(batch)
    session = open_session(folder / "run/student/model.onnx")
    padded = pad_rows(predictor.student.encoder.encode(batch))
    np.testing.assert_allclose(session.run(None, {"rows": padded})[0], probs, atol=1e-4)


@pytest.mark.slow
def test_what_the_report_measures_is_what_the_folder_predicts(finished):
    folder, _ = finished
    record = RunRecord.from_dict(json.loads((folder / "run/metrics.json").read_text()))
    predictor = load(folder / "run/student")
    with (folder / "test.csv").open(newline="", encoding="utf-8") as file:
        truth = [row["label"] for row in csv.DictReader(file)]
    said = predictor.predict(texts(folder / "test.csv"))
    right = np.mean([a == b for a, b in zip(said, truth, strict=True)])
    assert record.evaluation.shipped == "lelp"
    assert record.evaluation.arm("lelp").accuracy.estimate == pytest.approx(right)
    both = record.evaluation.arm("soft_kd+vid")
    assert both.accuracy.estimate > 0.8
    # VID's projector is trained beside the student and is no part of it.
    assert both.parameters == record.evaluation.arm("soft_kd").parameters


@pytest.mark.slow
def test_the_figures_are_those_of_the_teacher_asked_again(finished):
    folder, _ = finished
    record = RunRecord.from_dict(json.loads((folder / "run/metrics.json").read_text()))
    held = record.embeddings
    assert isinstance(held, Embeddings)
    answers, (weight, bias) = told(folder, "pool")
    known = Evidence(
        answers.probs[:2],
        torch.zeros(2).long(),
        lambda p: p[:, 0],
        2,
        head=TeacherHead(weight, bias),
    )
    lelp = Lelp(subclasses=4, seed=0).fit([answers], known)
    figures = collapse([(answers.embeddings, answers.probs.argmax(dim=1))], weight=weight)
    for name in ("ratio", "nc1", "null_share", "centered_null_share", "null_room"):
        assert getattr(held, name) == pytest.approx(getattr(figures, name), rel=1e-3)
    gain = split_gain([lelp.pseudo_probs(answers)])
    assert [one.title for one in held.splits] == ["LELP"]
    assert held.splits[0].outputs == 8
    assert held.splits[0].class_nats == pytest.approx(gain.class_nats, rel=1e-3)
    assert held.splits[0].split_nats == pytest.approx(gain.split_nats, rel=1e-2)
    assert (held.rows, held.all_directions, len(held.directions)) == (500, 8, 8)


@pytest.mark.slow
def test_examples_are_rows_of_the_pool_at_the_ends_of_their_direction(finished):
    folder, _ = finished
    record = RunRecord.from_dict(json.loads((folder / "run/metrics.json").read_text()))
    answers, _ = told(folder, "pool")
    pool = texts(folder / "pool.csv")
    names = record.evaluation.classes
    for each in record.embeddings.directions:
        c = names.index(each.class_name)
        assert len(each.low) == len(each.high) == 3
        assert not {one.row for one in each.low} & {one.row for one in each.high}
        for one in (*each.low, *each.high):
            assert one.text == pool[one.row]
            assert one.probability == pytest.approx(float(answers.probs[one.row, c]), abs=1e-3)
            assert answers.probs[one.row].argmax() == c
        scores = [one.score for one in each.low] + [one.score for one in each.high[::-1]]
        assert scores == sorted(scores)
        assert scores[0] < -0.5 < 0.5 < scores[-1]
    page = (folder / "run/report.html").read_text()
    assert "What the directions mean" in page


@pytest.mark.slow
def test_what_the_split_can_do_is_said_before_the_arm_trains(finished):
    _, logged = finished
    about = [message for stage, message in logged if stage in ("embeddings", "lelp")]
    said = next(i for i, message in enumerate(about) if "the split adds" in message)
    done = next(i for i, message in enumerate(about) if "validation accuracy" in message)
    assert said < done
    assert any("500 embeddings of" in message for message in about[:said])


def figures(**changed):
    g = torch.Generator().manual_seed(0)
    h = torch.randn(60, 6, generator=g)
    y = torch.arange(60) % 2
    h[:, 0] += 3 * y
    return replace(collapse([(h, y)], weight=torch.eye(2, 6)), **changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "the embeddings hold structure"),
        ({"within": 1e-4}, "the teacher has collapsed"),
        ({"null_share": 0.004}, "next to nothing varies where the last layer does not look"),
        ({"null_share": None}, "the last layer is unknown"),
        ({"between": 0.0, "nc1": None}, "one mean embedding"),
    ],
)
def test_figures_are_put_into_words(changed, said):
    assert said in " ".join(words(figures(**changed)))


def test_a_split_that_adds_nothing_is_called_plain_distillation():
    for gain in (SplitGain(9, 0.6, 0.0, 0.0), SplitGain(9, 0.6, 0.001, 2.0)):
        assert "almost plain distillation" in gain_in_words(gain)
    assert "plain" not in gain_in_words(SplitGain(9, 0.6, 0.1, 2.0))


def test_the_part_of_a_sum_that_splits_classes_is_found():
    lelp = Lelp()
    assert splitter(lelp) is lelp
    assert splitter(Combined(lelp, lelp)) is lelp
    assert splitter(Combined(SoftKD(), SoftKD())) is None
    assert splitter(SubclassTeacher()) is None  # learns from labels
