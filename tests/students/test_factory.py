"""A user's network as a student: beside the bare network, and every way in which it can be bad."""

import json
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, DataError, LimbeckError, LimbeckWarning, StudentError
from limbeck.students import FactoryConfig, FactoryEncoder, build, large_kind, load, save, seal
from tests.students import networks

SCHEMA = Schema(("text",), ("x",), (), None, ("no", "yes"))
ROWS = pa.RecordBatch.from_pydict(
    {"text": pa.array(["good", "bad", "", "so so"], pa.large_string()), "x": [1.0, 2.0, 3.0, 4.0]}
)


def make(name, seed=0, width=2):
    settings = {"factory": f"tests.students.networks:{name}"}
    generator = torch.Generator().manual_seed(seed)
    return build("factory", settings, SCHEMA, [ROWS], width, generator)


@pytest.mark.parametrize("name", ["build", "picture", "words"])
def test_the_student_is_the_bare_network(name):
    student = make(name)
    made = getattr(networks, name)(2)
    bare, encode = made if isinstance(made, tuple) else (made, made.encode)
    bare.load_state_dict(student.module.network.state_dict())
    given = torch.as_tensor(encode(ROWS.to_pylist()))
    expected = bare.eval()(given)
    if isinstance(expected, (dict, tuple)):
        expected = expected["logits"] if isinstance(expected, dict) else expected[0]
    out = student.module.eval()(student.encoder.collate(student.encoder.encode(ROWS)))
    torch.testing.assert_close(out.outputs, expected)
    torch.testing.assert_close(student.module.head(out.embedding), expected)
    assert student.encoder.encode(ROWS).values.dtype == given.numpy().dtype


def test_weights_come_from_the_generator_alone_and_global_ones_are_left():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    first = make("build").module.state_dict()
    after = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(states[0], after[0])
    assert states[1:] == after[1:]
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    again = make("build").module.state_dict()
    assert all(torch.equal(again[key], value) for key, value in first.items())


@pytest.mark.parametrize("name", ["build", "picture"])
def test_a_new_head_is_put_where_the_network_calls_it(name):
    student = make(name)
    before = student.module.network
    student.module.replace_head(5, torch.Generator().manual_seed(0))
    out = student.module.eval()(student.encoder.collate(student.encoder.encode(ROWS)))
    assert student.module.network is before
    assert out.outputs.shape == (4, 5)
    torch.testing.assert_close(student.module.head(out.embedding), out.outputs)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raising", r"networks:raising raised RuntimeError: no such layer; it must build"),
        ("nothing", r"networks:nothing gave int, expected an nn\.Module"),
        ("no_encode", r"gave Linear, expected an nn\.Module with a method encode"),
        ("too_wide", r"outputs \(2, 3\) for 2 rows where 2 outputs are needed"),
        ("few_rows", r"encode of .*few_rows gave a tensor of shape \(2, 12\) for 4 rows"),
        ("doubles", r"gave torch\.float64, expected a tensor of uint8, int64 or float32"),
        ("lists", r"encode of .*lists gave list, expected a tensor"),
        ("wrong_key", r"encode of .* raised KeyError: 'nowhere'; .* keys \['text', 'x'\]"),
        ("wrong_input", r"raised RuntimeError on two rows of zeros of shape \(3,\)"),
        ("normalised", r"does not end in an nn\.Linear over a matrix"),
        ("silent", r"gave NoneType for 2 rows"),
        ("tied", r"one tensor under two names, body\.0\.weight and again\.0\.weight"),
        ("not_a_function", "is no function; name one"),
        ("missing", r"cannot be imported \(AttributeError"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(name, words):
    with pytest.raises(LimbeckError, match=words) as caught:
        make(name)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_other_refusals():
    with pytest.raises(ConfigError, match=r"needs student\.settings\.factory"):
        FactoryConfig()
    with pytest.raises(ConfigError, match="expected package"):
        build("factory", {"factory": "nets"}, SCHEMA, [ROWS], 2, torch.Generator())
    with pytest.raises(ConfigError, match="learns the shape of a row from rows"):
        build("factory", {"factory": "a:b"}, SCHEMA, [], 2, torch.Generator())
    with pytest.raises(ConfigError, match="needs a FactoryConfig, got int"):
        FactoryEncoder.fit([], SCHEMA, 3)
    with pytest.raises(ConfigError, match="larger form"):
        FactoryConfig.large()
    assert large_kind("factory", SCHEMA) == "text_bag"
    growing = make("growing").encoder
    with pytest.raises(DataError, match=r"shape \(1, 3\), but .* \(n, 12\) before"):
        growing.encode(ROWS.slice(0, 1))


CODE = """
import torch
from torch import nn

def build(outputs):
    return nn.Linear(1, outputs), lambda rows: torch.tensor([[row["x"]] for row in rows]).float()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A student whose code lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    name = f"net_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    settings = {"factory": f"{name}:build"}
    student = build("factory", settings, SCHEMA, [ROWS], 2, torch.Generator().manual_seed(0))
    save(student, tmp_path / "student")
    return tmp_path, name


@pytest.mark.slow
def test_a_fresh_process_finds_the_code_in_its_folder_or_says_what_is_missing(own, tmp_path):
    folder, name = own
    code = (
        "import json, sys, limbeck\n"
        "rows = [{'text': '', 'x': 2.0}]\n"
        "print(json.dumps(limbeck.load(sys.argv[1]).predict_proba(rows).tolist()))"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(folder / "student")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    expected = load(folder / "student").predict_proba([{"text": "", "x": 2.0}])
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-6)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=elsewhere)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"No module named '{name}'" in last
    assert "must be in the current folder or on PYTHONPATH" in last


def test_code_that_has_changed_is_told(own):
    folder, name = own
    load(folder / "student")
    path = folder / f"{name}.py"
    path.write_text(CODE + "\n# a change\n")
    with pytest.warns(LimbeckWarning, match=f"defines {name}:build has changed"):
        load(folder / "student")


def test_code_that_is_gone_is_named(own, monkeypatch):
    folder, name = own
    (folder / f"{name}.py").unlink()
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(StudentError, match=f"a network of yours, and .*'{name}:build' cannot be"):
        load(folder / "student")


def test_a_config_that_makes_no_sense_is_refused(own):
    folder, _ = own
    path = folder / "student" / "config.json"
    config = json.loads(path.read_text())
    config["encoder"]["shape"] = 3
    path.write_text(json.dumps(config))
    seal(folder / "student")
    with pytest.raises(StudentError, match="must be lists"):
        load(folder / "student")
