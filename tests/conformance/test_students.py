"""Every student that is registered or installed passes the suite that users run on their own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from limbeck.data.schema import Schema
from limbeck.distill.export import Probabilities, open_session
from limbeck.registry import names
from limbeck.students import STUDENTS, Student, build, find_kind, pad_rows, save
from limbeck.testing import StudentSuite
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


class TestStudents(StudentSuite):
    @pytest.fixture(autouse=True, params=NAMES)
    def subject(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param

    def make(self, seed: int = 0) -> Student:
        return make(self.name, seed)

    def rows(self) -> pa.RecordBatch:
        return rows_of(self.name)


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
