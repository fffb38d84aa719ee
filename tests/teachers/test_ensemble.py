"""Several students as one teacher: its mean and spread, and a folder of members."""

import numpy as np
import pytest
import torch

from limbeck.data.schema import Schema
from limbeck.data.tables import as_batch
from limbeck.engines.questions import batch_ids
from limbeck.errors import ConfigError, LimbeckWarning, StudentError
from limbeck.students import build as build_student
from limbeck.students import settings_of
from limbeck.students.folder import save
from limbeck.teachers import EnsembleTeacher, StudentTeacher, TeacherConfig, build
from limbeck.teachers.config import MOST_MEMBERS


@pytest.fixture
def members(tmp_path, schema, rows):
    """Three students of other weights and other temperatures."""
    return [save_member(tmp_path / f"member{i}", schema, rows, seed=i) for i in range(3)]


def save_member(folder, schema, rows, *, seed):
    settings = settings_of("tabular", {"hidden": 8})
    generator = torch.Generator().manual_seed(seed)
    student = build_student("tabular", settings, schema, [rows], len(schema.classes), generator)
    # A fresh head is nearly uniform: far apart is easier to compare.
    with torch.no_grad():
        for weights in student.module.parameters():
            weights.mul_(3)
    save(student, folder, temperature=0.5 + seed, threshold=0.0, extra={})
    return folder


@pytest.fixture
def schema():
    return Schema((), ("size", "weight"), (), None, ("no", "maybe", "yes"))


@pytest.fixture
def rows(schema):
    rng = np.random.default_rng(0)
    table = {"size": rng.normal(size=7), "weight": rng.normal(size=7)}
    return as_batch(table, schema)


def answers(teacher, rows):
    got, ok = teacher.parse(teacher.ask(batch_ids(rows, teacher), rows))
    assert ok.all()
    return got


def test_an_ensemble_says_the_mean_and_the_population_deviation_of_its_members(members, rows):
    said = [answers(StudentTeacher(folder), rows) for folder in members]
    each = np.stack([one.probs.numpy() for one in said]).astype(np.float64)
    got = answers(EnsembleTeacher(members), rows)
    assert np.allclose(got.probs.numpy(), each.mean(axis=0), atol=1e-7)
    assert np.allclose(got.spread.numpy(), each.std(axis=0, ddof=0), atol=1e-7)
    assert got.spread.max() > 0.05
    assert torch.equal(got.embeddings, said[0].embeddings)


def test_members_that_agree_have_no_spread(members, rows):
    got = answers(EnsembleTeacher([members[1]] * 3), rows)
    assert got.spread.max() == 0
    alone = answers(StudentTeacher(members[1]), rows)
    assert torch.allclose(got.probs, alone.probs, atol=1e-7)


def test_the_fingerprint_is_of_all_members(members):
    prints = {
        EnsembleTeacher(part).fingerprint
        for part in (members, members[:2], members[1:], members[::-1])
    }
    assert len(prints) == 4
    assert EnsembleTeacher(members).fingerprint in prints


def test_a_folder_of_members_is_a_student_teacher_of_them(members, rows, schema, tmp_path):
    made = build(TeacherConfig(kind="student", path=tmp_path), schema, tmp_path)
    assert made.fingerprint == EnsembleTeacher(members).fingerprint
    one = build(TeacherConfig(kind="student", path=members[0]), schema, tmp_path)
    assert answers(one, rows).spread is None
    (members[2] / "model.safetensors").write_bytes(b"")
    with pytest.raises(StudentError, match=r"member2.*changed since the student was written"):
        build(TeacherConfig(kind="student", path=tmp_path), schema, tmp_path)


def test_fewer_than_two_members_or_members_of_other_tasks_are_refused(members, rows, tmp_path):
    with pytest.raises(ConfigError, match=r"ensemble of 1 students has no spread.*StudentTeacher"):
        EnsembleTeacher(members[:1])
    other = Schema((), ("size", "weight"), (), None, ("no", "yes"))
    stranger = save_member(tmp_path / "stranger", other, rows, seed=9)
    with pytest.raises(ConfigError, match=r"stranger knows classes \['no', 'yes'\].*one task"):
        EnsembleTeacher([members[0], stranger])


@pytest.mark.parametrize("members", [0, -1, MOST_MEMBERS + 1])
def test_a_number_of_members_that_cannot_be_trained_is_refused(members):
    with pytest.raises(ConfigError, match=rf"teacher\.members={members}: must be in \[1, 10\]"):
        TeacherConfig(kind="fit", members=members)


def test_members_of_a_kind_that_is_not_trained_are_warned_of():
    with pytest.warns(LimbeckWarning, match=r"teacher\.members means nothing to the teacher 'tab"):
        TeacherConfig(kind="table", members=3)
