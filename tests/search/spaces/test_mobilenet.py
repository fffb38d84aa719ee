"""Mobile networks: published counts, closed forms against counted networks, bounds, speed."""

import random
import time

import pytest
import torch
from torch import nn

from limbeck.errors import ConfigError
from limbeck.search import LayerNAS
from limbeck.search.counting import count
from limbeck.search.spaces import (
    SPACES,
    mobilenet_v2,
    mobilenet_v3_large,
    mobilenet_v3_small,
)
from limbeck.search.spaces.mobile_blocks import divisible, mobile_network

V2, LARGE, SMALL = mobilenet_v2(), mobilenet_v3_large(), mobilenet_v3_small()
MODELS = pytest.mark.parametrize("model", [V2, LARGE, SMALL], ids=["v2", "large", "small"])


@pytest.mark.parametrize(
    ("model", "parameters", "macs"),
    [
        # Parameters: torchvision's builds. Multiply-adds, millions: the authors' code.
        (V2, 3_504_872, 300),
        (LARGE, 5_483_032, 217),
        (SMALL, 2_542_856, 56),
        (mobilenet_v2(width=0.5), 1_968_680, 97),
        (mobilenet_v2(width=0.75), None, 209),
        (mobilenet_v2(width=1.4), None, 582),
    ],
    ids=["v2", "large", "small", "v2 0.5", "v2 0.75", "v2 1.4"],
)
def test_the_default_is_the_published_network(model, parameters, macs):
    default = model.space.default
    if parameters is not None:
        assert model.parameters().total(default) == parameters
    assert abs(model.macs().total(default) / 1e6 - macs) < 1


def drawn(model, seed):
    rng = random.Random(seed)
    return tuple(rng.randrange(k) for k in model.space.sizes)


def counted(model, architecture, *, classes=1000, side=224):
    with torch.device("meta"):
        network = mobile_network(model.ends, model.blocks(architecture), classes)
        return count(network, torch.empty(1, 3, side, side))


@MODELS
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_costs_are_those_of_the_counted_network(model, seed):
    architecture = model.space.default if seed is None else drawn(model, seed)
    assert counted(model, architecture) == (
        model.parameters().total(architecture),
        model.macs().total(architecture),
        model.activation_bytes().total(architecture),
    )


@MODELS
def test_other_sides_and_classes_are_in_the_costs(model):
    # The second's memory is that of the logits, the first's that of a map of odd sides.
    for side, classes in ((45, 3), (33, 500_000)):
        architecture = drawn(model, side)
        assert counted(model, architecture, classes=classes, side=side) == (
            model.parameters(classes=classes).total(architecture),
            model.macs(classes=classes, side=side).total(architecture),
            model.activation_bytes(classes=classes, side=side).total(architecture),
        )


@MODELS
def test_costs_are_sums_over_blocks_that_bounds_hold(model):
    macs, memory = model.macs(), model.activation_bytes()
    for seed in range(200):
        architecture = drawn(model, seed)
        total = macs.total(architecture)
        for n in range(len(architecture) + 1):
            low, high = macs.bounds(architecture[:n])
            assert low <= total <= high
            assert memory.bounds(architecture[:n]).low <= memory.total(architecture)
        assert macs.bounds(architecture) == (total, total)


@MODELS
def test_the_options_of_every_row_hold_the_published_one_once(model):
    for row, layer, choices in zip(model.rows, model.space.layers, model.choices, strict=True):
        assert choices[layer.default] == row.published
        assert len(set(choices)) == len(choices) == len(layer.options)
        assert {choice.kernel for choice in choices} == {3, 5, 7}


def test_rows_are_repeated_where_the_table_repeats_them():
    label = V2.space.values(V2.space.default)
    assert label["row4"] == "k3 e6 c64 n4"
    assert len(V2.blocks(V2.space.default)) == 17
    assert {choice.repeats for choice in V2.choices[3]} == {3, 4, 5}
    assert LARGE.space.values(LARGE.space.default)["row8"] == "k3 e2.5 c80"


def test_the_first_bounds_and_the_first_question_come_at_once():
    # Of processor time, so that a busy machine is no reason to fail.
    best = float("inf")
    for _ in range(3):
        model = mobilenet_v3_large()
        assert model.space.size > 10**20
        start = time.process_time()
        cost = model.macs()
        cost.bounds(())
        search = LayerNAS(cost, 216_589_760, generator=torch.Generator().manual_seed(0))
        trial = search.ask()
        best = min(best, time.process_time() - start)
        assert trial.in_range
    assert best < 0.1


def test_a_limit_on_memory_holds_beside_the_limit_on_multiply_adds():
    memory = SMALL.activation_bytes()
    assert memory.total(SMALL.space.default) > 1_700_000
    search = LayerNAS(
        SMALL.macs(),
        56_510_400,
        constraints=[(memory, 1_700_000)],
        generator=torch.Generator().manual_seed(0),
    )
    for number in range(20):
        trial = search.ask()
        assert memory.total(trial.architecture) <= 1_700_000
        assert trial.in_range
        search.tell(trial.number, float(number))


@MODELS
def test_networks_learn(model):
    network = model.build(drawn(model, 5), classes=4, seed=1)
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    logits = network(x)
    assert logits.shape == (4, 4)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(m.weight.grad.any() for m in network.modules() if isinstance(m, nn.Conv2d))


def test_a_shortcut_stands_where_shapes_agree():
    network = LARGE.build(LARGE.space.default, classes=2)
    blocks = LARGE.blocks(LARGE.space.default)
    found = [one.shortcut for one in network if hasattr(one, "shortcut")]
    assert found == [b.stride == 1 and b.inputs == b.outputs for b in blocks]
    assert sum(found) == 10


@pytest.mark.parametrize(
    ("channels", "rounded"), [(4, 8), (12, 16), (18, 24), (44.8, 48), (20, 24)]
)
def test_channels_are_rounded_to_eights_without_losing_a_tenth(channels, rounded):
    assert divisible(channels) == rounded
    assert divisible(channels) >= 0.9 * channels


def test_what_is_no_network_is_refused():
    with pytest.raises(ConfigError, match="width=0"):
        mobilenet_v2(width=0)
    with pytest.raises(ConfigError, match="classes=0"):
        SMALL.build(SMALL.space.default, classes=0)
    with pytest.raises(ConfigError, match="3 options in a space of 11 layers"):
        SMALL.build((0, 0, 0))


def test_every_named_space_is_whole():
    assert set(SPACES) == {
        "nats_topology",
        "nats_size",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "mobilenet_v3_large",
    }
    for named in SPACES.values():
        assert {"macs", "parameters"} <= set(named.costs)
        assert all(cost.space is named.space for cost in named.costs.values())
        network = named.build(named.space.default)
        with torch.device("meta"):
            counts = count(network, torch.empty(named.example))
        default = named.space.default
        assert {name: getattr(counts, name) for name in named.costs} == {
            name: cost.total(default) for name, cost in named.costs.items()
        }
