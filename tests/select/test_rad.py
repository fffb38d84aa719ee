"""The game against the linear programs that define it, and its limits."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from limbeck.errors import ConfigError, ShapeError
from limbeck.select.rad import (
    expected_inclusion,
    rad_distribution,
    rad_inclusion,
    worst_case,
)
from limbeck.select.regret import relative_regret_distribution


def t(values):
    return torch.tensor(values, dtype=torch.float64)


def random_gains(rng, n):
    kind = rng.integers(4)
    if kind == 0:
        return rng.uniform(0.01, 1, n)
    if kind == 1:
        return rng.beta(0.3, 2, n).clip(1e-6, 1)
    if kind == 2:
        return rng.choice([0.2, 0.5, 0.9], n)  # ties
    return 10.0 ** rng.uniform(-6, 0, n)


def value_by_enumeration(g, m, k=1.0, cap=None):
    """max t with, for each set of m rows, the gain outside of it at least t."""
    n = len(g)
    rows = []
    for lost in itertools.combinations(range(n), m):
        row = np.append(-g, 1.0)
        row[list(lost)] = 0
        rows.append(row)
    found = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=np.array(rows),
        b_ub=np.zeros(len(rows)),
        A_eq=[np.append(np.ones(n), 0.0)],
        b_eq=[k],
        bounds=[(0, cap)] * n + [(0, None)],
    )
    return -found.fun


def value_by_compact_program(g, m, k=1.0, cap=None):
    """max sum v - m c - sum s with v = q g, s >= v - c; columns q, c, s."""
    n = len(g)
    cost = np.concatenate([-g, [m], np.ones(n)])
    excess = np.hstack([np.diag(g), -np.ones((n, 1)), -np.eye(n)])
    found = linprog(
        cost,
        A_ub=excess,
        b_ub=np.zeros(n),
        A_eq=[np.concatenate([np.ones(n), np.zeros(n + 1)])],
        b_eq=[k],
        bounds=[(0, cap)] * n + [(0, None)] * (n + 1),
    )
    return -found.fun


def test_the_value_equals_the_program_over_all_sets_of_mistakes():
    rng = np.random.default_rng(0)
    for _ in range(500):
        n = int(rng.integers(1, 9))
        g, m = random_gains(rng, n), int(rng.integers(0, n))
        q, value = rad_distribution(t(g), m)
        assert abs(value - value_by_enumeration(g, m)) <= 1e-8
        assert abs(worst_case(q, t(g), m) - value) <= 1e-9
        assert abs(float(q.sum()) - 1) <= 1e-12


def test_the_value_equals_the_compact_program_for_more_rows():
    rng = np.random.default_rng(1)
    for _ in range(200):
        n = int(rng.integers(9, 61))
        g, m = random_gains(rng, n), int(rng.integers(0, n))
        assert abs(rad_distribution(t(g), m)[1] - value_by_compact_program(g, m)) <= 1e-8


def check_batch(rng, g, program):
    """One random game with caps against its program; whether the batch was larger than n - m."""
    n = len(g)
    m, k = int(rng.integers(0, n)), int(rng.integers(1, n + 1))
    p = rad_inclusion(t(g), m, k)
    assert float(p.min()) >= 0
    assert float(p.max()) <= 1
    assert abs(float(p.sum()) - k) <= 1e-9 * k
    assert abs(worst_case(p, t(g), m) - program(g, m, k, 1.0)) <= 1e-8
    return k > n - m


def test_the_capped_value_equals_the_program_over_all_sets_of_mistakes():
    rng = np.random.default_rng(2)
    larger = [
        check_batch(rng, random_gains(rng, int(rng.integers(1, 9))), value_by_enumeration)
        for _ in range(500)
    ]
    assert 100 < sum(larger) < 400


def test_the_capped_value_equals_the_compact_program_for_more_rows():
    rng = np.random.default_rng(4)
    larger = [
        check_batch(rng, random_gains(rng, int(rng.integers(9, 61))), value_by_compact_program)
        for _ in range(200)
    ]
    assert 40 < sum(larger) < 160


def test_the_worked_example():
    g = t([0.9, 0.8, 0.5, 0.2])
    for m, q, value in (
        (0, [1, 0, 0, 0], 0.9),
        (1, [0.25478, 0.28662, 0.45860, 0], 0.45860),
        (3, [0.11869, 0.13353, 0.21365, 0.53412], 0.10682),
    ):
        found, at = rad_distribution(g, m)
        assert np.allclose(found, q, atol=5e-6)
        assert abs(at - value) < 5e-6
    found, at = rad_distribution(t([0.3] * 5), 2)
    assert np.allclose(found, 0.2)
    assert abs(at - 0.18) < 1e-12


cases = st.tuples(st.integers(1, 40), st.integers(0, 10**6))


@given(cases, st.data())
@settings(deadline=None)
def test_limits_and_bounds_of_the_game(case, data):
    n, seed = case
    rng = np.random.default_rng(seed)
    g, m = random_gains(rng, n), data.draw(st.integers(0, n - 1))
    q, value = rad_distribution(t(g), m)
    s = np.sort(g)[::-1]
    harmonic = (1 / g).sum()
    support = int((q > 0).sum())
    assert support >= m + 1
    assert value >= (n - m) / harmonic * (1 - 1e-12)
    assert value >= np.sort(g)[: n - m].sum() / n * (1 - 1e-12)
    assert value <= s[m] * (1 + 1e-12)
    if m + 1 < n:
        assert rad_distribution(t(g), m + 1)[1] <= value * (1 + 1e-12)
    raised = g.copy()
    at = int(rng.integers(n))
    raised[at] = min(1.0, g[at] * 1.5)
    assert rad_distribution(t(raised), m)[1] >= value * (1 - 1e-12)
    halved, half = rad_distribution(t(g / 2).clamp_min(1e-6), m)
    if g.min() >= 2e-6:
        assert np.allclose(halved, q)
        assert abs(half - value / 2) <= 1e-12
    # Rows that hold anything are equalised: the adversary does not care which of them it takes,
    # and its m of them are m / k* of the gain.
    held = (q * t(g))[q > 0]
    assert np.allclose(held, held[0], rtol=1e-9)
    assert abs(value - float((q * t(g)).sum()) * (1 - m / support)) <= 1e-9
    assert support == support_by_scan(s, m)


def support_by_scan(s, m):
    """From m + 1 rows on, one more as long as its gain is above the value of those before."""
    k = m + 1
    while k < len(s) and s[k] > (k - m) / (1 / s[:k]).sum() * (1 + 1e-12):
        k += 1
    return k


@given(cases, st.data())
@settings(deadline=None)
def test_no_mistakes_is_greedy_and_all_but_one_is_harmonic(case, data):
    n, seed = case
    g = t(np.random.default_rng(seed).permutation(n) + 1.0) / n
    k = data.draw(st.integers(0, n))
    assert torch.equal(rad_distribution(g, 0)[0], (g == 1).double())
    assert torch.equal(rad_inclusion(g, 0, k), (g > 1 - (k - 0.5) / n).double())
    q, value = rad_distribution(g, n - 1)
    if n > 1:
        assert np.allclose(q, (1 / g) / (1 / g).sum())
    assert abs(value - 1 / float((1 / g).sum())) < 1e-12


@given(cases, st.floats(1e-6, 1), st.data())
@settings(deadline=None)
def test_equal_gains_are_asked_uniformly(case, gain, data):
    n, _ = case
    m, k = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n))
    q, value = rad_distribution(t([gain] * n), m)
    # Without mistakes every distribution is as good: the smallest support is one row.
    assert np.allclose(q, 1 / n if m else [1.0] + [0.0] * (n - 1))
    assert abs(value - (gain * (n - m) / n if m else gain)) <= 1e-12
    if m:
        p = rad_inclusion(t([gain] * n), m, k)
        assert abs(worst_case(p, t([gain] * n), m) - gain * k * (n - m) / n) <= 1e-9


@given(cases, st.data())
@settings(deadline=None)
def test_greedy_is_worth_nothing_against_as_many_mistakes_and_rad_is(case, data):
    n, seed = case
    g = random_gains(np.random.default_rng(seed), n)
    m = data.draw(st.integers(0, n - 1))
    k = data.draw(st.integers(0, m))
    assert worst_case(rad_inclusion(t(g), 0, k), t(g), m) == 0
    assert k == 0 or worst_case(rad_inclusion(t(g), m, k), t(g), m) > 0


@given(cases, st.data())
@settings(deadline=None)
def test_a_batch_that_no_cap_touches_is_k_times_the_single_row(case, data):
    n, seed = case
    g = random_gains(np.random.default_rng(seed), n)
    m, k = data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, n))
    q, value = rad_distribution(t(g), m)
    if float(k * q.max()) <= 1:
        p = rad_inclusion(t(g), m, k)
        assert abs(worst_case(p, t(g), m) - k * value) <= 1e-9 * k


@given(cases, st.data())
@settings(deadline=None)
def test_permuting_the_rows_permutes_the_answer(case, data):
    n, seed = case
    rng = np.random.default_rng(seed)
    g = rng.uniform(0.01, 1, n)
    m, k = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    order = rng.permutation(n)
    assert np.allclose(rad_distribution(t(g), m)[0][order], rad_distribution(t(g[order]), m)[0])
    assert np.allclose(rad_inclusion(t(g), m, k)[order], rad_inclusion(t(g[order]), m, k))


@given(cases, st.data())
@settings(deadline=None)
def test_expected_gain_takes_the_best_products(case, data):
    n, seed = case
    rng = np.random.default_rng(seed)
    g, e, k = rng.uniform(size=n), rng.uniform(size=n), data.draw(st.integers(0, n))
    p = expected_inclusion(t(g), t(e), k)
    best = np.sort(g * (1 - e))[::-1][:k].sum()
    assert float(p.sum()) == k
    assert abs(float((p * t(g * (1 - e))).sum()) - best) < 1e-12


def test_the_regret_game_equals_its_definition_over_all_sets():
    rng = np.random.default_rng(3)
    for _ in range(200):
        n = int(rng.integers(1, 8))
        g, m = random_gains(rng, n), int(rng.integers(0, n))
        q, regret = relative_regret_distribution(t(g), m)
        rows, bounds = [], []
        for lost in itertools.combinations(range(n), m):
            kept = [i for i in range(n) if i not in lost]
            row = np.append(np.zeros(n), -1.0)
            row[kept] = -g[kept]
            rows.append(row)
            bounds.append(-g[kept].max())
        found = linprog(
            np.append(np.zeros(n), 1.0),
            A_ub=np.array(rows),
            b_ub=bounds,
            A_eq=[np.append(np.ones(n), 0.0)],
            b_eq=[1.0],
            bounds=[(0, None)] * n + [(None, None)],
        )
        assert abs(regret - found.fun) <= 1e-7
        worst = max(
            g[[i for i in range(n) if i not in lost]].max()
            - sum(float(q[i]) * g[i] for i in range(n) if i not in lost)
            for lost in itertools.combinations(range(n), m)
        )
        assert abs(worst - regret) <= 1e-6


@pytest.mark.parametrize("gains", [[0.0, 0.0, 0.0], [1e-12, 0.0, 1.0], [0.5]])
def test_extreme_gains_still_give_a_distribution(gains):
    for m in (0, 1, 7):
        q, value = rad_distribution(torch.tensor(gains), m)
        assert abs(float(q.sum()) - 1) < 1e-12
        assert q.isfinite().all()
        assert value >= 0
        for k in range(len(gains) + 1):
            assert abs(float(rad_inclusion(torch.tensor(gains), m, k).sum()) - k) < 1e-9


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: rad_distribution(t([0.5, float("nan")]), 1), ConfigError, "0, 1"),
        (lambda: rad_distribution(t([0.5, 1.5]), 1), ConfigError, "ranks"),
        (lambda: rad_distribution(t([]), 0), ConfigError, "nothing to choose"),
        (lambda: rad_distribution(t([[0.5]]), 0), ShapeError, "shape"),
        (lambda: rad_distribution(t([0.5]), -1), ConfigError, "mistakes=-1"),
        (lambda: rad_inclusion(t([0.5]), 0, 2), ConfigError, "k=2"),
        (lambda: expected_inclusion(t([0.5]), t([0.5, 0.1]), 1), ConfigError, "2 errors"),
        (lambda: expected_inclusion(t([0.5]), t([1.5]), 1), ConfigError, "teacher's errors"),
        (lambda: expected_inclusion(t([0.5]), t([float("nan")]), 1), ConfigError, "NaN"),
        (lambda: relative_regret_distribution(torch.ones(1000), 500), ConfigError, "variables"),
    ],
)
def test_what_is_no_game_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
