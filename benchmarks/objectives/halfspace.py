"""Error of halfspaces learnt from flipped labels, against the number of rows.

    PYTHONPATH=src python -m benchmarks.objectives.halfspace

Rows have 20 axes and a margin of 0.1. Two kinds: uniform on the sphere, outside of the margin; and
the three kinds of Long and Servedio ("Random classification noise defeats all convex potential
boosters", 2010), far rows, pullers and penalisers, with Gaussian noise of 0.05 on 18 further axes.
Two kinds of noise: 30 % of all labels flipped; and noise that depends on the row. Learners:
`learn_halfspace` with the true alpha of each row; the same with the mean rate for all; logistic
regression; and forward correction, which is logistic regression behind a noise layer with the mean
rate. Error is that on 4,000 fresh rows with true labels.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from scipy import stats
from torch import Tensor

from limbeck.objectives import learn_halfspace
from limbeck.storage import write_text

CLAIM = (
    "Under margin and label noise the error of learn_halfspace falls with n in every setting, also "
    "where logistic regression and forward correction with one rate do not learn; on rows without "
    "a direction that misleads them, these need fewer rows."
)
PICTURE = Path(__file__).parents[2] / "docs" / "methods" / "halfspace.svg"
AXES, MARGIN, TEST = 20, 0.1, 4000
COUNTS = (500, 1000, 2000, 4000, 8000, 16000)
SEEDS = range(10)
OURS = "learn_halfspace"


def sphere(n: int, g: torch.Generator) -> Tensor:
    """Rows of the unit sphere with |x_1| >= 0.1."""
    rows = torch.randn(3 * n, AXES, dtype=torch.float64, generator=g)
    rows /= rows.norm(dim=1, keepdim=True)
    return rows[rows[:, 0].abs() >= MARGIN][:n]


def pullers(n: int, g: torch.Generator) -> Tensor:
    """Far rows (1, 0), pullers (0.1, 0.5) and twice as many penalisers (0.1, -0.1), both signs."""
    kinds = torch.tensor([[1, 0], [0.1, 0.5], [0.1, -0.1], [0.1, -0.1]], dtype=torch.float64)
    rows = 0.05 * torch.randn(n, AXES, dtype=torch.float64, generator=g)
    rows[:, :2] = kinds[torch.randint(0, 4, (n,), generator=g)]
    sign = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    return rows * sign[:, None]


def constant(rows: Tensor) -> Tensor:
    """70 % of the labels are right."""
    return torch.full((len(rows),), 0.7, dtype=torch.float64)


def near(rows: Tensor) -> Tensor:
    """From 55 % right at the border to 100 % at |x_1| = 0.4 and beyond."""
    return 0.55 + 0.45 * ((rows[:, 0].abs() - MARGIN) / 0.3).clamp(0, 1)


def far(rows: Tensor) -> Tensor:
    """60 % right where |x_1| > 0.5, else always right."""
    return torch.where(rows[:, 0].abs() > 0.5, 0.6, 1.0).double()


SETTINGS: dict[str, tuple[Callable[[int, torch.Generator], Tensor], Callable[[Tensor], Tensor]]] = {
    "sphere, 30 % flipped": (sphere, constant),
    "sphere, noise at the border": (sphere, near),
    "pullers, 30 % flipped": (pullers, constant),
    "pullers, noise far from the border": (pullers, far),
}


def logistic(x: Tensor, y: Tensor) -> Tensor:
    """Plain logistic regression, hardly regularised."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e4, fit_intercept=False, max_iter=2000).fit(x, y)
    return torch.from_numpy(model.coef_[0])


def forward(x: Tensor, y: Tensor, rate: float) -> Tensor:
    """Logistic regression whose prediction passes through a noise layer of one rate."""
    weight = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight], max_iter=500, line_search_fn="strong_wolfe")
    target = y.double()

    def loss() -> Tensor:
        optimiser.zero_grad()
        f = torch.sigmoid(x @ weight)
        mixed = rate * f + (1 - rate) * (1 - f)
        value = -(target * mixed.log() + (1 - target) * (1 - mixed).log()).mean()
        torch.autograd.backward(value)
        return value

    optimiser.step(loss)
    return weight.detach()


