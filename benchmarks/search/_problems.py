"""The tables as search problems: a space, a cost, a limit, a reward and what is reported.

Search rewards are validation figures (points); the figure that is reported was measured otherwise
(longer training, other seeds, test rows), and no search sees it.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from limbeck.search import AdditiveCost, Cost, Layer, LayerwiseSpace, TableCost
from limbeck.search.spaces import synthetic_problem

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ("e01", "e02", "e12", "e03", "e13", "e23")
GRAPHS = ("cora", "citeseer", "arxiv", "cs", "photo")


@dataclass(frozen=True, eq=False)
class Problem:
    """One search problem.

    Args:
        name: As in the tables.
        family: Table that it comes from: what is left out when a default is chosen.
        cost, limit: Of the search.
        reward: What a search sees, in points, shape (K_1, ..., K_L); NaN where not valid.
        report: What is reported of the answer, same shape.
    """

    name: str
    family: str
    cost: Cost
    limit: float
    reward: NDArray[np.float64]
    report: NDArray[np.float64]

    @cached_property
    def in_range(self) -> NDArray[np.bool_]:
        """Architectures that may be an answer."""
        return ~np.isnan(self.reward) & (totals(self.cost) <= self.limit)

    @cached_property
    def optimum(self) -> float:
        """The best reward in range."""
        return float(self.reward[self.in_range].max())


_TOTALS: dict[int, NDArray[np.float64]] = {}


def totals(cost: Cost) -> NDArray[np.float64]:
    """Cost of every architecture."""
    if id(cost) not in _TOTALS:
        sizes = cost.space.sizes
        every = [cost.total(one) for one in product(*map(range, sizes))]
        _TOTALS[id(cost)] = np.array(every).reshape(sizes)
    return _TOTALS[id(cost)]


def cells(data: Path) -> dict[str, NDArray[np.float64]]:
    """Columns of nasbench201 as arrays of shape (5, 5, 5, 5, 5, 5)."""
    table = pq.read_table(data / "nas" / "nasbench201.parquet").to_pydict()
    at = tuple(np.array(table[edge]) for edge in EDGES)
    found = {}
    for name, column in table.items():
        if name not in EDGES and not isinstance(column[0], str):
            array = np.full((5,) * 6, np.nan)
            array[at] = column
            found[name] = array
    return found


def cell_problems(data: Path) -> list[Problem]:
    """NAS-Bench-201: multiply-adds and latencies of several devices."""
    columns = cells(data)
    space = LayerwiseSpace(tuple(Layer(edge, OPERATIONS) for edge in EDGES))
    macs = AdditiveCost(space, [[0, 0, 3_932_160, 35_389_440, 0]] * 6, base=7_783_040)
    largest = 220_119_680
    problems = []
    for task in ("cifar10", "cifar100"):
        reward, report = columns[f"{task}_valid_acc_12ep"], columns[f"{task}_test_acc_200ep"]
        for share in (0.25, 0.5, 1.0):
            name = f"nb201 {task} flops<={share}max"
            problems.append(Problem(name, f"nb201 {task}", macs, share * largest, reward, report))
        for device in ("pixel3", "eyeriss", "raspi4", "gold_6226", "2080ti_1", "silver_4114"):
            latency = TableCost(space, columns[f"latency_ms_{device}"])
            limit = float(np.median(latency.table))
            name = f"nb201 {task} latency {device}<=median"
            problems.append(Problem(name, f"nb201 {task}", latency, limit, reward, report))
    return problems


def macro_problems(data: Path) -> list[Problem]:
    """NAS-Bench-Macro: search on seed 0, report the mean of the two others."""
    table = pq.read_table(data / "nas" / "nasbench_macro.parquet").to_pydict()
    names = [f"l{i}" for i in range(1, 9)]
    at = tuple(np.array(table[name]) for name in names)
    reward, report, flops = (np.empty((3,) * 8) for _ in range(3))
    reward[at] = table["cifar10_test_acc_seed0"]
    others = [table[f"cifar10_test_acc_seed{i}"] for i in (1, 2)]
    report[at] = np.mean(others, axis=0)
    flops[at] = table["flops"]
    space = LayerwiseSpace(tuple(Layer(name, ("identity", "k3 e3", "k5 e6")) for name in names))
    zero = (0,) * 8
    base = flops[zero]
    rows = [[flops[(*zero[:i], s, *zero[i + 1 :])] - base for s in range(3)] for i in range(8)]
    cost = AdditiveCost(space, rows, base=base)
    return [
        Problem(
            f"macro flops<={share}max", "macro", cost, share * float(flops.max()), reward, report
        )
        for share in (0.4, 0.5, 0.7, 1.0)
    ]


def graph_problems(data: Path) -> list[Problem]:
    """NAS-Bench-Graph: parameters at the lowest quarter."""
    rows = pq.read_table(data / "nas" / "nasbench_graph.parquet").to_pydict()
    index = pq.read_table(data / "nas" / "nasbench_graph_index.parquet").to_pydict()
    place = {arch: i for i, arch in enumerate(rows["arch_id"])}
    names = ("link", "op1", "op2", "op3", "op4")
    at = tuple(np.array(index[name]) for name in names)
    rank = np.array([place[arch] for arch in index["arch_id"]])
    space = LayerwiseSpace(
        tuple(Layer(name, tuple(range(9))) for name in names),
        is_valid=lambda prefix, s: not (len(prefix) == 4 and s == 8 and prefix[1:] == (8, 8, 8)),
    )
    problems = []
    for graph in GRAPHS:
        reward, report, params = (np.full((9,) * 5, np.nan) for _ in range(3))
        reward[at] = 100 * np.array(rows[f"{graph}_valid"])[rank]
        report[at] = 100 * np.array(rows[f"{graph}_test"])[rank]
        params[at] = np.array(rows[f"{graph}_params_m"])[rank]
        limit = float(np.nanquantile(params, 0.25))
        name = f"graph {graph} params<=q25"
        cost = TableCost(space, params)
        problems.append(Problem(name, f"graph {graph}", cost, limit, reward, report))
    return problems


def chain_problem(sigma: float) -> Problem:
    """A made-up chain of five widths: costs with products of neighbours, a table of fixed noise."""
    made = synthetic_problem(sigma)
    name = f"chain sigma={sigma:g}"
    return Problem(name, "chain", made.cost, made.limit, made.reward, made.report)


@cache
def problems(data: Path) -> tuple[Problem, ...]:
    """All of them."""
    return (
        *cell_problems(data),
        *macro_problems(data),
        *graph_problems(data),
        *(chain_problem(sigma) for sigma in (0.0, 0.1, 0.3)),
    )


NAMED = (
    *(f"nb201 {task} flops<={s}max" for task in ("cifar10", "cifar100") for s in (0.25, 0.5, 1.0)),
    "nb201 cifar100 latency pixel3<=median",
    "nb201 cifar100 latency eyeriss<=median",
    *(f"macro flops<={s}max" for s in (0.4, 0.5, 0.7, 1.0)),
    "graph arxiv params<=q25",
    "graph cora params<=q25",
)
"""The fourteen problems on which the design was chosen."""
