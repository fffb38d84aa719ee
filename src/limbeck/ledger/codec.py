"""How answers lie in the ledger: probabilities and their spread as float32, embeddings as float16.

float16 keeps a value within a relative 2**-11 (0.05 %) where it is at least 6.2e-5 in size, and
within an absolute 2**-25 (3e-8) below that. Beyond +-65504 it holds nothing: such values become
+-65504, with a warning, because an answer that was paid for is not thrown away.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.errors import LimbeckWarning

FLOAT16_MAX = 65504.0
ID_BYTES = 16


def id_keys(ids: NDArray[np.uint8]) -> list[bytes]:
    """Split ids, uint8 of shape (n, 16), into n byte strings."""
    data = np.ascontiguousarray(ids).tobytes()
    return [data[i : i + ID_BYTES] for i in range(0, len(data), ID_BYTES)]


def key_ids(keys: Sequence[bytes]) -> NDArray[np.uint8]:
    """Join n byte strings into ids, uint8 of shape (n, 16)."""
    return np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, ID_BYTES).copy()


def pack_probs(probs: Tensor) -> Iterator[bytes]:
    """Encode each row of (n, C) probabilities, or of their spread, as C little-endian float32."""
    yield from _rows(probs.detach().cpu().numpy().astype("<f4"))


def pack_embeddings(embeddings: Tensor, *, what: str) -> Iterator[bytes]:
    """Encode each row of (n, D) embeddings as D little-endian float16, for `what`."""
    values = embeddings.detach().cpu().numpy()
    largest = float(np.abs(values).max(initial=0.0))
    if largest > FLOAT16_MAX:
        warnings.warn(
            f"{what}: embeddings reach {largest:.4g} but are kept as float16, which ends at "
            f"{FLOAT16_MAX:.0f}; larger values were cut to that, scale the embeddings down.",
            LimbeckWarning,
            stacklevel=2,
        )
        values = np.clip(values, -FLOAT16_MAX, FLOAT16_MAX)
    yield from _rows(values.astype("<f2"))


def unpack(blobs: Iterable[bytes], dtype: str, width: int) -> Tensor:
    """Decode rows of `width` values into float32 of shape (n, width).

    Raises:
        ValueError: the blobs do not hold n rows of that width.
    """
    rows = list(blobs)
    values = np.frombuffer(b"".join(rows), dtype=dtype).reshape(len(rows), width)
    return torch.from_numpy(values.astype(np.float32))


def _rows(values: NDArray[np.floating]) -> Iterator[bytes]:
    data, step = values.tobytes(), values.shape[1] * values.itemsize
    return (data[i * step : (i + 1) * step] for i in range(len(values)))
