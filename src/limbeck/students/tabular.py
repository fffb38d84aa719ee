"""Students for numbers and categories: scaled columns and a small network.

Pixels are numbers too: the 64 columns of the digits set go in as they are.

Source: the batch-wise update of mean and variance is Chan, Golub and LeVeque, "Algorithms for
computing the sample variance", The American Statistician 37 (1983), Equation 2.1.
"""

import inspect
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, DataError
from limbeck.students import scaling
from limbeck.students.base import Encoder, Ragged, StudentModule, seeded_linear

MAX_VALUES = 64
"""Values of a category column with a feature of their own; rarer ones share one."""
_COUNTED_VALUES = 16_384  # distinct values counted at a time: memory stays bounded


@dataclass(frozen=True, slots=True)
class TabularConfig:
    """Settings of `tabular`."""

    hidden: int = 64
    """Width of the hidden layers, the last of which is the student's embedding, >= 1."""
    layers: int = 2
    """Hidden layers, >= 1."""
    dropout: float = 0.1
    """Share of each hidden layer dropped in training, in [0, 1)."""

    recommended_lr: ClassVar[float] = 3e-3
    """Peak learning rate of AdamW in batches of 256 rows."""

    def __post_init__(self) -> None:
        if not 1 <= self.hidden <= 65_536:
            raise ConfigError(f"hidden={self.hidden}: tabular needs hidden in [1, 65536].")
        if not 1 <= self.layers <= 16:
            raise ConfigError(f"layers={self.layers}: tabular needs layers in [1, 16].")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout}: must be in [0, 1); 0 turns dropout off.")

    @classmethod
    def large(cls) -> Self:
        """A teacher's size: three layers of 512."""
        return cls(hidden=512, layers=3, dropout=0.3)


class TabularEncoder(Encoder):
    """Scales numbers to mean 0 and variance 1, marks missing ones, one-hot encodes categories."""

    kind: ClassVar[str] = "tabular"
    same_lengths: ClassVar[bool] = True

    def __init__(self, columns: list[dict[str, object]]) -> None:
        """Take what `scaling.scale_rows` needs of each column, as plain JSON values."""
        self.columns = columns
        self.width = sum(scaling.column_width(column) for column in columns)

    @classmethod
    def fit(cls, batches: Iterable[pa.RecordBatch], schema: Schema, settings: object) -> Self:
        """Learn scales and values from rows, read once.

        Raises:
            ConfigError: the schema has neither numeric nor category columns.
            DataError: there are no rows.
        """
        if not isinstance(settings, TabularConfig):
            raise ConfigError(f"tabular needs a TabularConfig, got {type(settings).__name__}.")
        if not schema.numeric and not schema.category:
            raise ConfigError(
                f"tabular reads numeric and category columns but the schema has none (its inputs: "
                f"{', '.join(schema.inputs) or 'nothing'}); use the student 'text_bag', or name a "
                f"numeric column."
            )
        moments = {name: Moments() for name in schema.numeric}
        counts: dict[str, Counter[str]] = {name: Counter() for name in schema.category}
        rows = 0
        for batch in batches:
            rows += batch.num_rows
            for name, seen in moments.items():
                seen.add(_numbers(batch, name))
            for name, counter in counts.items():
                _count(counter, batch.column(name).to_pylist())
        if not rows:
            raise DataError("tabular learns the scale of its columns but got 0 rows; give it some.")
        columns = [_numeric_column(name, seen) for name, seen in moments.items()]
        columns += [_category_column(name, counter) for name, counter in counts.items()]
        return cls(columns)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """float32."""
        return np.dtype(np.float32)

    def encode(self, rows: pa.RecordBatch) -> Ragged:
        """Scale rows; every row has `width` values."""
        raw = {str(c["name"]): rows.column(str(c["name"])) for c in self.columns}
        table = scaling.scale_rows(
            {name: column.to_numpy(zero_copy_only=False) for name, column in raw.items()},
            self.columns,
        )
        return Ragged(table.reshape(-1), np.full(rows.num_rows, self.width, dtype=np.int64))

    def collate(self, rows: Ragged) -> dict[str, Tensor]:
        """Give `features` float32 (B, width)."""
        values = np.array(rows.values, dtype=np.float32)  # a copy: the store's bytes are read-only
        return {"features": torch.from_numpy(values.reshape(len(rows), self.width))}

    def to_config(self) -> dict[str, object]:
        """What was learnt of each column."""
        return {"columns": self.columns}

    @classmethod
    def from_config(cls, config: dict[str, object]) -> Self:
        """Build the encoder that `to_config` described."""
        columns = config["columns"]
        if not isinstance(columns, list):
            raise ConfigError(f"columns={columns!r}: tabular needs a list of columns.")
        return cls(columns)

    def portable_source(self) -> str:
        """The scaling file and a function that applies it to dicts."""
        return "\n\n".join((inspect.getsource(scaling), _PORTABLE_ENCODE))


