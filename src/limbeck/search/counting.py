"""What a network costs without training it: parameters, multiply-adds, bytes of activations.

The network is run on shapes alone (torch's meta device): no weight is read, none is copied. One
multiply-add counts 1, as in the tables of mobile networks ("MAdds"), where a counter of
floating-point operations counts 2.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from limbeck.errors import ShapeError, one_line


class Counts(NamedTuple):
    """Costs of a network for one example input.

    Args:
        parameters: Trainable and frozen ones; shared ones once.
        macs: Multiply-adds of one forward pass, the whole batch of the example together.
        activation_bytes: Greatest input and output of any one module together, bytes.
    """

    parameters: int
    macs: int
    activation_bytes: int


def count(module: nn.Module, example: Tensor | tuple[Tensor, ...]) -> Counts:
    """Count what one forward pass in evaluation mode needs.

    Multiply-adds are those of convolutions, of linear layers and of matrix products, wherever in
    the module they are called (attention included). Biases, norms, activations, pooling and sums
    count nothing.

    Activations: of every module that computes by itself (it has no children, or weights of its
    own), the tensors that go in and those that come out are added up; the largest such sum is
    taken. In a chain whose modules run one after another this is the peak of a forward pass without
    gradients. What a branch keeps meanwhile (the input of a residual block) is not in it, and
    modules that work in place count as if they did not.

    Args:
        module: Any network; it is left as it is, its training flags and buffers included.
        example: What it is called with, any shape and dtype it accepts; values are not read.

    Raises:
        ShapeError: the module does not accept the example, or needs values and not only shapes.

    Cost: a forward pass in which nothing is computed: about 2 ms a module.
    """
    inputs = example if isinstance(example, tuple) else (example,)
    shapes = tuple(torch.empty_like(one, device="meta") for one in inputs)
    state = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in chain(module.named_parameters(), module.named_buffers())
    }
    products, peak = _Products(), _Peak()
    with _evaluating(module), ExitStack() as hooks, torch.no_grad():
        for one in _computing(module):
            hooks.callback(one.register_forward_hook(peak, with_kwargs=True).remove)
        try:
            with products:
                torch.func.functional_call(module, state, shapes)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            raise ShapeError(
                f"count could not run {type(module).__name__} on shapes "
                f"{', '.join(str(tuple(one.shape)) for one in inputs)} alone: {one_line(error)}; "
                f"give an example that it accepts, and no module that branches on values."
            ) from error
    return Counts(sum(p.numel() for p in module.parameters()), products.macs, peak.bytes)


class _Peak:
    """A forward hook that remembers the greatest input and output."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(
        self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], out: object
    ) -> None:
        # By identity: an identity's output is its input.
        seen = {id(one): one for one in _tensors((args, kwargs, out))}
        self.bytes = max(self.bytes, sum(t.numel() * t.element_size() for t in seen.values()))


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch has no annotation
    """Adds up the multiply-adds of everything that is called while it is active.

    Hooks on modules would miss what a module computes by a function (`torch.matmul` in attention).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.macs = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        macs = _MACS.get(func.overloadpacket)
        if macs is not None:
            self.macs += macs(args, out)
        return out


def _convolution(args: tuple[Any, ...], out: Tensor) -> int:
    """Every output (transposed: every input) meets a kernel: inputs of its group x its window."""
    x, weight, transposed = args[0], args[1], args[6]
    kernel = weight[0].numel()
    return int((x if transposed else out).numel() * kernel)


def _attention(args: tuple[Any, ...], out: object) -> int:
    """Query (..., s, d) by key (..., t, d), the result by value (..., t, e)."""
    query, key, value = args[:3]
    return int(query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


_aten = torch.ops.aten
_MACS: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    _aten.mm: lambda args, out: out.numel() * args[0].shape[-1],
    _aten.bmm: lambda args, out: out.numel() * args[0].shape[-1],
    _aten.addmm: lambda args, out: out.numel() * args[1].shape[-1],
    _aten.baddbmm: lambda args, out: out.numel() * args[1].shape[-1],
    _aten.mv: lambda args, out: args[0].numel(),
    _aten.addmv: lambda args, out: args[1].numel(),
    _aten.dot: lambda args, out: args[0].numel(),
    _aten.convolution: _convolution,
    _aten._scaled_dot_product_flash_attention: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_efficient_attention: _attention,
    _aten._scaled_dot_product_fused_attention_overrideable: _attention,
}


def _computing(module: nn.Module) -> Iterator[nn.Module]:
    """Modules that compute by themselves; containers only pass on."""
    for one in module.modules():
        alone = next(one.children(), None) is None
        if alone or next(one.parameters(recurse=False), None) is not None:
            yield one


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every module gets its own flag back."""
    flags = [(one, one.training) for one in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for one, training in flags:
            one.training = training


def _tensors(value: object) -> Iterator[Tensor]:
    """Tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)
