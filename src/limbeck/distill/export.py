"""A student as ONNX: float32 and int8, checked on real rows against PyTorch, and timed.

The graph goes from encoded rows (what `students.pad_rows` gives) to calibrated class
probabilities: the temperature and the softmax are inside, so that nobody forgets them.
Needs the extra `export`.
"""

import copy
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from limbeck.distill.example import write_example
from limbeck.distill.quantize import quiet, write_int8
from limbeck.errors import DataError, ExportError, LimbeckError, missing_extra, one_line
from limbeck.numerics.classmap import ClassMap
from limbeck.storage import atomic_path
from limbeck.students import Latency, Student, StudentModule, pad_rows, seal
from limbeck.students.latency import time_calls

TOLERANCE = 1e-4
"""Largest difference of a probability between ONNX and PyTorch that is let through."""
FLOAT, INT8 = "model.onnx", "model.int8.onnx"
_TIMED_ROWS = 500
_BATCH = 256


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What one ONNX file was measured to be, on the sample rows.

    Args:
        name: File name inside the student folder.
        size_bytes: Size of the file, bytes.
        difference: Largest absolute difference of a probability from PyTorch's.
        agreement: Share of rows with PyTorch's most probable class, in [0, 1].
        accuracy: Share of rows with the true class, in [0, 1], or None without labels.
        encoded: Time of one encoded row on one core.
        raw: Time of one raw row on one core: encoding and graph.
    """

    name: str
    size_bytes: int
    difference: float
    agreement: float
    accuracy: float | None
    encoded: Latency
    raw: Latency


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export has written.

    Args:
        rows: Sample rows that everything was measured on.
        float32: `model.onnx`.
        int8: `model.int8.onnx`, weights in 8 bits.
        example: Whether `example.py` was written (the kind of student knows how).
    """

    rows: int
    float32: OnnxFile
    int8: OnnxFile
    example: bool


class Session(Protocol):
    """The one method of an onnxruntime session that is used."""

    def run(
        self, names: list[str] | None, feeds: dict[str, NDArray[np.generic]]
    ) -> list[NDArray[np.float32]]:
        """Run the graph."""


def export_onnx(
    student: Student,
    folder: Path,
    *,
    temperature: float,
    sample: pa.RecordBatch,
    labels: NDArray[np.int64] | None = None,
    calibration: pa.RecordBatch | None = None,
) -> ExportReport:
    """Write `model.onnx`, `model.int8.onnx` and `example.py` into a student folder, and seal it.

    Args:
        student: The student, as it was saved there; it is not changed.
        folder: A folder that `students.save` has written: the example reads its `config.json`.
        temperature: Divides the logits, > 0.
        sample: Real rows to check and time on, at least one; some hundred give steady times.
        labels: True classes of the sample rows, int64, shape (n,), for the accuracy.
        calibration: Rows that tell how large activations of convolutions become, for int8; some
            hundred, apart from the sample so that it judges rows which are new. Default: the
            sample.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        DataError: no sample rows, or another number of labels.
        ExportError: the network cannot be traced, or ONNX and PyTorch differ by more than 1e-4 on a
            sample row; no ONNX file is left then.
        StorageError: the disk is full or read-only.

    Cost: about 5 s for the export, and at most 2,000 single rows for the timing.
    """
    require_extra()
    if not sample.num_rows:
        raise DataError("an export is checked on real rows but got 0; give some hundred.")
    if labels is not None and len(labels) != sample.num_rows:
        raise DataError(
            f"{len(labels)} labels came with {sample.num_rows} sample rows; give one a row."
        )
    student = replace(student, module=copy.deepcopy(student.module).cpu().eval())
    graph = Probabilities(student.module, temperature, student.class_map).eval()
    padded = [_encoded(student, sample.slice(i, _BATCH)) for i in range(0, sample.num_rows, _BATCH)]
    known = padded if calibration is None else [_encoded(student, calibration)]
    try:
        _write_float(graph, padded[0], folder / FLOAT, free_length=not student.encoder.same_lengths)
        write_int8(folder / FLOAT, folder / INT8, known)
    except LimbeckError:
        raise
    except Exception as error:  # the exporters raise whatever they meet
        _remove(folder)
        raise ExportError(
            f"the network cannot be written as ONNX ({type(error).__name__}: {one_line(error)}); "
            f"use the student with Limbeck, or rewrite the operation that is named."
        ) from error
    with torch.inference_mode():
        expected = np.concatenate([graph(torch.from_numpy(x)).numpy() for x in padded])

    float32, int8 = (
        _measure(folder / name, student, sample, padded=padded, expected=expected, labels=labels)
        for name in (FLOAT, INT8)
    )
    if not float32.difference <= TOLERANCE:
        _remove(folder)
        raise ExportError(
            f"{folder / FLOAT} differs from PyTorch by {float32.difference:.2g} on a sample row, "
            f"more than {TOLERANCE}; do not ship it, and report the versions of onnx and torch."
        )
    example = write_example(student, folder)
    seal(folder)
    return ExportReport(sample.num_rows, float32, int8, example)


