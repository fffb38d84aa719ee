"""The cells of NAS-Bench-201 against the benchmark's table, and against counted networks."""

import itertools
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.errors import ConfigError
from limbeck.search.counting import count
from limbeck.search.spaces import nats_topology
from limbeck.search.spaces.cells import OPERATIONS, Cell
from limbeck.search.spaces.nats_topology import build, isomorphism_key, simplified_key

SPACE = nats_topology.space()
PARAMETERS, MACS = nats_topology.parameters(SPACE), nats_topology.macs(SPACE)
EVERY = list(itertools.product(range(5), repeat=6))
NONE, SKIP, ONE, THREE, POOL = range(5)


@pytest.fixture(scope="module")
def table():
    pq = pytest.importorskip("pyarrow.parquet")
    path = Path(os.environ.get("LIMBECK_DATA", "")) / "nas" / "nasbench201.parquet"
    if "LIMBECK_DATA" not in os.environ or not path.is_file():
        pytest.skip("needs nas/nasbench201.parquet in the folder that LIMBECK_DATA names")
    columns = pq.read_table(path).to_pydict()
    cells = zip(*(columns[layer.name] for layer in SPACE.layers), strict=True)
    return {cell: i for i, cell in enumerate(cells)}, columns


def test_costs_are_those_of_the_table_for_every_cell(table):
    rows, columns = table
    assert len(rows) == SPACE.size == 15_625
    for cell, i in rows.items():
        assert PARAMETERS.total(cell) == columns["params_cifar10"][i]
        assert MACS.total(cell) == columns["flops_cifar10"][i]


def test_equal_cells_are_those_of_the_table(table):
    rows, columns = table
    pairs = {(isomorphism_key(cell), columns["iso_class"][i]) for cell, i in rows.items()}
    assert len(pairs) == len(set(columns["iso_class"])) == 6_466


def test_costs_are_the_published_sums():
    for cell in EVERY[::7]:
        ones, threes = cell.count(ONE), cell.count(THREE)
        assert PARAMETERS.total(cell) == 73_306 + 28_000 * ones + 243_040 * threes
        assert MACS.total(cell) == 7_783_040 + 3_932_160 * ones + 35_389_440 * threes


@pytest.mark.parametrize(
    "cell", [(NONE,) * 6, (THREE,) * 6, (ONE, POOL, SKIP, THREE, NONE, ONE), (3, 3, 3, 1, 3, 2)]
)
def test_costs_are_those_of_the_counted_network(cell):
    with torch.device("meta"):
        network = nats_topology._network(cell, 10)
    counts = count(network, torch.empty(1, 3, 32, 32))
    assert counts[:2] == (PARAMETERS.total(cell), MACS.total(cell))


def test_classes_are_in_the_costs():
    network = build((ONE,) * 6, classes=100)
    counts = count(network, torch.empty(1, 3, 32, 32))
    assert counts.parameters == nats_topology.parameters(SPACE, classes=100).total((ONE,) * 6)
    assert counts.macs == nats_topology.macs(SPACE, classes=100).total((ONE,) * 6)


def slow_cell(cell, x):
    """Nodes of a cell straight from its definition."""
    op = {edge: layer for edge, layer in zip(nats_topology.EDGES, cell.edges, strict=True)}
    one = op[0, 1](x)
    two = op[0, 2](x) + op[1, 2](one)
    return op[0, 3](x) + op[1, 3](one) + op[2, 3](two)


def test_a_cell_is_the_sum_over_its_edges():
    generator = torch.Generator().manual_seed(0)
    for numbers in EVERY[5::1013]:
        cell = Cell([OPERATIONS[s] for s in numbers], 4, 4).eval()
        x = torch.randn(2, 4, 6, 6, generator=generator)
        torch.testing.assert_close(cell(x), slow_cell(cell, x))


def test_cells_with_one_key_compute_one_function_and_others_do_not():
    # Every operation stands for one drawn function, the same on all edges; zero goes to zero.
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(5, 3, 3))
    x = rng.normal(size=3)

    def edge(s, value):
        return {NONE: 0 * value, SKIP: value}.get(s, np.tanh(matrices[s] @ value))

    keys, values = defaultdict(set), defaultdict(set)
    for cell in EVERY:
        one = edge(cell[0], x)
        two = edge(cell[1], x) + edge(cell[2], one)
        out = edge(cell[3], x) + edge(cell[4], one) + edge(cell[5], two)
        value = tuple((out.round(9) + 0.0).tolist())
        keys[simplified_key(cell)].add(value)
        values[value].add(simplified_key(cell))
    assert len(keys) == len(values) == 4_930
    assert all(len(found) == 1 for found in (*keys.values(), *values.values()))


def test_the_benchmarks_rule_splits_what_is_equal_but_never_joins_what_is_not():
    pairs = {(isomorphism_key(cell), simplified_key(cell)) for cell in EVERY}
    assert len(pairs) == len({key for key, _ in pairs}) == 6_466
    assert len({key for _, key in pairs}) == 4_930
    assert SPACE.key((THREE, NONE, SKIP, SKIP, NONE, SKIP)) == isomorphism_key(
        (NONE, THREE, NONE, SKIP, NONE, SKIP)
    )


def test_networks_learn_and_come_from_their_seed():
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = build((ONE, POOL, SKIP, THREE, NONE, ONE), classes=7, seed=3)
    again = build((ONE, POOL, SKIP, THREE, NONE, ONE), classes=7, seed=3)
    state = torch.get_rng_state()
    logits = network(x)
    torch.testing.assert_close(logits, again(x), rtol=0, atol=0)
    assert logits.shape == (4, 7)
    assert logits.isfinite().all()
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    # Node 1 feeds node 2 by a skip, so that no parameter is without effect.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert all(m.weight.grad.any() for m in network.modules() if isinstance(m, nn.Conv2d))
    assert torch.equal(state, torch.get_rng_state())
    other = build((ONE, POOL, SKIP, THREE, NONE, ONE), classes=7, seed=4)
    assert not torch.equal(next(other.parameters()), next(network.parameters()))


@pytest.mark.parametrize(
    ("cell", "classes", "says"),
    [((0,) * 5, 10, "5 options"), ((5, 0, 0, 0, 0, 0), 10, "'e01'"), ((0,) * 6, 0, "classes=0")],
)
def test_what_is_no_network_is_refused(cell, classes, says):
    with pytest.raises(ConfigError, match=says):
        build(cell, classes=classes)
