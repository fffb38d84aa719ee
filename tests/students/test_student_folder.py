"""Folders: what is saved is what is loaded, and whatever was changed is refused."""

import hashlib
import json
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import limbeck
from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, LimbeckError, StudentError
from limbeck.students import (
    STUDENTS,
    DecisionRule,
    build,
    default_kind,
    find_kind,
    large_settings,
    load,
    measure_latency,
    recommended_lr,
    save,
    seal,
    settings_of,
)
from limbeck.students.predict import predict_file

SCHEMA = Schema(text=("text",), numeric=(), category=(), label="y", classes=("no", "yes", "nein"))
ROWS = ["not good", "", "very good indeed", "中文"]


@pytest.fixture
def student():
    made = build("text_bag", {"buckets": 512}, SCHEMA, [], 3, torch.Generator().manual_seed(0))
    with torch.no_grad():  # large logits, so that temperature and threshold matter
        made.module.head.weight.mul_(300)
    return made


@pytest.fixture
def folder(student, tmp_path):
    path = tmp_path / "student"
    save(student, path, temperature=1.7, threshold=0.5, extra={"accuracy": 0.9})
    return path


def test_a_loaded_student_gives_the_same_probabilities(student, folder):
    module = student.module.eval()
    rows = pa.RecordBatch.from_pydict({"text": pa.array(ROWS, pa.large_string())})
    logits = module(student.encoder.collate(student.encoder.encode(rows))).outputs
    expected = torch.softmax(logits / 1.7, dim=1).detach().numpy()
    predictor = limbeck.load(folder)
    np.testing.assert_allclose(predictor.predict_proba(ROWS), expected, rtol=1e-6)
    assert predictor.classes == ("no", "yes", "nein")
    assert predictor.predict(ROWS) == [predictor.classes[i] for i in expected.argmax(1)]
    assert predictor.defer(ROWS).tolist() == (expected.max(1) <= 0.5).tolist()
    assert predictor.extra == {"accuracy": 0.9}


def test_all_shapes_of_rows_mean_the_same(folder):
    predictor = load(folder)
    expected = predictor.predict_proba(ROWS)
    forms = [{"text": ROWS}, [{"text": t} for t in ROWS], pa.table({"text": ROWS})]
    for form in forms:
        np.testing.assert_array_equal(predictor.predict_proba(form), expected)
    assert predictor.predict_proba([]).shape == (0, 3)
    assert predictor.predict({"text": []}) == []


PAIR = replace(SCHEMA, classes=("no", "yes"))


@pytest.fixture
def pair():
    made = build("text_bag", {"buckets": 512}, PAIR, [], 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.module.head.weight.mul_(100)
    return made


@pytest.mark.parametrize("positive", ["no", "yes"])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_a_decision_names_the_positive_class_from_its_threshold_on(
    pair, tmp_path, positive, threshold
):
    rows = [f"{word} {i}" for i in range(30) for word in ROWS]
    save(pair, tmp_path / "plain", temperature=1.7)
    rule = DecisionRule(positive, threshold, 1.0, 4.0)
    save(pair, tmp_path / "s", temperature=1.7, decision=rule)
    plain, decided = load(tmp_path / "plain"), load(tmp_path / "s")
    probs = plain.predict_proba(rows)
    place = PAIR.classes.index(positive)
    named = probs[:, place] >= threshold if threshold < 1 else np.zeros(len(rows), bool)
    expected = np.where(named, positive, PAIR.classes[1 - place]).tolist()
    assert decided.decision == rule
    assert decided.predict(rows) == expected
    np.testing.assert_array_equal(decided.predict_proba(rows), probs)
    assert decided.defer(rows).tolist() == plain.defer(rows).tolist()
    if threshold == 0.5:
        assert decided.predict(rows) == plain.predict(rows)
    elif threshold in (0.3, 0.7):
        assert 0 < sum(a != b for a, b in zip(expected, plain.predict(rows), strict=True)) < 120
    (batch,) = predict_file(decided, write_rows(tmp_path / "rows.csv", rows))
    assert batch.column("prediction").to_pylist() == expected
    sure = probs[np.arange(len(rows)), [PAIR.classes.index(name) for name in expected]]
    np.testing.assert_allclose(batch.column("confidence").to_numpy(), sure, rtol=1e-6)


def write_rows(path, texts):
    path.write_text("\n".join(["text", *texts]) + "\n")
    return path


def test_a_folder_written_before_there_were_decisions_names_the_most_probable_class(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["decision"]
    (folder / "config.json").write_text(json.dumps(config))
    seal(folder)
    predictor = load(folder)
    assert predictor.decision is None
    assert predictor.predict(ROWS)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (DecisionRule("maybe", 0.5), "'maybe' needs two classes"),
        (DecisionRule("yes", 1.5), r"decision.threshold=1\.5"),
    ],
)
def test_a_decision_that_cannot_be_taken_is_not_saved(pair, student, tmp_path, rule, words):
    with pytest.raises(StudentError, match=words):
        save(pair, tmp_path / "s", decision=rule)
    with pytest.raises(StudentError, match="classes are no, yes, nein"):
        save(student, tmp_path / "s", decision=replace(rule, threshold=0.5))
    assert not (tmp_path / "s").exists()


def test_many_rows_go_through_in_pieces(folder):
    predictor = load(folder)
    many = predictor.predict_proba(ROWS * 700)
    np.testing.assert_allclose(many, np.tile(predictor.predict_proba(ROWS), (700, 1)), rtol=1e-5)


