"""Fitted tables against closed forms, and against the latencies of real devices."""

import itertools
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError
from limbeck.search import (
    AdditiveCost,
    FittedCost,
    Layer,
    LayerwiseSpace,
    fit_cost,
    fit_measured,
    least_samples,
)

from .problems import every, gen, space_of

SPACE = space_of(3, 1, 5, 2, 4, 3)


def table_of(space, seed=0):
    rng = random.Random(seed)
    return AdditiveCost(
        space, [[rng.uniform(0, 9) for _ in range(k)] for k in space.sizes], base=rng.uniform(1, 5)
    )


@given(seed=st.integers(0, 2**32 - 1))
def test_a_sum_is_recovered(seed):
    rng = random.Random(seed)
    space = space_of(*(rng.randint(2, 4) for _ in range(rng.randint(3, 4))), 1, 5, 5)
    true = table_of(space, seed)
    found = fit_cost(space, true.total, generator=gen(seed))
    assert found.r2 == pytest.approx(1, abs=1e-9)
    assert found.worst_error <= 1e-9
    assert found.median_error <= found.worst_error
    for one in every(space)[::7]:
        assert found.cost.total(one) == pytest.approx(true.total(one), rel=1e-9)
    for row, expected in zip(found.cost.table, true.table, strict=True):
        assert min(row) == 0
        np.testing.assert_allclose(row, np.array(expected) - min(expected), atol=1e-9)
    assert found.cost.base == pytest.approx(true.bounds(()).low, rel=1e-9)
    found.check(r2=1 - 1e-9, worst=1e-9)


def test_a_sum_is_recovered_from_the_fewest_samples():
    """Balanced options alone can leave layers confounded."""
    for seed in range(60):
        space = space_of(4, 4, 2, 5, 5, 2)
        true = table_of(space, seed)
        found = fit_cost(space, true.total, generator=gen(seed), samples=least_samples(space))
        assert found.worst_error <= 1e-9


def test_a_base_that_is_given_stays_and_totals_are_the_same():
    true = table_of(SPACE)
    plain = fit_cost(SPACE, true.total, generator=gen())
    found = fit_cost(SPACE, true.total, generator=gen(), base=2.5)
    assert found.cost.base == 2.5
    for one in every(SPACE):
        assert found.cost.total(one) == pytest.approx(plain.cost.total(one), rel=1e-9)


def test_with_noise_the_fit_is_as_far_off_as_least_squares_may_be():
    """|X (fitted - true)|^2 / sigma^2 has the chi-squared distribution of the rank of X."""
    true, sigma = table_of(SPACE, 1), 0.3
    rank = 1 + sum(k - 1 for k in SPACE.sizes)
    scores = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        picked = rng.permutation(len(every(SPACE)))[:140]
        pairs = [
            (one, true.total(one) + sigma * float(rng.normal()))
            for one in (every(SPACE)[i] for i in picked)
        ]
        found = fit_measured(SPACE, pairs[:100], pairs[100:])
        off = [found.cost.total(one) - true.total(one) for one, _ in pairs[:100]]
        scores.append(float(np.square(off).sum()) / sigma**2)
    # The mean of 40 of them: standard error sqrt(2 rank / 40).
    assert np.mean(scores) == pytest.approx(rank, abs=4 * np.sqrt(2 * rank / 40))


def interacting(strength):
    true = table_of(SPACE, 2)
    return lambda one: true.total(one) + strength * (one[0] == 1) * (one[2] > 2)


def test_an_interaction_lowers_r2_and_is_refused():
    found = [fit_cost(SPACE, interacting(s), generator=gen()) for s in (0, 3, 10, 40)]
    values = [one.r2 for one in found]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(1)
    assert values[-1] < 0.7
    found[0].check()
    with pytest.raises(
        ConfigError, match=r"r2=-?0\..*20 held-out.*needs r2 >= 0.9.*more samples"
    ) as e:
        found[-1].check()
    assert "BlackBoxCost" in str(e.value)
    assert "final check only" in str(e.value)


