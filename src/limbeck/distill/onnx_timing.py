"""Calls of small networks with onnxruntime, to be timed."""

import tempfile
from pathlib import Path

import torch

from limbeck.distill.quantize import quiet
from limbeck.students.block_modules import Runnable
from limbeck.students.measuring import Run


def onnx_run(made: Runnable, threads: int) -> Run:
    """Calls of a module in its padded form with onnxruntime.

    The graph comes from PyTorch's older exporter: it takes 30 milliseconds a block where the newer
    one takes two seconds, and onnxruntime makes the same of both.

    Args:
        made: Module and input.
        threads: That onnxruntime computes with.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "block.onnx"
        torch.onnx.export(
            made.module,
            (made.example,),
            path,
            dynamo=False,
            input_names=["rows"],
            output_names=["out"],
        )
        graph = path.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feeds = {"rows": made.example.contiguous().numpy()}
    return lambda: session.run(None, feeds)
