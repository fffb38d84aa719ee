"""Pool means from bought rows: unbiased by enumeration, and intervals that hold what they promise.

The enumerations sum over every batch that a design can draw and every row that can fail; nothing in
them knows of the estimator's arithmetic.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from limbeck.errors import ConfigError, DataError, ShapeError
from limbeck.numerics.horvitz_thompson import Sampled, horvitz_thompson
from limbeck.numerics.inclusion import with_audit
from limbeck.numerics.rounding import dependent_rounding

from .test_inclusion import design

Y = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 3.0, -2.0])


def batches(left, k, seed):
    """(rows, probability of the batch, inclusion probabilities of its rows) of a random design."""
    subsets, chances, p = design(len(left), k, seed)
    for subset, chance in zip(subsets, chances, strict=True):
        yield [left[i] for i in subset], chance, p.numpy()[list(subset)]


def two_rounds(*, fail=0):
    """Every way that two rounds can go: (probability, rounds). The second design depends on the
    values that the first round found, and `fail` of the first round's rows, any, do not answer."""
    everyone = list(range(len(Y)))
    for first, chance, p in batches(everyone, 3, seed=0):
        answered = list(itertools.combinations(range(3), 3 - fail))
        left = [row for row in everyone if row not in first]
        for places in answered:
            kept = list(places)
            one = Sampled(Y[first][kept], p[kept], len(Y), fail)
            outcome = int(100 * one.values.sum()) % 7 + 1
            for second, after, q in batches(left, 2, seed=outcome):
                yield chance * after / len(answered), [one, Sampled(Y[second], q, len(left))]


@pytest.mark.parametrize("fail", [0, 1])
def test_two_rounds_are_unbiased_over_every_way_they_can_go(fail):
    ways = [(chance, horvitz_thompson(way)) for chance, way in two_rounds(fail=fail)]
    assert sum(chance for chance, _ in ways) == pytest.approx(1)
    assert sum(chance * found.estimate for chance, found in ways) == pytest.approx(Y.mean())


def test_a_rule_without_probabilities_and_an_audit_of_the_rest_are_unbiased():
    rule = [2, 5, 6]
    left = [row for row in range(len(Y)) if row not in rule]
    audits = list(itertools.combinations(left, 2))
    found = [
        horvitz_thompson([Sampled.audited(Y[rule], Y[list(a)], candidates=len(Y))]).estimate
        for a in audits
    ]
    assert np.mean(found) == pytest.approx(Y.mean())


def test_failed_rows_of_rule_and_audit_leave_it_unbiased_if_equally_many_of_each_fail():
    rule, a = [2, 5], 4
    left = [row for row in range(len(Y)) if row not in rule]
    found = []
    for audit in itertools.combinations(left, a):
        for one in rule:
            for kept in itertools.combinations(audit, 2):
                each = Sampled.audited(
                    Y[[one]], Y[list(kept)], candidates=len(Y), failed_known=1, failed_audit=2
                )
                found.append(horvitz_thompson([each]).estimate)
    assert np.mean(found) == pytest.approx(Y.mean())


def test_a_simple_random_sample_has_the_textbook_interval():
    y = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    b, n = 5, 20
    found = horvitz_thompson([Sampled(y, np.full(b, b / n), n)], level=0.9)
    reach = student.ppf(0.95, b - 1) * math.sqrt((1 - b / n) * y.var(ddof=1) / b)
    assert found.estimate == pytest.approx(y.mean())
    assert found.half_width == pytest.approx(reach)


def test_an_audited_stratum_has_the_textbook_interval_of_the_rest():
    known, audit, n = np.array([9.0, 7.0, 8.0]), np.array([1.0, 2.0, 4.0, 1.0]), 23
    found = horvitz_thompson([Sampled.audited(known, audit, candidates=n)])
    rest = n - 3
    reach = student.ppf(0.975, 3) * math.sqrt((1 - 4 / rest) * audit.var(ddof=1) / 4) * rest / n
    assert found.estimate == pytest.approx((known.sum() + rest * audit.mean()) / n)
    assert found.half_width == pytest.approx(reach)


