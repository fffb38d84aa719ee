"""FitNet: a hint from the teacher's embedding, which a learnt linear map must meet.

Let h be a row's embedding, D the width of the teacher's and r a linear map that is learnt:

    L = w mean over k of (h^T_k - r(h^S)_k)^2,  w = 100.

Source: Romero, Ballas, Kahou, Chassang, Gatta, Bengio, "FitNets: hints for thin deep nets", ICLR
2015, arXiv 1412.6550, Section 2.2. There the hint alone, with w = D / 2, trains the student up to a
middle layer, and distillation follows; here the hint is the last embedding, the only one that
answers hold, and a sum such as soft_kd+fitnet with `leads` > 0 has two stages. One stage and
w = 100 are those of the public suites.
"""

from typing import final

import torch
from torch import Tensor, nn

from limbeck.errors import ConfigError
from limbeck.objectives.embedding import embedding_loss
from limbeck.objectives.features import ProjectedObjective, linear, project


@final
class FitNet(ProjectedObjective):
    """Squared difference of the mapped embedding from the hint. Pool rows do not teach the head.

    Args:
        weight: w > 0.
        leads: In a sum, share of the schedule, in [0, 1), at whose start the hint alone teaches,
            and neither labels nor the other part; 0 trains in one stage.
    """

    name = "fitnet"

    def __init__(self, *, weight: float = 100.0, leads: float = 0.0) -> None:
        super().__init__(weight=weight)
        if not 0 <= leads < 1:
            raise ConfigError(
                f"leads={leads}: must be a share of the schedule in [0, 1); 0 for one stage."
            )
        self.leads = leads

    def projector(self, embedding_dim: int, width: int, generator: torch.Generator) -> nn.Module:
        """The regressor from d to D, also where they are equal."""
        return linear(embedding_dim, width, generator)

    def distance(self, module: nn.Module, embedding: Tensor, teacher: Tensor) -> Tensor:
        """As `embedding_loss` of what the regressor gives, shape (B,)."""
        return embedding_loss(project(module, embedding), teacher)
