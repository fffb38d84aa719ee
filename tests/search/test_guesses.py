"""Guesses that screen mutations: against the slow loop, and what they may depend on."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from limbeck.search import AdditiveCost, LayerNAS, LayerNASConfig
from limbeck.search.additive_model import AdditiveModel
from limbeck.search.matches_model import MOST, MatchesModel, mid_ranks

from .problems import every, gen, run, space_of

SIZES = (3, 2, 4)
both = pytest.mark.parametrize("model", [AdditiveModel, MatchesModel])
guesses = pytest.mark.parametrize("guess", ["additive", "matches"])


def fitted(model, rows, rewards, sizes=SIZES):
    one = model(space_of(*sizes))
    for row, reward in zip(rows, rewards, strict=True):
        one.add(row, reward)
    return one


def wide():
    """Six layers of four options under half of the dearest cost; a reward that is no sum."""
    space = space_of(*[4] * 6)
    cost = AdditiveCost(space, [[1.0, 2.0, 4.0, 8.0]] * 6)
    return cost, lambda a: sum(a) + 3.0 * (a[0] == a[5]) - 2.0 * (a[1] == a[2]), 24.0


def drawn(seed, n, sizes=SIZES):
    rng = np.random.default_rng(seed)
    rows = [tuple(int(rng.integers(k)) for k in sizes) for _ in range(n)]
    return rows, [float(r) for r in rng.normal(size=n)]


@given(seed=st.integers(0, 999), n=st.integers(2, 16))
@settings(max_examples=40)
def test_matches_are_the_mean_of_a_gaussian_process_on_ranks(seed, n):
    """Up to 16 trials every trial brings a fit, so that nothing is left out."""
    rows, rewards = drawn(seed, n)
    ranks = rankdata(rewards)
    ranks = (ranks - ranks.mean()) / ranks.std()

    def kernel(a, b):
        m = sum(s == t for s, t in zip(a, b, strict=True))
        return m / 3 + math.exp(-math.log(2) * (3 - m))

    covariance = np.array(
        [[kernel(a, b) + 0.05 * (i == j) for j, b in enumerate(rows)] for i, a in enumerate(rows)]
    )
    weights = np.linalg.inv(covariance) @ ranks
    tried = every(space_of(*SIZES))
    want = [sum(w * kernel(a, b) for w, b in zip(weights, rows, strict=True)) for a in tried]
    found = fitted(MatchesModel, rows, rewards).guess(tried)
    assert np.allclose(found, want, atol=1e-8)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_mid_ranks_are_those_of_scipy_over_their_spread(values):
    ranks = mid_ranks(np.array(values, float))
    want = rankdata(values)
    assert np.allclose(np.diff(ranks), np.diff(want) / (want.std() or 1))


def test_matches_look_at_the_order_of_rewards_alone():
    rows, rewards = drawn(1, 12)
    one = fitted(MatchesModel, rows, rewards)
    other = fitted(MatchesModel, rows, [math.exp(3 * r) - 7 for r in rewards])
    tried = every(space_of(*SIZES))
    assert one.guess(tried) == other.guess(tried)


@both
def test_options_by_other_names_are_guessed_alike(model):
    rows, rewards = drawn(2, 14)
    turned = [tuple((s + 1) % k for s, k in zip(row, SIZES, strict=True)) for row in rows]
    tried = every(space_of(*SIZES))
    moved = [tuple((s + 1) % k for s, k in zip(row, SIZES, strict=True)) for row in tried]
    one, other = fitted(model, rows, rewards), fitted(model, turned, rewards)
    assert np.allclose(one.guess(tried), other.guess(moved), atol=1e-8)


def test_matches_see_what_no_sum_over_layers_can_say():
    """Reward 1 where two layers agree: each option by itself is worth the same."""
    sizes = (4, 4)
    rows = every(space_of(*sizes))
    rewards = [float(a == b) for a, b in rows]
    seen = fitted(MatchesModel, rows, rewards, sizes).guess(rows)
    agree = [g for g, r in zip(seen, rewards, strict=True) if r]
    assert min(agree) > max(g for g, r in zip(seen, rewards, strict=True) if not r)
    sums = fitted(AdditiveModel, rows, rewards, sizes).guess(rows)
    assert np.allclose(sums, sums[0])


@both
def test_nothing_known_is_no_preference(model):
    tried = every(space_of(*SIZES))
    assert set(model(space_of(*SIZES)).guess(tried)) == {0.0}
    assert len(set(fitted(model, tried[:1], [0.0]).guess(tried))) == 1
    assert model(space_of(*SIZES)).guess([]) == []


def test_of_many_trials_matches_rest_on_the_best_and_the_last():
    sizes = (8, 8, 8)
    rows = every(space_of(*sizes))[: 2 * MOST + 40]
    one = fitted(MatchesModel, rows, [-float(i) for i in range(len(rows))], sizes)
    found = one.guess(rows)
    assert max(found) == max(found[: MOST // 2])


@guesses
@pytest.mark.parametrize("ramp", [0, 30])
def test_a_restored_search_goes_on_the_same_with_every_guess(guess, ramp):
    cost, reward, limit = wide()
    config = LayerNASConfig(guess=guess, ramp=ramp)
    whole = LayerNAS(cost, limit, config, generator=gen(3))
    first = LayerNAS(cost, limit, config, generator=gen(3))
    run(whole, reward, 60)
    run(first, reward, 25)
    second = LayerNAS(cost, limit, config, generator=gen())
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    run(second, reward, 60 - len(second.history.trials))
    assert second.state_dict()["journal"] == whole.state_dict()["journal"]
    assert all(trial.in_range for trial in whole.history.trials)


@pytest.mark.parametrize("ramp", [0, 40])
def test_exploring_takes_the_share_it_was_given_after_the_ramp(ramp):
    cost, reward, limit = wide()
    config = LayerNASConfig(explore=1.0, ramp=ramp)
    search = LayerNAS(cost, limit, config, generator=gen(1))
    run(search, reward, 80)
    swept = [trial.number for trial in search.history.trials if trial.note.how == "sweep"]
    assert len(search.history.trials) == 80
    assert max(swept, default=-1) < ramp
    assert (0 in swept) == (ramp > 0)
