"""Small search problems whose answers are known by enumeration."""

import itertools
import random

import torch

from limbeck.search import AdditiveCost, Layer, LayerNAS, LayerNASConfig, LayerwiseSpace


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def space_of(*sizes):
    return LayerwiseSpace(tuple(Layer(f"l{i}", tuple(range(k))) for i, k in enumerate(sizes)))


def every(space):
    return [a for a in itertools.product(*map(range, space.sizes)) if space.valid(a)]


def brute(cost, reward, limit):
    """The best reward in range; None where nothing is."""
    low, high = limit
    inside = [reward(a) for a in every(cost.space) if low <= cost.total(a) <= high]
    return max(inside, default=None)


def run(search, reward, limit=10_000):
    """Evaluate everything that is asked for; how many that were."""
    for done in range(limit):
        trial = search.ask()
        if trial is None:
            return done
        search.tell(trial.number, reward(trial.architecture))
    return limit


def additive(seed, *, layers=5, options=4, integer=True):
    """A random additive problem: cost, reward, a limit inside what can be met."""
    rng = random.Random(seed)
    sizes = [rng.randint(1, options) for _ in range(rng.randint(1, layers))]
    space = space_of(*sizes)
    draw = (lambda: float(rng.randint(0, 12))) if integer else (lambda: rng.uniform(0, 10))
    cost = AdditiveCost(space, [[draw() for _ in range(k)] for k in sizes])
    rewards = [[rng.uniform(0, 5) for _ in range(k)] for k in sizes]
    low, high = cost.bounds(())
    top = low + rng.random() * (high - low)
    if integer:
        top = float(int(top))

    def reward(a):
        return sum(row[s] for row, s in zip(rewards, a, strict=True))

    return cost, reward, (-float("inf"), max(top, low))


def full(**settings):
    """One sweep, layer by layer, that tries all options of all that is kept, and nothing else."""
    only = {"picks": 10**9, "options": 0, "polish": False, "explore": 0.0}
    return LayerNASConfig(**{**only, **settings})


def swept(cost, reward, limit, seed=0, **settings):
    search = LayerNAS(cost, limit, full(**settings), generator=gen(seed))
    run(search, reward)
    return search
