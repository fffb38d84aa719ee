"""How a student learns from answers: one loss a file, as a function and as an objective."""

from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.halfspace import Halfspace, learn_halfspace
from limbeck.objectives.kd import HardKD, SoftKD, hard_kd_loss, kd_loss
from limbeck.objectives.slam import Slam, mix, slam_loss, top_mask
from limbeck.objectives.supervised import Supervised
from limbeck.registry import lookup

OBJECTIVES: dict[str, type[Objective]] = {
    Supervised.name: Supervised,
    HardKD.name: HardKD,
    SoftKD.name: SoftKD,
    Slam.name: Slam,
}

__all__ = [
    "OBJECTIVES",
    "Evidence",
    "Halfspace",
    "HardKD",
    "Objective",
    "Slam",
    "SoftKD",
    "StudentOut",
    "Supervised",
    "Targets",
    "hard_kd_loss",
    "kd_loss",
    "learn_halfspace",
    "mix",
    "objective_class",
    "slam_loss",
    "top_mask",
]


def objective_class(name: str) -> type[Objective]:
    """Find an objective by name, also one that another package registers.

    Raises:
        ConfigError: there is none of this name; the nearest one is named.
    """
    return lookup("objectives", OBJECTIVES, name)