def _remove(folder: Path) -> None:
    for name in (FLOAT, INT8):
        (folder / name).unlink(missing_ok=True)


def require_extra() -> None:
    """Refuse to go on without the packages of the extra `export`.

    Raises:
        MissingExtraError: names the first missing one and the install line.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise missing_extra(package, "export")


def open_session(path: Path) -> Session:
    """Open an ONNX file with onnxruntime on one core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session: Session = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    return session


class Probabilities(nn.Module):
    """Padded encoded rows to class probabilities at a temperature."""

    def __init__(
        self, module: StudentModule, temperature: float, class_map: ClassMap | None = None
    ) -> None:
        """Wrap a student's module, which is not changed."""
        super().__init__()
        self.module = module
        self.temperature = temperature
        self.class_map = class_map

    def forward(self, rows: Tensor) -> Tensor:
        """Give probabilities (B, C) of rows (B, L)."""
        logits = self.module.head(self.module.embed_padded(rows))
        if self.class_map is not None:
            logits = self.class_map.class_logits(logits)
        return torch.softmax(logits / self.temperature, dim=-1)


def _encoded(student: Student, rows: pa.RecordBatch) -> NDArray[np.generic]:
    return pad_rows(student.encoder.encode(rows))


def _write_float(
    graph: nn.Module, rows: NDArray[np.generic], path: Path, *, free_length: bool
) -> None:
    """Trace the graph with free batch size, and free length where rows differ in it."""
    # A size of 1 would be traced as a constant.
    width = max(2, rows.shape[1]) if free_length else rows.shape[1]
    traced = torch.from_numpy(np.resize(rows, (2, width)))
    dims = {0: torch.export.Dim("batch")}
    if free_length:
        dims[1] = torch.export.Dim("length")
    with quiet():
        program = torch.onnx.export(
            graph,
            (traced,),
            dynamo=True,
            dynamic_shapes=(dims,),
            input_names=["rows"],
            output_names=["probabilities"],
            verbose=False,
        )
        if program is None:
            raise ExportError("PyTorch gave no ONNX graph; update torch and onnxscript.")
        with atomic_path(path) as temporary:
            program.save(str(temporary))


def _measure(
    path: Path,
    student: Student,
    sample: pa.RecordBatch,
    *,
    padded: list[NDArray[np.generic]],
    expected: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
) -> OnnxFile:
    session = open_session(path)
    probs = np.concatenate([session.run(None, {"rows": x})[0] for x in padded])
    best = probs.argmax(axis=1)
    timed = min(_TIMED_ROWS, sample.num_rows)
    single = [_encoded(student, sample.slice(i, 1)) for i in range(timed)]
    return OnnxFile(
        name=path.name,
        size_bytes=path.stat().st_size,
        difference=float(np.abs(probs - expected).max()),
        agreement=float((best == expected.argmax(axis=1)).mean()),
        accuracy=None if labels is None else float((best == labels).mean()),
        encoded=time_calls(lambda i: session.run(None, {"rows": single[i]}), timed),
        raw=time_calls(
            lambda i: session.run(None, {"rows": _encoded(student, sample.slice(i, 1))}), timed
        ),
    )
