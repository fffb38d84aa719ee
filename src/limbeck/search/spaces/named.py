"""A search space with everything a search needs of it: costs, and the networks themselves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from limbeck.errors import ConfigError
from limbeck.search.costs import Cost
from limbeck.search.space import LayerwiseSpace


class Build(Protocol):
    """Makes the network of an architecture."""

    def __call__(
        self, architecture: Sequence[int], *, classes: int = ..., seed: int = ...
    ) -> nn.Module:
        """A network with fresh weights, on the CPU; the same seed gives the same weights."""


@dataclass(frozen=True, slots=True, eq=False)
class NamedSpace:
    """One of the spaces that come with the library.

    Args:
        space: What is chosen.
        costs: By name, for one image of shape `example` and the default number of classes:
            "macs" (multiply-adds) and "parameters"; where it varies, "activation_bytes" too, in
            float32. All are equal to what `counting.count` says of the network.
        build: Networks; images in, logits (n, classes) out.
        example: Shape of one batch of images: (1, 3, height, width).
    """

    space: LayerwiseSpace
    costs: dict[str, Cost]
    build: Build
    example: tuple[int, int, int, int]


def check_build(space: LayerwiseSpace, architecture: Sequence[int], classes: int) -> None:
    """Refuse what no network can be made of.

    Raises:
        ConfigError: there is no such architecture, or no class.
    """
    space.check(architecture)
    if classes < 1:
        raise ConfigError(f"classes={classes}: a network needs at least one.")


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a network whose weights come from a seed alone; the global seed is not touched.

    Convolutions are normal with variance 2 / (outputs x window), linear layers normal with
    deviation 0.01, norms the identity, biases zero (He et al., "Delving Deep into Rectifiers",
    ICCV 2015, Section 2.2; the mobile networks' usual start).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        module = make()
    module.to_empty(device="cpu")
    for one in module.modules():
        if isinstance(one, nn.Conv2d):
            nn.init.kaiming_normal_(one.weight, mode="fan_out", generator=generator)
        elif isinstance(one, nn.Linear):
            nn.init.normal_(one.weight, 0.0, 0.01, generator=generator)
        elif isinstance(one, nn.BatchNorm2d):
            one.reset_parameters()
        if isinstance(one, nn.Conv2d | nn.Linear) and one.bias is not None:
            nn.init.zeros_(one.bias)
    return module
