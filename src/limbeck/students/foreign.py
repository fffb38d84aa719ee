"""Networks that were written elsewhere: their logits, and what cannot be saved."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from limbeck.errors import ConfigError, LimbeckError, one_line

Encode = Callable[[list[dict[str, object]]], object]
"""n rows, each a dict of columns, to what a network reads."""


def build_network(
    make: Callable[[], object], name: str, *, called: str
) -> tuple[nn.Module, Encode]:
    """Call a factory of somebody else's.

    Args:
        make: Gives a network with a method `encode`, or a tuple of a network and such a function.
        name: How messages call the factory.
        called: With what it is called, for messages.

    Raises:
        ConfigError: it raises, or gives something else.
    """
    try:
        made = make()
    except LimbeckError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise ConfigError(
            f"{name} raised {type(error).__name__}: {one_line(error)}; "
            f"it must build the network when it is called {called}."
        ) from error
    network, encode = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    encode = encode or getattr(network, "encode", None)
    if not isinstance(network, nn.Module) or not callable(encode):
        raise ConfigError(
            f"{name} gave {type(made).__name__}, expected an nn.Module with a method "
            f"encode(rows), or a tuple (module, encode)."
        )
    return network, encode


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
