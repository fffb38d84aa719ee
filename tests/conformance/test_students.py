"""What every student must do, whoever wrote it. Walks the registry and installed packages."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save as to_bytes

from limbeck.data.schema import Schema
from limbeck.distill.export import Probabilities, open_session
from limbeck.registry import names
from limbeck.students import (
    STUDENTS,
    Encoder,
    MemoryStore,
    Ragged,
    Student,
    build,
    find_kind,
    load,
    pad_rows,
    save,
)
from tests.students import tiny_bert

# Settings of kinds that have some without a default, or do more with others.
SETTINGS: dict[str, Callable[[], dict[str, object]]] = {
    "factory": lambda: {"factory": "tests.students.networks:build"},
    "image_cnn": lambda: {"augment": "rand", "flip": True},
    "huggingface": lambda: {"path": tiny_bert.shared(), "max_tokens": 16},
}
# Its package alone takes seconds to import.
SLOW = {"huggingface"}
NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in names("students", STUDENTS)
]
TEXTS = ["not good at all", "", "fine!", "word " * 40, "中文 ok", "a"] * 4
FULL = Schema(("t",), ("x", "y"), ("c",), None, classes=("n", "y", "m"), image=("i",))


def schema_of(name: str) -> Schema:
    reads = find_kind(name).reads
    return Schema(
        text=FULL.text if "text" in reads else (),
        numeric=FULL.numeric if "numeric" in reads else (),
        category=FULL.category if "category" in reads else (),
        label=None,
        classes=FULL.classes,
        image=FULL.image if "image" in reads else (),
    )


def picture(generator: np.random.Generator) -> bytes:
    """A PPM file of 12 x 10 random pixels."""
    return b"P6 12 10 255\n" + generator.bytes(12 * 10 * 3)


def rows_of(name: str) -> pa.RecordBatch:
    generator = np.random.default_rng(0)
    columns = {
        "t": pa.array(TEXTS, pa.large_string()),
        "x": pa.array([None, *generator.normal(size=len(TEXTS) - 1)], pa.float64()),
        "y": pa.array(generator.normal(size=len(TEXTS)), pa.float64()),
        "c": pa.array(["red", "blue", None, "red"] * 6, pa.large_string()),
        "i": pa.array([picture(generator) for _ in TEXTS], pa.large_binary()),
    }
    return pa.RecordBatch.from_pydict({c: columns[c] for c in schema_of(name).inputs})


def make(name: str, seed: int = 0) -> Student:
    generator = torch.Generator().manual_seed(seed)
    return build(name, SETTINGS.get(name, dict)(), schema_of(name), [rows_of(name)], 3, generator)


def outputs(student: Student, rows: pa.RecordBatch) -> torch.Tensor:
    student.module.eval()
    with torch.no_grad():
        out = student.module(student.encoder.collate(student.encoder.encode(rows)))
    assert out.outputs.shape == (rows.num_rows, 3)
    assert out.embedding.shape == (rows.num_rows, student.module.embedding_dim)
    return out.outputs


def split(rows: Ragged) -> list[list[float]]:
    return [part.tolist() for part in np.split(rows.values, np.cumsum(rows.lengths)[:-1])]


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_bytes_and_leaves_the_global_seed_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (to_bytes(make(name, seed).module.state_dict()) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_encoded_without_looking_at_its_neighbours(name: str) -> None:
    student, rows = make(name), rows_of(name)
    together = student.encoder.encode(rows)
    assert together.values.dtype == student.encoder.dtype
    alone = [split(student.encoder.encode(rows.slice(i, 1)))[0] for i in range(rows.num_rows)]
    assert split(together) == alone


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_gives_what_a_batch_of_all_gives(name: str) -> None:
    student, rows = make(name), rows_of(name)
    one_by_one = [outputs(student, rows.slice(i, 1)) for i in range(rows.num_rows)]
    torch.testing.assert_close(torch.cat(one_by_one), outputs(student, rows))


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_give_no_outputs(name: str) -> None:
    assert len(outputs(make(name), rows_of(name).slice(0, 0))) == 0


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_unchanged(name: str) -> None:
    student, rows = make(name), rows_of(name)
    encoded = student.encoder.encode(rows)
    values, lengths = encoded.values.copy(), encoded.lengths.copy()
    inputs = student.encoder.collate(encoded)
    kept = {key: tensor.clone() for key, tensor in inputs.items()}
    student.module(inputs).outputs.sum().backward()
    assert all(torch.equal(inputs[key], kept[key]) for key in kept)
    np.testing.assert_array_equal(encoded.values, values)
    np.testing.assert_array_equal(encoded.lengths, lengths)


@pytest.mark.parametrize("name", NAMES)
def test_read_only_rows_of_a_store_collate_without_a_warning(name: str) -> None:
    student, rows = make(name), rows_of(name)
    part = MemoryStore.build(student.encoder, [rows]).take(np.arange(rows.num_rows))
    frozen = np.frombuffer(part.values.tobytes(), dtype=part.values.dtype)
    inputs = student.encoder.collate(Ragged(frozen, part.lengths))
    expected = outputs(student, rows)
    torch.testing.assert_close(student.module(inputs).outputs.detach(), expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name: str) -> None:
    student, rows = make(name), rows_of(name)
    student.module.eval()
    inputs = student.encoder.collate(student.encoder.encode(rows))
    student.module(inputs).outputs[:, 0].sum().backward()
    for label, parameter in student.module.named_parameters():
        assert parameter.grad is not None, label
        assert bool(parameter.grad.any()), label


@pytest.mark.parametrize("name", NAMES)
def test_padded_rows_embed_as_ragged_ones_do(name: str) -> None:
    student, rows = make(name), rows_of(name)
    encoded = student.encoder.encode(rows)
    student.module.eval()
    ragged = student.module.embed(student.encoder.collate(encoded))
    padded = student.module.embed_padded(torch.from_numpy(pad_rows(encoded)))
    torch.testing.assert_close(padded, ragged)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_comes_back_from_its_config_and_files(name: str) -> None:
    encoder: Encoder = make(name).encoder
    again = type(encoder).from_files(encoder.to_config(), encoder.files())
    assert again.files() == encoder.files()
    rows = rows_of(name)
    assert again.to_config() == encoder.to_config()
    assert split(again.encode(rows)) == split(encoder.encode(rows))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_student_predicts_the_same(name: str, tmp_path: Path) -> None:
    student, rows = make(name), rows_of(name)
    save(student, tmp_path)
    expected = torch.softmax(outputs(student, rows), dim=1).numpy()
    np.testing.assert_array_equal(load(tmp_path).probabilities(rows), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_new_head_has_its_width_and_leaves_the_rest(name: str) -> None:
    student = make(name)
    head = {id(p) for p in student.module.head.parameters()}
    state = student.module.state_dict(keep_vars=True)
    body = {k: v.detach().clone() for k, v in state.items() if id(v) not in head}
    assert len(body) == len(state) - 2
    student.module.replace_head(7, torch.Generator().manual_seed(1))
    assert student.module.head.out_features == 7
    assert all(torch.equal(v, student.module.state_dict()[k]) for k, v in body.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_onnx_equals_torch_for_any_batch(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    from limbeck.distill.export import export_onnx

    student, rows = make(name), rows_of(name)
    save(student, tmp_path)
    export_onnx(student, tmp_path, temperature=2.0, sample=rows)
    session = open_session(tmp_path / "model.onnx")
    graph = Probabilities(student.module, 2.0).eval()
    for part in (rows, rows.slice(1, 1), rows.slice(3, 2)):
        padded = pad_rows(student.encoder.encode(part))
        with torch.no_grad():
            expected = graph(torch.from_numpy(padded)).numpy()
        np.testing.assert_allclose(session.run(None, {"rows": padded})[0], expected, atol=1e-5)
