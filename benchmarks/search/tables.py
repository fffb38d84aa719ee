"""Searches on tables of trained networks: regret after so many evaluations, and what is reported.

    PYTHONPATH=src:. python -m benchmarks.search.tables [--minutes 60] [--seeds 100]

An evaluation is an architecture that was not evaluated before; repeats are free for everybody.
Costs are free to ask, so random search, evolution, local search and LayerNAS with `fit` never
evaluate what is out of range; `paper`, MnasNet's reward and Optuna's samplers may, and are charged
for it. The default of LayerNAS was chosen on these very tables, so its margins are optimistic.
"""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from benchmarks._common import Clock, arguments, results
from benchmarks.search._problems import NAMED, Problem, problems

from limbeck.numerics.intervals import paired_t
from limbeck.search import (
    LayerNAS,
    LayerNASConfig,
    LocalSearch,
    RandomSearch,
    RegularizedEvolution,
    Searcher,
    paper,
)

AT = (50, 100, 200, 400)
CHAINS = ("0", "0.1", "0.3")
BLOCK = 10
"""Seeds of one row."""
OPTUNA_SEEDS = 10
"""TPE takes a hundred times as long as the others."""


def generator(seed: int) -> torch.Generator:
    """Of one run."""
    return torch.Generator().manual_seed(seed)


def layernas(config: LayerNASConfig) -> Callable[[Problem, int], Searcher]:
    """With settings."""
    return lambda p, s: LayerNAS(p.cost, p.limit, config, generator=generator(s))


SEARCHES: dict[str, Callable[[Problem, int], Searcher]] = {
    "default": layernas(LayerNASConfig()),
    "sweep and polish": layernas(LayerNASConfig(explore=0.0)),
    "paper": layernas(paper()),
    "random": lambda p, s: RandomSearch(p.cost, p.limit, generator=generator(s)),
    "evolution": lambda p, s: RegularizedEvolution(p.cost, p.limit, generator=generator(s)),
    "evolution, mnas": lambda p, s: RegularizedEvolution(
        p.cost, p.limit, reward="mnas", generator=generator(s)
    ),
    "local search": lambda p, s: LocalSearch(p.cost, p.limit, generator=generator(s)),
}
OPTUNA = ("tpe", "nsga2")


class Trace:
    """The best of a run so far, evaluation by evaluation."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.best, self.reported, self.away = -math.inf, math.nan, 0
        self.known: dict[tuple[int, ...], float] = {}
        self.steps: list[tuple[float, float, int]] = []

    def evaluate(self, one: tuple[int, ...]) -> float:
        """Reward of an architecture; it counts when it is new."""
        if one not in self.known:
            self.known[one] = reward = float(self.problem.reward[one])
            if self.problem.in_range[one]:
                if reward > self.best:
                    self.best, self.reported = reward, float(self.problem.report[one])
            else:
                self.away += 1
            self.steps.append((self.best, self.reported, self.away))
        return self.known[one]

    def at(self, n: int) -> dict[str, float]:
        """Regret (points), reported figure, and share out of range after n evaluations.

        Before anything in range was met, the regret is that of the worst architecture in range.
        """
        best, reported, away = self.steps[min(n, len(self.steps)) - 1]
        worst = float(self.problem.reward[self.problem.in_range].min())
        return {
            "regret": self.problem.optimum - max(best, worst),
            "report": reported,
            "away": away / min(n, len(self.steps)),
        }


def run(name: str, problem: Problem, seed: int) -> Trace:
    """One search of 400 evaluations."""
    trace = Trace(problem)
    if name in OPTUNA:
        _optuna(name, problem, seed, trace)
        return trace
    search = SEARCHES[name](problem, seed)
    while len(trace.steps) < AT[-1] and (trial := search.ask()) is not None:
        search.tell(trial.number, trace.evaluate(trial.architecture))
    return trace


def _optuna(name: str, problem: Problem, seed: int, trace: Trace) -> None:
    """A sampler that is told by how much a trial misses the limit."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, cost = problem.cost.space, problem.cost

    def excess(trial: optuna.trial.FrozenTrial) -> Sequence[float]:
        return (trial.user_attrs["cost"] / problem.limit - 1,)

    kind = {"tpe": optuna.samplers.TPESampler, "nsga2": optuna.samplers.NSGAIISampler}[name]
    study = optuna.create_study(
        direction="maximize", sampler=kind(seed=seed, constraints_func=excess)
    )
    # A sampler that repeats itself must come to an end too.
    for _ in range(4 * AT[-1]):
        if len(trace.steps) >= AT[-1]:
            return
        trial = study.ask()
        one = tuple(
            trial.suggest_categorical(layer.name, range(len(layer.options)))
            for layer in space.layers
        )
        valid = space.valid(one)
        trial.set_user_attr("cost", cost.total(one) if valid else 10 * problem.limit)
        if valid:
            study.tell(trial, trace.evaluate(one))
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)


