"""Intervals against closed forms, scipy, a slow bootstrap and their own promised coverage."""

import time

import numpy as np
import pytest
from scipy import stats

from limbeck.errors import ShapeError
from limbeck.numerics.intervals import (
    Interval,
    bootstrap_mean,
    paired_bootstrap,
    paired_t,
    wilson,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def slow_bootstrap(differences: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """Resample rows one draw at a time, as the textbook says."""
    source, n = rng(seed), len(differences)
    means = [differences[source.integers(0, n, n)].mean() for _ in range(draws)]
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


@pytest.mark.parametrize("kind", ["right or wrong", "losses"])
def test_the_bootstrap_agrees_with_the_slow_one(kind: str) -> None:
    source = rng(1)
    if kind == "losses":  # 2,000 distinct values: the rounded path
        a, b = source.exponential(1.0, 2_000), source.exponential(1.1, 2_000)
    else:
        a, b = source.random(400) < 0.8, source.random(400) < 0.7
    interval = paired_bootstrap(a, b, generator=rng(2))
    difference = a.astype(float) - b.astype(float)
    low, high = slow_bootstrap(difference, 4_000, seed=3)
    width = high - low
    assert interval.estimate == pytest.approx(difference.mean())
    assert interval.low == pytest.approx(low, abs=0.06 * width)
    assert interval.high == pytest.approx(high, abs=0.06 * width)


def test_many_distinct_scores_give_the_normal_interval_of_a_large_sample() -> None:
    scores = rng(4).standard_normal(25_000)
    interval = bootstrap_mean(scores, generator=rng(5))
    reach = 1.96 * scores.std() / np.sqrt(len(scores))
    assert interval.half_width == pytest.approx(reach, rel=0.03)
    assert (interval.low + interval.high) / 2 == pytest.approx(scores.mean(), abs=0.05 * reach)


def test_the_bootstrap_covers_the_true_difference_about_95_times_in_100() -> None:
    source, hits = rng(6), 0
    truth = 0.8 - 0.7 + _bias(0.7, 0.1)
    for _ in range(1_000):
        shared = source.random(200)  # both models see the same easy and hard rows
        a, b = shared < 0.8, shared + source.normal(0, 0.1, 200) < 0.7
        interval = paired_bootstrap(a, b, draws=500, generator=source)
        hits += interval.low <= truth <= interval.high
    assert 920 <= hits <= 970


def _bias(cut: float, noise: float) -> float:
    """How far P(u + noise z < cut) is below the cut, u uniform: 0 unless the noise hits an end."""
    grid = np.linspace(0, 1, 200_001)
    return cut - float(stats.norm.cdf((cut - grid) / noise).mean())


def test_equal_models_have_a_difference_of_exactly_zero() -> None:
    right = rng(7).random(100) < 0.5
    assert paired_bootstrap(right, right, generator=rng()) == Interval(0.0, 0.0, 0.0)


def test_swapping_the_models_turns_the_interval_around() -> None:
    a, b = rng(8).random(300) < 0.9, rng(9).random(300) < 0.8
    ab = paired_bootstrap(a, b, generator=rng(1))
    ba = -paired_bootstrap(b, a, generator=rng(1))
    assert ab.estimate == pytest.approx(ba.estimate)
    assert ab.low == pytest.approx(ba.low, abs=0.01)
    assert ab.excludes_zero
    assert ba.excludes_zero


def test_the_same_generator_gives_the_same_interval() -> None:
    a, b = rng(1).random(50), rng(2).random(50)
    first, second = (paired_bootstrap(a, b, generator=rng(3)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", ["right or wrong", "losses"])
def test_25000_rows_take_less_than_a_second_or_two_on_a_busy_machine(kind: str) -> None:
    a, b = rng(1).random(25_000), rng(2).random(25_000)
    if kind == "right or wrong":
        a, b = a < 0.8, b < 0.8
    start = time.process_time()
    paired_bootstrap(a, b, generator=rng(3))
    assert time.process_time() - start < 2.0


def test_the_t_interval_equals_scipys() -> None:
    differences = np.array([0.3, 0.1, 0.25, 0.4, -0.05])
    wanted = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    interval = paired_t(differences)
    assert interval.estimate == pytest.approx(differences.mean())
    assert (interval.low, interval.high) == pytest.approx((wanted.low, wanted.high))


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (10, 10), (480, 500)])
def test_the_wilson_interval_equals_scipys(hits: int, n: int) -> None:
    wanted = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    interval = wilson(hits, n)
    assert (interval.low, interval.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1


def test_wilson_covers_the_true_share_about_95_times_in_100() -> None:
    n, p = 100, 0.9
    weights = stats.binom.pmf(np.arange(n + 1), n, p)
    inside = [wilson(k, n).low <= p <= wilson(k, n).high for k in range(n + 1)]
    assert 0.92 <= float(weights @ inside) <= 0.98


def test_bad_input_is_refused_with_a_way_out() -> None:
    with pytest.raises(ShapeError, match="same rows"):
        paired_bootstrap(np.ones(3), np.ones(4), generator=rng())
    with pytest.raises(ShapeError, match="n >= 1"):
        bootstrap_mean(np.ones(0), generator=rng())
    with pytest.raises(ShapeError, match="more seeds"):
        paired_t(np.ones(1))
    with pytest.raises(ShapeError, match="4 successes in 3"):
        wilson(4, 3)
