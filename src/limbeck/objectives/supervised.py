"""Labels only: the arm that every distilled student has to beat."""

from collections.abc import Iterable
from typing import Self, final

from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets


@final
class Supervised(Objective):
    """Plain cross-entropy on labelled rows; the teacher is never asked."""

    name = "labels"
    needs_answers = False

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return itself: nothing is learnt from answers."""
        return self

    def targets(self, answers: Answers) -> Targets:
        """Give no targets."""
        return Targets()

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Cross-entropy with the labels, in nats, shape (B,).

        Raises:
            ConfigError: targets were given: this objective has no use for pool rows.
        """
        if targets is not None:
            raise ConfigError(
                "labels: this objective learns from labelled rows only; leave pool rows out, or "
                "choose hard_kd, soft_kd or slam to learn from answers."
            )
        return self.label_loss(out, labels)