def block(name: str, problem: Problem, first: int) -> dict[str, object]:
    """Ten seeds of a search on a problem."""
    traces = [run(name, problem, seed) for seed in range(first, first + BLOCK)]
    row: dict[str, object] = {"method": name, "problem": problem.name, "first_seed": first}
    for n in AT:
        for figure in ("regret", "report", "away"):
            row[f"{figure}_{n}"] = [_rounded(trace.at(n)[figure]) for trace in traces]
    return row


def _rounded(value: float) -> float | None:
    """None for what is not known: nothing in range was met yet."""
    return None if math.isnan(value) else round(value, 5)


Table = dict[tuple[str, str], dict[str, list[float]]]


def merged(rows: Sequence[dict[str, object]]) -> Table:
    """Figures of all seeds by method and problem, in the order of seeds."""
    found: Table = defaultdict(lambda: defaultdict(list))
    for row in sorted(rows, key=lambda row: int(str(row["first_seed"]))):
        cell = found[str(row["method"]), str(row["problem"])]
        for name, values in row.items():
            if isinstance(values, list):
                cell[name] += values
    return found


def over_problems(table: Table, method: str, names: Sequence[str], figure: str) -> list[float]:
    """Mean over problems, seed by seed, of the seeds that all problems have."""
    cells = [table[method, name][figure] for name in names if (method, name) in table]
    if len(cells) < len(names):
        return []
    seeds = min(map(len, cells))
    return [float(np.mean([cell[s] for cell in cells])) for s in range(seeds)]


def markdown(table: Table, names: Sequence[str], methods: Sequence[str]) -> str:
    """Mean regret at 200 and 400 evaluations by problem, and the means over all at each count."""
    lines = [
        "| validation regret, points, at 200 / 400 evaluations | " + " | ".join(methods) + " |",
        "|---|" + "--:|" * len(methods),
    ]
    for name in names:
        cells = [_two(table, method, name) for method in methods]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for group, chosen in (("the 14", NAMED), ("the others", _others(names))):
        for n in AT:
            cells = []
            for method in methods:
                values = over_problems(table, method, chosen, f"regret_{n}")
                cells.append(_with_interval(values))
            lines.append(f"| **mean over {group}, {n}** | " + " | ".join(cells) + " |")
    cells = []
    for method in methods:
        away = over_problems(table, method, NAMED, "away_200")
        cells.append(f"{100 * float(np.mean(away)):.0f} %" if away else "-")
    lines.append("| out of range, of 200, the 14 | " + " | ".join(cells) + " |")
    cells = [_against_evolution(table, method, names) for method in methods]
    lines.append("| above evolution at 400: mean, worst | " + " | ".join(cells) + " |")
    cells = [_at_the_best(table, method) for method in methods]
    lines.append("| at the best of the three chains after 200 | " + " | ".join(cells) + " |")
    lines.append("| seeds | " + " | ".join(_seeds(table, m, names) for m in methods) + " |")
    return "\n".join(lines) + "\n"


def reported(table: Table, names: Sequence[str], methods: Sequence[str]) -> str:
    """Mean reported figure of the answer after 200 evaluations."""
    lines = [
        "| reported figure after 200 evaluations | " + " | ".join(methods) + " |",
        "|---|" + "--:|" * len(methods),
    ]
    for name in names:
        cells = [_mean(table[m, name].get("report_200", [])) for m in methods]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _others(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in NAMED]


def _two(table: Table, method: str, name: str) -> str:
    cell = table[method, name]
    if "regret_200" not in cell:
        return "-"
    return f"{np.mean(cell['regret_200']):.2f} / {np.mean(cell['regret_400']):.2f}"


def _mean(values: Sequence[float]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.2f}" if known else "-"


