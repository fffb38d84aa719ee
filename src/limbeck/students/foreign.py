"""Networks that were written elsewhere: their logits, and what cannot be saved."""

from collections.abc import Mapping

from torch import Tensor, nn

from limbeck.errors import ConfigError


def find_logits(out: object) -> Tensor | None:
    """Logits in what a network gave.

    Args:
        out: A tensor, a tuple that begins with one, a mapping with "logits", or an object with
            `.logits`.

    Returns:
        The tensor, or None when there is none.
    """
    if isinstance(out, tuple) and out:
        out = out[0]
    elif isinstance(out, Mapping):
        out = out.get("logits")
    elif not isinstance(out, Tensor):
        out = getattr(out, "logits", None)
    return out if isinstance(out, Tensor) else None


def refuse_shared(network: nn.Module, name: str) -> None:
    """Refuse a network two of whose tensors are one, which a safetensors file cannot hold.

    Raises:
        ConfigError: names both.
    """
    seen: dict[int, str] = {}
    for key, tensor in network.state_dict().items():
        pointer = tensor.untyped_storage().data_ptr()
        if pointer and pointer in seen:
            raise ConfigError(
                f"{name} has one tensor under two names, {seen[pointer]} and {key}, so it cannot "
                f"be saved; give each a tensor of its own."
            )
        seen[pointer] = key
