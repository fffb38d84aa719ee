"""The int8 version of an ONNX file, and quiet for the tools that write such files."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limbeck.storage import atomic_path


def write_int8(source: Path, path: Path, known: Sequence[NDArray[np.generic]]) -> None:
    """Quantise weights to 8 bits, and activations.

    A graph with convolutions gets the ranges that its activations had on `known` rows. All others
    quantise activations as they come, which made `image_cnn` several times slower than float32.

    Args:
        source: The float32 file.
        path: The file to write.
        known: Minibatches of encoded rows, each shape (n, length).
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic, quantize_static

    model = onnx.load(str(source))
    # The exporter notes shapes of weights that the quantiser then transposes, and it refuses those.
    del model.graph.value_info[:]
    with quiet(), atomic_path(path) as temporary:
        if any(node.op_type == "Conv" for node in model.graph.node):
            # Half the range of weights: sums of full ones overflow on processors without VNNI.
            rows = _Rows(known)
            quantize_static(model, str(temporary), rows, per_channel=True, reduce_range=True)
        else:
            quantize_dynamic(model, str(temporary))


class _Rows:
    """What the quantiser reads its rows from."""

    def __init__(self, batches: Sequence[NDArray[np.generic]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        """The next minibatch, or None after the last."""
        rows = next(self._batches, None)
        return None if rows is None else {"rows": rows}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' advice to developers away from the user."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.handlers[:] = handlers  # the first message adds one