def test_a_fresh_process_predicts_the_same(folder):
    code = (
        "import json, sys, limbeck\n"
        "print(json.dumps(limbeck.load(sys.argv[1]).predict_proba(json.loads(sys.argv[2])).tolist()))"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(folder), json.dumps(ROWS)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    np.testing.assert_allclose(json.loads(out), load(folder).predict_proba(ROWS), rtol=1e-6)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "SHA256SUMS"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(StudentError, match=name):
        load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_tampered_file_is_named(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-5] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(StudentError, match=f"{name} was changed"):
        load(folder)


def test_files_added_later_are_guarded_once_sealed(folder):
    (folder / "notes.txt").write_text("hello")
    load(folder)
    seal(folder)
    (folder / "notes.txt").write_text("hallo")
    with pytest.raises(StudentError, match=r"notes\.txt was changed"):
        load(folder)


def test_the_sums_are_in_the_standard_format(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    found = dict(reversed(line.split("  ")) for line in lines)
    names = {p.name for p in folder.iterdir()} - {"SHA256SUMS"}
    assert found == {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names}


def rewrite(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    seal(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"format": 99}, "format 99"), ({"kind": "texty_bag"}, "did you mean 'text_bag'"),
     ({"settings": {"bukets": 3}}, "'buckets'"), ({"encoder": {}}, "cannot be used"),
     ({"schema": None}, "cannot be used"), ({"temperature": "hot"}, "cannot be used"),
     ({"decision": {"positive": "yes", "threshold": 0.5}}, "needs two classes"),
     ({"settings": {"buckets": 511}}, "weights")],
)  # fmt: skip
def test_a_sealed_folder_that_makes_no_sense_is_refused(folder, changes, words):
    rewrite(folder, **changes)
    with pytest.raises(StudentError, match=words):
        load(folder)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [("config.json", b"{", "not JSON"), ("config.json", b"[]", "format None"),
     ("model.safetensors", b"\x08\x00", "weights"), ("SHA256SUMS", b"ab  ../../x\n", "line")],
)  # fmt: skip
def test_broken_files_are_refused_with_one_sentence(folder, name, data, words):
    (folder / name).write_bytes(data)
    if name != "SHA256SUMS":
        seal(folder)
    with pytest.raises(StudentError, match=words) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_truncated_weight_file_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    seal(folder)
    with pytest.raises(StudentError, match="weights"):
        load(folder)


@pytest.mark.parametrize(
    "bad", [{"temperature": 0}, {"temperature": float("nan")}, {"threshold": 1.5}]
)
def test_bad_calibration_is_refused_before_anything_is_written(student, tmp_path, bad):
    with pytest.raises(StudentError, match=next(iter(bad))):
        save(student, tmp_path / "s", **bad)
    assert not (tmp_path / "s").exists()


def test_a_head_of_another_width_is_refused(student, tmp_path):
    student.module.replace_head(5, torch.Generator())
    with pytest.raises(StudentError, match=r"5 outputs .* 3 classes"):
        save(student, tmp_path / "s")


@pytest.mark.slow
def test_latency_is_measured_in_a_process_of_its_own(folder):
    rows = pa.RecordBatch.from_pydict({"text": pa.array(ROWS * 10, pa.large_string())})
    threads = torch.get_num_threads()
    taken = measure_latency(folder, rows)
    assert 0 < taken.p50_ms <= taken.p95_ms < 1000
    assert torch.get_num_threads() == threads
    with pytest.raises(LimbeckError, match="0"):
        measure_latency(folder, rows.slice(0, 0))
    with pytest.raises(StudentError, match="has no SHA256SUMS"):
        measure_latency(folder / "nowhere", rows)


def test_settings_come_from_a_run_files_table():
    made = settings_of("text_bag", {"buckets": 100, "dropout": 0})
    assert (made.buckets, made.dropout) == (100, 0.0)
    with pytest.raises(ConfigError, match="did you mean 'hidden'"):
        settings_of("tabular", {"hiden": 3})
    for value in ("8", 8.5, True):
        with pytest.raises(ConfigError, match=r"buckets=.*int"):
            settings_of("text_bag", {"buckets": value})


def test_kinds_are_chosen_by_the_columns():
    numbers = Schema(text=(), numeric=("x",), category=(), label=None, classes=("a", "b"))
    nothing = Schema(text=(), numeric=(), category=(), label=None, classes=("a", "b"))
    assert default_kind(SCHEMA) == "text_bag"
    assert default_kind(numbers) == "tabular"
    with pytest.raises(ConfigError, match="no input column"):
        default_kind(nothing)
    for name, kind in STUDENTS.items():
        assert find_kind(name) is kind
        larger = kind if kind.larger else STUDENTS["text_bag"]
        assert large_settings(name, SCHEMA) == larger.settings.large()
        assert 0 < recommended_lr(kind.settings) < 0.1
    assert large_settings("", numbers) == STUDENTS["tabular"].settings.large()
    with pytest.raises(ConfigError, match="width=0"):
        build("text_bag", {}, SCHEMA, [], 0, torch.Generator())


def test_importing_limbeck_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys, time; start = time.perf_counter(); import limbeck; "
        "print(time.perf_counter() - start, *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    best = 9.0
    for _ in range(3):
        started = time.perf_counter()
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        best = min(best, float(out[0]))
        if best < 0.1 or time.perf_counter() - started > 30:
            break
    assert best < 0.1
    assert not {"torch", "numpy", "pyarrow", "sklearn"} & set(out[1:])


def test_the_version_is_the_packages():
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    assert limbeck.__version__ == tomllib.loads(pyproject.read_text())["project"]["version"]
