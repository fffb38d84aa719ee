"""LELP: distil pseudo-subclasses, read from linear projections of the teacher's embeddings.

With few classes a teacher's probabilities say little about a row; its embedding says more. Each
class is split into S soft subclasses by a softmax over S projections of the embedding, and the
student fits class and subclass together.

Source: Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449. Projections, product and loss are the paper's; beta = 3, tau = 2,
the number of subclasses and the sum over a class at tau are choices of ours. `trust` is not from
the paper.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Self, final

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.numerics.logspace import retemper
from limbeck.objectives.answer_projections import (
    WithoutWeights,
    check_without_weights,
    project_answers,
)
from limbeck.objectives.base import Evidence, StudentOut, Targets
from limbeck.objectives.checks import check_alpha, working
from limbeck.objectives.directions import (
    NullSpace,
    ProjectionConfig,
    ProjectionSettings,
    Rotation,
    Scale,
)
from limbeck.objectives.features import embeddings_of
from limbeck.objectives.mixing import Noise, prepare_soft, soft_loss
from limbeck.objectives.projections import LinearProjections, check_beta, split_probs
from limbeck.objectives.subclasses import (
    SubclassObjective,
    check_subclasses,
    lelp_loss,
    not_fitted,
)

EPS = 1e-7
"""Floor of the mixed prediction, as in `slam_loss`."""


def trusted_lelp_loss(
    outputs: Tensor,
    pseudo_probs: Tensor,
    alpha: Tensor,
    k: int | Tensor,
    *,
    temperature: float = 1.0,
    eps: float = EPS,
) -> Tensor:
    """LELP for a teacher that errs: SLaM's mixing of the classes, with the split kept (ours).

    The student's class probabilities rho are mixed as in `slam_loss`, un-normalised, and each
    class's mix is divided as the student divides the class: mix_{c,s} = mix_c omega_{c,s}. So
    L = tau^2 (- sum_c p_c log mix_c + sum_c p_c KL(w_c || omega_c)).

    Args:
        outputs: Student outputs a, floating point, shape (B, C S), class by class.
        pseudo_probs: q = p w at this temperature, shape (B, C, S).
        alpha: Probability that the teacher's top class is right, in (0, 1], shape (B,).
        k: Size of the teacher's top set, in [2, C].
        temperature: tau > 0.
        eps: Floor of the mix, in (0, 1).

    Returns:
        Loss of each row in nats, shape (B,), float32 (float64 for float64). With S = 1 and tau = 1
        it is `slam_loss` with a soft target; with alpha = 1 `lelp_loss` plus tau^2 times the
        entropy of p, which has no gradient.

    Raises:
        ShapeError, ConfigError: as `lelp_loss` and `slam_loss`.

    Cost: O(B C S), plus ranking the teacher's classes.
    """
    check_subclasses(outputs, pseudo_probs)
    check_alpha(alpha, len(outputs))
    named = _prepared(pseudo_probs.to(working(outputs).dtype), Noise(alpha, k, False), eps)
    return _trusted(outputs, named, temperature, eps)


def _prepared(pseudo_probs: Tensor, noise: Noise, eps: float) -> dict[str, Tensor]:
    """What `_trusted` wants and the student has no part in: first axis the row."""
    mass = pseudo_probs.sum(dim=2)
    # sum_c p_c sum_s w log w without w = q / p, which is 0 / 0 where p underflows.
    known = torch.xlogy(pseudo_probs, pseudo_probs).sum(dim=(1, 2))
    known = known - torch.xlogy(mass, mass).sum(dim=1)
    wanted = {"pseudo_probs": pseudo_probs, "class_probs": mass, "known": known}
    return {**wanted, **prepare_soft(mass, noise, eps)}


def _trusted(
    outputs: Tensor, named: Mapping[str, Tensor], temperature: float, eps: float
) -> Tensor:
    """The loss with what `_prepared` gave."""
    scaled = working(outputs) / temperature
    parts = scaled.view_as(named["pseudo_probs"])
    logits = parts.logsumexp(dim=2)
    # log omega = a / tau - logits, so the outputs need no softmax of their own.
    split = named["known"] + (named["class_probs"].to(scaled) * logits).sum(dim=1)
    split = split - (named["pseudo_probs"].to(scaled).flatten(1) * scaled).sum(dim=1)
    return temperature**2 * (soft_loss(logits, named, eps) + split)


@final
class Lelp(SubclassObjective):
    """Distillation of pseudo-subclasses from linear projections of the teacher's embeddings.

    Rows are grouped by the teacher's most probable class, since answers hold no labels.

    Args:
        subclasses: S of each class; 0 is 8 for two classes, else max(2, 16 // C).
        beta: Softness of the split; see `LinearProjections.pseudo_probs`.
        temperature: tau > 0, of teacher and student; outputs of a class are summed at it.
        null_space: Where directions may lie; see `ProjectionConfig`.
        without_weights: Where the teacher's last layer is not known: "regress" fits one to its
            answers, "none" uses the whole space, both with a warning; "refuse" stops.
        rotation: Of the directions; see `ProjectionConfig`.
        scale: Of the scores; see `ProjectionConfig`.
        trust: Mix the student's classes as SLaM does; see `trusted_lelp_loss`.
        seed: Of the rotations.
    """

    name = "lelp"

    def __init__(
        self,
        *,
        subclasses: int = 0,
        beta: float = 3.0,
        temperature: float = 2.0,
        null_space: NullSpace = "weights",
        without_weights: WithoutWeights = "regress",
        rotation: Rotation = "random",
        scale: Scale = "rms",
        trust: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(subclasses=subclasses, temperature=temperature)
        check_beta(beta)
        check_without_weights(without_weights)
        self.beta = beta
        self.settings: ProjectionSettings = {
            "null_space": null_space,
            "rotation": rotation,
            "scale": scale,
            "absorb_empty": True,
        }
        ProjectionConfig(**self.settings)
        self.without_weights: WithoutWeights = without_weights
        self.uses_trust = self.corrects_noise = trust
        self.seed = seed
        self.projections: LinearProjections | None = None
        self._trust: tuple[Callable[[Answers], Tensor], int] | None = None

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return a copy with projections fitted to the answers; see `project_answers`.

        Raises:
            ConfigError: answers hold no embeddings, the teacher's last layer is not known and
                `without_weights` is "refuse", or trust is wanted without evidence.
            ShapeError: there are no answers, or the last layer does not fit the embeddings.
        """
        fitted = copy.copy(self)
        if self.uses_trust:
            if evidence is None:
                raise ConfigError(
                    "lelp: trust needs the teacher's answers on validation rows with true labels; "
                    "give some labelled rows as validation, or set trust to false."
                )
            fitted._trust = (evidence.trust, evidence.k)
        fitted.projections = project_answers(
            answers,
            None if evidence is None else evidence.head,
            self.size,
            name=self.name,
            without_weights=self.without_weights,
            generator=torch.Generator().manual_seed(self.seed),
            settings=self.settings,
        )
        return fitted.informed(len(fitted.projections.num_subclasses))

    def log_split(self, answers: Answers) -> Tensor:
        """Log of w, shape (n, C, S); -inf where a class has fewer subclasses.

        Raises:
            ConfigError: the objective has not been fitted, or answers hold no embeddings.
        """
        if self.projections is None:
            raise not_fitted(self.name)
        return self.projections.log_split(embeddings_of(self.name, answers), self.beta)

    def pseudo_probs(self, answers: Answers) -> Tensor:
        """Targets q at the temperature of training, float32, shape (n, C, S)."""
        return split_probs(retemper(answers.probs, self.temperature), self.log_split(answers))

    def targets(self, answers: Answers) -> Targets:
        """Give `pseudo_probs`, float32, shape (B, C, S), and with trust the classes' mixing."""
        pseudo_probs = self.pseudo_probs(answers)
        if self._trust is None:
            return Targets({"pseudo_probs": pseudo_probs})
        trust, k = self._trust
        return Targets(_prepared(pseudo_probs, Noise(trust(answers), k, False), EPS))

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        if targets is None:
            return self.label_loss(out, labels)
        if self.uses_trust:
            check_subclasses(out.outputs, targets["pseudo_probs"])
            return _trusted(out.outputs, targets.tensors, self.temperature, EPS)
        return lelp_loss(out.outputs, targets["pseudo_probs"], temperature=self.temperature)
