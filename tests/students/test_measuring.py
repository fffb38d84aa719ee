"""Measuring on made-up machines: what is known to be in a measurement comes out, or is gone."""

import numpy as np
import pytest
import torch

from limbeck.errors import ConfigError
from limbeck.students.energy import EnergyMeter, energy_model
from limbeck.students.measuring import (
    measure_round,
    milliseconds,
    repeatability,
    torch_threads,
    typical,
)

from .test_search_spaces import bags, drawn, images


class FakeClock:
    """Seconds that pass only as told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def call(self, *seconds):
        turns = iter(seconds)

        def run():
            self.now += next(turns)

        return run


def test_a_measurement_is_the_median_of_five_warm_calls_in_milliseconds():
    clock = FakeClock()
    run = clock.call(9, 9, 0.002, 0.004, 0.003, 0.9, 0.001)
    assert milliseconds(run, clock) == pytest.approx(3)


def test_everything_is_built_anew_and_measured_once_a_round_in_another_order():
    built = []
    builds = {str(i): lambda i=i: built.append(i) or (lambda: i) for i in range(20)}
    first = dict(measure_round(builds, lambda run: float(run()), 0))
    order = list(built)
    second = dict(measure_round(builds, lambda run: float(run()), 1))
    assert first == second == {str(i): float(i) for i in range(20)}
    assert sorted(order) == sorted(built[20:]) == list(range(20))
    assert order != built[20:]


def test_what_slows_a_whole_round_is_taken_off():
    rng = np.random.default_rng(0)
    true, levels = rng.uniform(1, 9, 30), np.exp(rng.normal(0, 0.3, 9))
    levels /= np.median(levels)
    rounds = [{str(i): v * level for i, v in enumerate(true)} for level in levels]
    np.testing.assert_allclose(list(typical(rounds).values()), true, rtol=1e-9)


def test_a_few_slow_calls_change_nothing():
    rng = np.random.default_rng(1)
    true = rng.uniform(1, 9, 30)
    rounds = [{str(i): v for i, v in enumerate(true)} for _ in range(12)]
    for i in range(30):  # twice in twelve rounds
        for number in rng.choice(12, 2, replace=False):
            rounds[number][str(i)] *= 4
    np.testing.assert_allclose(list(typical(rounds).values()), true, rtol=1e-9)


def test_noise_is_what_two_halves_of_the_rounds_differ_by():
    rounds = [{"a": 1.0, "b": 2.0, "c": 3.0, "d": 5.0} for _ in range(8)]
    assert repeatability(rounds, ["a", "b", "c"]).tolist() == [0, 0, 0]
    for one in rounds[::2]:
        one["b"] *= 1.1
    assert repeatability(rounds, ["a", "b"]) == pytest.approx([0, 0.1])
    with pytest.raises(ConfigError, match="rounds=1"):
        repeatability(rounds[:1], ["a"])


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == before


def counters(root, wraps=10**9, **start):
    for name, value in start.items():
        folder = root / f"intel-rapl:{name[-1]}"
        folder.mkdir()
        (folder / "energy_uj").write_text(f"{value}\n")
        (folder / "max_energy_range_uj").write_text(f"{wraps}\n")
    return root


def test_energy_is_what_the_counters_of_all_packages_rise_by(tmp_path):
    root, clock = counters(tmp_path, wraps=999, p0=990, p1=100), FakeClock()

    def run():  # a call takes 0.01 s, and 5 and 2 microjoules
        clock.now += 0.01
        for name, rise in (("0", 5), ("1", 2)):
            file = root / f"intel-rapl:{name}" / "energy_uj"
            file.write_text(str((int(file.read_text()) + rise) % 1000))

    assert EnergyMeter(root, clock)(run) == pytest.approx(7e-3)


def test_energy_is_refused_where_no_counter_can_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"shows no energy counter.*virtual machines have none"):
        EnergyMeter(tmp_path / "nothing")
    root = counters(tmp_path, p0=5)
    (root / "intel-rapl:0" / "energy_uj").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        EnergyMeter(root)


def test_the_energy_model_is_constants_times_counts():
    space = images(28, 1)
    model = energy_model(space, pj_per_mac=4.0, pj_per_byte=0.0)
    for one in drawn(space.space, 10):
        assert model.total(one) == pytest.approx(4e-9 * space.costs["macs"].total(one))
    one = bags(50)  # 50 rows of the table and the two layers are read; maps: d; d, h, outputs
    dim, hidden = 16, 64
    moved = 4 * (50 * dim + dim) + 4 * (dim * hidden + hidden * 3 + dim + hidden + 3)
    model = energy_model(one, pj_per_mac=0.0, pj_per_byte=2.0)
    default = one.space.architecture({"buckets": 65_536, "dim": dim, "hidden": hidden})
    assert model.total(default) == pytest.approx(2e-9 * moved)


@pytest.mark.parametrize("size", [8, 28, 64])
def test_the_energy_model_never_falls_when_an_option_rises(size):
    space = images(size, 3)
    model = energy_model(space, pj_per_mac=1.0, pj_per_byte=10.0)
    totals = np.empty(space.space.sizes)
    for one in np.ndindex(*space.space.sizes):
        totals[one] = model.total(one)
    assert all((np.diff(totals, axis=axis) >= 0).all() for axis in range(totals.ndim))


def test_constants_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="pj_per_mac=-1"):
        energy_model(images(), pj_per_mac=-1, pj_per_byte=1)
    with pytest.raises(ConfigError, match="both 0"):
        energy_model(images(), pj_per_mac=0, pj_per_byte=0)
    with pytest.raises(ConfigError, match="give its length"):
        energy_model(bags(), pj_per_mac=1, pj_per_byte=1)
