"""People as a teacher: questions go out in a file, and come back with labels.

Nobody waits for people, so this teacher is never asked by a run: `limbeck ask` writes the file and
`limbeck tell` reads it back. Here is what a question to them is, and what their votes mean.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from limbeck.answers import Answers
from limbeck.errors import AnswerError, ConfigError, TeacherError
from limbeck.teachers.base import Money, Replies
from limbeck.teachers.local import fingerprint_of

NOT_SURE = "not sure"
"""What a person writes who has looked and cannot tell."""
QUESTION = "Which class is right?"


class HumanTeacher:
    """People who name the class of a row.

    An answer is the share of votes of each class: one person gives a one-hot answer.

    Args:
        classes: Class names of the task.
        columns: Columns that people see; a question is their content.
        question: What they are asked.
        fingerprint: Tells one group of people from another, or one manner of asking.
    """

    name = "human teacher"
    embeds = False

    def __init__(
        self,
        classes: Sequence[str],
        columns: Sequence[str],
        *,
        question: str = QUESTION,
        fingerprint: str = "",
    ) -> None:
        self.classes, self.columns = tuple(classes), tuple(columns)
        self.question = question
        self.fingerprint = fingerprint_of(
            "human", question, fingerprint, *self.classes, "|", *self.columns
        )

    @property
    def max_in_flight(self) -> int:
        """One; it is not asked in the ordinary way."""
        return 1

    @property
    def keep_raw(self) -> bool:
        """Votes say more than their shares: how many there were."""
        return True

    def quote(self, rows: pa.RecordBatch) -> Money:
        """Nothing; a price is put on by `with_price`."""
        return Money(0)

    def ask(self, ids: NDArray[np.uint8], rows: pa.RecordBatch) -> Replies:
        """Answer nothing, since nobody waits for people.

        Raises:
            TeacherError: there are questions; the message names the commands.
        """
        if rows.num_rows:
            raise TeacherError(
                f"{rows.num_rows} questions are for people, whom no run waits for; write them "
                f"into a file with `limbeck ask`, have the column label filled in, and read it "
                f"back with `limbeck tell`."
            )
        return replies_of(ids, [])

    def parse(self, replies: Replies) -> tuple[Answers, NDArray[np.bool_]]:
        """Turn votes into shares.

        Raises:
            AnswerError: a vote is for no class of the task.
        """
        place = {name: i for i, name in enumerate(self.classes)}
        ok = np.array([raw is not None for raw in replies.raw], np.bool_)
        counts = np.zeros((int(ok.sum()), len(place)))
        for row, raw in enumerate(raw for raw in replies.raw if raw is not None):
            for name, votes in json.loads(raw)["votes"].items():
                if name not in place:
                    raise AnswerError(
                        f"{self.name}: a vote is for {name!r}, expected one of "
                        f"{list(self.classes)}; ask anew where the classes have changed."
                    )
                counts[row, place[name]] = votes
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        return Answers(replies.ids[ok], torch.from_numpy(shares.astype(np.float32))), ok


def replies_of(
    ids: NDArray[np.uint8], votes: Sequence[Mapping[str, int]], *, price: int = 0
) -> Replies:
    """Votes of people as replies.

    Args:
        ids: Question ids, uint8, shape (n, 16).
        votes: How many people named each class; where nobody did, all were not sure.
        price: Millionths of the currency that each vote costs.

    Raises:
        ConfigError: a count of votes is below 1.
    """
    if any(count < 1 for one in votes for count in one.values()):
        raise ConfigError("a class was given less than one vote; leave it out.")
    return Replies(
        ids,
        [json.dumps({"votes": dict(one)}).encode() if one else None for one in votes],
        np.array([price * sum(one.values()) for one in votes], np.int64),
        [None if one else f"the person was {NOT_SURE}" for one in votes],
    )
