"""Claim: on rows that a student has chosen, trust in both margins is right where one is too high.

    PYTHONPATH=src:. python -m benchmarks.trust.chosen_rows

A made-up teacher errs where the student is unsure. Trust is fitted on random validation rows; what
counts is the mean of alpha, less the true probability that the teacher is right (not below alpha's
floor of 0.5), over the tenth of 20,000 other rows with the least student margins. Mean of 40 draws.
"""

import math
import warnings

import numpy as np
import torch
from benchmarks._common import RESULTS, arguments, results
from scipy.stats import t
from torch import Tensor

from limbeck.errors import LimbeckWarning
from limbeck.storage import write_text
from limbeck.trust import IsotonicTrust, MarginsTrust

SEEDS = list(range(40))
VALIDATION = (60, 200, 1000)
POOL, CHOSEN, FLOOR = 20_000, 2_000, 0.5


def population(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Margins of teacher and student, P(the teacher is right), and whether it is."""
    g = torch.Generator().manual_seed(seed)
    shared = torch.rand(n, generator=g, dtype=torch.float64)
    teacher = (0.5 + 0.5 * torch.rand(n, generator=g, dtype=torch.float64)) * (0.6 + 0.4 * shared)
    student = shared.sqrt()
    truth = torch.sigmoid(0.5 + 3 * teacher + 4 * (student - 0.5))
    return teacher, student, truth, torch.rand(n, generator=g, dtype=torch.float64) < truth


def errors(rows: int, seed: int) -> dict[str, float]:
    """Points by which each trust is too high on the chosen rows."""
    teacher, student, _, right = population(rows, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimbeckWarning)  # few rows are the point
        one = IsotonicTrust.fit(teacher, right, lower=FLOOR)
        both = MarginsTrust.fit(teacher, student, right, lower=FLOOR)
    teacher, student, truth, _ = population(POOL, seed + 1000)
    at = student.argsort()[:CHOSEN]
    truth = truth[at].clamp_min(FLOOR)
    said = {
        "IsotonicTrust": one.alpha(teacher[at]),
        "MarginsTrust": both.alpha(teacher[at], student[at]),
    }
    return {name: 100 * float((alpha - truth).mean()) for name, alpha in said.items()}


def interval(values: list[float]) -> str:
    """Mean and half the 95 % t-interval."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):+.1f} ± {half:.1f}"


def main() -> None:
    """Draw, fit, compare, and write the result and the table."""
    options = arguments(__doc__, minutes=5).parse_args()
    lines = ["| validation rows | `IsotonicTrust` | `MarginsTrust` |", "|--:|--:|--:|"]
    numbers = {}
    for rows in VALIDATION:
        found = [errors(rows, seed) for seed in SEEDS]
        numbers[str(rows)] = {name: [one[name] for one in found] for name in found[0]}
        cells = [interval(values) for values in numbers[str(rows)].values()]
        lines.append(f"| {rows:,} | {cells[0]} | {cells[1]} |")
    results("chosen_rows", fresh=options.fresh).write(
        claim="trust in both margins is within its interval of the truth on chosen rows",
        config={"pool": POOL, "chosen": CHOSEN, "floor": FLOOR},
        seeds=SEEDS,
        numbers=numbers,
    )
    write_text(RESULTS / "chosen_rows.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