def test_failed_rows_of_a_random_sample_are_as_if_they_had_not_been_drawn():
    y = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    found = horvitz_thompson([Sampled(y, np.full(5, 8 / 20), 20, failed=3)])
    plain = horvitz_thompson([Sampled(y, np.full(5, 5 / 20), 20)])
    assert found.estimate == pytest.approx(plain.estimate)
    # Two phases are estimated apart, each without bias: their sum is near that of one phase.
    assert found.half_width == pytest.approx(plain.half_width, rel=0.15)


def test_hajeks_variance_is_that_of_dependent_rounding_within_a_tenth():
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    n, k = 40, 12
    p = torch.from_numpy(np.clip(rng.gamma(2, 1, n), 0.2, 3))
    p = p * (k / p.sum())
    y = rng.normal(2, 1, n) + 3 * p.numpy()
    found = []
    for _ in range(1_500):
        rows = dependent_rounding(p, generator).numpy()
        found.append(horvitz_thompson([Sampled(y[rows], p.numpy()[rows], n)]))
    seen = np.var([f.estimate for f in found])
    said = np.mean([(f.half_width / student.ppf(0.975, k - 1)) ** 2 for f in found])
    assert said == pytest.approx(seen, rel=0.1)


def simulate(seed, *, audit, share, fail=0.0):
    """Three rounds of 30 of 300 rows; a rule that goes where answers were wrong before.

    Returns the rounds and the truth. `audit` of the 30 are uniform. Groups of rows differ in how
    often the teacher is wrong; each round prefers the groups where it was.
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    n, groups, k = 300, 6, 30
    group = np.arange(n) % groups
    rate = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.6])[group]
    wrong = (rng.random(n) < rate).astype(float)
    y = wrong if share else 1 + rate + rng.normal(0, 0.5, n)
    seen, errors = np.full(groups, 2.0), np.full(groups, 0.4)
    left, rounds = np.arange(n), []
    for _ in range(3):
        like = 0.1 + (errors / seen)[group[left]]
        p = torch.from_numpy(like * ((k - audit) / like.sum()))
        assert p.max() < 1
        rows = dependent_rounding(p, generator).numpy()
        rest = np.setdiff1d(np.arange(len(left)), rows)
        rows = np.concatenate([rows, rng.choice(rest, audit, replace=False)])
        pi = with_audit(p, audit, len(left)).numpy()[rows]
        kept = rng.random(k) >= fail
        batch = left[rows]
        rounds.append(Sampled(y[batch][kept], pi[kept], len(left), int((~kept).sum())))
        np.add.at(seen, group[batch], 1)
        np.add.at(errors, group[batch], wrong[batch])
        left = np.setdiff1d(left, batch)
    return rounds, y.mean()


@pytest.mark.parametrize(("share", "audit", "fail"), [(True, 6, 0.2), (False, 0, 0.0)])
def test_adaptive_rounds_are_unbiased_and_their_intervals_hold_the_truth(share, audit, fail):
    runs, bounds = 300, (0.0, 1.0) if share else None
    ways = [simulate(seed, audit=audit, share=share, fail=fail) for seed in range(runs)]
    for ratio in (False, True):
        found = [horvitz_thompson(rounds, ratio=ratio, bounds=bounds) for rounds, _ in ways]
        errors = [f.estimate - truth for f, (_, truth) in zip(found, ways, strict=True)]
        held = sum(f.low <= truth <= f.high for f, (_, truth) in zip(found, ways, strict=True))
        assert abs(np.mean(errors)) < 4 * np.std(errors) / math.sqrt(runs)
        assert held / runs >= 0.93
        # And not by being needlessly wide.
        assert np.mean([f.half_width for f in found]) < 2.4 * np.std(errors)


def test_a_rare_event_that_was_not_seen_has_an_interval_as_wide_as_wilsons():
    nothing = Sampled(np.zeros(40), np.full(40, 40 / 4_000), 4_000)
    found = horvitz_thompson([nothing], bounds=(0, 1))
    z = 1.959963984540054
    assert (found.estimate, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(z * z / (40 + z * z))
    assert horvitz_thompson([nothing]).half_width == 0


@pytest.mark.parametrize("rate", [0.02, 0.08])
def test_intervals_of_rare_shares_hold_the_truth_with_small_audits(rate):
    rng, held, runs = np.random.default_rng(3), 0, 400
    for _ in range(runs):
        y = np.zeros(2_000)
        y[: int(rate * 2_000)] = 1
        rng.shuffle(y)
        rounds, left = [], np.arange(2_000)
        for _ in range(3):
            rule, audit = left[:70], rng.choice(left[70:], 30, replace=False)
            rounds.append(Sampled.audited(y[rule], y[audit], candidates=len(left)))
            left = np.setdiff1d(left, np.concatenate([rule, audit]))
        found = horvitz_thompson(rounds, bounds=(0, 1))
        held += found.low <= rate <= found.high
    assert held / runs >= 0.93


def test_buying_the_whole_pool_leaves_nothing_open():
    first = Sampled(Y[:3], [0.5, 0.2, 0.9], 7)
    last = Sampled(Y[3:], np.ones(4), 4)
    for options in ({}, {"ratio": True}, {"bounds": (-2.0, 3.0)}):
        found = horvitz_thompson([first, last], **options)
        assert (found.low, found.estimate, found.high) == pytest.approx((Y.mean(),) * 3)


@pytest.mark.parametrize("ratio", [False, True])
def test_a_pool_asked_in_full_is_open_only_where_rows_failed(ratio):
    y = np.array([3.0, 1.0, 4.0, 1.0])
    known = Sampled(y, np.ones(4), 5, failed=1)
    found = horvitz_thompson([known], ratio=ratio)
    reach = student.ppf(0.975, 3) * math.sqrt((1 - 4 / 5) * y.var(ddof=1) / 4)
    assert found.estimate == pytest.approx(y.mean())
    assert found.half_width == pytest.approx(reach)
    # The row that failed has a value of 0 to 9.
    bounded = horvitz_thompson([known], ratio=ratio, bounds=(0, 9))
    assert bounded.low == pytest.approx(9 / 5)
    assert bounded.high == pytest.approx(found.high)


def test_a_pool_of_one_row_is_known_once_it_is_bought():
    found = horvitz_thompson([Sampled([0.25], [1.0], 1)])
    assert (found.estimate, found.low, found.high) == (0.25, 0.25, 0.25)


def test_one_drawn_row_gives_an_estimate_without_an_interval():
    one = Sampled([1.0], [0.25], 4)
    found = horvitz_thompson([one])
    assert (found.estimate, found.low, found.high) == (1.0, -math.inf, math.inf)
    # The row itself is known, so the mean of four is at least a quarter.
    bounded = horvitz_thompson([one], bounds=(0, 1))
    assert (bounded.estimate, bounded.low, bounded.high) == (1.0, 0.25, 1.0)


def test_a_round_of_one_row_does_not_spoil_the_rounds_beside_it():
    rounds = [Sampled(Y[:3], np.full(3, 3 / 50), 50), Sampled([5.0], [1 / 47], 47)]
    found, alone = horvitz_thompson(rounds), horvitz_thompson(rounds[:1])
    assert (found.estimate, found.low, found.high) == pytest.approx(
        (alone.estimate, alone.low, alone.high)
    )


def test_bounds_clip_to_what_the_answers_leave_possible():
    each = Sampled([1.0, 1.0, 0.0], [0.1, 0.1, 0.9], 10)
    plain, bounded = horvitz_thompson([each]), horvitz_thompson([each], bounds=(0, 1))
    assert plain.estimate == pytest.approx(2.0)
    # Two ones and a nought of ten are known.
    assert bounded.estimate == pytest.approx(0.9)
    assert 0.2 <= bounded.low <= bounded.high <= 0.9 + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_with_ratio_a_constant_added_to_all_values_is_added_to_the_estimate(seed):
    rounds, _ = simulate(seed, audit=4, share=False, fail=0.1)
    moved = [Sampled(r.values + 5, r.probs, r.candidates, r.failed) for r in rounds]
    one, other = horvitz_thompson(rounds, ratio=True), horvitz_thompson(moved, ratio=True)
    assert other.estimate == pytest.approx(one.estimate + 5)
    if not any(r.failed for r in rounds):
        assert other.half_width == pytest.approx(one.half_width)


@pytest.mark.parametrize("ratio", [False, True])
def test_the_order_of_rows_does_not_matter_and_tensors_are_taken(ratio):
    rounds, _ = simulate(0, audit=4, share=False)
    turned = [
        Sampled(torch.from_numpy(r.values).flip(0), torch.from_numpy(r.probs).flip(0), r.candidates)
        for r in rounds
    ]
    one, other = horvitz_thompson(rounds, ratio=ratio), horvitz_thompson(turned, ratio=ratio)
    assert (other.estimate, other.low) == pytest.approx((one.estimate, one.low))


def test_a_higher_level_gives_a_wider_interval():
    rounds, _ = simulate(0, audit=4, share=True)
    for bounds in (None, (0.0, 1.0)):
        narrow = horvitz_thompson(rounds, level=0.8, bounds=bounds)
        wide = horvitz_thompson(rounds, level=0.99, bounds=bounds)
        assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("values", "probs", "candidates", "failed", "error", "words"),
    [
        ([1.0], [0.0], 9, 0, ConfigError, "is 0.0"),
        ([1.0], [1.5], 9, 0, ConfigError, "is 1.5"),
        ([1.0], [-0.5], 9, 0, ConfigError, "is -0.5"),
        ([1.0], [float("nan")], 9, 0, ConfigError, "is nan"),
        ([1.0, float("nan")], [0.5, 0.5], 9, 0, DataError, "value 1 of a round is nan"),
        ([float("inf")], [0.5], 9, 0, DataError, "is inf"),
        ([1.0, 1.0], [0.5, 0.5], 1, 0, ConfigError, "2 answered and 0 failed rows of 1"),
        ([1.0, 1.0], [0.5, 0.5], 3, 2, ConfigError, "2 answered and 2 failed rows of 3"),
        ([1.0], [0.5], 3, -1, ConfigError, "-1 failed"),
        ([1.0], [0.5, 0.5], 9, 0, ShapeError, "one shape"),
        ([[1.0]], [[0.5]], 9, 0, ShapeError, "one shape"),
        ([], [], 9, 0, ShapeError, "b >= 1"),
    ],
)
def test_a_round_that_cannot_be_is_refused(values, probs, candidates, failed, error, words):
    with pytest.raises(error, match=words):
        Sampled(values, probs, candidates, failed)


def test_a_rule_without_probabilities_needs_an_audit_unless_it_took_all():
    with pytest.raises(ConfigError, match="audit a share"):
        Sampled.audited([1.0, 0.0], [], candidates=5)
    with pytest.raises(ShapeError, match="known and audit"):
        Sampled.audited([[1.0]], [0.0], candidates=5)
    with pytest.raises(ConfigError, match="of 3 candidates"):
        Sampled.audited([1.0, 0.0], [1.0, 1.0], candidates=3)
    assert horvitz_thompson([Sampled.audited([1.0, 0.0], [], candidates=2)]).estimate == 0.5


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"level": 1.0}, ConfigError, "level=1.0"),
        ({"bounds": (1.0, 0.0)}, ConfigError, "must be below"),
        ({"bounds": (0.0, 0.5)}, DataError, "out of bounds"),
    ],
)
def test_settings_that_fit_nothing_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        horvitz_thompson([Sampled([1.0], [0.5], 2)], **options)


def test_rounds_that_do_not_follow_from_each_other_are_refused():
    first = Sampled([1.0, 0.0], [0.5, 0.5], 10)
    with pytest.raises(ConfigError, match="round 2 must have 8, not 7"):
        horvitz_thompson([first, Sampled([1.0], [0.5], 7)])
    with pytest.raises(ConfigError, match="0 rounds"):
        horvitz_thompson([])
