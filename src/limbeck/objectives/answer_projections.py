"""Projections fitted to a teacher's answers, also where its last layer is not known.

Source of the use: Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449. Fitting a layer to the answers where there is none is ours.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from limbeck.answers import Answers
from limbeck.errors import ConfigError, LimbeckWarning
from limbeck.objectives.base import TeacherHead
from limbeck.objectives.directions import ProjectionSettings
from limbeck.objectives.features import embeddings_of
from limbeck.objectives.mixing import first_max
from limbeck.objectives.moments import ClassMoments
from limbeck.objectives.projections import LinearProjections, regress_head
from limbeck.objectives.spectra import fits

WithoutWeights = Literal["regress", "none", "refuse"]
"""Where the teacher's last layer is not known: fit one, use the whole space, or stop."""


def project_answers(
    answers: Iterable[Answers],
    head: TeacherHead | None,
    size: Callable[[int], int],
    *,
    name: str,
    without_weights: WithoutWeights,
    generator: torch.Generator,
    settings: ProjectionSettings,
) -> LinearProjections:
    """Fit projections to answers, grouped by the teacher's most probable class.

    Args:
        answers: Batches with embeddings; read once, above D = 4,096 (or where the covariances take
            more than 2 GiB) six times.
        head: The teacher's last layer, or None where it is not known.
        size: C to S.
        name: Of the objective, for messages.
        without_weights: What to do where `head` is None and the null space is wanted. A layer that
            is fitted knows nothing of what all classes share, so "weights" and "centered" are then
            the same.
        generator: Draws rotations or directions.
        settings: Fields of `ProjectionConfig`.

    Raises:
        ConfigError: answers hold no embeddings, or the layer is not known and may not be fitted.
        ShapeError: there are no answers, or the layer does not fit the embeddings.

    Cost: as `LinearProjections.fit_batches`.
    """
    settings = settings.copy()
    wanted = settings.get("null_space", "weights") != "none"
    if wanted and head is None:
        if without_weights == "refuse":
            raise ConfigError(
                f"{name} needs the teacher's last layer, which this teacher does not give; set "
                f"without_weights to 'regress' or 'none', or null_space to 'none'."
            )
        _warn(name, without_weights)
        wanted = without_weights == "regress"
        if not wanted:
            settings["null_space"] = "none"
    weight = head.weight if wanted and head is not None else None
    regress = wanted and weight is None
    moments, classes = ClassMoments(), 0
    for batch in answers:
        rows, classes = embeddings_of(name, batch), batch.num_classes
        if not fits(rows.shape[1], classes):
            grouped = _Grouped(answers, name)
            return LinearProjections.fit_batches(
                grouped,
                size(classes),
                num_classes=classes,
                classifier_weight=regress_head(grouped.probs()) if regress else weight,
                generator=generator,
                **settings,
            )
        moments.update(rows, first_max(batch.probs), batch.probs if regress else None)
    return LinearProjections.from_moments(
        moments,
        size(classes) if classes else 1,
        num_classes=classes or None,
        classifier_weight=moments.head() if regress and moments.groups else weight,
        generator=generator,
        **settings,
    )


def check_without_weights(choice: str) -> None:
    """Refuse what is not one of `WithoutWeights`.

    Raises:
        ConfigError: it is something else.
    """
    if choice not in get_args(WithoutWeights):
        raise ConfigError(
            f"without_weights={choice!r}: must be one of {', '.join(get_args(WithoutWeights))}."
        )


class _Grouped:
    """Answers as embeddings with classes, as often as they can be read."""

    def __init__(self, answers: Iterable[Answers], name: str) -> None:
        if iter(answers) is answers:
            raise ConfigError(
                f"{name}: embeddings this wide need several passes over the answers, but these can "
                f"be read only once; pass a list or an object whose __iter__ starts anew."
            )
        self._answers = answers
        self._name = name

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._answers:
            yield embeddings_of(self._name, batch), first_max(batch.probs)

    def probs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Embeddings with probabilities."""
        for batch in self._answers:
            yield embeddings_of(self._name, batch), batch.probs


def _warn(name: str, without_weights: str) -> None:
    done = (
        "one is fitted to its answers by least squares, which is exact if the embeddings are what "
        "its last layer reads"
        if without_weights == "regress"
        else "directions are taken from the whole space of its embeddings"
    )
    warnings.warn(
        f"{name}: the teacher's last layer is not known; {done}.", LimbeckWarning, stacklevel=3
    )
