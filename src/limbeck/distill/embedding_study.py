"""What an arm that splits classes reads from embeddings: said before it trains, and in the report.

At most `MOST_ROWS` answers are looked at, spread evenly over the pool, so that the cost is bounded
however large the pool is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from torch import Tensor

from limbeck.answers import Answers
from limbeck.data import Splits
from limbeck.distill.acquire import Acquired
from limbeck.distill.folder import RunFolder
from limbeck.distill.recipes import title
from limbeck.distill.row_texts import row_text
from limbeck.distill.trust import Trust
from limbeck.objectives import Combined
from limbeck.objectives.base import Objective
from limbeck.objectives.direction_ends import direction_ends
from limbeck.objectives.embedding_figures import Collapse, SplitGain, collapse, split_gain
from limbeck.objectives.mixing import first_max
from limbeck.objectives.projections import LinearProjections
from limbeck.objectives.subclasses import SubclassObjective
from limbeck.report.embeddings import ArmSplit, Direction, Embeddings, Example
from limbeck.report.thumbnails import thumbnail

MOST_ROWS = 100_000
LITTLE = 0.01
"""A share below this is next to nothing."""
_READ = 4096
_ENDS = 3
_DIRECTIONS, _ALL_DIRECTIONS = 4, 16
"""Directions that are shown of a class, and in all."""
_TEXT = 240
"""Characters of a row, at most."""


class EmbeddingStudy:
    """Looks at the fitted objectives of a run's arms."""

    def __init__(self, splits: Splits, acquired: Acquired, trust: Trust, folder: RunFolder) -> None:
        self._splits = splits
        self._acquired = acquired
        self._head = trust.evidence.head
        self._folder = folder
        count = len(acquired.pool_rows)
        self._rows = np.unique(np.linspace(0, count - 1, min(count, MOST_ROWS)).astype(np.int64))
        self._collapse: Collapse | None = None
        self._splits_of: list[ArmSplit] = []
        self._directions: tuple[Direction, ...] = ()
        self._shown = ("", 0)

    def look(self, name: str, objective: Objective) -> None:
        """Log what a fitted objective's split says, if it has one, and keep it."""
        split = splitter(objective)
        if split is None:
            return
        if self._collapse is None:
            self._look_at_embeddings()
        gain = split_gain(split.pseudo_probs(answers) for answers in self._answers())
        arm = title(name)
        classes = len(self._splits.schema.classes)
        self._splits_of.append(
            ArmSplit(arm, split.width(classes), gain.class_nats, gain.split_nats, gain.bound)
        )
        self._folder.log(name, f"{arm}: {gain_in_words(gain)}")
        projections = getattr(split, "projections", None)
        if isinstance(projections, LinearProjections) and not self._directions:
            self._directions = self._examples(projections)
            self._shown = (arm, sum(projections.num_subclasses))

    def view(self) -> Embeddings | None:
        """What the report shows; None where no arm splits classes."""
        found = self._collapse
        if found is None:
            return None
        return Embeddings(
            rows=found.rows,
            dim=found.dim,
            ratio=found.ratio,
            nc1=found.nc1,
            norm_spread=found.norm_spread,
            angle_gap=found.angle_gap,
            null_share=found.null_share,
            centered_null_share=found.centered_null_share,
            null_room=found.null_room,
            words=tuple(words(found)),
            splits=tuple(self._splits_of),
            directions=self._directions,
            directions_of=self._shown[0],
            all_directions=self._shown[1],
        )

    def _look_at_embeddings(self) -> None:
        weight = None if self._head is None else self._head.weight
        found = collapse(_Grouped(self._answers), weight=weight)
        self._collapse = found
        for line in words(found):
            self._folder.log("embeddings", line)

    def _answers(self) -> Iterator[Answers]:
        """The answers that are looked at, some thousands at a time."""
        for start in range(0, len(self._rows), _READ):
            ids = self._acquired.pool_ids[self._rows[start : start + _READ]]
            yield self._acquired.book.read(ids)

    def _examples(self, projections: LinearProjections) -> tuple[Direction, ...]:
        """The rows at the ends of some directions of each class."""
        ends = direction_ends(
            (
                (projections.scores(_embeddings(answers)), first_max(answers.probs))
                for answers in self._answers()
            ),
            _ENDS,
        )
        names = self._splits.schema.classes
        each = min(_DIRECTIONS, max(1, _ALL_DIRECTIONS // len(names)))
        return tuple(
            Direction(
                names[c],
                s + 1,
                self._rows_of(c, ends.low[c, s], ends.low_scores[c, s]),
                self._rows_of(c, ends.high[c, s], ends.high_scores[c, s]),
            )
            for c, count in enumerate(projections.num_subclasses[:_ALL_DIRECTIONS])
            for s in range(min(count, each))
        )

    def _rows_of(self, c: int, places: Tensor, scores: Tensor) -> tuple[Example, ...]:
        there = places >= 0
        if not bool(there.any()):
            return ()
        answered = self._rows[places[there].numpy()]
        rows = self._acquired.pool_rows[answered]
        probs = self._acquired.book.read(self._acquired.pool_ids[answered]).probs[:, c]
        return tuple(
            Example(int(row), *self._seen(int(row)), float(score), float(prob))
            for row, score, prob in zip(rows, scores[there], probs, strict=True)
        )

    def _seen(self, row: int) -> tuple[str, str]:
        """A pool row as text, and its first picture."""
        pool, schema = self._splits.pool, self._splits.schema
        assert pool is not None
        values = pool.take(np.array([row])).select(schema.inputs).to_pylist()[0]
        picture = thumbnail(values[schema.image[0]]) if schema.image else ""
        if picture:
            values = {name: value for name, value in values.items() if name not in schema.image}
        text = row_text(values) if values else ""
        return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…", picture


def splitter(objective: Objective) -> SubclassObjective | None:
    """The part of an objective that splits the classes of answers, or None."""
    while isinstance(objective, Combined):
        objective = objective.first  # whose head it is
    splits = isinstance(objective, SubclassObjective) and objective.needs_answers
    return cast(SubclassObjective, objective) if splits else None


def words(found: Collapse) -> list[str]:
    """What the figures mean for a split of classes, in a few sentences."""
    if found.ratio is None:
        return [
            f"the classes of {found.rows:,} answers have one mean embedding, so the embeddings say "
            f"nothing of the classes; look at what the teacher gives as embedding"
        ]
    lines = [
        f"{found.rows:,} embeddings of {found.dim} numbers: rows of a class vary {found.ratio:.2g} "
        f"times as much as the class means do (NC1 {found.nc1:.2g})"
    ]
    if found.null_share is None:
        lines[0] += "; the last layer is unknown, so nobody can tell what it leaves out"
    else:
        lines[0] += (
            f"; {found.null_share:.1%} of that lies where the last layer does not look, which has "
            f"{found.null_room:.1%} of the room"
        )
    if found.ratio < LITTLE:
        lines.append(
            "the teacher has collapsed: rows of a class have almost one embedding, so a split "
            "reads what little is left and will hardly help"
        )
    elif found.null_share is not None and found.null_share < LITTLE:
        lines.append(
            "next to nothing varies where the last layer does not look, so a split by its null "
            "space can hardly say what the probabilities do not"
        )
    else:
        lines.append(
            "the embeddings hold structure within classes; whether a student can use it, the arms "
            "tell"
        )
    return lines


def gain_in_words(gain: SplitGain) -> str:
    """What the targets say of a row, in a sentence."""
    told = (
        f"the class probabilities say {gain.class_nats:.3f} nats a row, the split adds "
        f"{gain.split_nats:.3f} of at most {gain.bound:.3f}"
    )
    if gain.bound == 0 or gain.split_nats < LITTLE * gain.bound:
        return f"{told}: it is almost the same for all rows, and the arm almost plain distillation"
    return told


@dataclass(frozen=True, slots=True, eq=False)
class _Grouped:
    """Embeddings and the teacher's class of each row; they can be read again."""

    answers: Callable[[], Iterator[Answers]]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for answers in self.answers():
            yield _embeddings(answers), first_max(answers.probs)


def _embeddings(answers: Answers) -> Tensor:
    assert answers.embeddings is not None  # or the objective would not have been fitted
    return answers.embeddings
