"""A search as its page and the report show it."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from limbeck.distill.config import DistillConfig
from limbeck.distill.recipes import title
from limbeck.distill.search.one_shot import agreement
from limbeck.distill.search.problem import SearchProblem
from limbeck.distill.search.ranking import best_of, front_of
from limbeck.distill.search.study import SearchStudy
from limbeck.report.search import SearchDiagnostics, SearchLayer, SearchTrial, SearchView
from limbeck.search import LayerNAS, Searcher
from limbeck.search.buckets import EqualWidth

REWARDS = {
    "accuracy": "validation accuracy",
    "likelihood": "validation log-likelihood a row",
}


def make_view(
    config: DistillConfig, problem: SearchProblem, study: SearchStudy, steps: int
) -> SearchView:
    """What there is to show.

    Args:
        config, problem, study: Of the search.
        steps: Gradient steps of a trial.
    """
    trials, search = study.rows(), study.search()
    best, base, limit = best_of(trials), study.base, problem.limit
    space = problem.students.space
    return SearchView(
        kind=problem.students.kind,
        method=config.search.method,
        arm=title(problem.arm),
        reward=REWARDS[config.search.reward],
        cost=config.search.cost,
        unit=problem.unit,
        low=limit.low or None,
        high=limit.high,
        base_cost=problem.cost.total(problem.base),
        base_reward=None if base is None else base["reward"],
        seed=config.seed,
        layers=tuple(
            SearchLayer(one.name, tuple(f"{option:g}" for option in one.options), one.default)
            for one in space.layers
        ),
        trials=trials,
        best=None if best is None else best.number,
        front=front_of(trials),
        diagnostics=_diagnostics(search),
        edges=_edges(search),
        notes=(*_how(config, study, trials, steps), *study.notes()),
    )


def _how(
    config: DistillConfig, study: SearchStudy, trials: Sequence[SearchTrial], steps: int
) -> list[str]:
    """How rewards came about."""
    if not config.search.one_shot:
        return [f"Each trial took {steps:,} gradient steps on the same rows in the same order."]
    rewards = {str(one.number): one.reward for one in trials}
    alone = study.checked
    pairs = [(rewards[n] or 0.0, reward) for n, reward in alone.items() if n in rewards]
    said = agreement(pairs)
    return [f"The shared network took {steps:,} gradient steps.", *([said] if said else [])]


def _diagnostics(search: Searcher | None) -> SearchDiagnostics | None:
    if not isinstance(search, LayerNAS):
        return None
    found = search.diagnostics()
    names = [field.name for field in fields(SearchDiagnostics) if field.name != "loss_of_limit"]
    values = {name: getattr(found, name) for name in names}
    return SearchDiagnostics(**values, loss_of_limit=found.loss_of_limit)


def _edges(search: Searcher | None) -> tuple[float, ...]:
    """Edges of the groups of whole architectures, where they are of equal width."""
    if not isinstance(search, LayerNAS) or not isinstance(search.buckets, EqualWidth):
        return ()
    low, high = search.ranges[-1]
    return tuple(np.linspace(low, high, search.buckets.count + 1).tolist())