def _against_evolution(table: Table, method: str, names: Sequence[str]) -> str:
    """Mean and worst difference of the mean regrets over all problems."""
    if not all(table[m, name].get("regret_400") for m in (method, "evolution") for name in names):
        return "-"
    above = [
        float(np.mean(table[method, name]["regret_400"]))
        - float(np.mean(table["evolution", name]["regret_400"]))
        for name in names
    ]
    return f"{np.mean(above):+.2f}, {max(above):+.2f}"


def _at_the_best(table: Table, method: str) -> str:
    """Share of the seeds without regret on the chains, by their noise."""
    cells = [table[method, f"chain sigma={sigma}"].get("regret_200") for sigma in CHAINS]
    shares = [100 * np.mean(np.array(cell) == 0) for cell in cells if cell]
    return " / ".join(f"{share:.0f} %" for share in shares) or "-"


def _with_interval(values: Sequence[float]) -> str:
    if not values:
        return "-"
    found = paired_t(np.array(values))
    return f"{found.estimate:.3f} ± {found.half_width:.3f}"


def _seeds(table: Table, method: str, names: Sequence[str]) -> str:
    counts = (len(table[method, name].get("regret_200", [])) for name in names)
    return str(min((n for n in counts if n), default=0))


def picture(table: Table, methods: Sequence[str], path: Path) -> None:
    """Mean regret over the fourteen problems against evaluations."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = path.name
    figure, axis = plt.subplots(figsize=(7, 4))
    for method in methods:
        columns = [over_problems(table, method, NAMED, f"regret_{n}") for n in AT]
        if all(columns):
            means = [float(np.mean(column)) for column in columns]
            width = 2.5 if method == "default" else 1.2
            axis.plot(AT, means, marker="o", label=method, linewidth=width)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(AT, [str(n) for n in AT])
    axis.minorticks_off()
    axis.set_xlabel("evaluations")
    axis.set_ylabel("mean regret over 14 problems, points")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def compact(table: Table) -> list[dict[str, str]]:
    """Figures of seeds 0, 1, ... in one line each: "-" where nothing in range was met."""
    shown = [f"regret_{n}" for n in AT] + ["report_200", "away_200"]
    return [
        {
            "method": method,
            "problem": problem,
            **{
                name: " ".join("-" if one is None else f"{one:g}" for one in cell[name])
                for name in shown
            },
        }
        for (method, problem), cell in table.items()
        if cell
    ]


def main() -> None:
    """Run what is missing and write the tables."""
    parser = arguments(__doc__, minutes=60.0)
    parser.add_argument("--seeds", type=int, default=100, help="a multiple of ten")
    parser.add_argument("--problems", choices=("named", "all"), default="all")
    parser.add_argument("--methods", nargs="*", default=[*SEARCHES, *OPTUNA])
    options = parser.parse_args()
    data = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[3] / "shared" / "data"))
    clock, kept = Clock(options.minutes), results("search_tables", fresh=options.fresh)
    chosen = [p for p in problems(data) if options.problems == "all" or p.name in NAMED]
    for first in range(0, options.seeds, BLOCK):
        for problem in chosen:
            for name in options.methods:
                late = name in OPTUNA and first >= OPTUNA_SEEDS
                if not (clock.spent or late or kept.done([name, problem.name, first])):
                    kept.add([name, problem.name, first], block(name, problem, first))
    table = merged(list(kept.rows()))
    names = [p.name for p in problems(data) if any((m, p.name) in table for m in SEARCHES)]
    # A method that has not been through all of the fourteen has no mean, and no column yet.
    everywhere = (m for m in (*SEARCHES, *OPTUNA) if all((m, name) in table for name in NAMED))
    methods = list(everywhere)
    text = markdown(table, names, methods) + "\n" + reported(table, names, methods)
    (kept.path.parent / "search_tables.md").write_text(text)
    picture(table, methods, Path(__file__).parents[2] / "docs" / "methods" / "layernas.svg")
    seeds = max(
        (len(cell["regret_200"]) for cell in table.values() if "regret_200" in cell), default=0
    )
    kept.write(
        claim="mean validation regret over 14 problems <= 0.12 at 200 evaluations and <= 0.05 at "
        "400, at most half of the best rival's at 200, and never out of range; on no table more "
        "than 0.25 above feasible evolution at 400, and 0.1 on the average",
        config={"problems": len(names), "evaluations": list(AT), "optuna_seeds": OPTUNA_SEEDS},
        seeds=list(range(seeds)),
        numbers=compact(table),
    )


if __name__ == "__main__":
    main()
