"""Metrics against scikit-learn and against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from limbeck.errors import ShapeError
from limbeck.numerics import metrics


def random_case(seed: int, n: int, c: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(c), size=n), rng.integers(0, c, size=n)


cases = {"seed": st.integers(0, 2**32 - 1), "n": st.integers(1, 60), "c": st.integers(2, 6)}


@given(**cases)
def test_accuracy_confusion_and_macro_f1_equal_scikit_learn(seed: int, n: int, c: int) -> None:
    probs, labels = random_case(seed, n, c)
    predicted = probs.argmax(axis=1)
    counts = metrics.confusion(predicted, labels, c)
    assert metrics.accuracy(probs, labels) == pytest.approx(sk.accuracy_score(labels, predicted))
    np.testing.assert_array_equal(
        counts, sk.confusion_matrix(labels, predicted, labels=np.arange(c))
    )
    present = np.union1d(labels, predicted)
    expected = sk.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert metrics.macro_f1(counts) == pytest.approx(expected)


@given(**cases)
def test_precision_and_recall_equal_scikit_learn(seed: int, n: int, c: int) -> None:
    probs, labels = random_case(seed, n, c)
    predicted = probs.argmax(axis=1)
    precision, recall = metrics.precision_recall(metrics.confusion(predicted, labels, c))
    wanted = sk.precision_recall_fscore_support(
        labels, predicted, labels=np.arange(c), zero_division=0
    )
    np.testing.assert_allclose(precision, wanted[0])
    np.testing.assert_allclose(recall, wanted[1])


@given(**cases)
def test_nll_equals_scikit_learns_log_loss(seed: int, n: int, c: int) -> None:
    probs, labels = random_case(seed, n, c)
    expected = sk.log_loss(labels, probs, labels=np.arange(c))
    assert metrics.nll(np.log(probs), labels) == pytest.approx(expected)


@given(seed=cases["seed"], n=st.integers(2, 60))
def test_brier_of_two_classes_is_twice_scikit_learns(seed: int, n: int) -> None:
    probs, labels = random_case(seed, n, 2)
    labels[:2] = 0, 1  # scikit-learn wants both classes
    expected = 2 * sk.brier_score_loss(labels, probs[:, 1])
    assert metrics.brier(probs, labels) == pytest.approx(expected)


@given(**cases)
def test_ece_equals_the_sum_written_from_its_definition(seed: int, n: int, c: int) -> None:
    probs, labels = random_case(seed, n, c)
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
    total = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.ece(metrics.reliability(probs, labels)) == pytest.approx(total)


def test_reliability_bins_worked_out_by_hand() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.45, 0.55]])
    labels = np.array([0, 1, 1, 1])
    bins = metrics.reliability(probs, labels, bins=4)
    assert [b.count for b in bins] == [0, 0, 2, 2]
    assert bins[2].confidence == pytest.approx(0.575)
    assert bins[2].accuracy == 1.0
    assert bins[3].confidence == pytest.approx(0.85)
    assert bins[3].accuracy == 0.5
    assert metrics.ece(bins) == pytest.approx(0.5 * 0.425 + 0.5 * 0.35)


def test_certain_answers_fall_into_the_last_bin_and_every_row_is_counted() -> None:
    bins = metrics.reliability(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    assert bins[-1].count == 2
    assert sum(b.count for b in bins) == 2


def test_a_label_the_model_calls_impossible_costs_a_finite_amount() -> None:
    log_probs = np.array([[0.0, -np.inf], [0.0, -np.inf]])
    assert metrics.nll(log_probs, np.array([0, 1])) == 50.0


def test_temperature_one_changes_nothing_and_a_high_one_gives_uniform() -> None:
    log_probs = np.log(np.array([[0.7, 0.2, 0.1]]))
    np.testing.assert_allclose(metrics.tempered(log_probs, 1.0), log_probs)
    np.testing.assert_allclose(metrics.tempered(log_probs, 1e9), math.log(1 / 3), rtol=1e-6)


def test_tensors_give_the_same_numbers_as_arrays() -> None:
    probs, labels = random_case(0, 20, 3)
    tensors = torch.from_numpy(probs), torch.from_numpy(labels)
    assert metrics.accuracy(*tensors) == metrics.accuracy(probs, labels)
    assert metrics.brier(*tensors) == metrics.brier(probs, labels)
    assert metrics.nll(tensors[0].log(), tensors[1]) == pytest.approx(
        metrics.nll(np.log(probs), labels)
    )


def test_inputs_are_left_as_they_were() -> None:
    probs, labels = random_case(1, 10, 3)
    before = probs.copy()
    metrics.brier(probs, labels)
    metrics.tempered(probs, 2.0)
    np.testing.assert_array_equal(probs, before)


@pytest.mark.parametrize(("n", "labels"), [(0, 0), (3, 2)])
def test_wrong_shapes_are_refused_with_both_shapes(n: int, labels: int) -> None:
    with pytest.raises(ShapeError, match=rf"\({n}, 2\).*\({labels},\)"):
        metrics.accuracy(np.ones((n, 2)), np.zeros(labels, dtype=np.int64))
