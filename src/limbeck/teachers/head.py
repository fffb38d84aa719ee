"""The last linear layer of a network that is not ours: where it is, and what goes into it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from limbeck.teachers.base import Head


class HeadInput:
    """Keeps what goes into the last layer, and finds the row's own part of it."""

    def __init__(self, layer: nn.Linear | None) -> None:
        self._input: Tensor | None = None
        self._output: Tensor | None = None
        if layer is not None:
            layer.register_forward_pre_hook(self._before)
            layer.register_forward_hook(self._after)

    def taken(self, logits: Tensor) -> Tensor | None:
        """The input (B, D) that gave these logits (B, C), or None."""
        states, out = self._input, self._output
        self._input = self._output = None
        if states is None or out is None or states.ndim == 2:
            return states
        # A decoder has logits at every position and keeps those of one: the same ones.
        place = (out - logits[:, None]).abs().amax(dim=2).argmin(dim=1)
        return states[torch.arange(len(states), device=states.device), place]

    def _before(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._input = inputs[0]

    def _after(self, _layer: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        self._output = out


def find_head(model: nn.Module, run: Callable[[], Tensor]) -> nn.Linear | None:
    """The linear layer whose output is the logits.

    Args:
        model: Any network; it is left as it was.
        run: Calls the network on some rows and gives its logits, (B, C).

    Returns:
        The last such layer that is called, or None when the logits are made in another way.
    """
    called: list[tuple[nn.Linear, Tensor]] = []

    def keep(layer: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        called.append((layer, out))

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with torch.inference_mode():
            logits = run()
    finally:
        for hook in hooks:
            hook.remove()
    return next((layer for layer, out in reversed(called) if _gives(out, logits)), None)


def weights_of(layer: nn.Linear, *, divisor: float = 1.0) -> Head:
    """Copy weight and bias of a layer to the CPU in float32, both divided by a temperature.

    A layer without bias has one of zeros.
    """
    weight = layer.weight.detach().float().cpu() / divisor
    if layer.bias is None:
        return weight, torch.zeros(len(weight))
    return weight, layer.bias.detach().float().cpu() / divisor


def _gives(out: Tensor, logits: Tensor) -> bool:
    if out.ndim not in (2, 3) or len(out) != len(logits) or out.shape[-1] != logits.shape[-1]:
        return False
    rows = out[:, None] if out.ndim == 2 else out
    off = (rows.float() - logits[:, None].float()).abs().amax(dim=2).amin(dim=1)
    return bool((off <= 1e-5 * (1 + logits.float().abs().amax(dim=1))).all())