def one(setting: str, n: int, seed: int) -> dict[str, float]:
    """Error of every learner, in percent."""
    draw, noise = SETTINGS[setting]
    g = torch.Generator().manual_seed(1000 * seed + 1)
    fresh, rows = draw(TEST, g), draw(n, g)
    scale = max(1.0, float(rows.norm(dim=1).max()))
    alpha = noise(rows)
    truth = (rows[:, 0] > 0).long()
    wrong = torch.rand(n, dtype=torch.float64, generator=g) >= alpha
    y = torch.where(wrong, 1 - truth, truth)
    x, margin, mean = rows / scale, MARGIN / scale, float(alpha.mean())
    found = {
        OURS: learn_halfspace(x, y, alpha, margin=margin).weight,
        "learn_halfspace, mean rate": learn_halfspace(x, y, mean, margin=margin).weight,
        "logistic regression": logistic(x, y),
        "forward correction": forward(x, y, mean),
    }
    right = fresh[:, 0] > 0
    return {
        name: 100 * float(((fresh @ weight > 0) != right).double().mean())
        for name, weight in found.items()
    }


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and half a 95 % t-interval of the error, and of each one's difference from ours."""
    out: dict[str, Any] = {}
    for setting in SETTINGS:
        for n in COUNTS:
            mine = [r["error"] for r in rows if r["setting"] == setting and r["n"] == n]
            if len(mine) < 2:
                continue
            cell = out.setdefault(setting, {})[str(n)] = {}
            for name in mine[0]:
                error = np.array([m[name] for m in mine])
                cell[name] = {**spread(error), "less ours": spread(error - [m[OURS] for m in mine])}
    return out


def spread(values: np.ndarray) -> dict[str, float]:
    """Mean and half the width of its 95 % t-interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return {"mean": float(values.mean()), "half": float(half)}


def table(numbers: dict[str, Any]) -> str:
    """A markdown table of errors in percent."""
    lines = ["| setting | learner | " + " | ".join(f"n = {n:,}" for n in COUNTS) + " |"]
    lines.append("|---|---|" + "--:|" * len(COUNTS))
    for setting, cells in numbers.items():
        for name in next(iter(cells.values())):
            shown = [
                f"{cells[str(n)][name]['mean']:.1f} ± {cells[str(n)][name]['half']:.1f}"
                if str(n) in cells
                else ""
                for n in COUNTS
            ]
            lines.append(f"| {setting} | {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def picture(numbers: dict[str, Any], path: Path) -> None:
    """Error against n, one panel a setting, with 95 % intervals."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = path.name
    figure, axes = plt.subplots(1, len(numbers), figsize=(3.4 * len(numbers), 3.4), sharey=True)
    colours = ("#1b6ca8", "#7fb3d5", "#8a8a8a", "#c47f2c")
    for axis, (setting, cells) in zip(axes, numbers.items(), strict=True):
        counts = [int(n) for n in cells]
        for (name, mark), colour in zip(
            zip(next(iter(cells.values())), "osD^", strict=True), colours, strict=True
        ):
            mean = [cells[str(n)][name]["mean"] for n in counts]
            half = [cells[str(n)][name]["half"] for n in counts]
            axis.errorbar(counts, mean, half, label=name, color=colour, marker=mark, markersize=4)
        axis.set(title=setting, xscale="log", xlabel="rows")
        axis.title.set_fontsize(9)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("error, %")
    axes[0].set_ylim(bottom=-1)
    axes[-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Run what is missing, then write the result, the table and the picture."""
    options = arguments(__doc__, minutes=10).parse_args()
    torch.set_num_threads(1)
    clock, found = Clock(options.minutes), results("halfspace", fresh=options.fresh)
    for seed in SEEDS:
        for setting in SETTINGS:
            for n in COUNTS:
                if not found.done([setting, n, seed]) and not clock.spent:
                    row = {"setting": setting, "n": n, "seed": seed, "error": one(setting, n, seed)}
                    found.add([setting, n, seed], row)
        print("seed", seed, flush=True)
    rows: list[dict[str, Any]] = list(found.rows())
    numbers = summarise(rows)
    found.write(
        claim=CLAIM,
        config={"axes": AXES, "margin": MARGIN, "test rows": TEST},
        seeds=sorted({row["seed"] for row in rows}),
        numbers=numbers,
    )
    write_text(RESULTS / "halfspace.md", table(numbers))
    picture(numbers, PICTURE)
    print(table(numbers))


if __name__ == "__main__":
    main()
