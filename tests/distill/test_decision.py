"""The threshold by cost against all thresholds tried one by one, and in worlds of known odds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.distill import decision
from limbeck.distill.config import DecisionConfig
from limbeck.distill.decision import Costs, Sided, cheapest, check_decision, choose, curve, study
from limbeck.errors import ConfigError, ShapeError

cases = st.tuples(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.50001, 0.9, 1.0]), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([Costs(1, 1), Costs(1, 10), Costs(5, 1), Costs(0, 1), Costs(1, 0)]),
)


def sided(rows: list[tuple[float, bool]]) -> Sided:
    return Sided(np.array([p for p, _ in rows]), np.array([t for _, t in rows]))


def paid(rows: Sided, threshold: float, costs: Costs) -> float:
    """Row by row, as the words say: 0 names always, 1 never."""
    total = 0.0
    for p, truth in zip(rows.probs, rows.positive, strict=True):
        named = threshold < 1 and p >= threshold
        total += costs.false_positive * (named and not truth)
        total += costs.false_negative * (truth and not named)
    return total


def world(n: int, seed: int, *, honest: bool = True) -> Sided:
    """Rows whose probabilities are right, or shifted by two in log-odds."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 1.5, n)
    positive = rng.random(n) < 1 / (1 + np.exp(-odds))
    return Sided(1 / (1 + np.exp(-odds - (0 if honest else 2.0))), positive)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(cases)
def test_no_threshold_is_cheaper_and_ties_go_towards_the_bayes_threshold(case) -> None:
    rows, costs = sided(case[0]), case[1]
    found = cheapest(rows, costs)
    # Every set of rows that a threshold can name, by a threshold that names it.
    grid = np.unique(np.concatenate([[0.0, 1.0], rows.probs, np.nextafter(rows.probs, 1)]))
    least = min(paid(rows, t, costs) for t in grid)
    assert paid(rows, found, costs) == pytest.approx(least)
    if paid(rows, costs.bayes, costs) == pytest.approx(least):
        assert found == costs.bayes
    else:
        ranked = np.unique(rows.probs)
        between = {tuple(rows.probs >= t if t < 1 else rows.probs > 1): t for t in grid}
        good = [t for t in between.values() if paid(rows, t, costs) == pytest.approx(least)]
        steps = [_steps(ranked, t, costs.bayes) for t in good]
        assert _steps(ranked, found, costs.bayes) == min(steps)


def _steps(ranked: np.ndarray, threshold: float, bayes: float) -> int:
    """How many distinct probabilities change sides between two thresholds."""
    one, other = (ranked >= t if t < 1 else ranked > 1 for t in (threshold, bayes))
    return int((one != other).sum())


@given(cases)
def test_the_price_of_rows_and_the_curve_are_counted_row_by_row(case) -> None:
    rows, costs = sided(case[0]), case[1]
    for threshold, cost in curve(rows, costs)[::20]:
        assert cost == pytest.approx(1000 * paid(rows, threshold, costs) / len(rows.probs))


def test_equal_costs_keep_one_half_exactly() -> None:
    for costs in (Costs(1, 1), Costs(0.3, 0.3)):
        threshold, rule = choose(world(400, 0, honest=False), costs, seed=0, generator=rng())
        assert threshold == 0.5
        assert "the same" in rule


@pytest.mark.parametrize("n", [100, 400])
def test_right_probabilities_keep_the_bayes_threshold(n: int) -> None:
    costs = Costs(1, 9)
    kept = [
        choose(world(n, seed), costs, seed=seed, generator=rng(seed))[0] == costs.bayes
        for seed in range(20)
    ]
    assert sum(kept) >= 18


def test_wrong_probabilities_are_corrected_once_there_are_rows_enough() -> None:
    costs = Costs(9, 1)
    rows, fresh = world(2_000, 1, honest=False), world(20_000, 2, honest=False)
    threshold, rule = choose(rows, costs, seed=0, generator=rng())
    assert "less than at the Bayes threshold, 0.9" in rule
    # The odds are exp(2) too high, so the threshold wants to be too.
    assert np.log(threshold / (1 - threshold)) == pytest.approx(np.log(9) + 2, abs=0.5)
    saved = decision.price(fresh, costs.bayes, costs) - decision.price(fresh, threshold, costs)
    assert saved.mean() > 0


