"""Which rows are worth an answer: one rule a file, as functions over tensors and as a selector."""

from limbeck.numerics.rounding import dependent_rounding, systematic_sampling
from limbeck.registry import lookup
from limbeck.select.adaprod import AdaProd
from limbeck.select.badge import Badge, badge_rows
from limbeck.select.base import Arrays, Candidates, Selection, Selector
from limbeck.select.cluster_margin import ClusterMargin, average_linkage, round_robin
from limbeck.select.contextual_diversity import ContextualDiversity, diverse_rows
from limbeck.select.coreset import Coreset, k_center
from limbeck.select.gains import gains, gradient_norms, ranks
from limbeck.select.greedy import AveragedGreedy, Greedy, top_rows
from limbeck.select.power import Power, power_sample
from limbeck.select.rad import expected_inclusion, rad_distribution, rad_inclusion, worst_case
from limbeck.select.regret import relative_regret_distribution
from limbeck.select.robust import ExpectedGain, Rad
from limbeck.select.scoring import gains_of
from limbeck.select.sleeping import SleepingExperts
from limbeck.select.uniform import Uniform
from limbeck.select.unixkd import unixkd_batch

SELECTORS: dict[str, type[Selector]] = {
    Uniform.name: Uniform,
    Greedy.name: Greedy,
    AveragedGreedy.name: AveragedGreedy,
    Rad.name: Rad,
    ExpectedGain.name: ExpectedGain,
    AdaProd.name: AdaProd,
    Power.name: Power,
    Coreset.name: Coreset,
    ClusterMargin.name: ClusterMargin,
    Badge.name: Badge,
    ContextualDiversity.name: ContextualDiversity,
}

__all__ = [
    "SELECTORS",
    "AdaProd",
    "Arrays",
    "AveragedGreedy",
    "Badge",
    "Candidates",
    "ClusterMargin",
    "ContextualDiversity",
    "Coreset",
    "ExpectedGain",
    "Greedy",
    "Power",
    "Rad",
    "Selection",
    "Selector",
    "SleepingExperts",
    "Uniform",
    "average_linkage",
    "badge_rows",
    "dependent_rounding",
    "diverse_rows",
    "expected_inclusion",
    "gains",
    "gains_of",
    "gradient_norms",
    "k_center",
    "power_sample",
    "rad_distribution",
    "rad_inclusion",
    "ranks",
    "relative_regret_distribution",
    "round_robin",
    "selector_class",
    "systematic_sampling",
    "top_rows",
    "unixkd_batch",
    "worst_case",
]


def selector_class(name: str) -> type[Selector]:
    """Find a rule by name, ours or one that a package registers under `limbeck.selectors`.

    Raises:
        ConfigError: nothing has this name; the nearest one is named.
    """
    return lookup("selectors", SELECTORS, name)
