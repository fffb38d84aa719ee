"""Settings of the main job: one class for Python, for the TOML file and for the command line.

`limbeck.distill.run_file` reads them.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from limbeck.data.config import DataConfig
from limbeck.distill.buy_config import BuyConfig
from limbeck.distill.open_tables import Table
from limbeck.distill.search.config import SearchConfig
from limbeck.engines.config import RayConfig
from limbeck.errors import ConfigError
from limbeck.registry import names
from limbeck.teachers.config import TeacherConfig
from limbeck.teachers.pricing import MOST_MONEY

ARMS = ("labels", "labels_and_validation", "hard_kd", "soft_kd", "slam")
"""The arms of a run that names none."""
KNOWN = (
    *(*ARMS, "taylor", "ups", "fidelity", "alpha_weighted", "weighted", "lelp"),
    *("pca_split", "random_projections", "kmeans_split", "agglomerative_split", "random_split"),
    *("subclass_teacher", "subclass"),
    *("dkd", "dist", "rkd", "embedding", "fitnet", "vid", "crd"),
)


@dataclass(frozen=True, slots=True)
class StudentConfig:
    """The small model."""

    kind: str = ""
    """Kind of student, such as text_bag, text_transformer, tabular, huggingface, factory. Default:
    chosen by the columns, and reported."""
    settings: Table = field(default_factory=dict)
    """Settings of that kind, such as buckets or hidden."""
    arch: Literal["fixed", "search"] = "fixed"
    """Whether `settings` are the student's, or where a search for better ones begins."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How every arm is trained: the same number of gradient steps for all."""

    steps: int = 0
    """Gradient steps of each arm. Default 0: `epochs` over the answered pool, at least 300."""
    epochs: float = 5.0
    """Passes over the answered pool when `steps` is 0."""
    pool_batch: int = 256
    """Pool rows a step."""
    labelled_batch: int = 64
    """Labelled rows a step."""
    labelled_weight: float = 1.0
    """Of labelled rows beside pool rows, >= 0; 0 leaves them out of arms learning from answers."""
    learning_rate: float = 0.0
    """Peak learning rate. Default 0: the student kind's own."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    clip_norm: float = 1.0
    """Gradient norm to clip at; 0 turns clipping off."""
    evaluations: int = 20
    """Evaluations on validation, and checkpoints, in the course of training."""
    patience: int = 0
    """Evaluations without a better one after which an arm stops; 0 runs all steps and keeps the
    best."""
    folds: int = 3
    """Folds of the cross-validation that chooses the steps of the arm that trains on validation."""

    def __post_init__(self) -> None:
        _at_least("train.steps", self.steps, 0)
        for name in ("pool_batch", "labelled_batch", "evaluations"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        _at_least("train.folds", self.folds, 2)
        for name in ("labelled_weight", "learning_rate", "weight_decay", "clip_norm", "patience"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        if self.epochs <= 0:
            raise ConfigError(f"train.epochs={self.epochs}: must be > 0; 5 is usual.")
        if not 0 <= self.warmup < 1:
            raise ConfigError(
                f"train.warmup={self.warmup}: must be in [0, 1), a share of the steps."
            )


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """What the students learn from."""

    arms: tuple[str, ...] = ARMS
    """Ways of training to compare; "labels" is always among them. Others: taylor,
    ups, fidelity, alpha_weighted, weighted, your own as `package.module:Class`, and sums such as
    slam+my_losses:Mine."""
    temperature: float = 1.0
    """Softmax temperature of soft distillation, > 0."""
    slam_target: Literal["auto", "soft", "hard"] = "auto"
    """Target of SLaM; auto trains both and keeps the better one on validation."""
    slam_normalized: bool = False
    """Use the k - 1 normaliser in SLaM's mix. Default false, as in the paper's experiments."""
    trust_lower: float = 0.0
    """Lower bound of alpha, in [0.5, 1). Default 0: chosen on validation by cross-validation."""
    top_k_threshold: float = 0.9
    """k is the smallest for which the teacher's top-k accuracy on validation reaches this."""
    settings: dict[str, Table] = field(default_factory=dict)
    """Settings of objectives, a table for each that has any, such as order of taylor; a sum has
    weight, of its parts but the first."""

    def __post_init__(self) -> None:
        check_arms(self.arms, "objective.arms")
        check_arms(self.settings, "objective.settings")
        if "labels" not in self.arms or len(self.arms) < 2 or len(set(self.arms)) < len(self.arms):
            raise ConfigError(
                f"objective.arms={list(self.arms)}: needs 'labels' and at least one other arm, "
                f"each once; without labels alone nobody can tell what the answers were worth."
            )
        if self.temperature <= 0:
            raise ConfigError(f"objective.temperature={self.temperature}: must be > 0; 1 is plain.")
        if self.trust_lower != 0 and not 0.5 <= self.trust_lower < 1:
            raise ConfigError(
                f"objective.trust_lower={self.trust_lower}: must be in [0.5, 1), or 0 to choose "
                f"it; below 0.5 the loss would push the student away from the teacher's label."
            )
        if not 0 < self.top_k_threshold <= 1:
            raise ConfigError(
                f"objective.top_k_threshold={self.top_k_threshold}: must be in (0, 1]; 0.9 is "
                f"usual."
            )


