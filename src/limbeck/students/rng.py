"""Random state of a training run: set apart from the caller's, saved and restored whole.

Dropout and a user's own module draw from the global generators of torch, numpy and Python. A run
borrows them: it seeds them inside `isolated`, keeps their states in its checkpoints, and hands the
caller's states back unchanged.
"""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed every global generator for the block, then restore what was there before."""
    before = states()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  a user's module may draw from the old generator
        torch.manual_seed(seed)
        yield
    finally:
        restore(before)


def states() -> dict[str, Tensor]:
    """States of the torch (CPU and every CUDA device), numpy and Python generators, as bytes."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    numpy_state = json.dumps([kind, [int(k) for k in keys], position, has_gauss, gauss])
    found = {
        "torch": torch.get_rng_state(),
        "numpy": _to_bytes(numpy_state),
        "python": _to_bytes(json.dumps(random.getstate())),
    }
    if torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            found[f"cuda.{device}"] = torch.cuda.get_rng_state(device)
    return found


def restore(found: Mapping[str, Tensor]) -> None:
    """Put back what `states` gave; devices that are not here any more are passed over."""
    torch.set_rng_state(found["torch"])
    kind, keys, position, has_gauss, gauss = json.loads(_to_text(found["numpy"]))
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = json.loads(_to_text(found["python"]))
    random.setstate((version, tuple(internal), gauss_next))
    for device in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda.{device}" in found:
            torch.cuda.set_rng_state(found[f"cuda.{device}"], device)


def _to_bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def _to_text(data: Tensor) -> str:
    return data.numpy().tobytes().decode()
