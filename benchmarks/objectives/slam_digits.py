"""SLaM on handwritten digits: what it wins when the teacher errs, and what it costs when not.

    PYTHONPATH=src python -m benchmarks.objectives.slam_digits

1797 images of 8 x 8 (they come with scikit-learn), half of them for training: 60 labelled rows, the
rest is the pool; the other half is the test set. The teacher is a network trained on everything,
spoilt with Gaussian noise on its logits: sigma sets how often it errs. The labelled rows serve as
validation for trust and as training data. Every arm takes the same gradient steps on the same
batches from the same initial weights, so that differences are paired by seed.
"""

import math
import statistics
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from benchmarks._picture import whiskers
from scipy import stats
from torch import Tensor, nn

from limbeck.answers import Answers
from limbeck.errors import LimbeckWarning
from limbeck.objectives import (
    Evidence,
    HardKD,
    Objective,
    Slam,
    SoftKD,
    StudentOut,
    Supervised,
    Targets,
)
from limbeck.storage import write_text
from limbeck.trust import IsotonicTrust, margin, top_k

CLAIM = (
    "On standardised pixels, at about 35 % teacher error, un-normalised SLaM beats hard "
    "distillation by 5 points and soft distillation significantly; at 5 % error or less it is not "
    "0.5 points below soft. On raw pixels it wins little or nothing."
)
PICTURE = Path(__file__).parents[2] / "docs" / "methods" / "slam_digits.svg"
TEACHERS = {
    "near-perfect": (0.6, "standardised"),
    "sigma 2": (2.0, "standardised"),
    "sigma 4": (4.0, "standardised"),
    "sigma 2, raw pixels": (2.0, "raw"),
    "sigma 4, raw pixels": (4.0, "raw"),
}
"""Noise on the teacher's logits, and what the student sees: see `features`."""

