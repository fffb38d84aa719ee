"""Your own network as a student: a factory that builds it, and a function that encodes rows.

The factory is called with the number of outputs. It gives the network, or a tuple of the network
and a function `encode`; without that function the network must have a method `encode`. `encode`
takes a list of n rows, each a dict of the input columns, and gives a tensor of shape (n, ...), of
dtype uint8, int64 or float32, whose shape is the same for all rows. The network maps it to logits
(n, outputs): as a tensor, as `.logits`, under "logits" in a dict, or first in a tuple. They must
come straight out of an `nn.Linear`, whose input, a matrix, is the student's embedding.
"""

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from limbeck.data.schema import Schema
from limbeck.errors import (
    ConfigError,
    DataError,
    LimbeckError,
    LimbeckWarning,
    StudentError,
    one_line,
)
from limbeck.objectives.base import StudentOut
from limbeck.students import rng
from limbeck.students.base import Encoder, Ragged, StudentModule, seeded_linear
from limbeck.students.foreign import Encode, build_network, find_logits, refuse_shared

_BATCH = 256
_DTYPES = {"uint8": torch.uint8, "int64": torch.int64, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class FactoryConfig:
    """Settings of `factory`."""

    factory: str = ""
    """What builds the network, as package.module:function. No default."""

    recommended_lr: ClassVar[float] = 1e-3
    """Peak learning rate of AdamW; set `train.learning_rate` to what suits your network."""

    def __post_init__(self) -> None:
        if not self.factory:
            raise ConfigError(
                "the student factory needs student.settings.factory, as package.module:function; "
                "give it."
            )

    @classmethod
    def large(cls) -> Self:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("nobody knows a larger form of your own network; name another kind.")


class FactoryEncoder(Encoder):
    """Rows through the user's own `encode`."""

    kind: ClassVar[str] = "factory"
    same_lengths: ClassVar[bool] = True

    def __init__(
        self,
        factory: str,
        columns: tuple[str, ...],
        outputs: int,
        encode: Encode,
        sample: Tensor,
        source: str,
    ) -> None:
        """Use `fit` or `from_config`; rows must be encoded as `sample`, (n, ...), is."""
        self.factory = factory
        self.outputs = outputs
        self.columns = columns
        self.shape = tuple(sample.shape[1:])
        self.tensor_dtype = sample.dtype
        self._encode = encode
        self._source = source

    @classmethod
    def fit(cls, batches: Iterable[pa.RecordBatch], schema: Schema, settings: object) -> Self:
        """Build the network for its `encode`, and learn the shape of a row from the first rows.

        Raises:
            ConfigError: the factory cannot be imported or used, or there are no rows.
            DataError: `encode` gives something that cannot be used.
        """
        if not isinstance(settings, FactoryConfig):
            raise ConfigError(f"factory needs a FactoryConfig, got {type(settings).__name__}.")
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:
            raise ConfigError("the student factory learns the shape of a row from rows; give some.")
        outputs, name = schema.num_classes, settings.factory
        with rng.isolated(0):
            _, encode = make_network(name, outputs)
        rows = first.select(list(schema.inputs)).slice(0, 4).to_pylist()
        sample = _call(encode, rows, name)
        return cls(name, schema.inputs, outputs, encode, sample, _source(name))

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """That of the tensors that `encode` gives."""
        return np.dtype(str(self.tensor_dtype).removeprefix("torch."))

    @property
    def size(self) -> int:
        """Numbers of a row."""
        return int(np.prod(self.shape, dtype=np.int64))

    def encode(self, rows: pa.RecordBatch) -> Ragged:
        """Call the user's function on some rows at a time.

        Raises:
            DataError: it raises, or gives another number of rows, dtype or shape than before.
        """
        parts = [np.empty(0, self.dtype)]
        for first in range(0, rows.num_rows, _BATCH):
            part = rows.select(list(self.columns)).slice(first, _BATCH).to_pylist()
            made = _call(self._encode, part, self.factory)
            if made.dtype != self.tensor_dtype or tuple(made.shape[1:]) != self.shape:
                raise DataError(
                    f"encode of {self.factory} gave {made.dtype} of shape {tuple(made.shape)}, but "
                    f"{self.tensor_dtype} of shape (n, {', '.join(map(str, self.shape))}) before; "
                    f"give all rows one shape."
                )
            parts.append(made.contiguous().numpy().reshape(-1))
        return Ragged(np.concatenate(parts), np.full(rows.num_rows, self.size, dtype=np.int64))

    def collate(self, rows: Ragged) -> dict[str, Tensor]:
        """Give `rows`, as the user's function made them."""
        values = np.array(rows.values, dtype=self.dtype)  # a copy: the store's bytes are read-only
        return {"rows": torch.from_numpy(values.reshape(len(rows), *self.shape))}

    def to_config(self) -> dict[str, object]:
        """Names, the shape of a row, and the hash of the file that holds the factory."""
        return {
            "factory": self.factory,
            "columns": list(self.columns),
            "outputs": self.outputs,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "source": self._source,
        }

    @classmethod
    def from_config(cls, config: dict[str, object]) -> Self:
        """Import the factory again, with a warning when its file has changed.

        Raises:
            StudentError: it cannot be imported or used.
        """
        factory, columns, shape = str(config["factory"]), config["columns"], config["shape"]
        outputs = int(str(config["outputs"]))
        if not isinstance(columns, list) or not isinstance(shape, list):
            raise ConfigError(f"columns={columns!r} and shape={shape!r}: both must be lists.")
        try:
            with rng.isolated(0):
                _, encode = make_network(factory, outputs)
        except LimbeckError as error:
            raise StudentError(
                f"this student is a network of yours, and {error} The file that defines it must be "
                f"in the current folder or on PYTHONPATH."
            ) from error
        if _source(factory) != config["source"]:
            warnings.warn(
                f"the file that defines {factory} has changed since the student was saved; its "
                f"predictions may be wrong.",
                LimbeckWarning,
                stacklevel=2,
            )
        sample = torch.empty(0, *shape, dtype=_DTYPES[str(config["dtype"])])
        return cls(factory, tuple(columns), outputs, encode, sample, str(config["source"]))


def make_network(spec: str, outputs: int) -> tuple[nn.Module, Encode]:
    """Import a factory and call it; it may draw from the global generators.

    Raises:
        ConfigError: it cannot be imported, raises, or gives something else.
    """
    from limbeck.teachers.imports import import_object

    factory = import_object(spec, None, what="student.settings.factory")
    if not callable(factory):
        raise ConfigError(f"student.settings.factory={spec!r} is no function; name one.")
    return build_network(
        lambda: factory(outputs), f"the factory {spec}", called="with the number of outputs"
    )


def _source(spec: str) -> str:
    from limbeck.teachers.imports import import_object, source_of

    text = source_of(import_object(spec, None, what="student.settings.factory")) or ""
    return hashlib.sha256(text.encode()).hexdigest()


def _call(encode: Encode, rows: list[dict[str, object]], name: str) -> Tensor:
    """What the user's function makes of rows, checked."""
    try:
        made = encode(rows)
    except Exception as error:  # a user's function may raise anything
        raise DataError(
            f"encode of {name} raised {type(error).__name__}: {one_line(error)}; "
            f"it must take a list of dicts with the keys {list(rows[0])}."
        ) from error
    tensor = torch.from_numpy(made) if isinstance(made, np.ndarray) else made
    if not isinstance(tensor, Tensor) or tensor.dtype not in _DTYPES.values():
        found = tensor.dtype if isinstance(tensor, Tensor) else type(made).__name__
        raise DataError(
            f"encode of {name} gave {found}, expected a tensor of uint8, int64 or float32."
        )
    if tensor.ndim == 0 or len(tensor) != len(rows):
        raise DataError(
            f"encode of {name} gave a tensor of shape {tuple(tensor.shape)} for {len(rows)} rows; "
            f"its first size must be the number of rows."
        )
    return tensor.detach().cpu()


class FactoryModule(StudentModule):
    """The user's network; the last `nn.Linear` that it calls is the head."""

    def __init__(
        self, encoder: FactoryEncoder, config: FactoryConfig, width: int, generator: torch.Generator
    ) -> None:
        """Call the factory; whatever it draws from the global generators comes from `generator`.

        Raises:
            ConfigError: the factory or its network cannot be used; it is tried on rows of zeros.
        """
        super().__init__()
        self.settings = config
        self._factory = config.factory
        self._zeros = (encoder.shape, encoder.tensor_dtype)
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with rng.isolated(seed):
            self.network, _ = make_network(config.factory, width)
            self._head = self._find_head(width)
        refuse_shared(self.network, f"the network of {config.factory}")
        self.embedding_dim = self.head.in_features

    @property
    def head(self) -> nn.Linear:  # type: ignore[override] # it stays where the user's code calls it
        """The last linear layer of the network."""
        layer = self.get_submodule(self._head)
        assert isinstance(layer, nn.Linear)
        return layer

    def replace_head(self, width: int, generator: torch.Generator) -> None:
        """Put a fresh last layer of `width` outputs into the network, changing it."""
        old = self.head.weight
        head = seeded_linear(self.embedding_dim, width, generator)
        parent, _, name = self._head.rpartition(".")
        setattr(self.get_submodule(parent), name, head.to(device=old.device, dtype=old.dtype))
        with rng.isolated(0):
            self._find_head(width)

    def forward(self, inputs: dict[str, Tensor]) -> StudentOut:
        """Run the network once, for both logits and embedding."""
        return self._run(inputs["rows"])

    def embed(self, inputs: dict[str, Tensor]) -> Tensor:
        """Input of the last linear layer, shape (B, embedding_dim)."""
        return self._run(inputs["rows"]).embedding

    def embed_padded(self, padded: Tensor) -> Tensor:
        """The same from rows laid flat, shape (B, numbers of a row)."""
        shape, dtype = self._zeros
        return self._run(padded.reshape(-1, *shape).to(dtype)).embedding

    def _run(self, rows: Tensor) -> StudentOut:
        seen: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            logits = find_logits(self.network(rows))
        finally:
            hook.remove()
        assert logits is not None
        return StudentOut(logits, seen[-1])

    def _find_head(self, width: int) -> str:
        """Name of the layer that gives the logits, found by running two rows of zeros."""
        seen: list[tuple[nn.Module, Tensor]] = []
        linear = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear)]
        hooks = [
            layer.register_forward_pre_hook(lambda layer, inputs: seen.append((layer, inputs[0])))
            for layer in linear
        ]
        name, training = f"the network of {self._factory}", self.network.training
        shape, dtype = self._zeros
        try:
            with torch.no_grad():
                out = self.network.eval()(torch.zeros(2, *shape, dtype=dtype))
        except Exception as error:  # a user's network may raise anything
            raise ConfigError(
                f"{name} raised {type(error).__name__} on two rows of zeros of shape {shape}: "
                f"{one_line(error)}; it must take what its encode gives."
            ) from error
        finally:
            self.network.train(training)
            for hook in hooks:
                hook.remove()
        logits = find_logits(out)
        if logits is None or tuple(logits.shape) != (2, width):
            found = type(out).__name__ if logits is None else f"outputs {tuple(logits.shape)}"
            raise ConfigError(
                f"{name} gave {found} for 2 rows where {width} outputs are needed; give logits "
                f"(2, {width}): the factory is called with that number."
            )
        layer, embedding = seen[-1] if seen else (None, torch.empty(0))
        if (
            not isinstance(layer, nn.Linear)
            or embedding.ndim != 2
            or not _same(layer, out=logits, x=embedding)
        ):
            raise ConfigError(
                f"{name} does not end in an nn.Linear over a matrix (n, features), so it has no "
                f"embedding and no head; give the logits as such a layer makes them."
            )
        names: dict[nn.Module, str] = {inner: found for found, inner in self.named_modules()}
        return names[layer]


def _same(head: nn.Linear, *, x: Tensor, out: Tensor) -> bool:
    with torch.no_grad():
        return torch.allclose(head(x), out, equal_nan=True)
