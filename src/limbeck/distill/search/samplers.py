"""The sampler that a method of searching is."""

import torch

from limbeck.distill.config import DistillConfig
from limbeck.distill.search.problem import SearchProblem
from limbeck.errors import missing_extra
from limbeck.search import (
    LayerNAS,
    LayerNASConfig,
    LocalSearch,
    RandomSearch,
    RegularizedEvolution,
    Searcher,
    paper,
)

try:
    import optuna

    from limbeck.search.sampler import SearchSampler
except ImportError as error:
    raise missing_extra("optuna", "search") from error


def make_sampler(config: DistillConfig, problem: SearchProblem) -> "optuna.samplers.BaseSampler":
    """What `search.method` says, seeded by the run."""
    method, limit = config.search.method, (problem.limit.low, problem.limit.high)
    if method in ("tpe", "nsga2"):
        kinds = {"tpe": optuna.samplers.TPESampler, "nsga2": optuna.samplers.NSGAIISampler}
        chosen: optuna.samplers.BaseSampler = kinds[method](seed=config.seed % 2**32)
        return chosen

    def make() -> Searcher:
        generator = torch.Generator().manual_seed(config.seed)
        if method == "random":
            return RandomSearch(problem.cost, limit, generator=generator)
        if method == "local":
            return LocalSearch(problem.cost, limit, generator=generator)
        if method in ("evolution", "mnasnet"):
            return RegularizedEvolution(
                problem.cost,
                limit,
                reward="mnas" if method == "mnasnet" else "feasible",
                generator=generator,
            )
        chosen = paper() if method == "paper" else LayerNASConfig()
        if config.search.one_shot and method == "layernas":
            # Trials are nearly free: sweep finely, and keep what comes close.
            chosen = LayerNASConfig(buckets=100, keep=3, options=0)
        return LayerNAS(problem.cost, limit, chosen, generator=generator)

    return SearchSampler(make)
