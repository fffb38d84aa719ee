"""A model folder as a student: beside transformers itself, in a fresh process, and broken."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from limbeck.data.schema import Schema
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError, MissingExtraError, StudentError
from limbeck.students import (
    HuggingfaceConfig,
    HuggingfaceEncoder,
    build,
    large_kind,
    load,
    model_folder,
    save,
    seal,
)
from tests.students import tiny_bert

SCHEMA = Schema(("text", "title"), (), (), None, ("no", "yes"))
ROWS = pa.RecordBatch.from_pydict(
    {
        "text": pa.array(["not good at all", "", "the film!", "word " * 40], pa.large_string()),
        "title": pa.array(["bad", None, "中文", "ok"], pa.large_string()),
    }
)


def test_bad_settings_are_refused():
    for settings, words in (
        ({}, r"needs student\.settings\.path"),
        ({"path": "x", "pooling": "max"}, "knows 'mean' and 'cls'"),
        ({"path": "x", "max_tokens": 2}, "max_tokens=2"),
        ({"path": "x", "dropout": 1.0}, "turns dropout off"),
    ):
        with pytest.raises(ConfigError, match=words):
            HuggingfaceConfig(**settings)
    with pytest.raises(ConfigError, match="larger form"):
        HuggingfaceConfig.large()
    assert large_kind("huggingface", SCHEMA) == "text_bag"
    with pytest.raises(ConfigError, match="needs a HuggingfaceConfig, got int"):
        HuggingfaceEncoder.fit([], SCHEMA, 3)
    numbers = Schema((), ("x",), (), None, ("no", "yes"))
    with pytest.raises(ConfigError, match="reads text columns but the schema has none"):
        HuggingfaceEncoder.fit([], numbers, HuggingfaceConfig(path="x"))


def test_without_the_extra_the_install_line_is_named(monkeypatch):
    monkeypatch.setattr(model_folder, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"transformers .*pip install 'limbeck\[text\]'"):
        build("huggingface", {"path": "x"}, SCHEMA, [], 2, torch.Generator())


def test_the_path_is_relative_to_the_run_file_or_to_where_the_command_is_run(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    run = tmp_path / "runs" / "run.toml"
    run.write_text(
        'budget = 1\n[data]\nlabelled = "a.csv"\n[teacher]\nkind = "fit"\n'
        '[student]\nkind = "huggingface"\n[student.settings]\npath = "model"\n'
    )
    assert load_config(run).student.settings == {"path": str(tmp_path / "runs" / "model")}
    monkeypatch.chdir(tmp_path)
    found = load_config(run, ["--student.settings.path", "other"])
    assert found.student.settings == {"path": str(tmp_path / "other")}


def test_a_folder_without_a_model_or_with_pickled_weights_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(model_folder, "find_spec", lambda name: name)  # nothing is imported yet
    for prepare, words in (
        (lambda: None, "is no folder with a config.json"),
        (lambda: (tmp_path / "config.json").write_text("{}"), "no weights in safetensors"),
    ):
        prepare()
        (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
        with pytest.raises(ConfigError, match=words):
            build("huggingface", {"path": str(tmp_path)}, SCHEMA, [], 2, torch.Generator())


def make(path=None, **settings):
    pytest.importorskip("transformers", reason="needs the extra text")
    chosen = {"path": str(path or tiny_bert.shared()), "max_tokens": 16, **settings}
    return build("huggingface", chosen, SCHEMA, [], 2, torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_embedding_is_that_of_transformers_row_by_row(pooling):
    from transformers import AutoModel, AutoTokenizer

    student = make(pooling=pooling)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert.shared())
    model = AutoModel.from_pretrained(tiny_bert.shared()).eval()
    expected = []
    for row in ROWS.to_pylist():
        text = f"{row['text'] or ''} [SEP] {row['title'] or ''}"
        given = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
        states = model(given.input_ids).last_hidden_state[0]
        expected.append(states.mean(0) if pooling == "mean" else states[0])
    module = student.module.eval()
    found = module.embed(student.encoder.collate(student.encoder.encode(ROWS)))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_student_is_whole_without_the_models_folder(tmp_path):
    model = Path(shutil.copytree(tiny_bert.shared(), tmp_path / "model"))
    student = make(model)
    save(student, tmp_path / "student")
    shutil.rmtree(model)
    rows = ROWS.to_pylist()
    code = (
        "import json, sys, limbeck\n"
        "rows = json.loads(sys.argv[2])\n"
        "print(json.dumps(limbeck.load(sys.argv[1]).predict_proba(rows).tolist()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "student"), json.dumps(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    module = student.module.eval()
    logits = module(student.encoder.collate(student.encoder.encode(ROWS))).outputs
    expected = torch.softmax(logits, 1).detach().numpy()
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-5)
    assert str(tmp_path) not in (tmp_path / "student" / "config.json").read_text()


@pytest.mark.slow
def test_the_example_needs_no_torch_and_no_transformers(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    from limbeck.distill.export import export_onnx

    student = make()
    save(student, tmp_path)
    export_onnx(student, tmp_path, temperature=1.0, sample=ROWS)
    run = (
        "import sys; [sys.modules.__setitem__(m, None) for m in ('limbeck', 'torch', "
        "'transformers')]; import runpy; runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", run, str(tmp_path / "example.py")],
        input="\n".join(json.dumps(row) for row in ROWS.to_pylist()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line)["probabilities"] for line in done.stdout.splitlines()]
    np.testing.assert_allclose(found, load(tmp_path).probabilities(ROWS), atol=1e-5)


def broken(folder, what):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if what == "own code":
        path.write_text(
            json.dumps({**config, "model_type": "mine", "auto_map": {"AutoConfig": "m.C"}})
        )
    elif what == "two halves":
        path.write_text(json.dumps({"model_type": "t5", "vocab_size": 71}))
    elif what == "not json":
        path.write_text("{")
    elif what == "no tokenizer":
        (folder / "vocab.txt").unlink()
    elif what == "large vocabulary":
        with (folder / "vocab.txt").open("a") as file:
            file.write("".join(f"extra{i}\n" for i in range(50)))
    elif what == "broken weights":
        (folder / "model.safetensors").write_bytes(b"\x08\x00")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("own code", r"config\.json cannot be used .*without code of its own"),
        ("two halves", "an encoder and a decoder"),
        ("not json", r"config\.json cannot be used"),
        ("no tokenizer", "has no tokenizer that can be used"),
        ("large vocabulary", "they do not belong together"),
        ("broken weights", "the weights in .* cannot be used"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, what, words):
    model = Path(shutil.copytree(tiny_bert.shared(), tmp_path / "model"))
    broken(model, what)
    with pytest.raises(ConfigError, match=words) as caught:
        make(model)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_more_tokens_than_the_model_has_places_for_are_refused():
    with pytest.raises(ConfigError, match=r"cannot read rows of max_tokens=200 .*lower max_tokens"):
        make(max_tokens=200)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tokenizer.json", "architecture.json"])
def test_a_broken_file_in_a_sealed_folder_gives_one_sentence(tmp_path, name):
    save(make(), tmp_path)
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(StudentError, match=f"{name} was changed"):
        load(tmp_path)
    seal(tmp_path)
    with pytest.raises(StudentError, match=r"config\.json cannot be used") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "files": ["tokenizer.json"]}))
    seal(tmp_path)
    with pytest.raises(StudentError, match="cannot be used"):
        load(tmp_path)


@pytest.mark.slow
def test_loading_without_the_extra_names_the_install_line(tmp_path, monkeypatch):
    save(make(), tmp_path)
    monkeypatch.setattr(model_folder, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'limbeck\[text\]'"):
        load(tmp_path)