def test_few_rows_keep_the_bayes_threshold_whatever_they_say() -> None:
    rows = Sided(np.linspace(0.01, 0.05, 49), np.zeros(49, bool))
    assert choose(rows, Costs(1, 99), seed=0, generator=rng())[0] == 0.01
    more = Sided(np.linspace(0.02, 0.05, 400), np.zeros(400, bool))
    assert choose(more, Costs(1, 99), seed=0, generator=rng())[0] > 0.05


def test_on_few_rows_the_rule_costs_less_than_the_cheapest_threshold_of_validation() -> None:
    costs, fresh = Costs(1, 9), world(20_000, 99)
    spent: dict[str, list[float]] = {"rule": [], "cheapest": []}
    for seed in range(30):
        rows = world(100, seed)
        taken = choose(rows, costs, seed=seed, generator=rng(seed))[0]
        for name, threshold in (("rule", taken), ("cheapest", cheapest(rows, costs))):
            spent[name].append(float(decision.price(fresh, threshold, costs).mean()))
    assert np.mean(spent["rule"]) < np.mean(spent["cheapest"]) - 0.01


def test_a_study_measures_on_test_what_it_chose_on_validation() -> None:
    config = DecisionConfig(cost_false_positive=1, cost_false_negative=4)
    test = world(3_000, 4)
    found = study(world(500, 3), test, config, positive="yes", seed=0)
    assert found.threshold == found.bayes == 0.2
    titles = ["exported threshold", "more probable class", "always yes", "never yes"]
    assert [way.title for way in found.ways] == titles
    for way in found.ways:
        named = decision.names(test.probs, way.threshold)
        alarms, misses = (named & ~test.positive).sum(), (~named & test.positive).sum()
        assert (way.false_positives, way.false_negatives) == (alarms, misses)
        assert way.cost.estimate == pytest.approx((alarms + 4 * misses) / 3)
        assert way.cost.low < way.cost.estimate < way.cost.high
        assert way.accuracy == pytest.approx(1 - (alarms + misses) / 3_000)
    mine, *others = found.ways
    assert mine.saved is None
    for way in others:
        assert way.saved is not None
        assert way.saved.estimate == pytest.approx(way.cost.estimate - mine.cost.estimate)
        assert way.saved.low > 0
    assert found.test_curve[0][1] == pytest.approx(others[1].cost.estimate)
    assert found.test_curve[-1][1] == pytest.approx(others[2].cost.estimate)


def test_no_mistake_on_test_is_not_called_free() -> None:
    test = Sided(np.array([0.0, 1.0] * 20), np.array([False, True] * 20))
    found = study(test, test, DecisionConfig(cost_false_negative=3.0), positive="yes", seed=0).ways[
        0
    ]
    assert found.cost.estimate == 0
    assert 100 < found.cost.high < 3000


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_study(seed: int) -> None:
    rows = world(80, seed)
    config = DecisionConfig(cost_false_positive=2.0)
    one, other = (study(rows, rows, config, positive="yes", seed=seed) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cost_false_positive": -1.0}, r"decision.cost_false_positive=-1.0: must be >= 0"),
        ({"cost_false_negative": float("inf")}, r"decision.cost_false_negative=inf"),
        ({"cost_false_negative": float("nan")}, r"decision.cost_false_negative=nan"),
        ({"cost_false_positive": 0.0, "cost_false_negative": 0.0}, "are both 0"),
    ],
)
def test_bad_costs_are_refused(values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        DecisionConfig(**values)


def test_settings_that_do_not_fit_the_classes_are_refused() -> None:
    check_decision(DecisionConfig(), ("a", "b", "c"))
    check_decision(DecisionConfig("spam", 1.0, 3.0), ("ham", "spam"))
    for config in (DecisionConfig(cost_false_negative=2.0), DecisionConfig(positive="a")):
        with pytest.raises(ConfigError, match=r"two classes but this one has 3"):
            check_decision(config, ("a", "b", "c"))
    with pytest.raises(ConfigError, match=r"'spa' is none of .*ham, spam; did you mean 'spam'\?"):
        check_decision(DecisionConfig(positive="spa"), ("ham", "spam"))
    with pytest.raises(ConfigError, match=r"'x' is none of .*name one of them"):
        check_decision(DecisionConfig(positive="x"), ("ham", "spam"))


def test_three_columns_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 3\)"):
        Sided.of(np.ones((4, 3)), np.zeros(4), 1)
