"""What every search promises: the answer, the journal, and what it makes of bad luck."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import ConfigError
from limbeck.search import (
    SEARCHES,
    AdditiveCost,
    Layer,
    LayerNAS,
    LayerNASConfig,
    LayerwiseSpace,
    TableCost,
    paper,
)

from .problems import additive, every, gen, run, space_of

seeds = st.integers(0, 2**32 - 1)
kinds = pytest.mark.parametrize("kind", SEARCHES)


def made(kind, cost, limit, seed=0, **settings):
    return SEARCHES[kind](cost, limit, generator=gen(seed), **settings)


def noisy(seed=0, sizes=(4, 3, 5, 3)):
    """A problem without structure: rewards are drawn."""
    rng = np.random.default_rng(seed)
    space = space_of(*sizes)
    table = [[float(c) for c in rng.integers(0, 9, k)] for k in sizes]
    reward = {a: float(r) for a, r in zip(every(space), rng.normal(size=space.size), strict=True)}
    cost = AdditiveCost(space, table)
    low, high = cost.bounds(())
    return cost, reward.__getitem__, (-math.inf, float(int(0.5 * (low + high))))


def journal(search):
    return search.state_dict()["journal"]


@kinds
def test_nothing_is_evaluated_twice_and_the_best_only_rises(kind):
    cost, reward, limit = noisy()
    search, seen, best = made(kind, cost, limit), set(), -math.inf
    while (trial := search.ask()) is not None and len(seen) < 120:
        assert trial.architecture not in seen
        seen.add(trial.architecture)
        search.tell(trial.number, reward(trial.architecture))
        if search.best is not None:
            assert search.best.reward >= best
            best = search.best.reward
    inside = [a for a in seen if limit[0] <= cost.total(a) <= limit[1]]
    assert search.best.reward == max(map(reward, inside))
    assert search.best.cost == cost.total(search.best.architecture) <= limit[1]


@kinds
@given(stop=st.integers(0, 60), seed=st.integers(0, 5))
@settings(max_examples=25)
def test_a_search_restored_from_any_journal_goes_on_as_if_never_stopped(kind, stop, seed):
    cost, reward, limit = noisy(seed)
    whole, first = made(kind, cost, limit, seed), made(kind, cost, limit, seed)
    run(whole, reward, 70)
    run(first, reward, stop)
    state = json.loads(json.dumps(first.state_dict()))
    second = made(kind, cost, limit, seed + 99)
    second.load_state_dict(state)
    run(second, reward, 70 - len(second.history.trials))
    assert journal(second) == journal(whole)
    assert second.best == whole.best


@kinds
@given(seed=seeds)
@settings(max_examples=20)
def test_with_many_in_flight_a_restored_search_asks_the_same(kind, seed):
    """Rewards come in any order; some are in flight when the search is written down."""
    cost, reward, limit = noisy(1)
    rng = np.random.default_rng(seed)
    search, flying = made(kind, cost, limit, 5), []
    for _ in range(60):
        if rng.random() < 0.6 and (trial := search.ask()) is not None:
            flying.append(trial)
        elif flying:
            trial = flying.pop(rng.integers(len(flying)))
            search.tell(trial.number, reward(trial.architecture))
    other = made(kind, cost, limit, 5)
    other.load_state_dict(json.loads(json.dumps(search.state_dict())))
    assert journal(other) == journal(search)
    for _ in range(10):
        mine, theirs = search.ask(), other.ask()
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.architecture == theirs.architecture
            search.tell(mine.number, reward(mine.architecture))
            other.tell(theirs.number, reward(theirs.architecture))


@kinds
def test_a_limit_above_everything_is_plain_maximisation(kind):
    cost, reward, _ = noisy(sizes=(3, 3, 2))
    search = made(kind, cost, math.inf)
    run(search, reward, 500)
    assert search.best.reward <= max(map(reward, every(cost.space)))
    assert search.best is not None


@kinds
def test_rewards_scaled_and_shifted_lead_the_same_way(kind):
    cost, reward, limit = noisy()
    one, other = made(kind, cost, limit, 2), made(kind, cost, limit, 2)
    run(one, reward, 60)
    run(other, lambda a: 4.0 * reward(a) + 8.0, 60)
    assert [t.architecture for t in one.history.trials] == [
        t.architecture for t in other.history.trials
    ]


def test_costs_in_another_unit_lead_the_same_way():
    cost, reward, (_low, high) = noisy()
    thousands = AdditiveCost(cost.space, [[1024.0 * c for c in row] for row in cost.table])
    one = LayerNAS(cost, high, generator=gen())
    other = LayerNAS(thousands, 1024.0 * high, generator=gen())
    run(one, reward, 80)
    run(other, reward, 80)
    assert [t.architecture for t in one.history.trials] == [
        t.architecture for t in other.history.trials
    ]


@given(seeds)
@settings(max_examples=50)
def test_a_layer_without_a_choice_changes_nothing_in_the_answer(seed):
    cost, reward, limit = additive(seed)
    wider = space_of(*cost.space.sizes, 1)
    longer = AdditiveCost(wider, [*cost.table, [0.0]])
    answers = []
    for one, r in ((cost, reward), (longer, lambda a: reward(a[:-1]))):
        search = LayerNAS(one, limit, generator=gen())
        run(search, r)
        answers.append(search.best.reward)
    assert answers[0] == pytest.approx(answers[1])


def test_the_default_never_leaves_the_range_and_the_paper_does():
    cost, reward, limit = noisy(sizes=(4, 4, 4, 4))
    mine = LayerNAS(cost, limit, generator=gen())
    theirs = LayerNAS(cost, limit, paper(), generator=gen())
    run(mine, reward, 80)
    run(theirs, reward, 80)
    assert all(trial.in_range for trial in mine.history.trials)
    assert not all(trial.in_range for trial in theirs.history.trials)
    assert theirs.best.cost <= limit[1]


def test_group_winners_have_the_highest_reward_of_their_group():
    cost, reward, limit = noisy(sizes=(4, 4, 4, 4))
    search = LayerNAS(cost, limit, LayerNASConfig(buckets=4), generator=gen())
    best = {}
    for _ in range(100):
        trial = search.ask()
        if trial is None:
            break
        value = reward(trial.architecture)
        search.tell(trial.number, value)
        settled = [(n, a) for n, a in trial.note.free if len(a) == 4]
        if trial.note.length:
            settled.append((trial.note.length, trial.architecture))
        for n, a in settled:
            if n < 4:
                key = (n, search.sweep.groups[n](a[:n], cost.key(a[:n])))
                best[key] = max(best.get(key, -math.inf), reward(a))
    for n in range(1, 4):
        for group, kept in search.sweep.table[n].groups.items():
            assert max(one.reward for one in kept) == best[n, group]


def test_equal_networks_are_evaluated_once_and_both_prefixes_are_kept():
    space = LayerwiseSpace(
        tuple(Layer(f"l{i}", (0, 1, 2)) for i in range(3)), canonical=lambda a: tuple(sorted(a))
    )
    cost = AdditiveCost(space, [[0.0, 1.0, 2.0]] * 3)
    search = LayerNAS(cost, 6.0, generator=gen())
    evaluated = run(search, lambda a: float(sum(a)))
    assert evaluated <= 10  # multisets of three of three
    assert search.best.reward == 6.0


def test_a_narrow_range_is_met_where_uniform_levels_do_not_meet_it():
    space = space_of(4, 4, 4, 4)
    cost = AdditiveCost(space, [[0.0, 1.0, 10.0, 100.0]] * 4)
    for kind in SEARCHES:
        search = made(kind, cost, (112.0, 112.0))
        evaluated = run(search, lambda a: float(a[0]), 100)
        assert search.best.cost == 112.0, kind
        if kind != "evolution":
            assert evaluated == 12, kind  # one 100, one 10 and two 1, in any order


def test_a_table_with_holes_is_searched_around_them():
    rng = np.random.default_rng(0)
    space = space_of(3, 4, 3)
    table = rng.uniform(1, 9, space.sizes)
    table[rng.random(space.sizes) < 0.4] = np.nan
    cost = TableCost(space, table)
    search = LayerNAS(cost, 5.0, generator=gen())
    run(search, lambda a: 0.0)
    inside = {a for a in every(space) if table[a] <= 5.0}
    assert {trial.architecture for trial in search.history.trials} == inside


def test_a_second_cost_only_constrains():
    space = space_of(4, 4, 4)
    one = AdditiveCost(space, [[0.0, 1.0, 2.0, 3.0]] * 3)
    other = AdditiveCost(space, [[3.0, 2.0, 1.0, 0.0]] * 3)
    search = LayerNAS(one, 7.0, constraints=[(other, 4.0)], generator=gen())
    run(search, lambda a: float(a[0] * 3 + a[1] - a[2]))
    for trial in search.history.trials:
        assert one.total(trial.architecture) <= 7
        assert other.total(trial.architecture) <= 4
    best = max((a for a in every(space) if 5 <= sum(a) <= 7), key=lambda a: a[0] * 3 + a[1] - a[2])
    assert search.best.reward == best[0] * 3 + best[1] - best[2]


def test_the_tail_of_an_incumbent_is_what_first_layers_are_completed_with():
    cost, _reward, (_, high) = noisy()
    config = LayerNASConfig(tail="incumbent", explore=0.0, polish=False)
    search = LayerNAS(cost, high, config, incumbent=(0, 1, 2, 1), generator=gen())
    trial = search.ask()
    assert trial.architecture[1:] == (1, 2, 1)
    with pytest.raises(ConfigError, match="only with it"):
        LayerNAS(cost, high, config, generator=gen())
    with pytest.raises(ConfigError, match="only with it"):
        LayerNAS(cost, high, incumbent=(0, 1, 2, 1), generator=gen())
    with pytest.raises(ConfigError, match="one option for each layer"):
        LayerNAS(cost, high, config, incumbent=(0, 1), generator=gen())


def test_rewards_of_zero_are_rewards():
    """Below it is worse, above it is better: no search takes it for none."""
    cost = AdditiveCost(space_of(5), [[1.0] * 5])
    for kind in SEARCHES:
        search = made(kind, cost, 1.0)
        run(search, lambda a: -abs(a[0] - 2.0))
        assert (search.best.architecture, search.best.reward) == ((2,), 0.0), kind


def test_local_search_leaves_a_reward_of_zero_for_a_better_one_only():
    cost = AdditiveCost(space_of(6, 6), [[1.0] * 6] * 2)
    rewards = {a: -float(sum(abs(s - 3) for s in a)) for a in every(cost.space)}
    search = made("local_search", cost, 2.0)
    run(search, rewards.__getitem__, 30)
    at = [trial.note.cursor for trial in search.history.trials if trial.note.how == "step"]
    climbed = [rewards[one] for one in at]
    assert climbed == sorted(climbed)  # one hill, so no new start before it is on top


def test_a_search_that_can_only_wait_says_so():
    cost = AdditiveCost(space_of(3, 3), [[0.0, 1.0, 2.0]] * 2)
    search = LayerNAS(cost, 4.0, paper(), generator=gen())
    flying = []
    while (trial := search.ask()) is not None:
        flying.append(trial)
    assert search.status == "waiting"
    search.tell(flying[0].number, 1.0)
    assert search.status == "searching"


def test_bad_words_are_refused():
    cost, _, limit = noisy()
    search = LayerNAS(cost, limit, generator=gen())
    with pytest.raises(ConfigError, match="never asked"):
        search.tell(0, 1.0)
    trial = search.ask()
    search.tell(trial.number, 1.0)
    search.tell(trial.number, 1.0)
    with pytest.raises(ConfigError, match="one reward"):
        search.tell(trial.number, 2.0)
    trial = search.ask()
    with pytest.raises(ConfigError, match="finite"):
        search.tell(trial.number, math.inf)
    for bad in (
        {"tail": "none"},
        {"select": "best"},
        {"keep": 0},
        {"picks": 0},
        {"options": -1},
        {"buckets": 0},
        {"buckets": "quantile"},
        {"explore": 1.5},
        {"ramp": -1},
        {"guess": "hunch"},
    ):
        with pytest.raises(ConfigError):
            LayerNASConfig(**bad)
    with pytest.raises(ConfigError, match="least first"):
        LayerNAS(cost, (3.0, 2.0), generator=gen())
    with pytest.raises(ConfigError, match="least first"):
        LayerNAS(cost, math.nan, generator=gen())