_PORTABLE_ENCODE = '''
def encode(rows: list[dict], encoder: dict) -> np.ndarray:
    """Turn rows into features, float32 (n, width)."""
    names = [column["name"] for column in encoder["columns"]]
    table = {name: np.array([row[name] for row in rows], dtype=object) for name in names}
    return scale_rows(table, encoder["columns"])
'''.strip()


class Moments:
    """Count, mean and variance of one column, a batch at a time, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0
        self.missing = False

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in a batch; what `scaling.is_known` refuses counts as missing."""
        known = values[scaling.is_known(values)]
        self.missing |= len(known) < len(values)
        if not len(known):
            return
        mean = float(known.mean())
        gap = mean - self.mean
        total = self.count + len(known)
        self.squares += float(((known - mean) ** 2).sum())
        self.squares += gap**2 * self.count * len(known) / total
        self.mean += gap * len(known) / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation over the count; for a constant column, max(1, |mean|)."""
        std = (self.squares / self.count) ** 0.5 if self.count else 0.0
        # Rounding leaves a constant column with a tiny variance, and its values a tiny distance
        # from the mean: dividing the one by the other would make features of noise.
        size = max(1.0, abs(self.mean))
        return std if std > 1e-12 * size else size


def _numbers(batch: pa.RecordBatch, name: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = batch.column(name).to_numpy(zero_copy_only=False)
    return values.astype(np.float64)


def _count(counter: Counter[str], values: list[str | None]) -> None:
    counter.update(value or "" for value in values)
    if len(counter) > _COUNTED_VALUES:
        kept = counter.most_common(_COUNTED_VALUES // 2)
        counter.clear()
        counter.update(dict(kept))


def _numeric_column(name: str, seen: Moments) -> dict[str, object]:
    return {"name": name, "mean": seen.mean, "std": seen.std, "missing": seen.missing}


def _category_column(name: str, counter: Counter[str]) -> dict[str, object]:
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return {"name": name, "values": [value for value, _ in ranked[:MAX_VALUES]]}


class TabularModule(StudentModule):
    """Hidden layers with ReLU over scaled columns."""

    def __init__(
        self, encoder: TabularEncoder, config: TabularConfig, width: int, generator: torch.Generator
    ) -> None:
        """Draw all weights from `generator`; `width` is the head's number of outputs."""
        super().__init__()
        self.settings = config
        self.embedding_dim = config.hidden
        sizes = [encoder.width] + [config.hidden] * config.layers
        self.layers = nn.ModuleList(
            seeded_linear(sizes[i], sizes[i + 1], generator) for i in range(config.layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = seeded_linear(config.hidden, width, generator)

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Embed `features` (B, columns), shape (B, hidden)."""
        return self.embed_padded(inputs["features"])

    def embed_padded(self, padded: Tensor) -> Tensor:
        """Embed features (B, columns); rows of one length need no padding."""
        x = padded
        for layer in self.layers:
            x = self.dropout(F.relu(layer(x)))
        return x
