import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics.rounding import dependent_rounding, systematic_sampling

BOTH = pytest.mark.parametrize("draw", [dependent_rounding, systematic_sampling])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def probabilities(n, k, seed, sure=0):
    """n probabilities that sum to k, `sure` of them 1 and as many 0."""
    rng = np.random.default_rng(seed)
    free, want = n - 2 * sure, k - sure
    x = rng.dirichlet(np.ones(free)) * want
    for _ in range(200):  # cap at 1 and spread the rest
        over = np.maximum(x - 1, 0).sum()
        x = np.minimum(x, 1)
        room = x < 1
        if over == 0 or not room.any():
            break
        x[room] += over * (1 - x[room]) / (1 - x[room]).sum()
    return torch.from_numpy(np.concatenate([np.ones(sure), np.zeros(sure), x]))


@BOTH
@given(n=st.integers(1, 40), seed=st.integers(0, 999), data=st.data())
def test_exactly_k_distinct_rows_with_the_sure_ones_and_without_the_impossible(draw, n, seed, data):
    k = data.draw(st.integers(0, n))
    p = probabilities(n + 4, k + 2, seed, sure=2)
    rows = draw(p, generator(seed)).tolist()
    assert len(rows) == k + 2 == len(set(rows))
    assert rows == sorted(rows)
    assert {0, 1} <= set(rows)
    assert not {2, 3} & set(rows)


@BOTH
def test_marginals_are_within_four_standard_errors(draw):
    p = probabilities(12, 4, seed=1, sure=1)
    # Each of 20 copies of the rows is as likely to be drawn, and 1,000 such draws are quick.
    copies, turns, source = 20, 1_000, generator(3)
    draws = copies * turns
    counts = torch.zeros(12 * copies, dtype=torch.float64)
    for _ in range(turns):
        counts[draw(p.repeat(copies), source)] += 1
    counts = counts.reshape(copies, 12).sum(dim=0)
    error = (p * (1 - p) / draws).sqrt()
    assert ((counts / draws - p).abs() <= 4 * error + 1e-12).all()


def test_dependent_rounding_makes_no_pair_likelier_than_independent_draws():
    p = probabilities(8, 3, seed=2)
    draws, source = 5_000, generator(4)
    drawn = torch.zeros(draws, 8, dtype=torch.float64)
    for row in drawn:
        row[dependent_rounding(p, source)] = 1
    for i, j in itertools.combinations(range(8), 2):
        both, free = float((drawn[:, i] * drawn[:, j]).mean()), float(p[i] * p[j])
        assert both <= free + 4 * (free / draws) ** 0.5


def test_two_rows_that_sum_to_one_are_drawn_in_their_proportion():
    p, source = torch.tensor([0.3, 0.7], dtype=torch.float64), generator()
    first = sum(int(dependent_rounding(p, source)[0] == 0) for _ in range(5_000))
    assert abs(first / 5_000 - 0.3) < 4 * (0.21 / 5_000) ** 0.5


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_hundred_thousand_rows_keep_their_size(draw, dtype):
    x = torch.rand(100_000, dtype=torch.float64, generator=generator(7))
    p = (x * (5_000 / x.sum())).to(dtype)
    assert len(draw(p, generator(8))) == 5_000


@BOTH
def test_probabilities_next_to_one_are_drawn_once_each(draw):
    p = torch.full((1_000,), 1 - 2**-53, dtype=torch.float64)
    assert draw(p, generator()).tolist() == list(range(1_000))


@BOTH
def test_a_seed_gives_the_same_rows_and_leaves_the_input(draw):
    p = probabilities(50, 10, seed=5)
    before = p.clone()
    assert torch.equal(draw(p, generator(1)), draw(p, generator(1)))
    assert not torch.equal(draw(p, generator(1)), draw(p, generator(2)))
    assert torch.equal(p, before)


@BOTH
def test_nothing_to_draw_gives_no_rows(draw):
    assert len(draw(torch.zeros(0), generator())) == 0
    assert len(draw(torch.zeros(5), generator())) == 0
    assert draw(torch.ones(3), generator()).tolist() == [0, 1, 2]


@BOTH
@pytest.mark.parametrize(
    ("p", "error", "words"),
    [
        ([0.5, 0.4], ConfigError, "no whole number"),
        ([1.5, 0.5], ConfigError, r"lie in \[0, 1\]"),
        ([-0.5, 0.5, 1.0], ConfigError, r"lie in \[0, 1\]"),
        ([float("nan"), 1.0], ConfigError, r"lie in \[0, 1\]"),
        ([[1.0]], ShapeError, "shape"),
    ],
)
def test_what_is_no_probability_is_refused(draw, p, error, words):
    with pytest.raises(error, match=words):
        draw(torch.tensor(p), generator())


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_tiny_and_large_probabilities_still_make_k(seed):
    rng = np.random.default_rng(seed)
    x = 10.0 ** rng.uniform(-14, 0, 300)
    p = torch.from_numpy(np.concatenate([x / x.sum(), 1 - x / x.sum()]))
    for draw in (dependent_rounding, systematic_sampling):
        assert len(draw(p, generator(seed))) == 300
