"""Soft subclasses from a teacher's embeddings: a softmax over a few projections for each class.

Source: Loo, Iliopoulos, Hu, Vee, "Linear Projections of Teacher Embeddings for Few-Class
Distillation", arXiv 2409.20449 (LELP). Principal components of each class in the null space of the
teacher's last layer, a random rotation and a tempered softmax are the paper's. The scale sigma, the
options beside the first one of each, and all edge cases are a reconstruction, checked by the tests.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Self, Unpack

import torch
from torch import Tensor

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.directions import ProjectionConfig, ProjectionSettings, find_directions
from limbeck.objectives.moments import ClassMoments
from limbeck.objectives.spectra import Batches, Spectra, read_spectra, spectra_of


@dataclass(frozen=True, eq=False)
class LinearProjections:
    """Fitted projections: g_{c,s}(h) = v_{c,s} . (h - mu_c) / sigma_{c,s}.

    Args:
        directions: v, float64, shape (C, D, S); orthonormal columns, zero where there is none.
        means: mu, float64, shape (C, D).
        scales: sigma, float64, shape (C, S), > 0.
        variances: Of v . h within the class, float64, shape (C, S).
        num_subclasses: S_c of each class, in [1, S].
        null_rank: Dimension of the space that directions were taken from, in [1, D].
    """

    directions: Tensor
    means: Tensor
    scales: Tensor
    variances: Tensor
    num_subclasses: tuple[int, ...]
    null_rank: int

    @classmethod
    def fit(
        cls,
        embeddings: Tensor,
        classes: Tensor,
        num_subclasses: int,
        *,
        num_classes: int | None = None,
        classifier_weight: Tensor | None = None,
        generator: torch.Generator,
        **settings: Unpack[ProjectionSettings],
    ) -> Self:
        """Find directions in embeddings that are in memory; see `fit_batches`.

        Args:
            embeddings: h, floating point, shape (N, D).
            classes: Class of each row (its label, or the teacher's), int64, shape (N,).
            num_subclasses: S >= 1.
            num_classes: C; the largest class plus one unless given.
            classifier_weight: The teacher's last layer, shape (K, D); needed unless
                `null_space` is "none".
            generator: Draws rotations or directions.
            **settings: Fields of `ProjectionConfig`.
        """
        return cls.fit_batches(
            [(embeddings, classes)],
            num_subclasses,
            num_classes=num_classes,
            classifier_weight=classifier_weight,
            generator=generator,
            **settings,
        )

    @classmethod
    def fit_batches(
        cls,
        batches: Batches,
        num_subclasses: int,
        *,
        num_classes: int | None = None,
        classifier_weight: Tensor | None = None,
        generator: torch.Generator,
        **settings: Unpack[ProjectionSettings],
    ) -> Self:
        """Find directions in batches of (embeddings, classes), for pools that fit nowhere.

        Warns, and gives fewer subclasses, where a class has not rows or room enough; and where a
        last layer of full rank leaves no null space, which is then not used.

        Raises:
            ShapeError: shapes do not fit each other, or there are no rows.
            ConfigError: a class has no rows, a class is not in [0, C), the last layer is not given
                and the null space wanted, or batches that can be read once have embeddings wider
                than 4,096 numbers.
            DataError: an embedding holds NaN or an infinite number.

        Cost: one pass, O(N D^2 + C D^3) time, 8 C D^2 bytes; above D = 4,096, or 2 GiB of them,
        five passes, O(N D S) time each, and 8 C D (S + 10) bytes.
        """
        return cls._of(
            read_spectra(batches, num_classes),
            num_subclasses,
            classifier_weight,
            ProjectionConfig(**settings),
            generator,
        )

    @classmethod
    def from_moments(
        cls,
        moments: ClassMoments,
        num_subclasses: int,
        *,
        num_classes: int | None = None,
        classifier_weight: Tensor | None = None,
        generator: torch.Generator,
        **settings: Unpack[ProjectionSettings],
    ) -> Self:
        """Find directions in what `ClassMoments` have seen; see `fit_batches`."""
        return cls._of(
            spectra_of(moments, num_classes),
            num_subclasses,
            classifier_weight,
            ProjectionConfig(**settings),
            generator,
        )

    @classmethod
    def _of(
        cls,
        spectra: Spectra,
        wanted: int,
        weight: Tensor | None,
        config: ProjectionConfig,
        generator: torch.Generator,
    ) -> Self:
        found = find_directions(spectra, wanted, weight, config, generator)
        return cls(
            found.directions,
            torch.stack(spectra.means),
            found.scales,
            found.variances,
            found.sizes,
            found.room,
        )

    def scores(self, embeddings: Tensor) -> Tensor:
        """Scores g of every class and subclass, not only of the row's own class.

        Args:
            embeddings: h, floating point, shape (n, D).

        Returns:
            float32 (float64 for float64), shape (n, C, S); -inf where a class has fewer subclasses.

        Raises:
            ShapeError: the embeddings are of another width.

        Cost: O(n D C S).
        """
        count, dim, size = self.directions.shape
        if embeddings.ndim != 2 or embeddings.shape[1] != dim:
            raise ShapeError(
                f"embeddings have shape {tuple(embeddings.shape)} but the projections were fitted "
                f"to {dim} numbers a row; pass embeddings of the same teacher."
            )
        double = embeddings.dtype == torch.float64
        rows = embeddings if double else embeddings.float()
        centre, matrix, offset = (
            part.to(rows.device) for part in (self._double if double else self._single)
        )
        return torch.addmm(offset, rows - centre, matrix).view(-1, count, size)

    def log_split(self, embeddings: Tensor, beta: float) -> Tensor:
        """Log of w_{c,s} = softmax_s(g_{c,s} / beta), shape (n, C, S); -inf where masked.

        Raises:
            ConfigError: beta is not positive.
        """
        check_beta(beta)
        return torch.log_softmax(self.scores(embeddings) / beta, dim=-1)

    def pseudo_probs(self, embeddings: Tensor, class_probs: Tensor, beta: float) -> Tensor:
        """Probabilities q_{c,s} = p_c w_{c,s} of the subclasses.

        Args:
            embeddings: h, floating point, shape (n, D).
            class_probs: p, already at the temperature of training, shape (n, C).
            beta: > 0; large gives equal parts, small a hard split.

        Returns:
            Shape (n, C, S), float32 (float64 if both are); sums over s to `class_probs`.

        Raises:
            ShapeError, ConfigError: as `scores` and `log_split`.
        """
        return split_probs(class_probs, self.log_split(embeddings, beta))

    @cached_property
    def _double(self) -> tuple[Tensor, Tensor, Tensor]:
        # One centre for all classes keeps the digits of embeddings whose mean is large.
        centre = self.means.mean(dim=0)
        scaled = self.directions / self.scales[:, None, :]
        offset = -torch.einsum("cd,cds->cs", self.means - centre, scaled)
        places = torch.arange(scaled.shape[2])
        spare = places[None] >= torch.tensor(self.num_subclasses)[:, None]
        matrix = scaled.permute(1, 0, 2).reshape(len(centre), -1).contiguous()
        return centre, matrix, offset.masked_fill(spare, -torch.inf).flatten()

    @cached_property
    def _single(self) -> tuple[Tensor, ...]:
        return tuple(part.float() for part in self._double)


def split_probs(class_probs: Tensor, log_split: Tensor) -> Tensor:
    """Divide each class's probability, (n, C), among its subclasses: shape (n, C, S).

    Raises:
        ShapeError: there are other rows or classes in the two.
    """
    if class_probs.shape != log_split.shape[:2]:
        raise ShapeError(
            f"class probabilities have shape {tuple(class_probs.shape)} but the splits are of "
            f"{tuple(log_split.shape[:2])} rows and classes; pass both of the same rows."
        )
    return class_probs[:, :, None] * log_split.exp()


def regress_head(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Recover a linear last layer from embeddings and probabilities, for teachers that hide it.

    Least squares of the centred log-probabilities on the embeddings. If the probabilities are
    softmax(W h + b) it is W with its mean row taken out, so its rows span what "centered" leaves
    out, up to directions in which the embeddings do not vary.

    Args:
        batches: Embeddings (n, D) and probabilities at temperature 1, (n, C).

    Returns:
        float64, shape (C, D), of rank C - 1 at most.

    Raises:
        ShapeError: shapes do not fit each other, or there are no rows.
        DataError: an embedding holds NaN or an infinite number.

    Cost: one pass, O(N D^2 + D^3), 8 D^2 bytes.
    """
    moments = ClassMoments()
    for embeddings, probs in batches:
        moments.update(embeddings, torch.zeros(len(embeddings), dtype=torch.long), probs)
    if not moments.groups:
        raise ShapeError("there are no embeddings to fit a layer to; give at least one batch.")
    return moments.head()


def check_beta(beta: float) -> None:
    """Refuse a beta that is not a positive number.

    Raises:
        ConfigError: it is zero, negative, infinite or NaN.
    """
    if not 0 < beta < float("inf"):
        raise ConfigError(f"beta={beta}: must be a finite number > 0; 3.0 is a soft split.")
