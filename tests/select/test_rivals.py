"""The rivals against slow versions written straight from their sources."""

import collections
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import ConfigError, ShapeError
from limbeck.select import (
    average_linkage,
    badge_rows,
    diverse_rows,
    k_center,
    power_sample,
    round_robin,
    top_rows,
    unixkd_batch,
)

sizes = st.tuples(st.integers(1, 14), st.integers(1, 4), st.integers(0, 10**6))


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def softmax(n, c, seed=0):
    return torch.softmax(2 * torch.randn(n, c, generator=source(seed)), dim=1)


@given(sizes, st.data())
@settings(deadline=None)
def test_k_center_picks_the_farthest_row_each_time(size, data):
    n, d, seed = size
    x = torch.randn(n, d, dtype=torch.float64, generator=source(seed))
    centers = torch.randn(data.draw(st.integers(0, 3)), d, dtype=torch.float64, generator=source(1))
    k = data.draw(st.integers(0, n))
    picks = k_center(x, k, centers=centers).tolist()
    taken, left = [*centers], set(range(n))
    for row in picks:
        if taken:
            gaps = {i: min(float((x[i] - c).norm()) for c in taken) for i in left}
            assert gaps[row] >= max(gaps.values()) - 1e-9
        taken.append(x[row])
        left.remove(row)


@pytest.mark.parametrize("spread", [1.0, 0.01])
def test_k_center_of_many_rows_is_the_slow_one(spread):
    """Rows that are scattered, and rows in clusters, where picks are far from those before."""
    n, k = 4_000, 600
    middles = torch.randn(300, 3, dtype=torch.float64, generator=source(1))
    x = spread * torch.randn(n, 3, dtype=torch.float64, generator=source(2))
    x += middles[torch.randint(300, (n,), generator=source(3))]
    for centers in (None, middles[:20]):
        gap = torch.full((n,), torch.inf, dtype=torch.float64)
        for center in () if centers is None else centers:
            gap = torch.minimum(gap, (x - center).norm(dim=1))
        expected, row = [], 0 if centers is None else int(gap.argmax())
        for _ in range(k):
            expected.append(row)
            gap = torch.minimum(gap, (x - x[row]).norm(dim=1))
            row = int(gap.argmax())
        assert k_center(x, k, centers=centers).tolist() == expected


@given(sizes, st.data())
@settings(deadline=None, max_examples=40)
def test_the_radius_of_k_center_is_at_most_twice_the_optimum(size, data):
    n, d, seed = size
    n = min(n, 8)
    x = torch.randn(n, d, dtype=torch.float64, generator=source(seed))
    k = data.draw(st.integers(1, n))

    def radius(rows):
        return float(torch.cdist(x, x[list(rows)]).amin(dim=1).max())

    best = min(radius(rows) for rows in itertools.combinations(range(n), k))
    assert radius(k_center(x, k).tolist()) <= 2 * best + 1e-6


def test_rows_that_are_all_alike_are_still_picked_once_each():
    assert sorted(k_center(torch.ones(5, 2), 5).tolist()) == list(range(5))
    assert sorted(diverse_rows(torch.full((5, 2), 0.5), 5).tolist()) == list(range(5))
    found = badge_rows(torch.full((5, 2), 0.5), torch.zeros(5, 3), 5, source())
    assert sorted(found.tolist()) == list(range(5))


@given(sizes, st.data())
@settings(deadline=None)
def test_contextual_diversity_picks_the_row_of_largest_divergence(size, data):
    n, c, seed = size
    p = softmax(n, c + 1, seed).double()
    picks = diverse_rows(p, data.draw(st.integers(0, n))).tolist()

    def divergence(i, j):
        return float(((p[i] - p[j]) * (p[i].log() - p[j].log())).sum())

    left, taken = set(range(n)), []
    for row in picks:
        if taken:
            gaps = {i: min(divergence(i, j) for j in taken) for i in left}
            assert gaps[row] >= max(gaps.values()) - 1e-9
        taken.append(row)
        left.remove(row)


def test_badge_draws_in_proportion_to_squared_distances_of_gradients():
    probs, h = softmax(6, 3), torch.randn(6, 4, generator=source(1))
    hot = torch.nn.functional.one_hot(probs.argmax(1), 3)
    g = ((probs - hot)[:, :, None] * h[:, None, :]).flatten(1)
    first = int(g.norm(dim=1).argmax())
    weight = (g - g[first]).square().sum(1)
    draws, random = 4_000, source(2)
    counts = torch.zeros(6)
    for _ in range(draws):
        rows = badge_rows(probs, h, 2, random)
        assert int(rows[0]) == first
        counts[rows[1]] += 1
    share = weight / weight.sum()
    error = (share * (1 - share) / draws).sqrt()
    assert bool(((counts / draws - share).abs() <= 4 * error + 1e-9).all())


def test_badge_draws_each_next_row_by_distances_of_now():
    """All sequences of four rows, with their probabilities written out."""
    n, draws, random = 5, 4_000, source(4)
    probs, h = softmax(n, 3, 7), torch.randn(n, 4, generator=source(8))
    hot = torch.nn.functional.one_hot(probs.argmax(1), 3)
    g = ((probs - hot)[:, :, None] * h[:, None, :]).flatten(1)
    first, apart = int(g.norm(dim=1).argmax()), torch.cdist(g, g).square()

    def chance(rows):
        found = 1.0
        for i in range(1, len(rows)):
            weight = apart[list(rows[:i])].amin(dim=0)
            weight[list(rows[:i])] = 0
            found *= float(weight[rows[i]] / weight.sum())
        return found

    counts = collections.Counter(
        tuple(badge_rows(probs, h, 4, random).tolist()) for _ in range(draws)
    )
    rest = [i for i in range(n) if i != first]
    total = 0.0
    for tail in itertools.permutations(rest, 3):
        p = chance((first, *tail))
        total += p
        error = (p * (1 - p) / draws) ** 0.5
        assert abs(counts[(first, *tail)] / draws - p) <= 4.5 * error
    assert total == pytest.approx(1)