ARMS: dict[str, Objective] = {
    "labels only": Supervised(),
    "hard KD": HardKD(),
    "soft KD": SoftKD(),
    "SLaM hard, normalised": Slam(target="hard", normalized=True),
    "SLaM hard": Slam(target="hard"),
    "SLaM soft, normalised": Slam(target="soft", normalized=True),
    "SLaM soft": Slam(target="soft"),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """All that is fixed; the student has one hidden layer."""

    seeds: int = 20
    labelled: int = 60
    hidden: int = 128
    epochs: int = 60
    batch: int = 64
    learning_rate: float = 2e-3
    lower: float = 0.5
    threshold: float = 0.9


@dataclass(frozen=True, slots=True)
class Data:
    """One seed's rows: features (n, 64), labels (n,), the teacher's clean logits (n, 10)."""

    x: Tensor
    y: Tensor
    teacher_logits: Tensor
    labelled: Tensor
    pool: Tensor
    test: Tensor


def network(inputs: int, hidden: int, outputs: int, g: torch.Generator) -> nn.Sequential:
    """A net with one hidden layer, drawn from the generator alone."""
    net = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
    for parameter in net.parameters():
        bound = 1 / math.sqrt(inputs if parameter.shape[0] == hidden else hidden)
        nn.init.uniform_(parameter, -bound, bound, generator=g)
    return net


def strong_logits(x: Tensor, y: Tensor) -> Tensor:
    """Standardised logits of a net trained on all rows: each class's column has unit variance."""
    g = torch.Generator().manual_seed(0)
    net = network(64, 256, int(y.max()) + 1, g)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(30):
        for rows in torch.randperm(len(x), generator=g).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimiser.step()
    logits = net(x).detach()
    return (logits - logits.mean(0)) / logits.std(0)


def features(x: Tensor, kind: str) -> Tensor:
    """Give the student pixels in [0, 1], or each with mean 0 and variance 1 over all images.

    Standardised pixels blow up rare ink at the border, so that a student can memorise each image;
    from raw pixels it learns smooth functions, which average the teacher's noise by themselves.
    """
    return x if kind == "raw" else (x - x.mean(0)) / x.std(0).clamp_min(1e-6)


def split(x: Tensor, y: Tensor, logits: Tensor, seed: int, labelled: int) -> Data:
    """Cut the rows in two halves, and the first into labelled and pool."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 + seed))
    train, test = order[: len(x) // 2], order[len(x) // 2 :]
    return Data(x, y, logits, train[:labelled], train[labelled:], test)


def train(data: Data, objective: Objective, probs: Tensor, seed: int, setting: Setting) -> float:
    """Train one student and give its test accuracy."""
    g = torch.Generator().manual_seed(seed)
    net = network(64, setting.hidden, 10, g)
    optimiser = torch.optim.Adam(net.parameters(), setting.learning_rate)
    targets = None
    if objective.needs_answers:
        targets = objective.targets(answers(probs[data.pool])).tensors
    for _ in range(setting.epochs):
        for rows in torch.randperm(len(data.pool), generator=g).split(setting.batch):
            optimiser.zero_grad()
            out = student(net, data.x[data.labelled])
            loss = objective.loss(out, None, data.y[data.labelled]).mean()
            if targets is not None:
                out = student(net, data.x[data.pool[rows]])
                batch = Targets({name: tensor[rows] for name, tensor in targets.items()})
                loss = loss + objective.loss(out, batch, None).mean()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        right = net(data.x[data.test]).argmax(1) == data.y[data.test]
    return float(right.float().mean())


def student(net: nn.Sequential, x: Tensor) -> StudentOut:
    """Run the net as a student whose embedding is the hidden layer."""
    hidden = net[:2](x)
    return StudentOut(net[2](hidden), hidden)


def answers(probs: Tensor) -> Answers:
    """Wrap probabilities as answers; ids play no part here."""
    return Answers(np.zeros((len(probs), 16), np.uint8), probs)


def one_seed(
    data: Data,
    sigma: float,
    seed: int,
    setting: Setting,
    arms: Mapping[str, Objective] = ARMS,
) -> dict[str, object]:
    """Train every arm with one teacher: accuracies in percent."""
    g = torch.Generator().manual_seed(2000 + seed)
    noise = sigma * torch.randn(data.teacher_logits.shape, generator=g)
    probs = torch.softmax(2 * data.teacher_logits + noise, dim=1)
    labels, known = data.y[data.labelled], probs[data.labelled]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimbeckWarning)  # a near-perfect teacher is meant here
        trust = IsotonicTrust.fit(margin(known), known.argmax(1) == labels, lower=setting.lower)
    k = top_k(known, labels, threshold=setting.threshold)
    evidence = Evidence(known, labels, lambda p: trust.alpha(margin(p)), k)
    right = probs[data.pool].argmax(1) == data.y[data.pool]
    row: dict[str, object] = {"k": k, "teacher": 100 * float(right.float().mean())}
    for name, objective in arms.items():
        fitted = objective.fit([], evidence)
        row[name] = 100 * train(data, fitted, probs, seed, setting)
    truth = nn.functional.one_hot(data.y, 10).float()
    row["true labels"] = 100 * train(data, HardKD(), truth, seed, setting)
    return row


def interval(differences: list[float]) -> dict[str, float]:
    """Mean and half-width of the 95 % t-interval."""
    n = len(differences)
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return {"mean": statistics.fmean(differences), "half": half}


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and paired differences against hard and soft KD for each setting, in points."""
    out: dict[str, Any] = {}
    for name in TEACHERS:
        mine = [row for row in rows if row["setting"] == name]
        if len(mine) < 2:
            continue
        columns = {arm: [float(r[arm]) for r in mine] for arm in ["teacher", *ARMS, "true labels"]}
        out[name] = {
            "seeds": len(mine),
            "mean k": statistics.fmean(float(r["k"]) for r in mine),
            "accuracy": {arm: interval(values) for arm, values in columns.items()},
            **{
                f"minus {base}": {
                    arm: interval([a - b for a, b in zip(columns[arm], columns[base], strict=True)])
                    for arm in ARMS
                    if arm != base
                }
                for base in ("hard KD", "soft KD", "labels only")
            },
        }
    return out


def table(numbers: dict[str, Any]) -> str:
    """A markdown table: a row an arm, a column a setting, with differences against soft KD."""
    heads = list(numbers)
    lines = [
        "| arm | " + " | ".join(f"{h} (less soft KD)" for h in heads) + " |",
        "|---|" + "---|" * len(heads),
    ]
    for arm in ["teacher", *ARMS, "true labels"]:
        cells = []
        for head in heads:
            here = numbers[head]
            cell = f"{here['accuracy'][arm]['mean']:.1f}"
            gap = here["minus soft KD"].get(arm)
            cells.append(cell + (f" ({gap['mean']:+.1f} ± {gap['half']:.1f})" if gap else ""))
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(numbers: dict[str, Any], path: Path) -> None:
    """Accuracy of every arm with 95 % intervals, one panel a setting."""
    panels = {}
    for name, here in numbers.items():
        found = here["accuracy"]
        panels[f"{name}\nteacher {found['teacher']['mean']:.1f} % right"] = {
            arm: (
                found[arm]["mean"],
                found[arm]["mean"] - found[arm]["half"],
                found[arm]["mean"] + found[arm]["half"],
            )
            for arm in ARMS
        }
    whiskers(panels, path, label="test accuracy, %", accent="SLaM")


def main() -> None:
    """Run what is missing, then write the result, the table and the picture."""
    options = arguments(__doc__, minutes=30).parse_args()
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    setting, clock = Setting(), Clock(options.minutes)
    found = results("slam_digits", fresh=options.fresh)
    images, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(classes)
    logits = strong_logits(x, y)
    for seed in range(setting.seeds):
        for name, (sigma, kind) in TEACHERS.items():
            if found.done([name, seed]) or clock.spent:
                continue
            data = split(features(x, kind), y, logits, seed, setting.labelled)
            row = one_seed(data, sigma, seed, setting)
            found.add([name, seed], {"setting": name, "seed": seed, **row})
            print(name, seed, {k: round(float(v), 1) for k, v in row.items()}, flush=True)
    rows = list(found.rows())
    numbers = summarise(rows)
    done = sorted({int(row["seed"]) for row in rows})
    found.write(
        claim=CLAIM,
        config={**asdict(setting), "teachers": TEACHERS, "optimizer": "Adam"},
        seeds=done,
        numbers=numbers,
    )
    write_text(RESULTS / "slam_digits.md", table(numbers))
    picture(numbers, PICTURE)
    print(table(numbers))


if __name__ == "__main__":
    main()
