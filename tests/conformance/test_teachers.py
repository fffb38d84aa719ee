"""What every teacher must do, whoever wrote it. Walks the registry.

A package that registers a teacher adds its material to `MATERIALS`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import skops.io
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from limbeck.answers import Answers
from limbeck.data.schema import Schema
from limbeck.engines.questions import batch_ids
from limbeck.errors import ConfigError
from limbeck.students import build as build_student
from limbeck.students import save
from limbeck.teachers import TEACHERS, HumanTeacher, Money, Replies, Teacher, TeacherConfig, build
from limbeck.teachers.endpoint_config import EndpointConfig
from limbeck.teachers.human import replies_of
from tests.teachers import tiny_models
from tests.teachers.server import ModelServer

SCHEMA = Schema(("text",), ("size",), (), None, ("no", "maybe", "yes"))
ROWS = 9


def rows() -> pa.RecordBatch:
    """Rows with columns of answers too, which a table without a file reads."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), ROWS)
    return pa.RecordBatch.from_pydict(
        {
            "text": pa.array([f"row {i} {'ab'[i % 2]}" for i in range(ROWS)], pa.large_string()),
            "size": rng.normal(size=ROWS),
            **{f"prob_{name}": probs[:, i] for i, name in enumerate(SCHEMA.classes)},
        }
    )


class Net(nn.Module):
    """One linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 3)

    def encode(self, rows: list[dict[str, float]]) -> torch.Tensor:
        return torch.tensor([[row["size"]] for row in rows])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


def answer_one(rows: list[dict[str, float]]) -> list[list[float]]:
    return [[0.5, 0.3, 0.2] if row["size"] > 0 else [0.1, 0.2, 0.7] for row in rows]


def answer_two(rows: list[dict[str, float]]) -> list[list[float]]:
    return [[0.2, 0.2, 0.6] for _ in rows]


def table(folder: Path, other: int) -> TeacherConfig:
    batch = rows()
    probs = np.random.default_rng(other).dirichlet(np.ones(3), ROWS)
    columns = {name: batch.column(name) for name in SCHEMA.inputs}
    columns |= {f"prob_{name}": probs[:, i] for i, name in enumerate(SCHEMA.classes)}
    pq.write_table(pa.table(columns), folder / "answers.parquet")
    return TeacherConfig(kind="table", path=folder / "answers.parquet")


def module(folder: Path, other: int) -> TeacherConfig:
    generator = torch.Generator().manual_seed(other)
    weights = {
        "head.weight": torch.randn(3, 1, generator=generator),
        "head.bias": torch.randn(3, generator=generator),
    }
    safetensors.torch.save_file(weights, folder / "net.safetensors")
    return TeacherConfig(
        kind="module", factory=f"{__name__}:Net", weights=folder / "net.safetensors"
    )


def sklearn(folder: Path, other: int) -> TeacherConfig:
    path = folder / f"{other}.skops"
    if not path.exists():  # no two files of skops are the same, not even of one model
        x = np.random.default_rng(other).normal(size=(30, 1))
        labels = np.array(["maybe", "no", "yes"])[np.arange(30) % 3]
        skops.io.dump(LogisticRegression().fit(x, labels), path)
    return TeacherConfig(kind="sklearn", path=path, columns=("size",))


def callable_(folder: Path, other: int) -> TeacherConfig:
    return TeacherConfig(kind="callable", function=f"{__name__}:answer_{('one', 'two')[other]}")


def student(folder: Path, other: int) -> TeacherConfig:
    save_student(folder / "student", other)
    return TeacherConfig(kind="student", path=folder / "student")


def members(folder: Path, other: int) -> TeacherConfig:
    save_student(folder / "ensemble/member0", 0)
    save_student(folder / "ensemble/member1", 1 + other)
    return TeacherConfig(kind="student", path=folder / "ensemble")


def huggingface(folder: Path, other: int) -> TeacherConfig:
    path = folder / f"model{other}"
    if not path.exists():
        tiny_models.bert(path, seed=other, labels=SCHEMA.classes)
    return TeacherConfig(kind="huggingface", path=path, columns=("text",))


def human(folder: Path, other: int) -> TeacherConfig:
    return TeacherConfig(kind="human", question=("Which?", "Which, please?")[other])


def ensemble(folder: Path, other: int) -> TeacherConfig:
    one = replace(callable_(folder, other), classes=SCHEMA.classes)
    return TeacherConfig(kind="ensemble", teachers=(one, sklearn(folder, 0)))


def simulated(folder: Path, other: int) -> TeacherConfig:
    config = table(folder, 0)
    return replace(config, kind="simulated", error_rate=0.5, noise_seed=other)


def save_student(folder: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tabular = replace(SCHEMA, text=())
    save(build_student("tabular", {"hidden": 4}, tabular, [rows()], 3, generator), folder)


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    """A chat model behind HTTP, for the teacher that asks one."""
    with ModelServer() as server:
        URLS.append(server.url)
        yield


URLS: list[str] = []


def endpoint(folder: Path, other: int) -> TeacherConfig:
    model = ("hash", "hash again")[other]
    config = EndpointConfig(base_url=URLS[-1], model=model, shuffle_classes=True)
    return TeacherConfig(kind="endpoint", endpoint=config)


MATERIALS: dict[str, Callable[[Path, int], TeacherConfig]] = {
    "table": table,
    "module": module,
    "sklearn": sklearn,
    "callable": callable_,
    "student": student,
    "student, of members": members,
    "huggingface": huggingface,
    "human": human,
    "ensemble": ensemble,
    "simulated": simulated,
    "endpoint": endpoint,
}
"""Writes a teacher into a folder, one of two that answer differently; gives its settings. A comma
in the name sets off another form of the same kind."""
NEEDS_A_RUN = {"fit"}
"""Trained inside a run, which then uses it as a student's folder."""

