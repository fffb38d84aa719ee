"""Rankings against pairs counted one by one, scikit-learn, a bootstrap, and promised coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from limbeck.errors import DataError, ShapeError
from limbeck.numerics.intervals import Interval
from limbeck.numerics.ranking import (
    average_precision,
    precision_recall_curve,
    roc_auc,
    roc_auc_difference,
    roc_curve,
)

# Few distinct values: most pairs of rows are ties.
rankings = st.lists(
    st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 0.75, np.inf]), st.booleans()), min_size=2
).filter(lambda rows: len({truth for _, truth in rows}) == 2)


def arrays(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([s for s, _ in rows]), np.array([t for _, t in rows])


def pairs_won(scores: np.ndarray, positive: np.ndarray) -> float:
    """The area as it is defined: over all pairs of a positive and a negative row."""
    won = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    return float(np.mean(won))


def normal_case(seed: int, n: int, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = np.append([True, True, False, False], rng.random(n - 4) < 0.4)
    return rng.normal(skill * positive), positive


@given(rankings)
def test_the_area_is_the_share_of_pairs_in_order_with_ties_as_halves(rows) -> None:
    scores, positive = arrays(rows)
    interval = roc_auc(scores, positive)
    assert interval.estimate == pytest.approx(pairs_won(scores, positive))
    assert 0 <= interval.low <= interval.estimate + 1e-12
    assert interval.estimate - 1e-12 <= interval.high <= 1


@given(rankings)
def test_the_area_is_that_under_the_curve(rows) -> None:
    scores, positive = arrays(rows)
    curve = roc_curve(scores, positive)
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(roc_auc(scores, positive).estimate)


@given(rankings)
def test_turning_the_scores_around_turns_the_area_around(rows) -> None:
    scores, positive = arrays(rows)
    one, other = roc_auc(scores, positive), roc_auc(-scores, positive)
    assert other.estimate == pytest.approx(1 - one.estimate)
    assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low))


@pytest.mark.parametrize("digits", [1, 8])
def test_curves_and_areas_are_scikit_learns(digits: int) -> None:
    scores, positive = normal_case(0, 300)
    scores = scores.round(digits)
    roc, pr = roc_curve(scores, positive), precision_recall_curve(scores, positive)
    x, y, cuts = sk.roc_curve(positive, scores, drop_intermediate=False)
    for ours, theirs in ((roc.x, x), (roc.y, y), (roc.thresholds, cuts)):
        np.testing.assert_allclose(ours, theirs)
    precision, recall, cuts = sk.precision_recall_curve(positive, scores)
    np.testing.assert_allclose(pr.y, precision[-2::-1])
    np.testing.assert_allclose(pr.x, recall[-2::-1])
    np.testing.assert_allclose(pr.thresholds, cuts[::-1])
    assert roc_auc(scores, positive).estimate == pytest.approx(sk.roc_auc_score(positive, scores))
    expected = sk.average_precision_score(positive, scores)
    assert average_precision(scores, positive) == pytest.approx(expected)


def test_delongs_variance_is_that_of_its_formula() -> None:
    scores, positive = normal_case(1, 60)
    scores = scores.round(1)
    wins = np.array(
        [[(a > b) + 0.5 * (a == b) for b in scores[~positive]] for a in scores[positive]]
    )
    m, n = wins.shape
    spread = math.sqrt(wins.mean(1).var(ddof=1) / m + wins.mean(0).var(ddof=1) / n)
    area = wins.mean()
    found = roc_auc(scores, positive)
    logit = [math.log(a / (1 - a)) for a in (found.low, area, found.high)]
    reach = 1.96 * spread / (area * (1 - area))
    assert logit[2] - logit[1] == pytest.approx(reach, rel=1e-4)
    assert logit[1] - logit[0] == pytest.approx(reach, rel=1e-4)


def test_intervals_agree_with_a_bootstrap_over_rows() -> None:
    first, positive = normal_case(2, 150)
    second = first + np.random.default_rng(3).normal(0, 1.0, len(first))
    rng, n = np.random.default_rng(4), len(first)
    # A row drawn w times counts w times in the pairs.
    weights = rng.multinomial(n, np.full(n, 1 / n), size=2_000).astype(float)
    pairs = weights[:, positive].sum(1) * weights[:, ~positive].sum(1)
    areas, others = (
        (
            (weights[:, positive] @ (s[positive][:, None] > s[~positive])) * weights[:, ~positive]
        ).sum(1)
        / pairs
        for s in (first, second)
    )
    gaps = areas - others
    for found, drawn in (
        (roc_auc(first, positive), areas),
        (roc_auc_difference(first, second, positive), gaps),
    ):
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert found.low == pytest.approx(low, abs=0.15 * (high - low))
        assert found.high == pytest.approx(high, abs=0.15 * (high - low))


def test_intervals_cover_the_truth_about_95_times_in_100() -> None:
    # Two normals one and a half apart: the area is Phi(1.5 / sqrt 2).
    truth = 0.5 * (1 + math.erf(1.5 / 2))
    rng, hits, paired = np.random.default_rng(5), 0, 0
    positive = np.arange(80) < 30
    for _ in range(1_000):
        shared = rng.normal(size=80)
        one, other = (1.5 * positive + shared * 0.8 + 0.6 * rng.normal(size=80) for _ in range(2))
        found = roc_auc(one, positive)
        hits += found.low <= truth <= found.high
        gap = roc_auc_difference(one, other, positive)
        paired += gap.low <= 0 <= gap.high
    assert 930 <= hits <= 975
    assert 930 <= paired <= 970


def test_a_perfect_ranking_of_few_rows_is_not_called_certain() -> None:
    scores, positive = np.arange(10.0), np.arange(10) >= 7
    found = roc_auc(scores, positive)
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(3 / (3 + 1.96**2), abs=1e-3)  # Wilson, 3 hits in 3
    one = roc_auc(np.array([0.0, 2.0, 1.0]), np.array([False, True, False]))
    assert one.low < 0.25


def test_equal_rankings_differ_by_exactly_nothing_and_one_row_says_nothing() -> None:
    scores, positive = normal_case(6, 40)
    assert roc_auc_difference(scores, np.exp(scores), positive) == Interval(0.0, 0.0, 0.0)
    assert not roc_auc_difference(scores, np.exp(scores), positive).excludes_zero
    alone = np.arange(5) == 2
    found = roc_auc_difference(np.arange(5.0), -np.arange(5.0), alone)
    assert (found.low, found.high) == (-1.0, 1.0)


def test_a_perfect_ranking_against_none_at_all_is_not_certain_on_a_few_rows() -> None:
    """Every row tells a difference of 1/2, so there is no spread between them to go by."""
    for rarer, known in ((3, False), (60, True)):
        positive = np.arange(10 * rarer) < rarer
        found = roc_auc_difference(positive.astype(float), np.zeros(len(positive)), positive)
        assert found.estimate == 0.5
        assert found.low < 0.5 < found.high
        assert found.excludes_zero == known
        turned = roc_auc_difference(np.zeros(len(positive)), positive.astype(float), positive)
        assert turned == -found


@pytest.mark.parametrize("curve", [roc_curve, precision_recall_curve])
def test_a_thinned_curve_keeps_its_ends_and_stays_close(curve) -> None:
    scores, positive = normal_case(7, 5_000)
    whole = curve(scores, positive)
    points = np.array(whole.thinned(100))
    assert 80 <= len(points) <= 101
    assert points[-1] == pytest.approx((whole.x[-1], whole.y[-1]), abs=1e-5)
    assert points[0] == pytest.approx((whole.x[0], whole.y[0]), abs=1e-5)
    area = np.trapezoid(whole.y, whole.x)
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(area, abs=0.005)
    assert len(curve(scores[:30], positive[:30]).thinned(100)) >= 30


@pytest.mark.parametrize("function", [roc_auc, roc_curve, average_precision])
def test_what_cannot_be_ranked_is_refused(function) -> None:
    with pytest.raises(DataError, match=r"both classes, got 0 positive and 3 negative"):
        function(np.arange(3.0), np.zeros(3, bool))
    with pytest.raises(DataError, match=r"1 of 3 scores are NaN"):
        function(np.array([0, np.nan, 1]), np.array([True, False, True]))
    with pytest.raises(ShapeError, match=r"\(3,\) and bool of shape \(2,\)"):
        function(np.arange(3.0), np.array([True, False]))
    with pytest.raises(ShapeError, match="int64"):
        function(np.arange(3.0), np.array([1, 0, 1]))
