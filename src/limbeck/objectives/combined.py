"""The sum of two objectives: SLaM together with a loss over embeddings, say.

Source of the idea: Kontonis et al., "SLaM", NeurIPS 2023, report that SLaM's gain and that of a
feature loss add up (a reconstruction of that setting: one weighted sum of the two losses of a row).
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Self, final

import torch
from torch import Tensor, nn

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.numerics.classmap import ClassMap
from limbeck.objectives.base import Evidence, Objective, Snapshot, StudentOut, Targets

_FIRST, _SECOND = "first.", "second."


@final
class Combined(Objective):
    """On pool rows `first` plus `weight` times `second`; on labelled rows `first` alone.

    Args:
        first: Gives class probabilities and the loss of labelled rows as well.
        second: Added on pool rows.
        weight: Of `second`, > 0.

    Raises:
        ConfigError: the weight is not positive, a part learns from labels alone, `second` teaches
            the head and `first` does not, or both parts correct for the teacher's mistakes or
            refresh.
    """

    name = "combined"

    def __init__(self, first: Objective, second: Objective, *, weight: float = 1.0) -> None:
        if not 0 < weight < math.inf:
            raise ConfigError(f"weight={weight}: must be a finite number > 0.")
        for part in (first, second):
            if not part.needs_answers:
                raise ConfigError(
                    f"{part.name} learns from labels alone, so it cannot be a part of a sum; "
                    f"labelled rows are in every sum already."
                )
        if second.uses_outputs and not first.uses_outputs:
            raise ConfigError(
                f"{first.name} teaches the head nothing, and the first part of a sum gives the "
                f"class probabilities, as {second.name} does; turn the order, "
                f"{second.name}+{first.name}."
            )
        if first.corrects_noise and second.corrects_noise:
            raise ConfigError(
                f"{first.name} and {second.name} both correct for the teacher's mistakes, so their "
                f"sum would correct for the same noise twice; combine one of them with a loss "
                f"that does not, such as one over embeddings."
            )
        if first.refresh_every is not None and second.refresh_every is not None:
            raise ConfigError(
                f"{first.name} and {second.name} both refresh as they train, and a sum has one "
                f"schedule; combine one of them with a loss that is fitted once."
            )
        self.first = first
        self.second = second
        self.weight = weight
        self.uses_trust = first.uses_trust or second.uses_trust
        self.needs_spread = first.needs_spread or second.needs_spread
        self.needs_embeddings = first.needs_embeddings or second.needs_embeddings
        self.needs_rows = first.needs_rows or second.needs_rows
        self.uses_outputs = first.uses_outputs or second.uses_outputs
        self.relational = first.relational or second.relational
        self._share = 0.0
        self.corrects_noise = first.corrects_noise or second.corrects_noise
        self.refresh_every = (
            second.refresh_every if first.refresh_every is None else first.refresh_every
        )
        self.pretrain = max(first.pretrain, second.pretrain)

    def width(self, num_classes: int) -> int:
        """Outputs that both parts need of the one head; one that uses none takes any.

        Raises:
            ConfigError: they need different heads.
        """
        first, second = self.first.width(num_classes), self.second.width(num_classes)
        if first != second and self.second.uses_outputs:
            raise ConfigError(
                f"{self.first.name} needs a head of {first} outputs and {self.second.name} one of "
                f"{second}, but a student has one head; combine parts that agree."
            )
        return first

    def class_map(self, num_classes: int) -> ClassMap:
        """The map of `first`, which gives the class probabilities."""
        return self.first.class_map(num_classes)

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a sum of the two fitted parts.

        Each part reads the answers from their beginning; an iterator, which can be read only once,
        is kept in memory as a whole.
        """
        if iter(answers) is answers:
            answers = tuple(answers)
        fitted = copy.copy(self)
        fitted.first = self.first.fit(answers, evidence)
        fitted.second = self.second.fit(answers, evidence)
        return fitted

    def attach(self, embedding_dim: int, generator: torch.Generator) -> Self:
        """Return a sum of the two attached parts."""
        attached = copy.copy(self)
        attached.first = self.first.attach(embedding_dim, generator)
        attached.second = self.second.attach(embedding_dim, generator)
        return attached

    def begin_step(self, share: float) -> None:
        """Tell both parts, and remember whether `second` still teaches alone."""
        self._share = share
        self.first.begin_step(share)
        self.second.begin_step(share)

    def refresh(self, snapshot: Snapshot) -> None:
        """Hand the snapshot to the part that refreshes."""
        for part in (self.first, self.second):
            if part.refresh_every is not None:
                part.refresh(snapshot)

    def targets(self, answers: Answers) -> Targets:
        """Give the targets of both parts, named `first.*` and `second.*`."""
        parts = ((_FIRST, self.first), (_SECOND, self.second))
        return Targets(
            {
                start + name: tensor
                for start, part in parts
                for name, tensor in part.targets(answers).tensors.items()
            }
        )

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        alone = self._share < self.second.leads
        if targets is None:
            # Times zero rather than left out: the head still gets a gradient, of nothing.
            return self.label_loss(out, labels) * (0.0 if alone else 1.0)
        first, second = (
            part.loss(out, Targets(_of_part(start, targets.tensors)), None)
            for start, part in ((_FIRST, self.first), (_SECOND, self.second))
        )
        return first * (0.0 if alone else 1.0) + self.weight * second

    def label_loss(self, out: StudentOut, labels: Tensor | None) -> Tensor:
        """What `first` makes of labelled rows, shape (B,), once."""
        return self.first.loss(out, None, labels)

    def class_log_probs(self, out: StudentOut) -> Tensor:
        """Log-probabilities of `first`, shape (B, C)."""
        return self.first.class_log_probs(out)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of both parts."""
        return chain(self.first.parameters(), self.second.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """State of both parts, named `first.*` and `second.*`."""
        return {
            start + name: tensor
            for start, part in ((_FIRST, self.first), (_SECOND, self.second))
            for name, tensor in part.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        strange = [name for name in state if not name.startswith((_FIRST, _SECOND))]
        if strange:
            raise KeyError(f"a sum keeps the state of its parts but was given {sorted(strange)}.")
        self.first.load_state_dict(_of_part(_FIRST, state))
        self.second.load_state_dict(_of_part(_SECOND, state))


def _of_part(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of one part, and those that belong to neither: what a loop adds is for both."""
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start) or not name.startswith((_FIRST, _SECOND))
    }
