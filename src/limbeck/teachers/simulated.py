"""A teacher with errors, failures, waits and a price of your choice, to rehearse with.

Another teacher tells the truth: a table of true labels, or the top class of whatever else answers.
What is made of it depends on nothing but the seed and the question's id, so batches, order, another
process or a second try change nothing.
"""

import hashlib
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from limbeck.engines.questions import batch_ids
from limbeck.errors import ConfigError
from limbeck.teachers.base import Money, Teacher
from limbeck.teachers.config import MOST_FALLING_ERROR
from limbeck.teachers.local import LocalTeacher, Said, fingerprint_of

FAILED = "simulated failure"
"""Why a question has no answer."""
_DRAWS = 4  # failure, margin, error, other class


class SimulatedTeacher(LocalTeacher):
    """Answers that are wrong as often as asked for.

    Each question draws a margin m, uniform in [0, 1): how far its top class is ahead of the second
    one. Of the rest of the probability, 1 - m, top and second class get two parts each and every
    other class one. In an error the top class is a wrong one and the true class comes second;
    without one, the second class is the one that an error would have named.

    Args:
        truth: Its top class is the true one. What it does not answer fails here too.
        error_rate: Share of answers whose top class is wrong, in [0, 1].
        error_falls: The chance of an error is 2 error_rate (1 - m) instead of error_rate.
        adversarial: The wrong class is the one after the true class, in the order of the classes.
            Default: any other class, by chance.
        failure_rate: Share of questions that fail, in [0, 1].
        latency_seconds: How long an answer takes.
        seed: Another one, other errors, failures and margins.
        sleep: What waits.

    Raises:
        ConfigError: a rate is out of range, or there is one class.
    """

    embeds = False

    def __init__(
        self,
        truth: Teacher,
        *,
        error_rate: float = 0.0,
        error_falls: bool = False,
        adversarial: bool = False,
        failure_rate: float = 0.0,
        latency_seconds: float = 0.0,
        seed: int = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        most = MOST_FALLING_ERROR if error_falls else 1.0
        if not (0 <= error_rate <= most and 0 <= failure_rate <= 1 and latency_seconds >= 0):
            raise ConfigError(
                f"error_rate={error_rate}, failure_rate={failure_rate}, latency_seconds="
                f"{latency_seconds}: expected an error rate in [0, {most}], a failure rate in "
                f"[0, 1] and no negative wait; correct them."
            )
        if len(truth.classes) < 2:
            raise ConfigError(
                f"a simulated teacher of the one class {list(truth.classes)} cannot err; name at "
                f"least two classes."
            )
        self.name = "simulated teacher"
        self.classes, self.columns = truth.classes, truth.columns
        self._truth = truth
        self._error_rate, self._error_falls = error_rate, error_falls
        self._adversarial = adversarial
        self._failure_rate = failure_rate
        self._latency_seconds, self._sleep = latency_seconds, sleep
        self._seed = seed
        # How long it takes changes no answer.
        shape = (error_rate, error_falls, adversarial, failure_rate, seed)
        self.fingerprint = fingerprint_of("simulated", truth.fingerprint, repr(shape))

    def quote(self, rows: pa.RecordBatch) -> Money:
        """What the truth can cost; a price of its own is put on by `with_price`."""
        return self._truth.quote(rows)

    def say(self, rows: pa.RecordBatch) -> Said:
        """Draw the answers of rows."""
        ids = batch_ids(rows, self)
        if self._latency_seconds and rows.num_rows:
            self._sleep(self._latency_seconds * rows.num_rows)
        replies = self._truth.ask(ids, rows)
        answers, known = self._truth.parse(replies)
        truth = np.zeros(rows.num_rows, np.int64)
        truth[known] = answers.probs.argmax(dim=1).numpy()
        draws = uniforms(ids, self._seed)
        failure = [
            FAILED if fails else (None if has else why or "the truth is not known")
            for fails, has, why in zip(
                draws[:, 0] < self._failure_rate, known, replies.failure, strict=True
            )
        ]
        return Said(self._probs(truth, draws), failure=failure, price=replies.price)

    def _probs(self, truth: NDArray[np.int64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
        margin = draws[:, 1]
        chance = 2 * self._error_rate * (1 - margin) if self._error_falls else self._error_rate
        wrong = draws[:, 2] < chance
        count = len(self.classes)
        # Between 1 and C - 1 places further on: never the true class itself.
        step = 1 if self._adversarial else 1 + (draws[:, 3] * (count - 1)).astype(np.int64)
        other = (truth + step) % count
        probs = np.repeat((1 - margin)[:, None] / (count + 2), count, axis=1)
        rows = np.arange(len(truth))
        probs[rows, truth] *= 2
        probs[rows, other] *= 2
        probs[rows, np.where(wrong, other, truth)] += margin
        return probs


def uniforms(ids: NDArray[np.uint8], seed: int) -> NDArray[np.float64]:
    """Four numbers in [0, 1) for each question, a function of the seed and its id alone.

    Args:
        ids: Question ids, uint8, shape (n, 16).
        seed: Any integer.

    Returns:
        float64, shape (n, 4).
    """
    key = str(seed).encode()
    digests = [hashlib.blake2b(bytes(one), key=key, digest_size=8 * _DRAWS).digest() for one in ids]
    numbers = np.frombuffer(b"".join(digests), "<u8").reshape(len(ids), _DRAWS)
    return np.asarray((numbers >> np.uint64(11)) * 2.0**-53)  # the 53 bits that a float64 holds
