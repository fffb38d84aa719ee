import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError, ShapeError
from limbeck.select.gains import MEASURES, gains, ranks

UNSURE, SURE = [0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]


def softmax(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.softmax(3 * torch.randn(*shape, generator=g), dim=-1)


@pytest.mark.parametrize("measure", ["margin", "entropy", "least_confidence"])
def test_a_sure_row_gains_nothing_and_an_unsure_one_everything(measure):
    assert gains(torch.tensor([SURE, UNSURE]), measure).tolist() == pytest.approx([0, 1])


def test_measures_by_hand():
    f = torch.tensor([[0.6, 0.3, 0.1]])
    assert float(gains(f, "margin")) == pytest.approx(0.7)
    assert float(gains(f, "least_confidence")) == pytest.approx(0.4 * 3 / 2)
    entropy = -sum(p * math.log(p) for p in (0.6, 0.3, 0.1)) / math.log(3)
    assert float(gains(f, "entropy")) == pytest.approx(entropy)
    h = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    norm = math.sqrt(0.16 + 0.09 + 0.01)
    found = gains(f.repeat(2, 1), "gradient_norm", embeddings=h)
    assert found.tolist() == pytest.approx([1, 1 / 5])
    head = torch.nn.Linear(2, 3, bias=False)
    loss = torch.nn.functional.cross_entropy
    with torch.no_grad():
        head.weight.copy_(torch.linalg.pinv(h[:1]).T[:1] * f[0].log()[:, None])
    loss(head(h[:1]), f.argmax(1)).backward()
    assert float(head.weight.grad.norm()) == pytest.approx(norm * 5, rel=1e-5)


def test_bald_is_nothing_for_members_that_agree_and_everything_for_sure_ones_that_differ():
    same = softmax(1, 5, 4).repeat(3, 1, 1)
    assert gains(same, "bald").tolist() == pytest.approx([0] * 5, abs=1e-6)
    differ = torch.eye(2)[:, None, :]
    assert float(gains(differ, "bald")) == pytest.approx(1)


@given(rows=st.integers(0, 20), classes=st.integers(2, 6), seed=st.integers(0, 99))
def test_gains_are_in_range_and_follow_a_permutation_of_rows(rows, classes, seed):
    for measure in MEASURES:
        f = softmax(*((3,) if measure == "bald" else ()), rows, classes, seed=seed)
        h = softmax(rows, 3, seed=seed + 1)
        order = torch.from_numpy(np.random.default_rng(seed).permutation(rows))
        moved = f[:, order] if measure == "bald" else f[order]
        found = gains(f, measure, embeddings=h)
        assert found.shape == (rows,)
        assert bool(((found >= 0) & (found <= 1)).all())
        torch.testing.assert_close(gains(moved, measure, embeddings=h[order]), found[order])


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30))
def test_ranks_are_those_of_scipy_over_n_minus_one(scores):
    from scipy.stats import rankdata

    expected = (rankdata(scores) - 1) / max(len(scores) - 1, 1)
    assert np.allclose(ranks(torch.tensor(scores, dtype=torch.float64)), expected)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: gains(softmax(3, 2), "mood"), ConfigError, "mood"),
        (lambda: gains(softmax(3), "margin"), ShapeError, "n, C"),
        (lambda: gains(softmax(3, 2), "bald"), ShapeError, "M, n, C"),
        (lambda: gains(softmax(3, 2), "gradient_norm"), ShapeError, "embeddings"),
        (lambda: gains(torch.tensor([[0.5, 0.4]]), "margin"), ConfigError, "sum to 1"),
        (lambda: gains(torch.tensor([[float("nan"), 1.0]]), "margin"), ConfigError, "NaN"),
        (lambda: gains(torch.tensor([[1.5, -0.5]]), "margin"), ConfigError, ">= 0"),
        (lambda: ranks(torch.tensor([float("nan")])), ConfigError, "NaN"),
        (lambda: ranks(torch.zeros(2, 2)), ShapeError, "shape"),
    ],
)
def test_what_is_no_prediction_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
