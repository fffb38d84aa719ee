"""Weighted distillation on handwritten digits, beside plain distillation, alpha-weighting and SLaM.

    PYTHONPATH=src python -m benchmarks.objectives.weighted_digits

1797 images of 8 x 8 (they come with scikit-learn), half of them for testing; of the other half 40
are labelled, 100 are validation rows that no student trains on, the rest is the pool. The teacher
is a network trained on everything, spoilt with Gaussian noise on its logits. Pixels are
standardised.
Every arm takes the same number of gradient steps from the same initial weights on the same batches;
the weighted ones spend the first tenth on the labelled rows alone.
"""

import math
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from benchmarks._picture import whiskers
from benchmarks.objectives.slam_digits import (
    answers,
    features,
    interval,
    network,
    strong_logits,
    student,
)
from torch import Tensor

from limbeck.errors import LimbeckWarning
from limbeck.objectives import (
    Evidence,
    HardKD,
    Objective,
    Slam,
    Snapshot,
    SoftKD,
    StudentOut,
    Supervised,
    Targets,
    Weighted,
    weighted_loss,
)
from limbeck.storage import write_text
from limbeck.trust import IsotonicTrust, NeighbourTrust, margin, top_k

CLAIM = (
    "With a noisy teacher weighted distillation is above hard distillation and not above SLaM; "
    "estimating once is about as good as anew every epoch."
)
PICTURE = Path(__file__).parents[2] / "docs" / "methods" / "weighted_digits.svg"
SETTINGS = {"10 classes": (10, 2.0), "10 classes, noisier": (10, 4.0), "odd or even": (2, 2.5)}
"""Classes, and noise on the teacher's logits."""
ONCE, ANEW = 0.0, 1.0
NEIGHBOURS = 10


class AlphaAsWeight(Objective):
    """The plain rival: alpha(x) times the cross-entropy with the teacher's label."""

    name = "alpha as weight"

    def __init__(self, alpha: Any = None) -> None:
        self.alpha = alpha

    def fit(self, answers: Any, evidence: Evidence | None) -> "AlphaAsWeight":
        assert evidence is not None
        return AlphaAsWeight(evidence.alpha)

    def targets(self, answers: Any) -> Targets:
        return Targets({"teacher_probs": answers.probs, "alpha": self.alpha(answers.probs)})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        if targets is None:
            return self.label_loss(out, labels)
        return weighted_loss(out.outputs, targets["teacher_probs"], targets["alpha"])


def weighted(estimator: Any, every: float, **more: Any) -> Weighted:
    """A weighted arm."""
    return Weighted(estimator=estimator, refresh_every=every, **more)