def test_r2_and_errors_are_those_of_the_held_out_architectures():
    measure, networks = interacting(5), random.Random(0).sample(every(SPACE), 90)
    pairs = [(one, measure(one)) for one in networks]
    found = fit_measured(SPACE, pairs[:60], pairs[60:])
    true = np.array([value for _, value in pairs[60:]])
    wrong = np.array([found.cost.total(one) for one, _ in pairs[60:]]) - true
    assert found.r2 == pytest.approx(1 - (wrong**2).mean() / true.var())
    assert found.worst_error == pytest.approx(max(abs(wrong) / true))
    assert found.median_error == pytest.approx(np.median(abs(wrong) / true))
    assert (found.samples, found.held_out) == (60, 30)


def test_each_limit_of_the_check_counts():
    made = FittedCost(
        table_of(SPACE), r2=0.95, worst_error=0.1, median_error=0.02, samples=9, held_out=4
    )
    made.check(r2=0.95, worst=0.1)
    with pytest.raises(ConfigError, match=r"r2 >= 0\.96"):
        made.check(r2=0.96)
    with pytest.raises(ConfigError, match="worst error <= 9"):
        made.check(worst=0.09)


def test_as_many_are_measured_as_was_said_none_twice_and_every_option_in_three():
    asked = []
    true = table_of(SPACE)

    def measure(one):
        asked.append(one)
        return true.total(one)

    assert least_samples(SPACE) == 20
    assert least_samples(space_of(9)) == 36
    assert least_samples(space_of(*[9] * 22)) == 177
    found = fit_cost(SPACE, measure, generator=gen(), held_out=8)
    assert (found.samples, found.held_out) == (40, 8)
    assert len(asked) == len(set(asked)) == 48
    for layer, k in enumerate(SPACE.sizes):
        counts = np.bincount([one[layer] for one in asked], minlength=k)
        assert counts.min() >= 3
        # Balanced but for the eight that are held out.
        assert counts.max() - counts.min() <= 1 + 8
    few = []
    fit_cost(SPACE, lambda one: few.append(one) or 1.0, generator=gen(), samples=20, held_out=2)
    assert len(few) == 22


def test_the_seed_alone_says_what_is_measured_and_in_which_order():
    def asked(seed):
        found = []
        fit_cost(SPACE, lambda one: found.append(one) or 1.0, generator=gen(seed))
        return found

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)


def test_held_out_architectures_are_measured_among_the_others():
    """A machine that slows down once everything to fit to is measured would be taken for error."""
    among = 0
    for seed in range(20):
        asked = []
        fit_cost(SPACE, lambda one, to=asked: to.append(one) or 1.0, generator=gen(seed))
        spiked = fit_cost(
            SPACE, lambda one, last=asked[-1]: 2.0 if one == last else 1.0, generator=gen(seed)
        )
        # What is held out changes no number of the table.
        among += spiked.cost.total(asked[-1]) != pytest.approx(1, abs=1e-9)
    assert 4 < among < 18


def test_the_rule_of_a_space_is_kept():
    space = LayerwiseSpace(
        SPACE.layers, is_valid=lambda prefix, s: len(prefix) != 2 or (s + prefix[0]) % 3 != 0
    )
    true, asked = table_of(space, 3), []
    found = fit_cost(space, lambda one: asked.append(one) or true.total(one), generator=gen())
    assert all(space.valid(one) for one in asked)
    assert found.worst_error <= 1e-9
    for one in every(space):
        assert found.cost.total(one) == pytest.approx(true.total(one), rel=1e-9)


def test_equal_measurements_are_explained():
    found = fit_cost(SPACE, lambda one: 4.0, generator=gen())
    assert found.r2 == 1
    found.check()