def test_badge_chooses_many_distinct_rows_also_where_most_repeat_a_few():
    probs, h = softmax(30, 4).repeat(40, 1), torch.randn(30, 6, generator=source(1)).repeat(40, 1)
    rows = badge_rows(probs, h, 1_100, source())
    assert len(set(rows.tolist())) == 1_100
    apart = badge_rows(softmax(5_000, 4), torch.randn(5_000, 6, generator=source(1)), 700, source())
    assert len(set(apart.tolist())) == 700


def test_power_sampling_draws_one_row_in_proportion_to_the_power():
    g = torch.tensor([0.1, 0.2, 0.4, 0.0])
    for beta in (1.0, 2.0):
        share = g.double() ** beta / (g.double() ** beta).sum()
        random, draws = source(3), 8_000
        found = torch.tensor([int(power_sample(g, 1, beta, random)[0]) for _ in range(draws)])
        counts = torch.bincount(found, minlength=4) / draws
        error = (share * (1 - share) / draws).sqrt()
        assert bool(((counts - share).abs() <= 4 * error + 1e-9).all())
    assert set(power_sample(g, 4, 1.0, source()).tolist()) == {0, 1, 2, 3}


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 99), st.data())
@settings(deadline=None)
def test_equal_gains_are_taken_at_random_and_larger_ones_first(values, seed, data):
    g = torch.tensor(values, dtype=torch.float32)
    k = data.draw(st.integers(0, len(values)))
    rows = top_rows(g, k, source(seed))
    assert len(set(rows.tolist())) == k
    assert g[rows].tolist() == sorted(values, reverse=True)[:k]


def test_ties_do_not_always_go_to_the_same_rows():
    found = {int(top_rows(torch.zeros(4), 1, source(seed))[0]) for seed in range(40)}
    assert found == {0, 1, 2, 3}


@given(st.lists(st.integers(0, 4), min_size=1, max_size=25), st.integers(0, 99), st.data())
@settings(deadline=None)
def test_round_robin_is_the_slow_one(clusters, seed, data):
    n = len(clusters)
    order = np.random.default_rng(seed).permutation(n)[: data.draw(st.integers(1, n))]
    k = data.draw(st.integers(0, len(order)))
    groups = {}
    for row in order:
        groups.setdefault(clusters[row], []).append(int(row))
    first = {c: order.tolist().index(rows[0]) for c, rows in groups.items()}
    queue = [groups[c] for c in sorted(groups, key=lambda c: (len(groups[c]), first[c]))]
    expected = []
    while len(expected) < k:
        for rows in queue:
            if rows and len(expected) < k:
                expected.append(rows.pop(0))
    found = round_robin(torch.tensor(clusters), torch.from_numpy(order), k)
    assert found.tolist() == expected


def test_average_linkage_finds_clusters_that_lie_apart_also_among_many_rows():
    centers = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    for n in (30, 3_000):
        truth = torch.arange(n) % 3
        x = centers[truth] + torch.randn(n, 2, generator=source())
        found = average_linkage(x, 3)
        pairs = set(zip(truth.tolist(), found.tolist(), strict=True))
        assert len(pairs) == 3
        assert len(found.unique()) == 3


def test_unixkd_leaves_unsure_rows_and_mixes_sure_ones():
    sure, unsure = [0.98, 0.02], [0.5, 0.5]
    probs = torch.tensor([sure, unsure] * 8)
    x = torch.arange(16.0)[:, None, None].expand(16, 2, 2).clone()
    mixed, origin = unixkd_batch(x, probs, 12, source(1), b=8)
    assert mixed.shape == (12, 2, 2)
    assert origin[:8].tolist() == list(range(1, 16, 2))
    assert torch.equal(mixed[:8], x[origin[:8]])
    assert not torch.equal(mixed[8:], x[origin[8:]])
    whole, _ = unixkd_batch(x, probs, 16, source(1), b=8)
    # One lambda for the minibatch: what a mixed row has moved lies on the line to its partner.
    assert bool(((whole >= 0) & (whole <= 15)).all())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: k_center(torch.zeros(3), 1), ShapeError, "n, d"),
        (lambda: k_center(torch.zeros(3, 2), 4), ConfigError, "k=4"),
        (lambda: k_center(torch.full((3, 2), float("nan")), 1), ConfigError, "NaN"),
        (lambda: k_center(torch.zeros(3, 2), 1, centers=torch.zeros(1, 3)), ShapeError, "wide"),
        (lambda: diverse_rows(softmax(3, 2), 4), ConfigError, "k=4"),
        (
            lambda: badge_rows(softmax(3, 2), torch.zeros(2, 2), 1, source()),
            ShapeError,
            "same rows",
        ),
        (lambda: badge_rows(softmax(3, 2), torch.zeros(3, 2), 4, source()), ConfigError, "k=4"),
        (lambda: average_linkage(torch.zeros(3, 2), 0), ConfigError, "clusters=0"),
        (lambda: unixkd_batch(torch.zeros(3, 2), softmax(2, 2), 1, source()), ShapeError, "mixes"),
        (lambda: unixkd_batch(torch.zeros(3, 2), softmax(3, 2), 4, source()), ConfigError, "k=4"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
