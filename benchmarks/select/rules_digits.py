"""Every rule for choosing rows on digits, with teachers that see only a part of each image.

    PYTHONPATH=src:. python -m benchmarks.select.rules_digits

A student starts from 20 labelled rows; 5 rounds of 40 rows of a pool of about 1,000 are bought of
the teacher, a logistic regression on some rows of the image's pixels, and the student is trained
from scratch after each, on true labels and the teacher's probabilities. All rules see the same
splits, the same first weights and the same number of steps. m of RAD comes from 200 validation
rows; "expected_gain" takes the teacher's error at a row to be that of the 20 of them that are
nearest in the student's embedding.
"""

import math

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from limbeck.objectives import kd_loss, slam_loss
from limbeck.select import SELECTORS, Arrays, gains, selector_class
from limbeck.storage import write_text
from limbeck.trust import IsotonicTrust, margin, top_k

SEEDS = list(range(10))
TEACHERS = {"5 of 8 pixel rows": 5, "3 of 8 pixel rows": 3, "2 of 8 pixel rows": 2}
LABELLED, VALIDATION, TAUGHT, TEST = 20, 200, 300, 277
ROUNDS, BATCH, STEPS, NEAREST = 5, 40, 300, 20
ARMS = [(rule, "soft KD") for rule in SELECTORS] + [("rad", "SLaM"), ("uniform", "SLaM")]
CLAIM = "RAD buys fewer wrong answers than margin sampling and is not less accurate than uniform"


class Task:
    """Splits and a teacher of one seed."""

    def __init__(self, seed: int, seen: int) -> None:
        x, y = load_digits(return_X_y=True)
        order = np.random.default_rng(seed).permutation(len(x))
        ends = np.cumsum([LABELLED, VALIDATION, TAUGHT, TEST])
        parts = np.split(order, ends)
        rows = x[:, : 8 * seen] / 16
        teacher = LogisticRegression(max_iter=3000).fit(rows[parts[2]], y[parts[2]])
        told = torch.from_numpy(teacher.predict_proba(rows)).float()
        images, labels = torch.from_numpy(x / 16).float(), torch.from_numpy(y)
        names = ("labelled", "validation", "taught", "test", "pool")
        self.x = {n: images[p] for n, p in zip(names, parts, strict=True)}
        self.y = {n: labels[p] for n, p in zip(names, parts, strict=True)}
        self.told = {n: told[p] for n, p in zip(names, parts, strict=True)}
        self.accuracy = {n: self.right(n).float().mean().item() for n in names}

    def right(self, name: str) -> Tensor:
        """Which rows the teacher gets right."""
        return self.told[name].argmax(1) == self.y[name]


