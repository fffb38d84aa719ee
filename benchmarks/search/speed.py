"""Pairs of ask and tell a second, in memory, and the first ask in a space of 10^20 architectures.

    PYTHONPATH=src:. python -m benchmarks.search.speed

20 layers of 8 options, 100 groups, an additive cost and an additive reward: what remains is the
search itself. Optuna's random sampler on the same space, in memory, is the peer.
"""

import random
import time

import torch
from benchmarks._common import arguments, results

from limbeck.search import AdditiveCost, Layer, LayerNAS, LayerNASConfig, LayerwiseSpace

LAYERS, OPTIONS, BUCKETS, PAIRS = 20, 8, 100, 5_000
PEER_TRIALS = 300


def problem(layers: int, options: int) -> tuple[AdditiveCost, list[list[float]]]:
    """Random costs and rewards."""
    rng = random.Random(0)
    space = LayerwiseSpace(tuple(Layer(f"l{i}", tuple(range(options))) for i in range(layers)))
    costs = [[rng.random() for _ in range(options)] for _ in range(layers)]
    return AdditiveCost(space, costs), [[rng.random() for _ in row] for row in costs]


def pairs_a_second(config: LayerNASConfig) -> float:
    """Of a search from its first ask on."""
    cost, rewards = problem(LAYERS, OPTIONS)
    low, high = cost.bounds(())
    search = LayerNAS(cost, (low + high) / 2, config, generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    for _ in range(PAIRS):
        trial = search.ask()
        assert trial is not None
        reward = sum(row[s] for row, s in zip(rewards, trial.architecture, strict=True))
        search.tell(trial.number, reward)
    return PAIRS / (time.perf_counter() - began)


def peer() -> float:
    """Trials a second of Optuna's random sampler in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _cost, rewards = problem(LAYERS, OPTIONS)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    began = time.perf_counter()
    for _ in range(PEER_TRIALS):
        trial = study.ask()
        chosen = [trial.suggest_categorical(f"l{i}", range(OPTIONS)) for i in range(LAYERS)]
        study.tell(trial, sum(row[s] for row, s in zip(rewards, chosen, strict=True)))
    return PEER_TRIALS / (time.perf_counter() - began)


def first_ask() -> float:
    """Seconds to build a search over 10^20 architectures and to ask once."""
    cost, _ = problem(20, 10)
    low, high = cost.bounds(())
    began = time.perf_counter()
    search = LayerNAS(cost, (low + high) / 2, generator=torch.Generator().manual_seed(0))
    assert search.ask() is not None
    return time.perf_counter() - began


def main() -> None:
    """Measure and write the result file."""
    options = arguments(__doc__, minutes=5.0).parse_args()
    kept = results("search_speed", fresh=options.fresh)
    kinds = {
        "default": LayerNASConfig(buckets=BUCKETS),
        "sweep and polish": LayerNASConfig(buckets=BUCKETS, explore=0.0),
    }
    for repeat in range(3):
        if not kept.done(repeat):
            row: dict[str, object] = {name: pairs_a_second(kind) for name, kind in kinds.items()}
            kept.add(repeat, {**row, "optuna random": peer(), "first_ask_seconds": first_ask()})
    kept.write(
        claim="5,000 pairs of ask and tell a second; the first ask under 0.1 s in a space of 1e20",
        config={"layers": LAYERS, "options": OPTIONS, "buckets": BUCKETS, "pairs": PAIRS},
        seeds=[0],
        numbers=list(kept.rows()),
    )


if __name__ == "__main__":
    main()
