"""A trial: a student of the space, trained for a short while as an arm is.

Every trial starts from the same seed and sees rows in the same order, so that rewards differ by
architecture. Test rows are never looked at.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch

from limbeck.data import Splits
from limbeck.distill.acquire import Acquired
from limbeck.distill.arms import ArmTrainer, Materials
from limbeck.distill.checkpoint import CurvePoint
from limbeck.distill.config import DistillConfig
from limbeck.distill.encoding import EncodedRows, encode_for
from limbeck.distill.folder import RunFolder
from limbeck.distill.materials import labels_materials, prepare_materials, steps_of
from limbeck.distill.search.problem import SearchProblem
from limbeck.distill.trust import Trust
from limbeck.search import Architecture
from limbeck.students import Student, recommended_lr

if TYPE_CHECKING:
    from accelerate import Accelerator

EVALUATIONS = 5
"""Evaluations of a trial at most; its reward is the best of them."""
SHARE = 0.25
"""Of an arm's steps that a trial takes."""
LEAST_STEPS = 100

Look = Callable[[float, int], bool]
"""Told a reward and which evaluation it is; says whether to give the trial up."""


@dataclass(frozen=True, slots=True, eq=False)
class SearchRows:
    """What trials learn from.

    Args:
        splits: The rows.
        encoded: For the student that the search begins with.
        acquired, trust: What is known of the teacher; None where trials ask none.
    """

    splits: Splits
    encoded: EncodedRows
    acquired: Acquired | None
    trust: Trust | None


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a trial gave.

    Args:
        reward: To be maximised; None where it was stopped early.
        accuracy, nll: On validation, the second after temperature scaling.
        steps: That were taken.
        seconds: That they took.
        stopped: Whether it was given up early.
    """

    reward: float | None
    accuracy: float
    nll: float
    steps: int
    seconds: float
    stopped: bool = False

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """Plain JSON values."""
        return asdict(self)


def expected_rows(config: DistillConfig, splits: Splits) -> int:
    """Pool rows that a run will have answers of, as long as it has asked nobody."""
    assert splits.pool is not None
    return min(config.budget, len(splits.pool))


def trial_steps(config: DistillConfig, pool_rows: int) -> int:
    """Gradient steps of a trial; as many as an arm at most, unless `search.steps` says more."""
    whole = steps_of(config, pool_rows)
    return config.search.steps or max(min(LEAST_STEPS, whole), round(SHARE * whole))


class _StoppedError(Exception):
    """A trial was given up."""


class TrialTrainer:
    """Trains architectures of a space.

    Args:
        config: The run's settings.
        problem: The space and the arm.
        rows: What is learnt from.
        folder: Checkpoints of trials that are under way lie here.
        accelerator: Where it computes.
    """

    def __init__(
        self,
        config: DistillConfig,
        problem: SearchProblem,
        rows: SearchRows,
        folder: RunFolder,
        accelerator: "Accelerator",
    ) -> None:
        self._config = replace(
            config,
            train=replace(
                config.train,
                evaluations=min(EVALUATIONS, config.train.evaluations),
                patience=0,
            ),
        )
        self._problem = problem
        self._rows = rows
        self._folder = folder
        self._accelerator = accelerator

    def evaluate(self, name: str, architecture: Architecture, look: Look) -> TrialResult:
        """Train an architecture, going on where it stopped, and give its reward.

        Args:
            name: Of its checkpoint.
            architecture: Positions of options.
            look: Told every evaluation.

        Raises:
            ConfigError: the training has diverged.
        """
        curve: list[CurvePoint] = []

        def watch(point: CurvePoint) -> None:
            curve.append(point)
            # By its step: a trial that was stopped and goes on has not seen the earlier ones.
            evaluations = self._config.train.evaluations
            if look(self._reward(point), max(1, round(evaluations * point.step / self.steps))):
                raise _StoppedError

        trainer = ArmTrainer(self._config, self.materials(architecture), self._folder,
                             self._accelerator)  # fmt: skip
        try:
            _, trained = trainer.fitted(self._problem.arm, name, watch)
        except _StoppedError:
            last = curve[-1]
            return TrialResult(None, last.accuracy, last.calibrated_nll, last.step, 0.0, True)
        point = trained.best
        assert point is not None
        reward = max(map(self._reward, trained.curve))
        return TrialResult(
            reward, point.accuracy, point.calibrated_nll, trained.last_step, trained.seconds
        )

    @property
    def steps(self) -> int:
        """Gradient steps of a trial."""
        return trial_steps(self._config, self.answered)

    @property
    def answered(self) -> int:
        """Pool rows that have an answer, or will have one."""
        rows = self._rows
        if rows.acquired is None:
            return expected_rows(self._config, rows.splits)
        return len(rows.acquired.pool_rows)

    def forget(self, name: str) -> None:
        """Remove the checkpoint of a trial whose reward is written down."""
        (self._folder.checkpoints / f"{name}.safetensors").unlink(missing_ok=True)

    def materials(self, architecture: Architecture) -> Materials:
        """What a trial of an architecture is made from."""
        made = self._made_from(self.rows_of(architecture))
        return replace(made, steps=self.steps, settings=f"{made.settings}.trial")

    def rows_of(self, architecture: Architecture) -> EncodedRows:
        """A fresh student of an architecture and the rows as its encoder gives them."""
        config, students, rows = self._config, self._problem.students, self._rows
        generator = torch.Generator().manual_seed(config.seed)
        student = Student(
            students.encoder_of(architecture),
            students.build(architecture, generator),
            rows.encoded.student.schema,
        )
        rate = config.train.learning_rate or recommended_lr(students.settings(architecture))
        encoding = students.encoding(architecture)
        if not encoding:
            return replace(rows.encoded, student=student, learning_rate=rate)
        place = self._folder.search / "encoded" / encoding
        return encode_for(student, rate, rows.splits, rows.encoded.pool_rows, place)

    def _made_from(self, encoded: EncodedRows) -> Materials:
        rows = self._rows
        if rows.acquired is None or rows.trust is None:
            return labels_materials(self._config, rows.splits, encoded)
        return prepare_materials(self._config, rows.splits, encoded, rows.acquired, rows.trust)

    def _reward(self, point: CurvePoint) -> float:
        by_accuracy = self._config.search.reward == "accuracy"
        return point.accuracy if by_accuracy else -point.calibrated_nll
