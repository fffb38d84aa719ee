"""When a full sweep is exact, and how far it can be off when it is not: theorems by enumeration."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.search import AdditiveCost, GroupBy, LayerNAS, LayerNASConfig, MonotoneCost

from .problems import additive, brute, every, full, gen, run, space_of, swept

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.sampled_from(["max", "min", "fit", "default"]))
@settings(max_examples=300)
def test_exact_buckets_find_the_optimum_of_additive_problems(seed, tail):
    cost, reward, limit = additive(seed)
    search = swept(cost, reward, limit, seed % 7, buckets="exact", tail=tail)
    assert search.best.reward == pytest.approx(brute(cost, reward, limit), abs=1e-9)


@pytest.mark.slow
def test_ten_thousand_additive_problems_are_solved_exactly():
    for seed in range(10_000):
        cost, reward, limit = additive(seed, layers=4, options=3)
        search = swept(cost, reward, limit, buckets="exact", tail="max")
        assert search.best.reward == pytest.approx(brute(cost, reward, limit), abs=1e-9), seed


@given(
    seeds,
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from(["rank", "uniform", "softmax", "near_limit"]),
)
@settings(max_examples=200)
def test_turns_and_rules_change_the_way_and_not_the_end(seed, picks, options, select):
    cost, reward, limit = additive(seed)
    ways = {"picks": picks, "options": options, "select": select}
    search = swept(cost, reward, limit, buckets="exact", tail="max", **ways)
    assert search.best.reward == pytest.approx(brute(cost, reward, limit), abs=1e-9)


@given(seeds)
@settings(max_examples=100)
def test_a_growing_function_of_an_additive_reward_changes_nothing(seed):
    cost, reward, limit = additive(seed)
    search = swept(cost, lambda a: math.exp(reward(a)), limit, buckets="exact", tail="max")
    assert math.log(search.best.reward) == pytest.approx(brute(cost, reward, limit), abs=1e-9)


@given(seeds, st.integers(1, 6))
@settings(max_examples=200)
def test_coarse_buckets_lose_no_more_than_the_shrunken_limit(seed, h):
    cost, reward, (low, high) = additive(seed, integer=False)
    search = swept(cost, reward, (low, high), buckets=h, tail="max")
    shrunken = brute(cost, reward, (low, high - search.diagnostics().loss_of_limit - 1e-9))
    if shrunken is not None:
        assert search.best.reward >= shrunken - 1e-9


def test_grouping_is_lossy_where_the_example_says_so():
    cost = AdditiveCost(space_of(2, 2), [[1.0, 1.9], [0.0, 2.1]])
    rewards = [[1.0, 1.1], [0.0, 5.0]]

    def reward(a):
        return rewards[0][a[0]] + rewards[1][a[1]]

    # With the dear tail the optimum is met as the completion of the first prefix.
    assert swept(cost, reward, 3.5, buckets=[2.0, 3.0], tail="min").best.reward == 1.1
    assert swept(cost, reward, 3.5, buckets=[2.0, 3.0], tail="min", keep=2).best.reward == 6.0


@given(seeds, st.integers(1, 5), st.sampled_from(["max", "min"]))
@settings(max_examples=200)
def test_pareto_is_exact_for_any_buckets_with_a_fixed_tail(seed, h, tail):
    cost, reward, limit = additive(seed, integer=False)
    search = swept(cost, reward, limit, buckets=h, keep="pareto", tail=tail)
    assert search.best.reward == pytest.approx(brute(cost, reward, limit), abs=1e-9)


def test_pareto_with_a_tail_that_fits_can_miss_the_optimum():
    """Prefixes of one coarse group get different tails, so their rewards do not compare."""
    missed = 0
    for seed in range(400):
        cost, reward, limit = additive(seed, integer=False)
        search = swept(cost, reward, limit, buckets=1, keep="pareto", tail="fit")
        best = brute(cost, reward, limit)
        assert search.best.reward <= best + 1e-9
        missed += search.best.reward < best - 1e-9
    assert missed > 0


@given(seeds)
@settings(max_examples=100)
def test_chain_monotone_rewards_are_solved_exactly(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, rng.integers(1, 5)).tolist()
    space = space_of(*sizes)
    cost = AdditiveCost(space, [rng.integers(0, 9, k).astype(float).tolist() for k in sizes])
    a, b = rng.uniform(0.1, 2, (len(sizes), 4)), rng.normal(size=(len(sizes), 4))

    def reward(arch):
        value = 0.0
        for i, s in enumerate(arch):  # each step rises in what came before
            value = math.atan(a[i][s] * value + b[i][s])
        return value

    low, high = cost.bounds(())
    limit = (-math.inf, float(int(low + 0.5 * (high - low))))
    search = swept(cost, reward, limit, buckets="exact", tail="max")
    assert search.best.reward == pytest.approx(brute(cost, reward, limit), abs=1e-9)


@given(seeds, st.integers(1, 8), st.integers(1, 3))
@settings(max_examples=100)
def test_a_sweep_is_no_longer_than_the_theorem_says(seed, h, keep):
    cost, reward, limit = additive(seed, integer=False)
    search = LayerNAS(cost, limit, full(buckets=h, keep=keep, tail="max"), generator=gen())
    evaluated = run(search, reward)
    sizes = cost.space.sizes
    before = [math.prod(sizes[:i]) for i in range(len(sizes))]
    bound = sum(min(h * keep, n) * k for n, k in zip(before, sizes, strict=True))
    assert evaluated <= min(bound, math.prod(sizes))


@given(seeds)
@settings(max_examples=150)
def test_no_optimum_is_ever_pruned(seed):
    cost, _reward, limit = additive(seed, integer=False)
    space = cost.space
    search = LayerNAS(cost, limit, full(), generator=gen())
    inside = [a for a in every(space) if search.limit.holds(cost.total(a))]
    for a in inside:
        assert all(search.reachable(a[:n]) for n in range(len(a) + 1))


def test_bounds_of_a_chain_of_widths_are_those_of_enumeration():
    space = space_of(4, 4, 4, 4, 4)
    w = (8, 16, 32, 64)

    def macs(a):
        return float(
            sum(w[s] * w[t] * 9 * 2 ** (5 - i) for i, (s, t) in enumerate(itertools.pairwise(a)))
        )

    cost = MonotoneCost(space, macs)
    costs = np.array([macs(a) for a in every(space)]).reshape(space.sizes)
    for n in range(6):
        for prefix in itertools.product(range(4), repeat=n):
            assert cost.bounds(prefix) == (costs[prefix].min(), costs[prefix].max())


def test_one_layer_needs_as_many_trials_as_it_has_options():
    cost = AdditiveCost(space_of(7), [[float(i) for i in range(7)]])
    search = LayerNAS(cost, 4.0, full(), generator=gen())
    assert run(search, lambda a: -abs(a[0] - 3.2)) == 5
    assert search.best.architecture == (3,)


def test_equal_costs_make_it_greedy_layer_by_layer():
    space = space_of(4, 3, 5)
    cost = AdditiveCost(space, [[1.0] * k for k in space.sizes])
    rewards = {a: (sum(a) * 7919 % 31) + a[0] / 10 for a in every(space)}
    search = LayerNAS(cost, 3.0, full(tail="default"), generator=gen())
    evaluated = run(search, rewards.__getitem__)
    prefix, seen = (), set()
    for i, k in enumerate(space.sizes):
        whole = [(*prefix, s, *space.default[i + 1 :]) for s in range(k)]
        seen |= set(whole)
        prefix = max(whole, key=lambda a: (rewards[a], [-s for s in a]))[: i + 1]
    assert {trial.architecture for trial in search.history.trials} == seen
    assert evaluated == 4 + 3 + 5 - 2  # the winner of a layer is one of the next layer's


def test_keeping_everything_is_exhaustive_search():
    space = space_of(3, 3, 3)
    cost = AdditiveCost(space, [[0.0, 1.0, 2.0]] * 3)
    search = LayerNAS(cost, 6.0, full(buckets=1, keep=100), generator=gen())
    assert run(search, lambda a: hash(a) % 97) == 27


def test_constant_groups_are_beam_search():
    space = space_of(4, 4, 4)
    rng = np.random.default_rng(3)
    reward = {a: float(r) for a, r in zip(every(space), rng.normal(size=64), strict=True)}
    cost = AdditiveCost(space, [[0.0] * 4] * 3)
    for width in (1, 2, 3):
        search = LayerNAS(
            cost,
            0.0,
            full(buckets=GroupBy(lambda p: 0), keep=width, tail="default"),
            generator=gen(),
        )
        run(search, reward.__getitem__)
        beam, seen = [()], []
        for i in range(3):
            grown = [(*p, s) for p in beam for s in range(4)]
            whole = {p: reward[p + space.default[i + 1 :]] for p in grown}
            seen += whole.values()
            beam = sorted(grown, key=lambda p: -whole[p])[:width]
        assert search.best.reward == max(seen)


def test_with_room_for_everything_each_layer_takes_its_best_option():
    cost, reward, _ = additive(11)
    search = swept(cost, reward, cost.bounds(()).high, buckets=1, tail="max")
    assert search.best.reward == pytest.approx(max(map(reward, every(cost.space))))


def test_the_burger_takes_fewer_tastings_than_all_and_is_the_best():
    prices = [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]]
    tastes = [[2, 3, 1, 5], [4, 2, 6, 3], [1, 5, 2, 4]]
    cost = AdditiveCost(space_of(4, 4, 4), prices)

    def taste(a):
        return sum(row[s] for row, s in zip(tastes, a, strict=True))

    search = LayerNAS(cost, (7, 9), full(buckets="exact", tail="min"), generator=gen())
    tastings = run(search, taste)
    assert search.best.reward == brute(cost, taste, (7, 9))
    assert tastings < 64


def test_the_default_finds_what_a_full_sweep_finds_in_the_end():
    cost, reward, limit = additive(5)
    search = LayerNAS(cost, limit, LayerNASConfig(), generator=gen())
    run(search, reward)
    assert search.best.reward == pytest.approx(brute(cost, reward, limit))
