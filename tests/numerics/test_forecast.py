"""Forecasts of sums against closed forms, exact enumeration and simulated coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics.forecast import forecast_sum, merged


def test_known_prices_give_the_closed_form():
    prices = np.array([1, 2, 3, 4, 5])
    found = forecast_sum(prices, 20)
    # Mean 3, variance 2.5; the error of a sum of 20 from 5 has variance 2.5 * 20 * (1 + 20 / 5).
    reach = stats.t.ppf(0.975, 4) * math.sqrt(2.5 * 20 * 5)
    assert found.estimate == pytest.approx(60)
    assert found.high == pytest.approx(60 + reach)
    assert found.low == pytest.approx(60 - reach)


def test_equal_prices_leave_no_doubt_and_nothing_to_come_costs_nothing():
    found = forecast_sum(np.full(7, 10_000), 100)
    assert (found.estimate, found.low, found.high) == (1e6, 1e6, 1e6)
    assert forecast_sum(np.array([1.0, 2.0, 4.0]), 0).high == 0


def test_an_interval_of_prices_does_not_go_below_nothing():
    found = forecast_sum(np.array([0.0, 0.0, 0.0, 9.0]), 1)
    assert found.low == 0


@given(st.lists(st.integers(0, 50), min_size=5, max_size=8), st.data())
def test_the_error_of_the_rest_of_a_finite_population_has_the_stated_variance(values, data):
    """Over all samples of n out of M: mean error 0, mean square S^2 N (1 + N / n)."""
    population = np.array(values, np.float64)
    total, size = population.sum(), len(population)
    n = data.draw(st.integers(3, size - 1))
    errors = []
    for rows in itertools.combinations(range(size), n):
        seen = population[list(rows)]
        errors.append(forecast_sum(seen, size - n).estimate - (total - seen.sum()))
    rest = size - n
    variance = population.var(ddof=1) * rest * (1 + rest / n)
    assert np.mean(errors) == pytest.approx(0, abs=1e-9)
    assert np.mean(np.square(errors)) == pytest.approx(variance)


@pytest.mark.parametrize(("n", "rest"), [(5, 500), (20, 20), (200, 5_000)])
def test_the_interval_holds_the_truth_in_95_of_100_runs(n, rest):
    rng = np.random.default_rng(n)
    inside = []
    for _ in range(2_000):
        population = rng.normal(100, 15, n + rest)
        found = forecast_sum(population[:n], rest)
        inside.append(found.low <= population[n:].sum() <= found.high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.018)  # 3.7 standard errors


def test_the_interval_holds_the_truth_for_skewed_prices_and_blocks_of_several_sizes():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(2_000):
        sizes = rng.integers(50, 256, 40)
        values = rng.gamma(2.0 * sizes, 3.0)  # each unit is skewed, a block is their sum
        found = forecast_sum(values, 10_000, sizes=sizes)
        truth = rng.gamma(2.0 * 10_000, 3.0)
        inside.append(found.low <= truth <= found.high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.018)


def test_a_block_counts_by_its_size():
    sizes = np.array([10, 20, 30])
    found = forecast_sum(2.0 * sizes, 100, sizes=sizes)
    assert (found.estimate, found.low, found.high) == pytest.approx((200, 200, 200))


def test_joined_blocks_keep_every_unit_and_cover_slow_hours():
    """A server that is slow for hours: single blocks are too sure, joined ones are not."""
    rng = np.random.default_rng(1)
    inside = {512: [], 16: []}
    for _ in range(400):
        pace = np.repeat(rng.gamma(4.0, 0.25, 40), 32)  # one pace for 32 blocks in a row
        values = pace * rng.gamma(20.0, 0.05, len(pace))
        seen, sizes = values[:512], np.ones(512, np.int64)
        for most, found in inside.items():
            joined, units = merged(seen, sizes, most)
            assert (joined.sum(), units.sum()) == (pytest.approx(seen.sum()), 512)
            assert len(joined) <= most
            guess = forecast_sum(joined, 768, sizes=units)
            found.append(guess.low <= values[512:].sum() <= guess.high)
    assert np.mean(inside[512]) < 0.6
    assert np.mean(inside[16]) > 0.9


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 40))
def test_joining_keeps_order_and_sums(sizes, most):
    sizes = np.array(sizes, np.int64)
    values, units = merged(sizes * 2.0, sizes, most)
    assert len(units) <= max(most, 1)
    assert units.sum() == sizes.sum()
    assert np.isin(np.cumsum(units), np.cumsum(sizes)).all()
    assert values.tolist() == (2.0 * units).tolist()


def test_too_few_blocks_and_impossible_units_are_refused():
    with pytest.raises(ShapeError, match="at least 3 blocks"):
        forecast_sum(np.array([1.0, 2.0]), 5)
    with pytest.raises(ShapeError, match="sizes of shape"):
        forecast_sum(np.ones(4), 5, sizes=np.ones(3, np.int64))
    with pytest.raises(ConfigError, match="sizes > 0"):
        forecast_sum(np.ones(4), 5, sizes=np.array([1, 0, 1, 1]))
    with pytest.raises(ConfigError, match="units=-1"):
        forecast_sum(np.ones(4), -1)