ARMS: dict[str, Objective] = {
    "labels only": Supervised(),
    "hard KD": HardKD(),
    "soft KD": SoftKD(),
    "alpha as weight": AlphaAsWeight(),
    "weighted once, mean": weighted("mean", ONCE),
    "weighted once, plug-in": weighted("plug-in", ONCE),
    "weighted once, ratio": weighted("ratio", ONCE),
    "weighted once, ratio, no clip": weighted("ratio", ONCE, clip_max=math.inf),
    "weighted anew, mean": weighted("mean", ANEW),
    "weighted anew, plug-in": weighted("plug-in", ANEW),
    "weighted anew, ratio": weighted("ratio", ANEW),
    "weighted anew, ratio, no clip": weighted("ratio", ANEW, clip_max=math.inf),
    "weighted anew, mean, soft": weighted("mean", ANEW, target="soft"),
    "SLaM hard": Slam(target="hard"),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """All that is fixed."""

    seeds: int = 20
    labelled: int = 40
    validation: int = 100
    hidden: int = 128
    epochs: int = 60
    batch: int = 64
    learning_rate: float = 2e-3


@dataclass(frozen=True, slots=True)
class Data:
    """One seed's rows: features (n, 64), classes (n,), teacher (n, C), and positions."""

    x: Tensor
    y: Tensor
    probs: Tensor
    labelled: Tensor
    validation: Tensor
    pool: Tensor
    test: Tensor
    classes: int


def draw(x: Tensor, y: Tensor, logits: Tensor, sigma: float, seed: int, setting: Setting) -> Data:
    """Cut the rows and spoil the teacher."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 + seed))
    half = order[: len(x) // 2]
    first, second = setting.labelled, setting.labelled + setting.validation
    g = torch.Generator().manual_seed(2000 + seed)
    noise = sigma * torch.randn(logits.shape, generator=g)
    return Data(
        x,
        y,
        torch.softmax(2 * logits + noise, dim=1),
        half[:first],
        half[first:second],
        half[second:],
        order[len(x) // 2 :],
        logits.shape[1],
    )


def train(data: Data, objective: Objective, seed: int, setting: Setting) -> float:
    """Train one student in a loop of its own and give its test accuracy, in percent."""
    g = torch.Generator().manual_seed(seed)
    net = network(64, setting.hidden, data.classes, g)
    optimiser = torch.optim.Adam(net.parameters(), setting.learning_rate)
    told = answers(data.probs[data.pool])
    targets = objective.targets(told).tensors if objective.needs_answers else None
    start = round(objective.pretrain * setting.epochs)
    for epoch in range(setting.epochs):
        every = objective.refresh_every
        if every is not None and (epoch == start or (every and epoch > start)):
            with torch.no_grad():
                logs = torch.log_softmax(net(data.x), dim=1)
            objective.refresh(Snapshot(logs[data.validation], [(told, logs[data.pool])]))
        for rows in torch.randperm(len(data.pool), generator=g).split(setting.batch):
            optimiser.zero_grad()
            out = student(net, data.x[data.labelled])
            loss = objective.loss(out, None, data.y[data.labelled]).mean()
            if targets is not None and epoch >= start:
                out = student(net, data.x[data.pool[rows]])
                batch = {name: tensor[rows] for name, tensor in targets.items()}
                loss = loss + objective.loss(out, Targets({**batch, "row": rows}), None).mean()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        right = net(data.x[data.test]).argmax(1) == data.y[data.test]
    return 100 * float(right.float().mean())


def one_seed(data: Data, seed: int, setting: Setting) -> dict[str, object]:
    """Accuracies of the teacher and of every arm, in percent."""
    labels, known = data.y[data.validation], data.probs[data.validation]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimbeckWarning)
        trust = IsotonicTrust.fit(margin(known), known.argmax(1) == labels, lower=0.5)
    evidence = Evidence(
        known,
        labels,
        lambda p: trust.alpha(margin(p)),
        top_k(known, labels),
        lambda logs: NeighbourTrust.fit(known, logs, labels, k=NEIGHBOURS),
    )
    right = data.probs[data.pool].argmax(1) == data.y[data.pool]
    row: dict[str, object] = {"teacher": 100 * float(right.float().mean())}
    for name, objective in ARMS.items():
        row[name] = train(data, objective.fit([], evidence), seed, setting)
    return row


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means, and differences paired by seed from hard KD, alpha as weight and SLaM."""
    out: dict[str, Any] = {}
    for name in SETTINGS:
        mine = [row for row in rows if row["setting"] == name]
        if len(mine) < 2:
            continue
        columns = {arm: np.array([float(r[arm]) for r in mine]) for arm in ["teacher", *ARMS]}
        out[name] = {
            "seeds": len(mine),
            "accuracy": {arm: interval(list(values)) for arm, values in columns.items()},
            **{
                f"minus {base}": {
                    arm: interval(list(columns[arm] - columns[base])) for arm in ARMS if arm != base
                }
                for base in ("hard KD", "alpha as weight", "SLaM hard")
            },
        }
    return out


def table(numbers: dict[str, Any]) -> str:
    """A markdown table: accuracy, and in brackets the difference from hard KD."""
    lines = ["| arm | " + " | ".join(numbers) + " |", "|---|" + "---|" * len(numbers)]
    for arm in ["teacher", *ARMS]:
        cells = []
        for here in numbers.values():
            gap = here["minus hard KD"].get(arm)
            less = f" ({gap['mean']:+.1f} ± {gap['half']:.1f})" if gap else ""
            cells.append(f"{here['accuracy'][arm]['mean']:.1f}{less}")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture(numbers: dict[str, Any], path: Path) -> None:
    """Difference of every arm from hard KD, one panel a setting."""
    panels = {}
    for name, here in numbers.items():
        gaps = here["minus hard KD"]
        panels[f"{name}\nteacher {here['accuracy']['teacher']['mean']:.1f} % right"] = {
            arm: (gap["mean"], gap["mean"] - gap["half"], gap["mean"] + gap["half"])
            for arm, gap in gaps.items()
        }
    whiskers(panels, path, label="points above hard KD", accent="weighted")


def main() -> None:
    """Run what is missing, then write the result, the table and the picture."""
    options = arguments(__doc__, minutes=15).parse_args()
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    setting, clock = Setting(), Clock(options.minutes)
    found = results("weighted_digits", fresh=options.fresh)
    images, digits = load_digits(return_X_y=True)
    x = features(torch.tensor(images / 16, dtype=torch.float32), "standardised")
    classes = {10: torch.tensor(digits), 2: torch.tensor(digits) % 2}
    logits = {count: strong_logits(x, y) for count, y in classes.items()}
    for seed in range(setting.seeds):
        for name, (count, sigma) in SETTINGS.items():
            if found.done([name, seed]) or clock.spent:
                continue
            data = draw(x, classes[count], logits[count], sigma, seed, setting)
            row = one_seed(data, seed, setting)
            found.add([name, seed], {"setting": name, "seed": seed, **row})
            print(name, seed, {k: round(float(str(v)), 1) for k, v in row.items()}, flush=True)
    rows: list[dict[str, Any]] = list(found.rows())
    numbers = summarise(rows)
    found.write(
        claim=CLAIM,
        config={**asdict(setting), "settings": SETTINGS, "neighbours": NEIGHBOURS},
        seeds=sorted({row["seed"] for row in rows}),
        numbers={"summary": numbers, "rows": rows},
    )
    write_text(RESULTS / "weighted_digits.md", table(numbers))
    picture(numbers, PICTURE)
    print(table(numbers))


if __name__ == "__main__":
    main()
