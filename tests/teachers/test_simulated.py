"""A simulated teacher: its rates against binomial bounds, its answers against the definition."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, kstest

from limbeck.data.schema import Schema
from limbeck.engines.questions import batch_ids
from limbeck.errors import ConfigError, LimbeckWarning
from limbeck.teachers import ColumnsTeacher, SimulatedTeacher, TeacherConfig, build
from limbeck.teachers.simulated import FAILED, uniforms

CLASSES = ("no", "maybe", "yes", "never")
SCHEMA = Schema((), ("x",), (), None, CLASSES)
ROWS = 4000


def rows(n=ROWS):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), n)
    return pa.RecordBatch.from_pydict(
        {"x": np.arange(n, dtype=float), "truth": pa.array(np.array(CLASSES)[labels].tolist())}
    ), labels


BATCH, LABELS = rows()
TRUTH = ColumnsTeacher(SCHEMA, ("x", "truth"), label="truth")


def ask(teacher, batch=BATCH):
    """Top class, margin, and which rows have an answer, from the replies themselves."""
    replies = teacher.ask(batch_ids(batch, teacher), batch)
    answers, ok = teacher.parse(replies)
    probs = answers.probs.numpy().astype(np.float64)
    ordered = np.sort(probs, axis=1)
    return probs.argmax(axis=1), ordered[:, -1] - ordered[:, -2], ok, replies


def agrees_with(count, n, rate):
    """Whether a count of n is one that chance gives in all but one of a million times."""
    low, high = binom.interval(1 - 1e-6, n, rate)
    return low <= count <= high


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("falls", [False, True])
def test_as_many_answers_are_wrong_as_asked_for(rate, falls):
    if falls and rate > 0.5:
        pytest.skip("refused")
    top, *_ = ask(SimulatedTeacher(TRUTH, error_rate=rate, error_falls=falls))
    assert agrees_with((top != LABELS).sum(), ROWS, rate)


def test_errors_that_fall_do_so_in_a_straight_line_with_the_margin():
    top, margin, *_ = ask(SimulatedTeacher(TRUTH, error_rate=0.4, error_falls=True))
    for low in np.arange(0, 1, 0.2):
        inside = (margin >= low) & (margin < low + 0.2)
        # The chance in a narrow band is that in its middle, because it is linear in the margin.
        rate = 2 * 0.4 * (1 - (low + 0.1))
        assert agrees_with((top != LABELS)[inside].sum(), inside.sum(), rate)


def test_errors_that_do_not_fall_are_as_many_at_every_margin():
    top, margin, *_ = ask(SimulatedTeacher(TRUTH, error_rate=0.3))
    for half in (margin < 0.5, margin >= 0.5):
        assert agrees_with((top != LABELS)[half].sum(), half.sum(), 0.3)


def test_margins_are_uniform_and_parts_are_two_two_one_one():
    teacher = SimulatedTeacher(TRUTH, error_rate=0.3)
    _, margin, *_ = ask(teacher)
    assert kstest(margin, "uniform").pvalue > 1e-6
    answers, _ = teacher.parse(teacher.ask(batch_ids(BATCH, teacher), BATCH))
    ordered = np.sort(answers.probs.numpy().astype(np.float64), axis=1)
    rest = (1 - margin) / 6
    wanted = np.stack([rest, rest, 2 * rest, 2 * rest + margin], axis=1)
    assert np.allclose(ordered, wanted, atol=1e-6)


def test_an_adversarial_error_names_the_class_after_the_true_one_and_others_name_any():
    top, *_ = ask(SimulatedTeacher(TRUTH, error_rate=1.0, adversarial=True))
    assert ((top - LABELS) % 4 == 1).all()
    top, *_ = ask(SimulatedTeacher(TRUTH, error_rate=1.0))
    for step in (1, 2, 3):
        assert agrees_with(((top - LABELS) % 4 == step).sum(), ROWS, 1 / 3)


@pytest.mark.parametrize("adversarial", [False, True])
def test_in_an_error_the_true_class_comes_second(adversarial):
    teacher = SimulatedTeacher(TRUTH, error_rate=1.0, adversarial=adversarial)
    answers, _ = teacher.parse(teacher.ask(batch_ids(BATCH, teacher), BATCH))
    second = np.argsort(answers.probs.numpy(), axis=1)[:, -2]
    assert (second == LABELS).mean() > 0.999  # ties at margin 0


def test_failures_are_as_many_as_asked_for_and_are_never_answers():
    _, _, ok, replies = ask(SimulatedTeacher(TRUTH, failure_rate=0.2))
    assert agrees_with((~ok).sum(), ROWS, 0.2)
    assert [raw is None for raw in replies.raw] == (~ok).tolist()
    assert {why for why, has in zip(replies.failure, ok, strict=True) if not has} == {FAILED}


def test_a_row_whose_truth_is_not_known_has_no_answer():
    batch = pa.RecordBatch.from_pydict({"x": [1.0, 2.0], "truth": pa.array(["yes", None])})
    _, _, ok, replies = ask(SimulatedTeacher(TRUTH), batch)
    assert ok.tolist() == [True, False]
    assert "not in the table" in replies.failure[1]


@given(seed=st.integers(0, 2**64), data=st.data())
def test_batches_and_order_change_no_answer(seed, data):
    batch = BATCH.slice(0, 40)
    order = data.draw(st.permutations(range(40)))
    size = data.draw(st.integers(1, 40))
    settings = {"error_rate": 0.5, "failure_rate": 0.3, "seed": seed}
    whole = ask(SimulatedTeacher(TRUTH, **settings), batch)[3]
    teacher = SimulatedTeacher(TRUTH, **settings)
    raw = {}
    for start in range(0, 40, size):
        part = batch.take(pa.array(order[start : start + size]))
        replies = teacher.ask(batch_ids(part, teacher), part)
        raw |= {bytes(key): reply for key, reply in zip(replies.ids, replies.raw, strict=True)}
    assert [raw[bytes(key)] for key in whole.ids] == list(whole.raw)


def test_another_seed_gives_other_answers_and_another_fingerprint():
    one, two = (SimulatedTeacher(TRUTH, error_rate=0.5, seed=seed) for seed in (0, 1))
    assert one.fingerprint != two.fingerprint
    assert agrees_with((ask(one)[0] == ask(two)[0]).sum(), ROWS, 0.5 * 0.5 + 0.25 / 3)


def test_every_rate_is_in_the_fingerprint_and_the_wait_is_not():
    kinds = [
        {},
        {"error_rate": 0.1},
        {"error_rate": 0.1, "error_falls": True},
        {"error_rate": 0.1, "adversarial": True},
        {"failure_rate": 0.1},
    ]
    assert len({SimulatedTeacher(TRUTH, **kind).fingerprint for kind in kinds}) == len(kinds)
    slow = SimulatedTeacher(TRUTH, latency_seconds=9.0)
    assert slow.fingerprint == SimulatedTeacher(TRUTH).fingerprint


def test_it_waits_for_each_answer():
    waits = []
    teacher = SimulatedTeacher(TRUTH, latency_seconds=0.5, sleep=waits.append)
    ask(teacher, BATCH.slice(0, 6))
    ask(teacher, BATCH.slice(0, 0))
    assert waits == [3.0]


def test_the_four_numbers_of_a_question_are_uniform_and_unrelated():
    ids = np.random.default_rng(0).integers(0, 256, (3000, 16), np.uint8)
    draws = uniforms(ids, 3)
    assert all(kstest(column, "uniform").pvalue > 1e-6 for column in draws.T)
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.1


@pytest.mark.parametrize(
    "bad",
    [
        {"error_rate": 1.1},
        {"error_rate": -0.1},
        {"failure_rate": 1.1},
        {"error_rate": 0.6, "error_falls": True},
        {"latency_seconds": -1.0},
    ],
)
def test_rates_that_are_none_are_refused_in_python_and_in_a_run_file(bad):
    with pytest.raises(ConfigError):
        SimulatedTeacher(TRUTH, **bad)
    with pytest.raises(ConfigError, match=r"teacher\."):
        TeacherConfig(kind="simulated", **bad)


def test_settings_of_the_run_file_reach_the_teacher(tmp_path):
    config = TeacherConfig(
        kind="simulated", label="truth", error_rate=0.2, error_falls=True, adversarial=True,
        failure_rate=0.1, noise_seed=5,
    )  # fmt: skip
    made = build(config, SCHEMA, tmp_path, names=("x", "truth"))
    by_hand = SimulatedTeacher(
        TRUTH, error_rate=0.2, error_falls=True, adversarial=True, failure_rate=0.1, seed=5
    )
    assert made.fingerprint == by_hand.fingerprint


def test_another_kind_does_not_read_them():
    with pytest.warns(LimbeckWarning, match="teacher.error_rate means nothing"):
        TeacherConfig(kind="fit", error_rate=0.2)


def test_without_a_truth_the_sentence_names_where_to_give_one():
    with pytest.raises(ConfigError, match=r"needs the truth: .* teacher\.label"):
        build(TeacherConfig(kind="simulated"), SCHEMA, Path(), names=("x",))
