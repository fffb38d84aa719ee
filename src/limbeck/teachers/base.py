"""What a teacher is: something that can be asked about rows, at a price.

A teacher does not retry, limit its rate, or remember: the engine and the ledger do. It only says
what a question is made of (`columns`), what it would cost at worst (`quote`), what was replied
(`ask`), and what a reply means (`parse`, a pure function, so that a better parser costs nothing).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor, nn

from limbeck.answers import Answers

Head = tuple[Tensor, Tensor]
"""Weight, float32, shape (K, D), and bias, float32, shape (K,), of a last linear layer."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in integer millionths of a currency unit.

    Args:
        micros: Millionths of one unit, >= 0.
        currency: ISO 4217 code, such as "USD".
    """

    micros: int = 0
    currency: str = "USD"

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"

    @property
    def amount(self) -> str:
        """Without the currency: cents, and two digits of what is less than ten of them."""
        # 1,800 millionths are 0.0018: as many decimals as bring two digits, and six are exact.
        decimals = 2 if self.micros == 0 else min(6, max(2, 8 - len(str(self.micros))))
        return f"{self.micros / 1e6:,.{decimals}f}"


@dataclass(frozen=True, slots=True, eq=False)
class Replies:
    """What came back for n questions, before anyone has read it.

    Args:
        ids: Question ids, uint8, shape (n, 16).
        raw: One reply a question as it came, or None where there was none.
        price: Millionths of the currency that each question has cost, int64, shape (n,).
        failure: One sentence a question that failed, else None.
        server_version: What each reply's server calls its own version, or None where it says
            nothing; None in all where no server is asked.
    """

    ids: NDArray[np.uint8]
    raw: Sequence[bytes | None]
    price: NDArray[np.int64]
    failure: Sequence[str | None]
    server_version: Sequence[str | None] | None = None


@runtime_checkable
class Teacher(Protocol):
    """Whatever can answer."""

    @property
    def fingerprint(self) -> str:
        """Changes with weights, prompt, model name and parameters: half of the ledger's key."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the columns of its probabilities."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it sees; a question is their content."""

    @property
    def max_in_flight(self) -> int:
        """Batches that it can be asked at the same time, >= 1."""

    @property
    def keep_raw(self) -> bool:
        """Whether raw replies hold more than the parsed answers and so must be kept."""

    def quote(self, rows: pa.RecordBatch) -> Money:
        """The most that asking about these rows can cost."""

    def ask(self, ids: NDArray[np.uint8], rows: pa.RecordBatch) -> Replies:
        """Put the questions. Failures of single rows are told in the replies, not raised."""

    def parse(self, replies: Replies) -> tuple[Answers, NDArray[np.bool_]]:
        """Read replies: the answers of the rows that can be read, and which rows those are."""


@runtime_checkable
class QuotesEach(Protocol):
    """A teacher that can say at once what each row would cost at worst."""

    def quote_each(self, rows: pa.RecordBatch) -> NDArray[np.int64]:
        """The most that each row can cost, in millionths of the currency, int64, shape (n,)."""


@runtime_checkable
class HasHead(Protocol):
    """A teacher that may know the linear layer behind its embeddings."""

    def head(self, rows: pa.RecordBatch) -> Head | None:
        """The layer whose input the embeddings are, and None where there is none or it is unknown.

        With one output a class, softmax(embeddings @ weight.T + bias) are the probabilities that
        the teacher answers; with more, they are sums of it over the outputs of a class.

        Args:
            rows: One row or a few with the teacher's columns, for a network that has to be run to
                find the layer. Nothing is paid for them and nothing is kept.
        """


def head_of(teacher: Teacher, rows: pa.RecordBatch) -> Head | None:
    """The last layer of a teacher of any kind, as `HasHead.head`; None for most kinds."""
    # A teacher of somebody's own may call a layer of its network so.
    if not isinstance(teacher, HasHead) or isinstance(teacher.head, nn.Module):
        return None
    return teacher.head(rows)


def worst_prices(teacher: Teacher, rows: pa.RecordBatch) -> tuple[NDArray[np.int64], str]:
    """The most that asking about each of these rows can cost, so that a cap holds for dear ones.

    Returns:
        Millionths of the currency, int64, shape (n,), and the currency.

    Cost: one `quote`, and one a row where they cost something and there is no `quote_each`.
    """
    whole = teacher.quote(rows)
    if isinstance(teacher, QuotesEach):
        return np.asarray(teacher.quote_each(rows), np.int64), whole.currency
    if whole.micros == 0:
        return np.zeros(rows.num_rows, np.int64), whole.currency
    each = [teacher.quote(rows.slice(i, 1)).micros for i in range(rows.num_rows)]
    return np.array(each, np.int64), whole.currency