class Net(nn.Module):
    """An MLP with one hidden layer; its embedding is that layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def train(task: Task, bought: Tensor, objective: str, seed: int) -> Net:
    """Train from scratch on the labelled rows and what was bought."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    told = task.told["pool"][bought]
    trust = IsotonicTrust.fit(margin(task.told["validation"]), task.right("validation"))
    k = top_k(task.told["validation"], task.y["validation"])
    alpha = trust.alpha(margin(told))
    for _ in range(STEPS):
        loss = functional.cross_entropy(net(task.x["labelled"]), task.y["labelled"])
        if len(bought):
            logits = net(task.x["pool"][bought])
            if objective == "SLaM":
                loss = loss + slam_loss(logits, told, alpha, k, target="hard").mean()
            else:
                loss = loss + kd_loss(logits, told).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def look(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities and embeddings."""
    embedding = net.body(x)
    return torch.softmax(net.head(embedding), 1), embedding


def error_nearby(task: Task, net: Net, embedding: Tensor) -> Tensor:
    """Share of wrong answers among the nearest validation rows."""
    near = torch.cdist(embedding, look(net, task.x["validation"])[1])
    wrong = (~task.right("validation")).float()
    return wrong[near.topk(NEAREST, dim=1, largest=False).indices].mean(dim=1)


def run(task: Task, rule: str, objective: str, seed: int) -> dict[str, object]:
    """Accuracy after each round, and the share of wrong answers bought."""
    selector, generator = selector_class(rule)(), torch.Generator().manual_seed(seed)
    n = len(task.x["pool"])
    bought = torch.zeros(0, dtype=torch.int64)
    net, curve = train(task, bought, objective, seed), []
    for turn in range(ROUNDS + 1):
        curve.append((look(net, task.x["test"])[0].argmax(1) == task.y["test"]).float().mean())
        if turn == ROUNDS:
            break
        rows = torch.ones(n, dtype=torch.bool).index_fill(0, bought, False).nonzero()[:, 0]
        probs, embedding = look(net, task.x["pool"])
        known = torch.cat([look(net, task.x["labelled"])[1], embedding[bought]])
        error: float | Tensor = 1 - task.accuracy["validation"]
        if rule == "expected_gain":
            error = error_nearby(task, net, embedding[rows])
        candidates = Arrays(rows, probs[rows], embedding[rows], known, n, error)
        chosen = selector.select(candidates, BATCH, generator).rows
        bought = torch.cat([bought, chosen])
        net = train(task, bought, objective, seed)
        selector.observe(rows, gains(look(net, task.x["pool"])[0][rows]))
    wrong = 1 - task.right("pool")[bought].float().mean()
    return {"curve": [float(c) for c in curve], "wrong": float(wrong)}


def paired(values: list[float]) -> str:
    """Mean and half the 95 % t-interval."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):+.1f} ± {half:.1f}"


def main() -> None:
    """Run what is missing, then write the result and the table."""
    options = arguments(__doc__, minutes=40).parse_args()
    clock, found = Clock(options.minutes), results("rules_digits", fresh=options.fresh)
    torch.set_num_threads(1)
    for seed in SEEDS:
        for name, seen in TEACHERS.items():
            task = Task(seed, seen)
            for rule, objective in ARMS:
                key = [name, rule, objective, seed]
                if found.done(key) or clock.spent:
                    continue
                row = run(task, rule, objective, seed)
                told = {"teacher": name, "rule": rule, "objective": objective, "seed": seed}
                found.add(key, {**told, "teacher accuracy": task.accuracy["pool"], **row})
    rows = list(found.rows())
    numbers, lines = {}, []
    for name in TEACHERS:
        mine = [r for r in rows if r["teacher"] == name]
        accuracy = 100 * np.mean([float(str(r["teacher accuracy"])) for r in mine])
        area = {
            arm: {int(str(r["seed"])): 100 * float(np.mean(r["curve"])) for r in mine  # type: ignore[arg-type]
                  if (r["rule"], r["objective"]) == arm}
            for arm in ARMS
        }  # fmt: skip
        share = {
            arm: [100 * float(str(r["wrong"])) for r in mine if (r["rule"], r["objective"]) == arm]
            for arm in ARMS
        }
        base = area["uniform", "soft KD"]
        lines += [f"Teacher right on {accuracy:.1f} % of the pool ({name}).", ""]
        lines += [
            "| rule | mean accuracy over rounds, % | less uniform | wrong answers bought, % |"
        ]
        lines += ["|---|--:|--:|--:|"]
        for arm, values in area.items():
            difference = [v - base[seed] for seed, v in values.items()]
            title = arm[0] if arm[1] == "soft KD" else f"{arm[0]}, {arm[1]}"
            versus = "" if arm == ("uniform", "soft KD") else paired(difference)
            lines.append(
                f"| {title} | {np.mean(list(values.values())):.1f} | {versus} | "
                f"{np.mean(share[arm]):.1f} |"
            )
            numbers[f"{name}: {title}"] = {"area": list(values.values()), "wrong": share[arm]}
        lines.append("")
    found.write(
        claim=CLAIM,
        config={"rounds": ROUNDS, "batch": BATCH, "labelled": LABELLED, "steps": STEPS},
        seeds=SEEDS,
        numbers=numbers,
    )
    write_text(RESULTS / "rules_digits.md", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