def test_a_fit_comes_back_from_json():
    found = fit_cost(SPACE, interacting(1), generator=gen())
    saved = json.loads(json.dumps(found.to_dict()))
    back = FittedCost.from_dict(space_of(*SPACE.sizes), saved)
    assert back.to_dict() == found.to_dict()
    assert all(back.cost.total(one) == found.cost.total(one) for one in every(SPACE))
    with pytest.raises(ConfigError, match="other layers"):
        FittedCost.from_dict(space_of(3, 1, 5, 2, 4, 4), saved)
    with pytest.raises(ConfigError, match="lacks r2"):
        FittedCost.from_dict(SPACE, {k: v for k, v in saved.items() if k != "r2"})


def test_too_few_samples_are_refused_before_anything_is_measured():
    def never(one):
        raise AssertionError

    with pytest.raises(ConfigError, match=r"samples=19.*at least 20.*20 held out"):
        fit_cost(SPACE, never, generator=gen(), samples=19)
    with pytest.raises(ConfigError, match="held_out=1"):
        fit_cost(SPACE, never, generator=gen(), held_out=1)
    with pytest.raises(ConfigError, match=r"only 27 different ones.*TableCost"):
        fit_cost(space_of(3, 3, 3), never, generator=gen())
    forbidden = LayerwiseSpace(SPACE.layers, is_valid=lambda prefix, s: len(prefix) != 4 or s != 2)
    with pytest.raises(ConfigError, match="option 2 of layer 'l4' is in 0 of"):
        fit_cost(forbidden, never, generator=gen())


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_measurements_that_are_none_are_refused(value):
    with pytest.raises(ConfigError, match="finite and > 0"):
        fit_cost(SPACE, lambda one: value if one[2] == 3 else 1.0, generator=gen())


def test_a_table_is_not_judged_on_what_it_was_fitted_to():
    pairs = [(one, 1.0) for one in itertools.islice(every(SPACE), 200)]
    with pytest.raises(ConfigError, match="in the fitted and in the held-out"):
        fit_measured(SPACE, pairs, pairs[:5])


@pytest.fixture(scope="module")
def devices():
    pq = pytest.importorskip("pyarrow.parquet")
    path = Path(os.environ.get("LIMBECK_DATA", "")) / "nas" / "fbnet_latency.parquet"
    if "LIMBECK_DATA" not in os.environ or not path.is_file():
        pytest.skip("needs nas/fbnet_latency.parquet in the folder that LIMBECK_DATA names")
    columns = pq.read_table(path).to_pydict()
    names = [f"b{i:02d}" for i in range(1, 23)]
    space = LayerwiseSpace(tuple(Layer(name, tuple(range(9))) for name in names))
    networks = list(zip(*(columns[name] for name in names), strict=True))

    def fit(device, fitted):
        rows = list(zip(networks, columns[f"latency_ms_{device}"], strict=True))
        return fit_measured(space, rows[:fitted], rows[fitted : fitted + 500]), rows

    return fit


@pytest.mark.parametrize("device", ["pixel3", "raspi4"])
def test_devices_whose_latency_is_a_sum_are_fitted_exactly(devices, device):
    found, _ = devices(device, 2 * 177)
    assert found.r2 == pytest.approx(1, abs=1e-9)
    assert found.worst_error < 1e-6  # of float32
    found.check()


@pytest.mark.parametrize(("device", "share"), [("gold_6226", 0.949), ("samsung_s7", 0.284)])
def test_the_share_of_variance_that_a_table_explains_is_the_one_on_record(devices, device, share):
    """On record are fits to all 5,000 networks, judged on the same ones."""
    found, rows = devices(device, 4_500)
    true = np.array([value for _, value in rows])
    wrong = np.array([found.cost.total(one) for one, _ in rows]) - true
    assert 1 - (wrong**2).mean() / true.var() == pytest.approx(share, abs=0.005)


def test_a_device_that_is_nearly_a_sum_is_told_from_one_that_is_none(devices):
    near, none = (devices(device, 2_000)[0] for device in ("gold_6226", "samsung_s7"))
    near.check(worst=0.3)
    with pytest.raises(ConfigError, match="fitted to 2000 architectures"):
        none.check(worst=1.0)
    with pytest.raises(ConfigError, match="worst error"):
        none.check(r2=0)
