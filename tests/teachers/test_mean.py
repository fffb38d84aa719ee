"""The mean of several teachers, beside numpy; settings of ensembles and of what they wrap."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.schema import Schema
from limbeck.engines.questions import batch_ids
from limbeck.errors import ConfigError
from limbeck.teachers import (
    CallableTeacher,
    MeanTeacher,
    Money,
    SimulatedTeacher,
    TeacherConfig,
    build,
    with_price,
)
from limbeck.teachers.local import LocalTeacher, Said

CLASSES = ("no", "maybe", "yes")
SCHEMA = Schema((), ("x", "y"), (), None, CLASSES)
ROWS = pa.RecordBatch.from_pydict({"x": np.arange(6.0), "y": np.arange(6.0)[::-1]})


def drawn(rows, seed):
    """Probabilities that depend on the row alone."""
    return [
        np.random.default_rng([seed, *(int(value) for value in row.values())]).dirichlet(np.ones(3))
        for row in rows
    ]


def member(seed, columns=("x", "y")):
    return CallableTeacher(
        lambda rows: np.array(drawn(rows, seed)).reshape(-1, 3),
        CLASSES,
        columns,
        fingerprint=f"seed {seed}",
    )


class Embeds(LocalTeacher):
    """Answers with embeddings, of some rows only."""

    name, classes, columns = "embeds", CLASSES, ("x",)

    def __init__(self, answers=None):
        self.fingerprint = f"embeds {answers}"
        self._answers = answers

    def say(self, rows):
        x = rows.column("x").to_numpy()
        failure = [None if self._answers is None or value in self._answers else "no" for value in x]
        return Said(np.tile([0.2, 0.3, 0.5], (len(x), 1)), np.stack([x, -x], 1), failure)


def ask(teacher, rows=ROWS):
    replies = teacher.ask(batch_ids(rows, teacher), rows)
    return *teacher.parse(replies), replies


@given(seeds=st.lists(st.integers(0, 99), min_size=2, max_size=5, unique=True))
def test_probabilities_are_the_mean_and_the_spread_is_the_population_deviation(seeds):
    answers, ok, _ = ask(MeanTeacher([member(seed) for seed in seeds]))
    each = np.stack([drawn(ROWS.to_pylist(), seed) for seed in seeds])
    assert ok.all()
    np.testing.assert_allclose(answers.probs.numpy(), each.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(answers.spread.numpy(), each.std(axis=0), atol=1e-6)


def test_a_row_has_an_answer_when_every_teacher_has_one_and_each_is_paid_for_its_own():
    some, others = Embeds({0.0, 1.0, 2.0}), Embeds({1.0, 2.0, 5.0})
    priced = [with_price(some, 10), with_price(others, 3), member(1)]
    answers, ok, replies = ask(MeanTeacher(priced))
    assert ok.tolist() == [False, True, True, False, False, False]
    assert replies.price.tolist() == [10, 13, 13, 0, 0, 3]
    assert "teacher 1 of 3: no" in replies.failure[3]
    assert "teacher 2 of 3: no" in replies.failure[0]
    one = [drawn(ROWS.to_pylist(), 1)[i] for i in (1, 2)]
    wanted = (2 * np.array([0.2, 0.3, 0.5]) + np.array(one)) / 3
    np.testing.assert_allclose(answers.probs.numpy(), wanted, atol=1e-6)
    assert answers.embeddings.tolist() == [[1.0, -1.0], [2.0, -2.0]]


def test_the_embedding_is_that_of_the_first():
    assert ask(MeanTeacher([member(1), Embeds()]))[0].embeddings is None
    first = ask(MeanTeacher([Embeds(), member(1)]))[0].embeddings
    assert torch.equal(first[:, 0], torch.arange(6.0))


def test_a_question_is_what_any_of_them_sees_and_a_quote_is_the_sum():
    teacher = MeanTeacher([member(1, ("y",)), with_price(member(2, ("x",)), 7)])
    assert teacher.columns == ("y", "x")
    assert teacher.quote(ROWS) == Money(42)


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(ConfigError, match="ensemble of 1 teachers"):
        MeanTeacher([member(1)])
    with pytest.raises(ConfigError, match="twice in the ensemble"):
        MeanTeacher([member(1), member(2), member(1)])
    other = CallableTeacher(lambda rows: [], ("a", "b"), ("x",), fingerprint="other")
    with pytest.raises(ConfigError, match="teacher 2 of the ensemble knows classes"):
        MeanTeacher([member(1), other])


ONE, TWO = (TeacherConfig(kind="callable", function=f"m:{name}") for name in "fg")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "ensemble", "teachers": (ONE,)}, "has 1 teachers, expected at least 2"),
        ({"kind": "ensemble", "teachers": (ONE, TWO), "price_per_answer": 1}, "paid one by one"),
        ({"kind": "ensemble", "teachers": (ONE, TeacherConfig(kind="fit"))}, "kind 'fit'"),
        ({"kind": "ensemble", "teachers": (ONE, TeacherConfig(kind="human"))}, "kind 'human'"),
        ({"kind": "ensemble", "teachers": (ONE, replace(TWO, currency="EUR"))}, "one currency"),
        ({"kind": "simulated", "teachers": (ONE, TWO)}, "expected one at most"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        TeacherConfig(**settings)


def test_paths_of_the_teachers_are_relative_to_the_run_file_too(tmp_path):
    inner = TeacherConfig(kind="table", path=tmp_path.relative_to("/") / "a.csv")
    config = TeacherConfig(kind="ensemble", teachers=(inner, ONE)).relative_to(tmp_path)
    assert config.teachers[0].path == tmp_path / inner.path


def test_a_simulated_teacher_may_spoil_another_one(tmp_path):
    (tmp_path / "of_mine.py").write_text(
        "def say(rows):\n    return [[0.5, 0.3, 0.2] if r['x'] > 2 else [0.1, 0.2, 0.7]"
        " for r in rows]\n"
    )
    inner = TeacherConfig(kind="callable", function="of_mine:say")
    config = TeacherConfig(kind="simulated", teachers=(inner,), error_rate=1.0, adversarial=True)
    made = build(config, SCHEMA, tmp_path)
    assert isinstance(made, SimulatedTeacher)
    top = ask(made)[0].probs.argmax(dim=1)
    # yes (2) is taken for no (0), and no for maybe (1).
    assert top.tolist() == [0, 0, 0, 1, 1, 1]
