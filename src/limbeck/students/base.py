"""What a student is: an encoder (rows to arrays), a module (arrays to outputs), and a task.

Encoders give ragged rows of one dtype whatever the kind: hashed n-grams, token ids, a fixed number
of features. So every kind can be cached, shuffled and collated by the same code.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limbeck.data.schema import Schema
from limbeck.numerics.classmap import ClassMap
from limbeck.objectives.base import StudentOut

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """n rows of different lengths, one after the other.

    Args:
        values: All rows' entries, shape (N,).
        lengths: Entries of each row, int64, shape (n,); they sum to N.
    """

    values: NDArray[np.generic]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)


class Encoder(ABC):
    """Turns rows into arrays; fitted once, saved with the student, never pickled."""

    kind: ClassVar[str]
    portable_packages: ClassVar[tuple[str, ...]] = ("numpy",)
    """Packages that `portable_source` imports."""
    same_lengths: ClassVar[bool] = False
    """Whether all rows have one length, whatever they hold; an ONNX graph then has it fixed."""

    slow_to_fit: ClassVar[bool] = False
    """Whether fitting takes so long that it pays to keep the result in a file."""

    @classmethod
    @abstractmethod
    def fit(cls, batches: Iterable[pa.RecordBatch], schema: Schema, settings: object) -> Self:
        """Learn what must be learnt from unlabelled rows (scales, vocabularies)."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[np.generic]:
        """dtype of the values that `encode` gives."""

    @abstractmethod
    def encode(self, rows: pa.RecordBatch) -> Ragged:
        """Encode rows, each on its own: a row's values do not depend on its neighbours."""

    def encode_all(self, batches: Iterable[pa.RecordBatch]) -> Iterator[Ragged]:
        """Encode a stream of batches, one result each, in order; a slow kind may use more cores."""
        return map(self.encode, batches)

    @abstractmethod
    def collate(self, rows: Ragged) -> dict[str, Tensor]:
        """Make a module's inputs of a minibatch, on the CPU."""

    @abstractmethod
    def to_config(self) -> dict[str, object]:
        """Everything that `from_config` needs, as plain JSON values."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, object]) -> Self:
        """Build the encoder that `to_config` described."""

    def files(self) -> dict[str, bytes]:
        """Files of its own that lie beside the weights, such as a tokenizer; none by default."""
        return {}

    @classmethod
    def from_files(cls, config: dict[str, object], files: Mapping[str, bytes]) -> Self:
        """Build the encoder that `to_config` and `files` described."""
        return cls.from_config(config)

    def augment(self, inputs: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Vary a minibatch of `collate`'s inputs for training, on the CPU; unchanged by default.

        The generator is seeded from the run's seed and the step, so a resumed run sees the same
        variations as one that was never stopped.
        """
        return inputs

    def portable_source(self) -> str | None:
        """Source of a function `encode(rows, encoder)`, for the exported example.

        It imports `portable_packages` and the standard library alone, and finds `files` beside it.

        `rows` is a list of dicts and `encoder` what `to_config` gave; the function returns what
        `pad_rows` makes of `encode`. None: the export has no example for this kind.
        """
        return None


def pad_rows(rows: Ragged) -> NDArray[np.generic]:
    """Lay ragged rows in one rectangle, filled with zeros on the right.

    Returns:
        Shape (n, longest row), at least one column; bytes (pixels) stay uint8, other integers
        become int64, all else float32.
    """
    width = max(1, int(rows.lengths.max(initial=0)))
    given = rows.values.dtype
    whole = given if given == np.uint8 else np.dtype(np.int64)
    dtype = whole if np.issubdtype(given, np.integer) else np.dtype(np.float32)
    padded = np.zeros((len(rows), width), dtype=dtype)
    padded[np.arange(width) < rows.lengths[:, None]] = rows.values
    return padded


class StudentModule(nn.Module, ABC):
    """A network over an encoder's inputs. Subclasses set the three attributes."""

    settings: "DataclassInstance"
    """The settings it was built from; saved with it."""
    embedding_dim: int
    head: nn.Linear
    rows_at_once: ClassVar[int] = 1024
    """Rows to predict at a time: few where each takes much memory."""

    @abstractmethod
    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Input of the head, shape (B, embedding_dim)."""

    @abstractmethod
    def embed_padded(self, padded: Tensor) -> Tensor:
        """The same from rows as `pad_rows` lays them: what an ONNX file is made from."""

    def forward(self, inputs: dict[str, Tensor]) -> StudentOut:
        """Embed and apply the head."""
        embedding = self.embed(inputs)
        return StudentOut(self.head(embedding), embedding)

    def replace_head(self, width: int, generator: torch.Generator) -> None:
        """Put a fresh head of `width` outputs in place, changing the module."""
        old = self.head.weight
        head = seeded_linear(self.embedding_dim, width, generator)
        self.head = head.to(device=old.device, dtype=old.dtype)


def seeded_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Build a linear layer from a generator alone, on the CPU; the global seed is not touched.

    Weights are uniform with variance 2 / inputs (He et al., "Delving Deep into Rectifiers", ICCV
    2015, Section 2.2); the bias is zero.
    """
    # Building it as usual would draw from the global seed.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call] # torch has no annotation
    with torch.no_grad():
        bound = (6 / inputs) ** 0.5
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    return layer


@dataclass(frozen=True, slots=True, eq=False)
class Student:
    """An encoder and a module for one task.

    Args:
        encoder: Rows to arrays.
        module: Arrays to `StudentOut`.
        schema: The columns it reads and the classes it tells apart.
        class_map: Which class each output of the head belongs to; None for one output a class.
    """

    encoder: Encoder
    module: StudentModule
    schema: Schema
    class_map: ClassMap | None = None

    @property
    def width(self) -> int:
        """Outputs that its head must have."""
        return self.schema.num_classes if self.class_map is None else self.class_map.width

    def class_logits(self, outputs: Tensor) -> Tensor:
        """Logits of the classes, float32 (B, C), from the head's outputs (B, width)."""
        return outputs.float() if self.class_map is None else self.class_map.class_logits(outputs)
