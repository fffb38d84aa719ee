"""Against scipy's own tests, Holm's definition taken literally, and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics.intervals import paired_t
from limbeck.numerics.significance import holm, paired_p, seeds_needed


@given(seed=st.integers(0, 2**32 - 1), s=st.integers(2, 12), shift=st.floats(-2, 2))
def test_the_p_value_is_that_of_a_paired_t_test_and_agrees_with_the_interval(seed, s, shift):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=s), rng.normal(size=s) + shift
    p = paired_p(a - b)
    assert p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=1e-12)
    assert (p < 0.05) == paired_t(a - b).excludes_zero


def test_differences_without_spread():
    assert paired_p(np.zeros(5)) == 1.0
    assert paired_p(np.full(5, 0.25)) == 0.0


def test_one_difference_is_refused():
    with pytest.raises(ShapeError, match="at least 2 differences"):
        paired_p(np.zeros(1))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_rejects_what_the_step_down_procedure_rejects_at_every_level(p_values):
    adjusted = holm(p_values)
    m = len(p_values)
    for level in (0.01, 0.05, 0.2, 0.7):
        rejected = set()
        for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
            if p_values[i] * (m - rank) > level:
                break
            rejected.add(i)
        assert {i for i in range(m) if adjusted[i] <= level} == rejected


def test_holm_keeps_the_order_of_the_tests():
    p_values = [0.04, 0.001, 0.03]
    for order in itertools.permutations(range(3)):
        shuffled = holm([p_values[i] for i in order])
        assert shuffled == tuple(holm(p_values)[i] for i in order)


@pytest.mark.parametrize(("deviation", "difference"), [(1.0, 1.0), (0.8, 1.0), (3.0, 1.0)])
def test_the_seeds_needed_are_the_first_that_reach_the_power(deviation, difference):
    def power(n: int) -> float:
        critical = stats.t.ppf(0.975, n - 1)
        return float(stats.nct.sf(critical, n - 1, difference / deviation * math.sqrt(n)))

    n = seeds_needed(deviation, difference)
    assert n is not None
    assert n == next(m for m in range(2, 200) if power(m) >= 0.8)


def test_the_power_is_what_simulated_comparisons_show():
    n = seeds_needed(1.0, 1.0)
    draws = np.random.default_rng(0).normal(1.0, 1.0, size=(4000, n))
    found = stats.ttest_1samp(draws, 0, axis=1)
    share = float(((found.pvalue < 0.05) & (found.statistic > 0)).mean())
    assert 0.78 <= share <= 0.87  # the smallest such n lies a little above 80 %


def test_the_ends_of_the_range():
    assert seeds_needed(0.0, 1.0) == 2
    assert seeds_needed(1e-6, 1.0, least=5) == 5
    assert seeds_needed(1e6, 1.0) is None


@pytest.mark.parametrize("bad", [(-1.0, 1.0, 0.8), (1.0, 0.0, 0.8), (1.0, 1.0, 1.0)])
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError, match="need deviation"):
        seeds_needed(bad[0], bad[1], power=bad[2])