each_kind = pytest.mark.parametrize("kind", MATERIALS)


def teacher_of(
    kind: str, folder: Path, *, other: int = 0, schema: Schema = SCHEMA, price: int = 0
) -> Teacher:
    config = MATERIALS[kind](folder, other)
    if kind == "ensemble":  # whose teachers are paid one by one
        first, *rest = config.teachers
        config = replace(config, teachers=(replace(first, price_per_answer=price), *rest))
    else:
        config = replace(config, price_per_answer=price)
    return build(config, schema, Path(), names=rows().schema.names)


def replies(kind: str, teacher: Teacher, batch: pa.RecordBatch) -> Replies:
    """What comes back from a teacher; people, whom nobody waits for, have voted."""
    ids = batch_ids(batch, teacher)
    if kind != "human":
        return teacher.ask(ids, batch)
    assert isinstance(teacher, HumanTeacher)
    first = "no" if "please" in teacher.question else "maybe"
    return replies_of(ids, [{first: 1 + int(x > 0), "yes": 1} for x in batch["size"].to_pylist()])


def ask(kind: str, teacher: Teacher, batch: pa.RecordBatch) -> Answers:
    answers, ok = teacher.parse(replies(kind, teacher, batch))
    assert ok.tolist() == [True] * batch.num_rows
    return answers


def test_every_kind_of_ours_has_material() -> None:
    assert set(TEACHERS) == {name.split(",")[0] for name in MATERIALS} | NEEDS_A_RUN


def test_a_kind_that_needs_a_run_says_so() -> None:
    for kind in NEEDS_A_RUN:
        with pytest.raises(ConfigError, match="trained inside a run"):
            build(TeacherConfig(kind=kind), SCHEMA, Path())


@each_kind
def test_the_fingerprint_is_stable_and_changes_with_weights_and_classes(kind, tmp_path) -> None:
    before = teacher_of(kind, tmp_path).fingerprint
    assert teacher_of(kind, tmp_path).fingerprint == before
    turned = replace(SCHEMA, classes=SCHEMA.classes[::-1])
    changed = {
        teacher_of(kind, tmp_path, schema=turned).fingerprint,
        teacher_of(kind, tmp_path, other=1).fingerprint,
    }
    assert len({before, *changed}) == 3


@each_kind
def test_answers_are_probabilities_of_every_row(kind, tmp_path) -> None:
    teacher = teacher_of(kind, tmp_path)
    assert isinstance(teacher, Teacher)
    assert teacher.max_in_flight >= 1
    batch = rows()
    answers = ask(kind, teacher, batch)  # refuses what is no probability
    assert answers.probs.shape == (ROWS, 3)
    assert np.array_equal(answers.ids, batch_ids(batch, teacher))
    other = ask(kind, teacher_of(kind, tmp_path, other=1), batch)
    assert not torch.allclose(answers.probs, other.probs)


@each_kind
def test_no_rows_give_no_answers(kind, tmp_path) -> None:
    assert ask(kind, teacher_of(kind, tmp_path), rows().slice(0, 0)).probs.shape == (0, 3)


@each_kind
def test_rows_asked_in_parts_are_answered_as_at_once(kind, tmp_path) -> None:
    teacher, batch = teacher_of(kind, tmp_path), rows()
    whole = ask(kind, teacher, batch)
    parts = [ask(kind, teacher, batch.slice(start, 4)) for start in range(0, ROWS, 4)]
    torch.testing.assert_close(torch.cat([part.probs for part in parts]), whole.probs)
    assert all((part.spread is None) == (whole.spread is None) for part in parts)
    if whole.embeddings is not None:
        joined = torch.cat([part.embeddings for part in parts])
        torch.testing.assert_close(joined, whole.embeddings, rtol=1e-3, atol=1e-6)


@each_kind
def test_parsing_is_pure(kind, tmp_path) -> None:
    teacher, batch = teacher_of(kind, tmp_path), rows()
    came = replies(kind, teacher, batch)
    raw = list(came.raw)
    first, _ = teacher.parse(came)
    again, _ = teacher.parse(came)
    assert list(came.raw) == raw
    assert torch.equal(first.probs, again.probs)
    # Another process, that has asked nothing, reads the same.
    fresh, _ = teacher_of(kind, tmp_path).parse(came)
    assert torch.equal(first.probs, fresh.probs)


@each_kind
def test_another_order_of_classes_gives_the_same_answers_in_that_order(kind, tmp_path) -> None:
    config = MATERIALS[kind](tmp_path, 0)
    if kind in ("module", "callable"):
        config = replace(config, classes=SCHEMA.classes)  # their default is the task's order
    batch, turned = rows(), replace(SCHEMA, classes=("yes", "no", "maybe"))
    names = batch.schema.names
    plain = ask(kind, build(config, SCHEMA, Path(), names=names), batch)
    moved = ask(kind, build(config, turned, Path(), names=names), batch)
    assert torch.equal(moved.probs, plain.probs[:, [2, 0, 1]])
    if plain.spread is not None:
        assert torch.equal(moved.spread, plain.spread[:, [2, 0, 1]])


@each_kind
def test_a_quote_is_the_price_of_all_rows(kind, tmp_path) -> None:
    assert teacher_of(kind, tmp_path).quote(rows()) == Money(0)
    priced = teacher_of(kind, tmp_path, price=7)
    assert priced.quote(rows()) == Money(7 * ROWS)
    assert priced.quote(rows().slice(0, 0)) == Money(0)
    assert priced.fingerprint == teacher_of(kind, tmp_path).fingerprint
