"""The mean of several teachers of any kinds.

Each of them is a teacher of its own: in a run it is asked, paid and kept in the ledger under its
own fingerprint, and the mean is taken when answers are read. So a teacher that joins later is all
that is paid for then.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.engines.questions import batch_ids
from limbeck.errors import ConfigError
from limbeck.teachers.base import Head, Money, Teacher, head_of
from limbeck.teachers.config import LEAST_TEACHERS
from limbeck.teachers.local import LocalTeacher, Said, fingerprint_of


class MeanTeacher(LocalTeacher):
    """Several teachers whose probabilities are averaged.

    A question is what any of them sees. It has an answer when each of them has one. The spread is
    the population standard deviation of each probability over them, the embedding that of the
    first: those of different teachers have no axes in common.

    Args:
        members: Two or more teachers of the same classes in the same order.

    Raises:
        ConfigError: fewer than two, one of them twice, or teachers of other classes.
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        if len(members) < LEAST_TEACHERS:
            raise ConfigError(
                f"an ensemble of {len(members)} teachers has no mean worth the name, expected at "
                f"least {LEAST_TEACHERS}; use that teacher itself."
            )
        for number, member in enumerate(members[1:], start=2):
            if member.classes != members[0].classes:
                raise ConfigError(
                    f"teacher {number} of the ensemble knows classes {list(member.classes)} but "
                    f"the first knows {list(members[0].classes)}; bring them into one order with "
                    f"align_classes."
                )
        prints = [member.fingerprint for member in members]
        if len(set(prints)) < len(prints):
            raise ConfigError(
                "a teacher is twice in the ensemble and would be asked once and counted twice; "
                "leave one out."
            )
        self.members = tuple(members)
        self.embeds = getattr(members[0], "embeds", None)
        self.name = f"ensemble of {len(members)} teachers"
        self.classes = members[0].classes
        self.columns = tuple(dict.fromkeys(name for one in members for name in one.columns))
        self.fingerprint = fingerprint_of("mean", *prints)

    def quote(self, rows: pa.RecordBatch) -> Money:
        """What all of them can cost."""
        quotes = [member.quote(rows) for member in self.members]
        paid = [quote for quote in quotes if quote.micros] or quotes
        return Money(sum(quote.micros for quote in quotes), paid[0].currency)

    def say(self, rows: pa.RecordBatch) -> Said:
        """Ask each of them about rows."""
        price = np.zeros(rows.num_rows, np.int64)
        failure: list[str | None] = [None] * rows.num_rows
        told: list[tuple[Answers, NDArray[np.bool_]]] = []
        for number, member in enumerate(self.members, start=1):
            replies = member.ask(batch_ids(rows, member), rows)
            answers, ok = member.parse(replies)
            told.append((answers, ok))
            price += replies.price
            for row in np.flatnonzero(~ok).tolist():
                why = replies.failure[row] or "its reply could not be read"
                failure[row] = failure[row] or f"teacher {number} of {len(self.members)}: {why}"
        whole = np.array([why is None for why in failure], np.bool_)
        # An answer's place among a teacher's answers is the count of its own ones before it.
        mean = mean_of([_taken(answers, whole[ok]) for answers, ok in told])
        return Said(
            _spread_out(mean.probs, whole),
            None if mean.embeddings is None else _spread_out(mean.embeddings, whole),
            failure,
            None if mean.spread is None else _spread_out(mean.spread, whole),
            price,
        )

    def head(self, rows: pa.RecordBatch) -> Head | None:
        """The layer behind the first teacher's embedding, which is the one that is kept."""
        return head_of(self.members[0], rows)


def mean_of(answers: Sequence[Answers]) -> Answers:
    """Average what several teachers say about the same n questions.

    Args:
        answers: One a teacher, rows in the same order.

    Returns:
        The mean of the probabilities and their population standard deviation as the spread; ids and
        embeddings of the first.
    """
    probs = torch.stack([one.probs.double() for one in answers])
    # numpy's deviation: torch warns of one over no rows.
    spread = torch.from_numpy(probs.numpy().std(axis=0).astype(np.float32))
    first = answers[0]
    return Answers(first.ids, probs.mean(dim=0).float(), first.embeddings, spread)


def members_of(teacher: Teacher) -> tuple[Teacher, ...]:
    """Those that are asked and paid: the teachers of an ensemble, or the teacher itself."""
    return teacher.members if isinstance(teacher, MeanTeacher) else (teacher,)


def _taken(answers: Answers, keep: NDArray[np.bool_]) -> Answers:
    rows = torch.from_numpy(keep)
    return Answers(
        answers.ids[keep],
        answers.probs[rows],
        None if answers.embeddings is None else answers.embeddings[rows],
    )


def _spread_out(values: torch.Tensor, there: NDArray[np.bool_]) -> torch.Tensor:
    """Put rows at their places among rows of zeros."""
    out = torch.zeros(len(there), values.shape[1])
    out[torch.from_numpy(there)] = values
    return out
