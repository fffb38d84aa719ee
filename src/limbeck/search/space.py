"""Layerwise search spaces: an architecture is one option for each layer, chosen in a fixed order.

A layer is any decision (a width, a kernel, an operation on an edge); options are plain values, so
that an architecture can be written to JSON, and an architecture is a tuple of their positions.

Source: Fan et al., "LayerNAS: Neural Architecture Search in Polynomial Complexity" (arXiv
2304.11517), the problem setting of its Section 4 as its abstract and public reviews give it.
"""

import difflib
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from limbeck.errors import ConfigError

Architecture = tuple[int, ...]
"""Position of the chosen option of each layer; a shorter tuple is a prefix: the first layers."""

Option = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Layer:
    """One decision.

    Args:
        name: What is decided; distinct in a space.
        options: What can be chosen, at least one, distinct. Their order is free: a cost knows
            which of them is dear.
        default: Position of the option that stands while this layer has not been searched. Default:
            the last option.
    """

    name: str
    options: tuple[Option, ...]
    default: int = -1

    def __post_init__(self) -> None:
        k = len(self.options)
        if not k:
            raise ConfigError(f"layer {self.name!r} has no option; give it at least one.")
        if len({(type(option), option) for option in self.options}) < k:
            raise ConfigError(f"layer {self.name!r} has an option twice: {self.options}.")
        if not -k <= self.default < k:
            raise ConfigError(
                f"layer {self.name!r} has default={self.default} but {k} options; default is a "
                f"position from 0 to {k - 1}."
            )
        object.__setattr__(self, "default", self.default % k)


@dataclass(frozen=True, slots=True, eq=False)
class LayerwiseSpace:
    """Layers in the order in which they are searched.

    Args:
        layers: At least one, names distinct.
        is_valid: Whether an option (its position) may follow a prefix; every one by default. It
            must not depend on anything else.
        canonical: Key under which equal networks fall together (isomorphic cells), so that a search
            evaluates one of them; the architecture itself by default.
    """

    layers: tuple[Layer, ...]
    is_valid: Callable[[Architecture, int], bool] | None = None
    canonical: Callable[[Architecture], Hashable] | None = None
    sizes: tuple[int, ...] = field(init=False)
    """K_1..K_L, the number of options of each layer."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "sizes", tuple(len(layer.options) for layer in self.layers))
        names = [layer.name for layer in self.layers]
        if not names:
            raise ConfigError("a search space needs at least one layer.")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"two layers are named {twice!r}; names must be distinct.")

    def __len__(self) -> int:
        """L, the number of layers."""
        return len(self.layers)

    @property
    def size(self) -> int:
        """Number of architectures, those that are not valid included; exact at any size."""
        return math.prod(self.sizes)

    @property
    def default(self) -> Architecture:
        """The default option of every layer."""
        return tuple(layer.default for layer in self.layers)

    def key(self, architecture: Architecture) -> Hashable:
        """What equal networks have in common."""
        return self.canonical(architecture) if self.canonical else architecture

    def allows(self, prefix: Architecture, option: int) -> bool:
        """Whether an option may follow a prefix."""
        return self.is_valid is None or self.is_valid(prefix, option)

    def valid(self, architecture: Architecture) -> bool:
        """Whether every option may follow those before it."""
        if self.is_valid is None:
            return True
        return all(self.allows(architecture[:i], s) for i, s in enumerate(architecture))

    def values(self, architecture: Sequence[int]) -> dict[str, Option]:
        """An architecture as option by layer name.

        Raises:
            ConfigError: it has another number of layers, or an option that there is not.
        """
        self.check(architecture)
        return {
            layer.name: layer.options[s] for layer, s in zip(self.layers, architecture, strict=True)
        }

    def architecture(self, values: Mapping[str, Option]) -> Architecture:
        """An architecture from option by layer name; the way back from `values`.

        Raises:
            ConfigError: a layer is missing, unknown, or has no such option.
        """
        names = [layer.name for layer in self.layers]
        for name in values:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; layers: {', '.join(names)}."
                raise ConfigError(f"there is no layer {name!r}{hint}")
        if missing := [name for name in names if name not in values]:
            raise ConfigError(f"no option is given for {', '.join(missing)}; give one each.")
        found = []
        for layer in self.layers:
            value = values[layer.name]
            if value not in layer.options:
                raise ConfigError(
                    f"layer {layer.name!r} has no option {value!r}; options: "
                    f"{', '.join(map(repr, layer.options))}."
                )
            found.append(layer.options.index(value))
        return tuple(found)

    def check(self, architecture: Sequence[int]) -> None:
        """Refuse what is not a complete architecture of this space.

        Raises:
            ConfigError: the number of layers is another, or an option is out of range.
        """
        if len(architecture) != len(self.layers):
            raise ConfigError(
                f"an architecture of {len(architecture)} options in a space of "
                f"{len(self.layers)} layers; give one option for each layer."
            )
        for layer, s in zip(self.layers, architecture, strict=True):
            if not 0 <= s < len(layer.options):
                raise ConfigError(
                    f"option {s} of layer {layer.name!r}: must be 0 to {len(layer.options) - 1}."
                )

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """All valid architectures that differ in exactly one layer, layer by layer."""
        for i, k in enumerate(self.sizes):
            for s in range(k):
                if s != architecture[i]:
                    other = (*architecture[:i], s, *architecture[i + 1 :])
                    if self.valid(other):
                        yield other