@dataclass(frozen=True, slots=True)
class DecisionConfig:
    """What mistakes cost, in tasks with two classes. It can be changed when the run is done."""

    positive: str = ""
    """The class that ROC, precision-recall and the two costs are about. Default: the second one."""
    cost_false_positive: float = 1.0
    """Cost of naming the positive class where it is not true, >= 0, in any unit."""
    cost_false_negative: float = 1.0
    """Cost of not naming the positive class where it is true, >= 0, in the same unit."""

    def __post_init__(self) -> None:
        for name in ("cost_false_positive", "cost_false_negative"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ConfigError(
                    f"decision.{name}={value}: must be >= 0 and finite; 1 and 1 weigh both "
                    f"mistakes alike."
                )
        if self.cost_false_positive == self.cost_false_negative == 0:
            raise ConfigError(
                "decision.cost_false_positive and decision.cost_false_negative are both 0, so "
                "nothing would be a mistake; set at least one above 0."
            )

    @property
    def unequal(self) -> bool:
        """Whether one mistake costs more, so that a threshold has to be chosen."""
        return self.cost_false_positive != self.cost_false_negative


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """The main job: files and a teacher in, a small student and a report out."""

    data: DataConfig
    teacher: TeacherConfig
    budget: int
    """Teacher answers that may be bought, those on validation and test included."""
    money: float = 0.0
    """Most that the answers may cost, in the teacher's currency; 0 sets no limit."""
    ask_test: bool = True
    """Ask the teacher about the test rows too: to compare with it, and for the deferral curve."""
    defer_share: float = 0.0
    """Most rows that the student may send on to the teacher, in [0, 1]. Default 0: the smallest
    share whose validation accuracy is within half a point of the best."""
    student: StudentConfig = field(default_factory=StudentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    buy: BuyConfig = field(default_factory=BuyConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    decision: DecisionConfig = field(default_factory=DecisionConfig)
    onnx: bool = True
    """Export the student to ONNX as well; needs the extra `export`."""
    out: Path = Path("runs/distill")
    """Folder of the run; the same command goes on where it stopped."""
    ledger: Path = Path("ledger.sqlite")
    """File that keeps every answer, shared by all runs of a project."""
    code: Path = Path()
    """Folder in which Python modules named in the settings are looked for first."""
    engine: Literal["local", "ray"] = "local"
    """Where the teacher is asked: in this process, or copies of it on a Ray cluster."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The cluster, for engine ray."""
    seed: int = 0
    """Seeds splits, selection, initialisation and order."""

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ConfigError(f"budget={self.budget}: must be at least 1 answer.")
        if not 0 <= self.money <= MOST_MONEY:
            raise ConfigError(
                f"money={self.money}: must be in [0, {MOST_MONEY:.0e}]; 0 sets no limit."
            )
        if not 0 <= self.defer_share <= 1:
            raise ConfigError(
                f"defer_share={self.defer_share}: must be in [0, 1], a share of the rows."
            )
        if self.seed < 0:
            raise ConfigError(f"seed={self.seed}: must be >= 0.")
        check_arms((self.buy.arm,), "buy.arm")
        arm, holding = self.search.arm, [*self.objective.arms]
        if "labels_and_validation" in holding:
            holding.remove("labels_and_validation")
        if arm and arm not in holding:
            raise ConfigError(
                f"search.arm={arm!r}: must be one of the arms of this run that leave validation "
                f"alone: {', '.join(holding)}."
            )


def check_arms(arms: Iterable[str], setting: str) -> None:
    """Refuse a name that no objective has; a class of your own is looked for later.

    Raises:
        ConfigError: names the nearest known one.
    """
    known = names("objectives", dict.fromkeys(KNOWN))
    for part in (part for arm in arms for part in arm.split("+")):
        if part not in known and ":" not in part:
            raise ConfigError(
                f"{setting} holds {part!r}; the arms are {', '.join(known)}{near(part, known)}; "
                f"one of your own is package.module:Class, and a sum slam+package.module:Class."
            )


def near(name: str, known: Sequence[str]) -> str:
    """A hint at the nearest name, if one is near."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise ConfigError(f"{name}={value}: must be at least {least}.")
