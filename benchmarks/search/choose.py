"""Which settings are the default of LayerNAS: chosen with each table left out in turn.

    PYTHONPATH=src:. python -m benchmarks.search.choose [--minutes 30] [--seeds 10]

The criterion, written down before any of these runs: regret of a problem is the mean of that after
200 and after 400 evaluations, a table's is the mean over its problems, and the candidate with the
least mean over tables wins. For each table left out the winner on the other tables is judged on
it. The cell space is one table for both data sets and all devices, since they share their networks.
The default is the winner on all tables. Seeds begin at 2,000: no other table has them.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks._common import Clock, arguments, results
from benchmarks.search._problems import Problem, problems
from benchmarks.search.tables import SEARCHES, Trace, layernas

from limbeck.search import LayerNASConfig

FIRST, BLOCK, EVOLUTION = 2_000, 5, "evolution"
CANDIDATES: dict[str, LayerNASConfig] = {
    f"{guess}, explore={explore:g}, ramp={ramp}": LayerNASConfig(
        guess=guess, explore=explore, ramp=ramp
    )
    for guess, explore, ramp in (
        ("additive", 0.0, 0),
        ("additive", 0.5, 0),
        ("additive", 0.5, 100),
        ("matches", 0.0, 0),
        ("matches", 0.25, 0),
        ("matches", 0.5, 0),
        ("matches", 0.5, 100),
        ("matches", 0.75, 0),
        ("matches", 0.75, 100),
    )
}


def table_of(problem: Problem) -> str:
    """Networks that were trained together."""
    return problem.family.split()[0]


def regrets(name: str, problem: Problem, first: int) -> list[float]:
    """Mean of the regrets after 200 and 400 evaluations, and that after 400, seed by seed."""
    search = layernas(CANDIDATES[name]) if name in CANDIDATES else SEARCHES[name]
    found = []
    for seed in range(first, first + BLOCK):
        trace, one = Trace(problem), search(problem, seed)
        while len(trace.steps) < 400 and (trial := one.ask()) is not None:
            one.tell(trial.number, trace.evaluate(trial.architecture))
        found += [round(trace.at(n)["regret"], 5) for n in (200, 400)]
    return found


def by_table(
    rows: Sequence[dict[str, object]], every: Sequence[Problem]
) -> dict[str, dict[str, float]]:
    """Regret of each candidate that has been through all problems, by table."""
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        values = row["regret_200_400"]
        assert isinstance(values, list)
        cells.setdefault((str(row["candidate"]), str(row["problem"])), []).extend(values)
    found: dict[str, dict[str, float]] = {}
    for name in (*CANDIDATES, EVOLUTION):
        if all((name, p.name) in cells for p in every):
            found[name] = {
                table: float(
                    np.mean([np.mean(cells[name, p.name]) for p in every if table_of(p) == table])
                )
                for table in dict.fromkeys(map(table_of, every))
            }
    return found


def winner(means: dict[str, dict[str, float]], left_out: str = "") -> str:
    """Least mean over tables, one left out; the first of equals."""
    own = [name for name in means if name in CANDIDATES]
    return min(own, key=lambda name: np.mean([v for t, v in means[name].items() if t != left_out]))


def markdown(means: dict[str, dict[str, float]]) -> str:
    """Regret by candidate and table, and what is chosen where a table is left out."""
    tables = list(means[EVOLUTION])
    lines = [
        "| mean of the regrets at 200 and 400, points | " + " | ".join(tables) + " | mean |",
        "|---|" + "--:|" * (len(tables) + 1),
    ]
    for name, row in means.items():
        shown = " | ".join(f"{value:.3f}" for value in row.values())
        lines.append(f"| {name} | {shown} | {np.mean(list(row.values())):.3f} |")
    chosen = {table: winner(means, table) for table in tables}
    rows = {
        "chosen without this table": {t: means[chosen[t]][t] for t in tables},
        "best on this table, known afterwards": {
            t: min(means[name][t] for name in CANDIDATES if name in means) for t in tables
        },
    }
    for name, row in rows.items():
        shown = " | ".join(f"{value:.3f}" for value in row.values())
        lines.append(f"| **{name}** | {shown} | {np.mean(list(row.values())):.3f} |")
    lines += ["", "| table left out | chosen |", "|---|---|"]
    lines += [f"| {table} | {name} |" for table, name in chosen.items()]
    lines.append(f"| none | **{winner(means)}** |")
    counts = ", ".join(f"{name} {n}" for name, n in Counter(chosen.values()).most_common())
    return "\n".join(lines) + f"\n\nChosen, of {len(tables)} times: {counts}.\n"


def main() -> None:
    """Run what is missing and choose."""
    parser = arguments(__doc__, minutes=30.0)
    parser.add_argument("--seeds", type=int, default=10, help="a multiple of five")
    options = parser.parse_args()
    data = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[3] / "shared" / "data"))
    clock, kept = Clock(options.minutes), results("search_choose", fresh=options.fresh)
    every = problems(data)
    for first in range(FIRST, FIRST + options.seeds, BLOCK):
        for problem in every:
            for name in (*CANDIDATES, EVOLUTION):
                if not (clock.spent or kept.done([name, problem.name, first])):
                    row = {"candidate": name, "problem": problem.name, "first_seed": first}
                    row["regret_200_400"] = regrets(name, problem, first)
                    kept.add([name, problem.name, first], row)
    means = by_table(list(kept.rows()), every)
    (kept.path.parent / "search_choose.md").write_text(markdown(means))
    kept.write(
        claim="the settings chosen without a table do on it no worse than feasible evolution",
        config={"candidates": list(CANDIDATES), "tables": list(means[EVOLUTION])},
        seeds=list(range(FIRST, FIRST + options.seeds)),
        numbers=[
            {**row, "regret_200_400": " ".join(f"{v:g}" for v in row["regret_200_400"])}
            for row in kept.rows()
        ],
    )


if __name__ == "__main__":
    main()
