"""Costs of chains against enumeration."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ShapeError
from limbeck.search import LayerNAS, Limit
from limbeck.search.spaces import ChainCost

from ..problems import brute, every, gen, run, space_of

seeds = st.integers(0, 2**32 - 1)


def chain(seed):
    """A random chain: terms are drawn for every width before a layer, so nothing is monotone."""
    rng = random.Random(seed)
    space = space_of(*(rng.randint(1, 4) for _ in range(rng.randint(1, 5))))
    widths = [[rng.randint(1, 3) for _ in range(k)] for k in space.sizes]
    drawn = {}

    def term(*key):
        return drawn.setdefault(key, rng.randint(-5, 20))

    cost = ChainCost(space, first=2, widths=widths, term=term, last=lambda w: 7 * w, base=3)
    return cost, widths, term


def slow(widths, term, architecture):
    total, width = 3, 2
    for i, s in enumerate(architecture):
        total += term(i, width, s)
        width = widths[i][s]
    return total + 7 * width


@given(seed=seeds)
def test_totals_bounds_and_keys_are_those_of_enumeration(seed):
    cost, widths, term = chain(seed)
    totals = {a: slow(widths, term, a) for a in every(cost.space)}
    for n in range(len(cost.space) + 1):
        for prefix in itertools.product(*map(range, cost.space.sizes[:n])):
            inside = [total for a, total in totals.items() if a[:n] == prefix]
            assert cost.bounds(prefix) == (min(inside), max(inside))
    assert all(cost.total(a) == total for a, total in totals.items())


@given(seed=seeds, share=st.floats(0, 1), least=st.booleans())
def test_the_range_of_keys_holds_every_prefix_that_can_meet_the_limit(seed, share, least):
    cost, _, _ = chain(seed)
    low, high = cost.bounds(())
    # Whole numbers, as costs are: keys and limits are then equal or a unit apart.
    middle = low + round(share * (high - low))
    limit = Limit(middle, high) if least else Limit(-math.inf, middle)
    for n in range(len(cost.space) + 1):
        prefixes = list(itertools.product(*map(range, cost.space.sizes[:n])))
        ends = cost.key_range(n, limit)
        keys = [cost.key(p) for p in prefixes if limit.meets(cost.bounds(p))]
        assert all(ends.low <= key <= ends.high for key in keys)
        if not least:
            free = cost.key_range(n, Limit(-math.inf, math.inf))
            assert free == (min(map(cost.key, prefixes)), max(map(cost.key, prefixes)))


@given(seed=seeds)
def test_options_are_ordered_by_what_they_cost_in_the_default(seed):
    cost, _, _ = chain(seed)
    default = cost.space.default
    for i in range(len(cost.space)):
        totals = [cost.total((*default[:i], s, *default[i + 1 :])) for s in cost.order(i)]
        assert totals == sorted(totals)
        assert sorted(cost.order(i)) == list(range(cost.space.sizes[i]))


@given(seed=seeds, share=st.floats(0, 1))
def test_a_search_that_runs_to_its_end_finds_an_answer_in_range_and_prunes_no_optimum(seed, share):
    cost, _, _ = chain(seed)
    low, high = cost.bounds(())
    limit = (-math.inf, low + share * (high - low))
    rng = random.Random(seed)
    rewards = {a: rng.random() for a in every(cost.space)}
    search = LayerNAS(cost, limit, generator=gen(seed))
    run(search, rewards.__getitem__)
    best = brute(cost, rewards.__getitem__, limit)
    assert search.best is not None
    assert limit[0] <= cost.total(search.best.architecture) <= limit[1]
    optimum = next(a for a, reward in rewards.items() if reward == best)
    assert all(search.reachable(optimum[:n]) for n in range(len(optimum) + 1))


def test_widths_that_do_not_fit_the_space_are_refused():
    with pytest.raises(ShapeError, match=r"\[2, 1\] options for layers of \[2, 2\]"):
        ChainCost(
            space_of(2, 2), first=1, widths=[[1, 1], [1]], term=lambda *_: 0, last=lambda _: 0
        )
