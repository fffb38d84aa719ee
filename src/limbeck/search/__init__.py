"""An architecture under a limit: layerwise search by cost, its rivals, costs and spaces."""

from limbeck.registry import lookup
from limbeck.search.base import Found, Note, Searcher, Status, Trial
from limbeck.search.buckets import Edges, EqualWidth, Exact, Geometric, GroupBy
from limbeck.search.costs import (
    AdditiveCost,
    BlackBoxCost,
    Bounds,
    Cost,
    Limit,
    MonotoneCost,
    TableCost,
)
from limbeck.search.diagnostics import Diagnostics, prefix_validity
from limbeck.search.evolution import RegularizedEvolution
from limbeck.search.fitted import FittedCost, fit_cost, fit_measured, least_samples
from limbeck.search.layernas import LayerNAS, LayerNASConfig, paper
from limbeck.search.local import LocalSearch
from limbeck.search.random_search import RandomSearch
from limbeck.search.space import Architecture, Layer, LayerwiseSpace

SEARCHES: dict[str, type[Searcher]] = {
    LayerNAS.name: LayerNAS,
    RandomSearch.name: RandomSearch,
    RegularizedEvolution.name: RegularizedEvolution,
    LocalSearch.name: LocalSearch,
}

__all__ = [
    "SEARCHES",
    "AdditiveCost",
    "Architecture",
    "BlackBoxCost",
    "Bounds",
    "Cost",
    "Diagnostics",
    "Edges",
    "EqualWidth",
    "Exact",
    "FittedCost",
    "Found",
    "Geometric",
    "GroupBy",
    "Layer",
    "LayerNAS",
    "LayerNASConfig",
    "LayerwiseSpace",
    "Limit",
    "LocalSearch",
    "MonotoneCost",
    "Note",
    "RandomSearch",
    "RegularizedEvolution",
    "Searcher",
    "Status",
    "TableCost",
    "Trial",
    "fit_cost",
    "fit_measured",
    "least_samples",
    "paper",
    "prefix_validity",
    "search_class",
]


def search_class(name: str) -> type[Searcher]:
    """Find a search by name, ours or one that a package registers under `limbeck.searches`.

    Raises:
        ConfigError: nothing has this name; the nearest one is named.
    """
    return lookup("searches", SEARCHES, name)
