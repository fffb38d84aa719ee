"""Exports: the files against PyTorch, and the example in a process that has no Limbeck."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from limbeck.data.schema import Schema
from limbeck.distill import export
from limbeck.distill.card import write_card
from limbeck.distill.export import export_onnx, require_extra
from limbeck.errors import DataError, MissingExtraError, StudentError
from limbeck.students import DecisionRule, build, load, save

pytest.importorskip("onnxruntime", reason="needs the extra export")

TEXT = Schema(text=("t", "u"), numeric=(), category=(), label="y", classes=("no", "yes|and", "né"))
IMAGE = Schema((), (), (), label="y", classes=("no", "yes|and", "né"), image=("photo",))
MIXED = Schema(text=(), numeric=("x",), category=("c",), label="y", classes=("no", "yes"))
SCHEMAS = {"text_bag": TEXT, "text_transformer": TEXT, "tabular": MIXED, "image_cnn": IMAGE}
PHOTOS = [
    f"P6 {w} 16 255\n".encode() + np.random.default_rng(w).bytes(16 * w * 3) for w in range(14, 20)
]
NO_LIMBECK = "import sys; sys.modules['limbeck'] = sys.modules['torch'] = None; "


def rows_of(schema: Schema) -> pa.RecordBatch:
    columns = {
        "t": pa.array(
            ["Not good!", "", "中文 😀", "isn't it?", None, "word " * 50], pa.large_string()
        ),
        "u": pa.array(["title", "", "x", "ÀÉ", "b", "a"], pa.large_string()),
        "x": pa.array([1.5, None, -3.0, 0.0, 1e6, 2.0], pa.float64()),
        "c": pa.array(["red", "blue", None, "red", "blue", "red"], pa.large_string()),
        "photo": pa.array(PHOTOS, pa.large_binary()),
    }
    return pa.RecordBatch.from_pydict({name: columns[name] for name in schema.inputs})


def make(schema: Schema, folder: Path, kind: str | None = None):
    kind = kind or ("text_bag" if schema.text else "tabular")
    rows = rows_of(schema)
    generator = torch.Generator().manual_seed(0)
    settings = {"text_bag": {"buckets": 4096}, "text_transformer": {"max_tokens": 24}}.get(kind, {})
    student = build(kind, settings, schema, [rows], schema.num_classes, generator)
    with torch.no_grad():
        student.module.head.weight.mul_(200 if schema.text else 2)
    # Where there are two classes, one that argmax would seldom name.
    rule = DecisionRule("yes", 0.01, 1.0, 99.0) if schema.num_classes == 2 else None
    save(student, folder, temperature=1.3, threshold=0.4, decision=rule)
    return student, rows


@pytest.fixture(scope="module", params=list(SCHEMAS))
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    student, rows = make(SCHEMAS[request.param], folder, request.param)
    labels = np.zeros(rows.num_rows, dtype=np.int64)
    student.module.train()
    report = export_onnx(student, folder, temperature=1.3, sample=rows, labels=labels)
    assert student.module.training
    return student, rows, folder, report


@pytest.mark.slow
def test_the_report_is_of_these_files_and_rows(exported):
    student, rows, folder, report = exported
    expected = load(folder).probabilities(rows)
    assert report.rows == rows.num_rows
    assert report.float32.difference <= 1e-4
    assert report.float32.agreement == 1
    assert report.float32.accuracy == (expected.argmax(1) == 0).mean()
    assert report.int8.difference < 0.2
    needs = (folder / "example.py").read_text().split("only.")[0]
    assert ("tokenizers" in needs) == (student.encoder.kind == "text_transformer")
    assert ("pillow" in needs) == (student.encoder.kind == "image_cnn")
    for file in (report.float32, report.int8):
        assert file.size_bytes == (folder / file.name).stat().st_size
        assert 0 < file.encoded.p50_ms <= file.encoded.p95_ms
        assert 0 < file.raw.p50_ms <= file.raw.p95_ms
    if student.encoder.kind in ("text_bag", "image_cnn"):
        assert report.int8.size_bytes < report.float32.size_bytes / 3


@pytest.mark.slow
def test_the_example_agrees_without_limbeck_or_torch(exported):
    student, rows, folder, _ = exported
    expected = load(folder).probabilities(rows)
    run = f"{NO_LIMBECK} import runpy; runpy.run_path(sys.argv.pop(), run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", run, str(folder / "example.py")],
        input="\n".join(as_line(row, folder) for row in rows.to_pylist()),
        capture_output=True,
        text=True,
        cwd=folder.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    np.testing.assert_allclose([a["probabilities"] for a in answers], expected, atol=1e-5)
    names = load(folder).predict(rows.to_pylist())
    assert [a["class"] for a in answers] == names
    plain = [student.schema.classes[i] for i in expected.argmax(1)]
    assert (names == plain) == (student.schema in (TEXT, IMAGE))


def as_line(row, folder):
    """What the example reads a row from: JSON, or the path of an image."""
    if "photo" not in row:
        return json.dumps(row)
    path = folder.parent / f"{hash(row['photo'])} photo.ppm"
    path.write_bytes(row["photo"])
    return str(path)


@pytest.mark.slow
def test_the_card_holds_what_was_measured_and_the_folder_is_sealed(exported):
    student, _, folder, report = exported
    facts = {"test accuracy": "91.2 %"}
    write_card(student, folder, temperature=1.3, threshold=0.4, report=report, facts=facts)
    card = (folder / "README.md").read_text()
    for part in ("| test accuracy | 91.2 % |", "`model.int8.onnx`", "example.py", "unsure up to"):
        assert part in card
    assert "yes|and" not in card
    load(folder)
    (folder / "model.onnx").write_bytes(b"x")
    with pytest.raises(StudentError, match=r"model\.onnx was changed"):
        load(folder)


@pytest.mark.slow
def test_an_export_is_silent_and_leaves_logging_as_it_was(tmp_path, capfd):
    handlers, disabled = list(logging.getLogger().handlers), logging.root.manager.disable
    student, rows = make(MIXED, tmp_path)
    export_onnx(student, tmp_path, temperature=1.0, sample=rows)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert logging.root.manager.disable == disabled


@pytest.mark.slow
def test_a_graph_that_differs_is_refused(tmp_path, monkeypatch):
    student, rows = make(MIXED, tmp_path)
    honest = export._write_float

    def wrong(graph, padded, path, **more):
        graph.temperature *= 1.1
        honest(graph, padded, path, **more)
        graph.temperature /= 1.1

    monkeypatch.setattr(export, "_write_float", wrong)
    with pytest.raises(StudentError, match="differs from PyTorch"):
        export_onnx(student, tmp_path, temperature=1.0, sample=rows)


def test_a_card_without_onnx_files_speaks_of_none(tmp_path):
    student, _ = make(TEXT, tmp_path)
    write_card(student, tmp_path, temperature=1.0, threshold=0.0)
    card = (tmp_path / "README.md").read_text()
    assert "onnx" not in card
    assert "no threshold was set" in card
    load(tmp_path)


def test_no_sample_rows_and_wrong_labels_are_refused(tmp_path):
    student, rows = make(MIXED, tmp_path)
    with pytest.raises(DataError, match="got 0"):
        export_onnx(student, tmp_path, temperature=1.0, sample=rows.slice(0, 0))
    with pytest.raises(DataError, match="2 labels came with 6"):
        export_onnx(student, tmp_path, temperature=1.0, sample=rows, labels=np.array([0, 1]))


def test_without_the_extra_the_install_line_is_named(monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(MissingExtraError, match=r"onnxscript.*pip install 'limbeck\[export\]'"):
        require_extra()
