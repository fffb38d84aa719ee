"""How long one call of a module takes in this process: what a search by milliseconds measures.

`latency` times a saved student from raw rows in a process of its own; this times what a search
builds, from tensors, some hundred times an hour.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.errors import ConfigError


def time_module(
    module: nn.Module,
    example: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor],
    *,
    threads: int = 1,
    repeats: int = 50,
    warmup: int = 10,
) -> float:
    """Median time of a forward pass with PyTorch, without gradients, in evaluation mode.

    Args:
        module: Any network; its training flags are as before afterwards.
        example: What it is called with: a tensor, several, or a student's inputs by name.
        threads: That PyTorch computes with meanwhile, >= 1; restored afterwards.
        repeats: Calls that are timed, >= 1. The median of many leaves out what the machine does
            besides, unless it does so all the time.
        warmup: Calls before them that are not, >= 0.

    Returns:
        Milliseconds, for the whole batch of the example.

    Raises:
        ConfigError: a number is out of range.
    """
    for name, value, least in (("threads", threads, 1), ("repeats", repeats, 1)):
        if value < least:
            raise ConfigError(f"{name}={value}: must be >= {least}.")
    if warmup < 0:
        raise ConfigError(f"warmup={warmup}: must be >= 0.")
    inputs = example if isinstance(example, tuple) else (example,)
    times = np.empty(repeats)
    with _quiet(module, threads), torch.inference_mode():
        for _ in range(warmup):
            module(*inputs)
        for i in range(repeats):
            start = perf_counter()
            module(*inputs)
            times[i] = perf_counter() - start
    return float(np.median(times) * 1e3)


@contextmanager
def _quiet(module: nn.Module, threads: int) -> Iterator[None]:
    """Evaluation mode and a number of threads for a while."""
    flags = [(one, one.training) for one in module.modules()]
    before = torch.get_num_threads()
    module.eval()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        for one, training in flags:
            one.training = training
