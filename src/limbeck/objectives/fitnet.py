"""FitNet: a hint from the teacher's embedding, which a learnt linear map must meet.

Let h be a row's embedding, D the width of the teacher's and r a linear map that is learnt:

    L = w mean over k of (h^T_k - r(h^S)_k)^2,  w = 100.

Source: Romero, Ballas, Kahou, Chassang, Gatta, Bengio, "FitNets: hints for thin deep nets", ICLR
2015, arXiv 1412.6550, Section 2.2. There the hint alone, with w = D / 2, trains the student up to a
middle layer, and distillation follows; here the hint is the last embedding, the only one that
answers hold, and a sum such as soft_kd+fitnet with `leads` > 0 has two stages. One stage and
w = 100 are those of the public suites.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Self, final

import torch
from torch import Tensor, nn

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import check_factor
from limbeck.objectives.embedding import embedding_loss
from limbeck.objectives.features import (
    embedding_width,
    embeddings_of,
    fitted_width,
    linear,
    not_attached,
    project,
)


@final
class FitNet(Objective):
    """Squared difference of the mapped embedding from the hint. Pool rows do not teach the head.

    Args:
        weight: w > 0.
        leads: In a sum, share of the schedule, in [0, 1), at whose start the hint alone teaches,
            and neither labels nor the other part; 0 trains in one stage.
    """

    name = "fitnet"
    needs_embeddings = True
    uses_outputs = False

    def __init__(self, *, weight: float = 100.0, leads: float = 0.0) -> None:
        check_factor("weight", weight)
        if not 0 <= leads < 1:
            raise ConfigError(
                f"leads={leads}: must be a share of the schedule in [0, 1); 0 for one stage."
            )
        self.weight = weight
        self.leads = leads
        self._width: int | None = None
        self._regressor: nn.Linear | None = None

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy that knows D; only the first answers are read.

        Raises:
            ConfigError: there are no answers, or they hold no embeddings.
        """
        fitted = copy.copy(self)
        fitted._width = embedding_width(self.name, answers)
        return fitted

    def attach(self, embedding_dim: int, generator: torch.Generator) -> Self:
        """Return a copy with the regressor from d to D, also where they are equal.

        Raises:
            ConfigError: the objective has not been fitted.
        """
        width, attached = fitted_width(self.name, self._width), copy.copy(self)
        attached._regressor = linear(embedding_dim, width, generator)
        return attached

    def targets(self, answers: Answers) -> Targets:
        """Give `embeddings` as they are, float32, shape (B, D)."""
        return Targets({"embeddings": embeddings_of(self.name, answers)})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Shape (B,): of pool rows w times `embedding_loss`, of labelled rows cross-entropy.

        Raises:
            ConfigError: nothing has been attached.
        """
        if targets is None:
            return self.label_loss(out, labels)
        if self._regressor is None:
            raise not_attached(self.name)
        guided = project(self._regressor, out.embedding)
        return self.weight * embedding_loss(guided, targets["embeddings"])

    def parameters(self) -> Iterator[nn.Parameter]:
        """Weight and bias of the regressor."""
        return iter(()) if self._regressor is None else self._regressor.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """Weight and bias of the regressor."""
        return {} if self._regressor is None else self._regressor.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave."""
        if self._regressor is None:
            raise not_attached(self.name)
        self._regressor.load_state_dict(dict(state))
