"""AdaProd+ on losses that are made up: regret against its relatives, and buying under noisy scores.

    PYTHONPATH=src:. python -m benchmarks.select.experts

Regret: 200 experts, 2,000 rounds, the best expert in hindsight as the comparator; beside it its
own form without a prediction, Hedge with the rate that is best for this length, and the two forms
of Adapt-ML-Prod (Gaillard, Stoltz, van Erven 2014; Wei, Hong, Lu 2016) that it improves on, the
older one also with the second-order update that the younger one has.

Reference: the same on one draw of each kind, all from one stream of random numbers, of which
another program's figures are known: ours are those to the last digit shown.

Buying: 600 rows, 20 rounds of 10, gains that drift; the score of a row is its gain with noise of
the round. What counts is the mean true gain of the rows bought.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from benchmarks._common import RESULTS, Clock, arguments, results
from numpy.typing import NDArray
from scipy import stats

from limbeck.select import SleepingExperts
from limbeck.storage import write_text

Array = NDArray[np.float64]
EXPERTS, ROUNDS, SEEDS = 200, 2_000, list(range(8))
POOL, TURNS, BATCH = 600, 20, 10
CLAIM = (
    "regret of AdaProd+ is a few ln n where losses can be predicted, and it buys better rows than "
    "greedy where scores are noisy"
)


def sequence(kind: str, rng: np.random.Generator) -> Array:
    """Losses of one kind, shape (rounds, experts)."""
    match kind:
        case "constant":
            return np.tile(rng.uniform(size=EXPERTS), (ROUNDS, 1))
        case "drift":
            walk = np.cumsum(rng.normal(0, 0.002, (ROUNDS, EXPERTS)), axis=0)
            return (rng.uniform(size=EXPERTS) + walk).clip(0, 1)
        case "blocks of 100":
            blocks = rng.uniform(size=(ROUNDS // 100, EXPERTS)) < 0.5
            return np.repeat(blocks.astype(float), 100, axis=0)
        case "alternating":
            losses = np.zeros((ROUNDS, EXPERTS))
            losses[::2, : EXPERTS // 2], losses[1::2, EXPERTS // 2 :] = 1, 1
            return losses
        case "Bernoulli, best 0.4":
            chance = np.full(EXPERTS, 0.5)
            chance[0] = 0.4
            return (rng.uniform(size=(ROUNDS, EXPERTS)) < chance).astype(float)
    return rng.uniform(size=(ROUNDS, EXPERTS))


def reference() -> dict[str, Array]:
    """One draw of each kind, in the order in which one stream of random numbers makes them."""
    rng = np.random.default_rng(0)
    found = {"constant": sequence("constant", rng)}
    start, steps = rng.random(EXPERTS), rng.normal(0, 0.002, (ROUNDS, EXPERTS))
    found["drift"] = (start + np.cumsum(steps, axis=0)).clip(0, 1)
    kinds = ("Bernoulli, best 0.4", "uniform", "blocks of 100", "alternating")
    return found | {kind: sequence(kind, rng) for kind in kinds}


def adaprod(losses: Array, *, optimistic: bool) -> float:
    """Regret of AdaProd+."""
    learner, before, spent = SleepingExperts(losses.shape[1]), None, 0.0
    for row in losses:
        loss = torch.from_numpy(row)
        spent += float(learner.predict(None, before if optimistic else None) @ loss)
        learner.update(loss)
        before = loss
    return spent - float(losses.sum(axis=0).min())


def adapt_ml_prod(losses: Array, *, optimistic: bool, second_order: bool) -> float:
    """Regret of Adapt-ML-Prod, rate min(cap, sqrt(ln n / (1 + C))), cap 1/4 optimistic else 1/2.

    Its weights are multiplied by 1 + eta r, or by exp(eta r - eta^2 (r - rhat)^2).
    """
    n = losses.shape[1]
    cap = 0.25 if optimistic else 0.5
    log_w, surprise, eta = np.zeros(n), np.zeros(n), np.full(n, cap)
    before, spent = None, 0.0
    for row in losses:
        new = np.minimum(cap, np.sqrt(math.log(n) / (1 + surprise)))
        log_w, eta = log_w * new / eta, new
        if optimistic and before is not None:
            alpha = 0.5
            for _ in range(60):  # a fixed point, as in AdaProd+
                rhat = alpha - before
                p = _softmax(np.log(eta) + log_w + eta * rhat)
                alpha = float(p @ before)
        else:
            rhat, p = np.zeros(n), _softmax(np.log(eta) + log_w)
        spent += float(p @ row)
        r = float(p @ row) - row
        log_w = log_w + (eta * r - eta**2 * (r - rhat) ** 2 if second_order else np.log1p(eta * r))
        surprise += (r - rhat) ** 2
        before = row
    return spent - float(losses.sum(axis=0).min())


def hedge(losses: Array) -> float:
    """Regret of exponential weights at the best constant rate for this length."""
    rounds, n = losses.shape
    rate, total, spent = math.sqrt(8 * math.log(n) / rounds), np.zeros(n), 0.0
    for row in losses:
        spent += float(_softmax(-rate * total) @ row)
        total += row
    return spent - float(total.min())


def _softmax(x: Array) -> Array:
    w = np.exp(x - x.max())
    out: Array = w / w.sum()
    return out


LEARNERS: dict[str, Callable[[Array], float]] = {
    "AdaProd+": lambda x: adaprod(x, optimistic=True),
    "without prediction": lambda x: adaprod(x, optimistic=False),
    "optimistic Adapt-ML-Prod": lambda x: adapt_ml_prod(x, optimistic=True, second_order=True),
    "Adapt-ML-Prod": lambda x: adapt_ml_prod(x, optimistic=False, second_order=False),
    "Hedge, tuned": hedge,
}
ON_REFERENCE = LEARNERS | {
    "Adapt-ML-Prod, second order": lambda x: adapt_ml_prod(x, optimistic=False, second_order=True),
}
LOSSES = ("constant", "drift", "blocks of 100", "alternating", "Bernoulli, best 0.4", "uniform")
NOISES = ("none", "Gaussian 0.2", "Gaussian 0.5", "Bernoulli")
RULES = ("uniform", "greedy", "AdaProd+", "averaged greedy", "oracle")


def scores(gain: Array, noise: str, rng: np.random.Generator) -> Array:
    """What a rule sees of the gains in one round."""
    if noise == "Bernoulli":
        return (rng.uniform(size=len(gain)) < gain).astype(float)
    sigma = {"none": 0.0, "Gaussian 0.2": 0.2, "Gaussian 0.5": 0.5}[noise]
    return (gain + sigma * rng.normal(size=len(gain))).clip(0, 1)


def buy(rule: str, noise: str, seed: int) -> float:
    """Mean true gain of the rows that a rule buys."""
    rng = np.random.default_rng([seed, NOISES.index(noise)])
    gain = rng.uniform(0, 1, POOL)
    learner, awake = SleepingExperts(POOL), np.ones(POOL, bool)
    total, rounds, bought = np.zeros(POOL), 0, []
    generator = torch.Generator().manual_seed(seed)
    seen = scores(gain, noise, rng)
    for _ in range(TURNS):
        rows = np.flatnonzero(awake)
        total, rounds = total + seen, rounds + 1
        ties = 1e-9 * rng.uniform(size=POOL)
        match rule:
            case "uniform":
                chosen = rng.choice(rows, BATCH, replace=False)
            case "greedy":
                chosen = rows[np.argsort(-(seen + ties)[rows])[:BATCH]]
            case "averaged greedy":
                chosen = rows[np.argsort(-(total / rounds + ties)[rows])[:BATCH]]
            case "oracle":
                chosen = rows[np.argsort(-gain[rows])[:BATCH]]
            case _:
                learner.predict(torch.from_numpy(awake), torch.from_numpy(1 - seen))
                chosen = learner.select(BATCH, generator)[0].numpy()
        bought.append(gain[chosen].mean())
        gain = (gain + 0.01 * rng.normal(size=POOL)).clip(0, 1)
        seen = scores(gain, noise, rng)
        if rule == "AdaProd+":
            learner.update(torch.from_numpy(1 - seen))
        awake[chosen] = False
    return float(np.mean(bought))


def table(title: str, rows: dict[str, dict[str, list[float]]], digits: int) -> list[str]:
    """Means over seeds and half-widths of their 95 % t-intervals."""
    columns = list(next(iter(rows.values())))
    lines = ["| " + " | ".join([title, *columns]) + " |", "|---|" + "--:|" * len(columns)]
    for name, cells in rows.items():
        shown = []
        for values in cells.values():
            cell = f"{np.mean(values):.{digits}f}"
            if len(values) > 1:
                spread = np.std(values, ddof=1) / math.sqrt(len(values))
                cell += f" ± {stats.t.ppf(0.975, len(values) - 1) * spread:.{digits}f}"
            shown.append(cell)
        lines.append("| " + " | ".join([name, *shown]) + " |")
    return lines


def main() -> None:
    """Run what is missing, then write the result and both tables."""
    options = arguments(__doc__, minutes=30).parse_args()
    clock, found = Clock(options.minutes), results("experts", fresh=options.fresh)
    torch.set_num_threads(1)
    for kind, losses in reference().items():
        if not found.done(["reference", kind]) and not clock.spent:
            row = {name: run(losses) for name, run in ON_REFERENCE.items()}
            found.add(["reference", kind], {"part": "reference", "kind": kind, **row})
    for seed in SEEDS:
        for kind in LOSSES:
            if not found.done(["regret", kind, seed]) and not clock.spent:
                losses = sequence(kind, np.random.default_rng(seed))
                row = {name: run(losses) for name, run in LEARNERS.items()}
                found.add(["regret", kind, seed], {"part": "regret", "kind": kind, **row})
        for noise in NOISES:
            if not found.done(["buying", noise, seed]) and not clock.spent:
                row = {rule: buy(rule, noise, seed) for rule in RULES}
                found.add(["buying", noise, seed], {"part": "buying", "kind": noise, **row})
    rows = list(found.rows())
    tables = {}
    for part, kinds, names in (
        ("reference", LOSSES, ON_REFERENCE),
        ("regret", LOSSES, LEARNERS),
        ("buying", NOISES, RULES),
    ):
        tables[part] = {
            kind: {
                name: [float(str(r[name])) for r in rows if (r["part"], r["kind"]) == (part, kind)]
                for name in names
            }
            for kind in kinds
        }
    found.write(
        claim=CLAIM,
        config={"experts": EXPERTS, "rounds": ROUNDS, "pool": POOL, "batch": BATCH, "turns": TURNS},
        seeds=SEEDS,
        numbers=tables,
    )
    text = table("regret, one draw", tables["reference"], 1)
    text += ["", *table("regret", tables["regret"], 1)]
    text += ["", *table("score noise", tables["buying"], 2)]
    write_text(RESULTS / "experts.md", "\n".join(text) + "\n")
    print("\n".join(text))


if __name__ == "__main__":
    main()
