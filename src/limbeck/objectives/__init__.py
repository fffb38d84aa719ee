"""How a student learns from answers: one loss a file, as a function and as an objective."""

from limbeck.objectives.agglomerative_split import AgglomerativeSplit
from limbeck.objectives.alpha_weighted import AlphaWeighted, alpha_weighted_loss
from limbeck.objectives.base import (
    Evidence,
    Neighbours,
    Objective,
    Snapshot,
    StudentOut,
    Targets,
    TeacherHead,
)
from limbeck.objectives.combined import Combined
from limbeck.objectives.crd import Crd, crd_loss
from limbeck.objectives.dist import Dist, dist_loss
from limbeck.objectives.dkd import Dkd, dkd_loss, nckd, tckd
from limbeck.objectives.embedding import EmbeddingRegression, embedding_loss
from limbeck.objectives.fidelity import Fidelity, fidelity_weights, teacher_uncertainty
from limbeck.objectives.fitnet import FitNet
from limbeck.objectives.halfspace import Halfspace, learn_halfspace
from limbeck.objectives.kd import HardKD, SoftKD, hard_kd_loss, kd_loss
from limbeck.objectives.kmeans_split import KMeansSplit
from limbeck.objectives.lelp import Lelp, trusted_lelp_loss
from limbeck.objectives.linear_splits import PcaSplit, RandomProjections
from limbeck.objectives.oracle_split import OracleSplit
from limbeck.objectives.projections import LinearProjections, regress_head
from limbeck.objectives.random_split import RandomSplit, random_subclasses
from limbeck.objectives.rkd import Rkd, rkd_angle_loss, rkd_distance_loss
from limbeck.objectives.slam import Slam, mix, slam_loss, top_mask
from limbeck.objectives.subclass import SubclassDistillation, SubclassTeacher, auxiliary_loss
from limbeck.objectives.subclasses import lelp_loss
from limbeck.objectives.supervised import Supervised
from limbeck.objectives.taylor import Taylor, taylor_loss
from limbeck.objectives.ups import Ups, select_pseudo_labels, ups_loss
from limbeck.objectives.vid import Vid, vid_loss
from limbeck.objectives.weighted import Weighted, debiasing_weights, weighted_loss
from limbeck.registry import lookup

OBJECTIVES: dict[str, type[Objective]] = {
    Supervised.name: Supervised,
    HardKD.name: HardKD,
    SoftKD.name: SoftKD,
    Slam.name: Slam,
    AlphaWeighted.name: AlphaWeighted,
    Fidelity.name: Fidelity,
    Taylor.name: Taylor,
    Ups.name: Ups,
    Weighted.name: Weighted,
    Lelp.name: Lelp,
    Dkd.name: Dkd,
    Dist.name: Dist,
    Rkd.name: Rkd,
    EmbeddingRegression.name: EmbeddingRegression,
    FitNet.name: FitNet,
    Vid.name: Vid,
    Crd.name: Crd,
    PcaSplit.name: PcaSplit,
    RandomProjections.name: RandomProjections,
    KMeansSplit.name: KMeansSplit,
    AgglomerativeSplit.name: AgglomerativeSplit,
    RandomSplit.name: RandomSplit,
    SubclassTeacher.name: SubclassTeacher,
    SubclassDistillation.name: SubclassDistillation,
}

__all__ = [
    "OBJECTIVES",
    "AgglomerativeSplit",
    "AlphaWeighted",
    "Combined",
    "Crd",
    "Dist",
    "Dkd",
    "EmbeddingRegression",
    "Evidence",
    "Fidelity",
    "FitNet",
    "Halfspace",
    "HardKD",
    "KMeansSplit",
    "Lelp",
    "LinearProjections",
    "Neighbours",
    "Objective",
    "OracleSplit",
    "PcaSplit",
    "RandomProjections",
    "RandomSplit",
    "Rkd",
    "Slam",
    "Snapshot",
    "SoftKD",
    "StudentOut",
    "SubclassDistillation",
    "SubclassTeacher",
    "Supervised",
    "Targets",
    "Taylor",
    "TeacherHead",
    "Ups",
    "Vid",
    "Weighted",
    "alpha_weighted_loss",
    "auxiliary_loss",
    "crd_loss",
    "debiasing_weights",
    "dist_loss",
    "dkd_loss",
    "embedding_loss",
    "fidelity_weights",
    "hard_kd_loss",
    "kd_loss",
    "learn_halfspace",
    "lelp_loss",
    "mix",
    "nckd",
    "objective_class",
    "random_subclasses",
    "regress_head",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "select_pseudo_labels",
    "slam_loss",
    "taylor_loss",
    "tckd",
    "teacher_uncertainty",
    "top_mask",
    "trusted_lelp_loss",
    "ups_loss",
    "vid_loss",
    "weighted_loss",
]


def objective_class(name: str) -> type[Objective]:
    """Find an objective by name, also one that another package registers.

    Raises:
        ConfigError: there is none of this name; the nearest one is named.
    """
    return lookup("objectives", OBJECTIVES, name)
