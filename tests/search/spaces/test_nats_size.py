"""Five widths: costs against counted networks and enumeration, and the made-up problem."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.errors import ConfigError
from limbeck.search import Limit
from limbeck.search.counting import count
from limbeck.search.spaces import nats_size, synthetic_problem

SPACE = nats_size.space()
MACS, PARAMETERS = nats_size.macs(SPACE), nats_size.parameters(SPACE)
WIDTHS = list(range(8, 65, 8))
EVERY = list(itertools.product(range(8), repeat=5))


def drawn(n, seed=0):
    return random.Random(seed).sample(EVERY, n)


@pytest.mark.parametrize(
    "architecture", [(7,) * 5, (0,) * 5, (3, 3, 3, 2, 2), (0, 5, 6, 1, 1), *drawn(6)]
)
def test_costs_are_those_of_the_counted_network(architecture):
    with torch.device("meta"):
        network = nats_size._network(architecture, 10)
    counts = count(network, torch.empty(1, 3, 32, 32))
    assert counts[:2] == (PARAMETERS.total(architecture), MACS.total(architecture))


@pytest.mark.parametrize("cost", [MACS, PARAMETERS], ids=["macs", "parameters"])
def test_no_wider_layer_makes_a_network_cheaper(cost):
    totals = np.array([cost.total(one) for one in EVERY]).reshape((8,) * 5)
    assert all((np.diff(totals, axis=axis) > 0).all() for axis in range(5))
    for prefix in [(), (4,), (4, 0), (6, 6), (1, 7, 2), (1, 7, 2, 5), (7, 0, 7, 0, 7)]:
        inside = totals[prefix]
        assert cost.bounds(prefix) == (inside.min(), inside.max())


def test_the_default_is_the_widest_network():
    assert SPACE.size == 32_768
    assert set(SPACE.values(SPACE.default).values()) == {64}


def test_networks_learn():
    network = nats_size.build((1, 3, 2, 2, 5), classes=6)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = network(x)
    assert logits.shape == (4, 6)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(m.weight.grad.any() for m in network.modules() if isinstance(m, nn.Conv2d))


def test_the_made_up_problem_is_its_formula():
    problem = synthetic_problem(0.1)
    noise = np.random.default_rng(7).normal(size=(8,) * 5)
    for one in drawn(40, seed=1):
        w = [WIDTHS[s] for s in one]
        reward = 93.0
        for b, v, width in zip((6, 5, 4, 3, 3), (10, 14, 18, 22, 26), w, strict=True):
            reward -= b * np.exp(-width / v)
        for before, after in itertools.pairwise(w):
            reward -= 0.3 * abs(np.log2(after / before) - 0.5)
        macs = 3 * w[0] * 1024 + w[0] * w[1] * 1024 + w[1] * w[2] * 256
        macs = 9 * (macs + w[2] * w[3] * 256 + w[3] * w[4] * 64)
        assert problem.report[one] == pytest.approx(reward, abs=1e-12)
        assert problem.reward[one] == pytest.approx(reward + 0.1 * noise[one], abs=1e-12)
        assert problem.cost.total(one) == macs


@pytest.mark.parametrize(("sigma", "optimum"), [(0.0, 91.571), (0.1, 91.781), (0.3, 92.252)])
def test_the_made_up_problem_has_the_optimum_that_is_on_record(sigma, optimum):
    problem = synthetic_problem(sigma)
    totals = np.array([problem.cost.total(one) for one in EVERY]).reshape((8,) * 5)
    assert problem.limit == 0.5 * totals.max()
    inside = problem.reward[totals <= problem.limit]
    assert inside.max() == pytest.approx(optimum, abs=5e-4)
    assert problem.cost.key_range(2, Limit(0, problem.limit)).high <= problem.limit


@pytest.mark.parametrize("sigma", [-0.1, float("nan")])
def test_noise_that_is_none_is_refused(sigma):
    with pytest.raises(ConfigError, match="sigma"):
        synthetic_problem(sigma)


def test_what_is_no_network_is_refused():
    with pytest.raises(ConfigError, match="classes=0"):
        nats_size.build((0,) * 5, classes=0)
    with pytest.raises(ConfigError, match="'w3'"):
        nats_size.build((0, 0, 8, 0, 0))
