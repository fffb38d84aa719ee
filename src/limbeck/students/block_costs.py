"""What architectures of a student cost on a device, from blocks that were measured there.

    cost(a) = scale * sum of its blocks + per_block * their number + per_megabyte * weights + base

Blocks are measured alone, again and again, so that their calls cost something of their own
(`per_block` takes it off) and their weights lie in a cache that those of a whole network may not
fit into (`per_megabyte` puts it on). `fit_blocks` fits the four numbers to some whole networks and
judges the sums on others.

Source: the tables of latencies of mobile networks (Cai et al., "ProxylessNAS", ICLR 2019, Section
3.3; Wu et al., "FBNet", CVPR 2019, Section 3.2) add up blocks that were timed alone. The correction
and the judgement are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import ConfigError
from limbeck.search.costs import Cost, TableCost
from limbeck.search.space import Architecture
from limbeck.students.blocks import Block, architectures, blocks_of, work_of
from limbeck.students.image_rows import ImageCnnEncoder
from limbeck.students.search_spaces import StudentSpace
from limbeck.students.text_transformer import TextTransformerEncoder

_R2, _WORST = 0.9, 0.15


@dataclass(frozen=True, slots=True, eq=False)
class BlockTable:
    """Blocks of a space with their costs, and how good their sums are.

    Args:
        space: What it is over: kind, layers with their options, what the encoder gives, classes.
        quantity: What was measured, such as "latency".
        unit: Of every number here, such as "ms".
        length: Entries of the row that was measured, for texts, else None.
        device: Where it was measured and with what. A table may be used elsewhere, for a search on
            a large machine for a small one, so this is only told.
        blocks: Cost of each block alone, by `Block.name`.
        correction: scale, per_block, base and per_megabyte.
        r2: Share of the variance of the held-out networks that it explains, <= 1.
        worst_error: Largest |total - measured| / measured of a held-out network.
        median_error: Median of the same.
        noise: Median over whole networks of how far two halves of the measurements are apart,
            relative: no table can be seen to be better than that.
        worst_noise: Largest of the same.
        samples: Networks that the correction was fitted to.
        held_out: Networks that it was judged on.
    """

    space: dict[str, Any]
    quantity: str
    unit: str
    length: int | None
    device: dict[str, str | int]
    blocks: dict[str, float]
    correction: tuple[float, float, float, float]
    r2: float
    worst_error: float
    median_error: float
    noise: float
    worst_noise: float
    samples: int
    held_out: int

    def check(self, r2: float = _R2, worst: float = _WORST) -> None:
        """Refuse a table that is not good enough to prune with.

        Args:
            r2: Least share of the variance that it must explain.
            worst: Greatest relative error that a held-out network may have.

        Raises:
            ConfigError: it is not.
        """
        if self.r2 >= r2 and self.worst_error <= worst:
            return
        raise ConfigError(
            f"the table of {self.quantity} has r2={self.r2:.3f} and a worst error of "
            f"{self.worst_error:.1%} (median {self.median_error:.1%}) on {self.held_out} held-out "
            f"networks, but pruning with it needs r2 >= {r2:g} and a worst error <= {worst:.1%}; "
            f"the same networks measured twice differ by {self.noise:.1%} (worst "
            f"{self.worst_noise:.1%}): measure in more rounds or on a quieter machine, or search "
            f"by multiply-adds and measure the answer."
        )

    @property
    def good(self) -> bool:
        """Whether `check` lets it pass."""
        return self.r2 >= _R2 and self.worst_error <= _WORST

    def total(self, space: StudentSpace, architecture: Architecture) -> float:
        """What the table says of an architecture, whatever it is worth.

        Raises:
            ConfigError: there is no such architecture, or one of its blocks was not measured.
        """
        return float(self._totals(space, [architecture])[0])

    def cost(self, space: StudentSpace) -> Cost:
        """All totals of the space. Bounds are by enumeration, and so exact for these totals.

        Raises:
            ConfigError: the table is over another space.
        """
        self._check_space(space)
        every = list(architectures(space))
        totals = np.full(space.space.sizes, np.nan)
        totals[tuple(np.array(every).T)] = found = self._totals(space, every)
        if found.min() <= 0:
            values = space.space.values(every[int(found.argmin())])
            raise ConfigError(
                f"the table of {self.quantity} says that {values} costs {found.min():.3g} "
                f"{self.unit}; measure the cost again, in more rounds."
            )
        return TableCost(space.space, totals)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "correction": list(self.correction)}

    @classmethod
    def from_dict(cls, space: StudentSpace, saved: Mapping[str, Any]) -> Self:
        """What `to_dict` described, over an equal space.

        Raises:
            ConfigError: something is missing, or it was measured over another space.
        """
        names = cls.__dataclass_fields__
        if missing := [name for name in names if name not in saved]:
            raise ConfigError(
                f"a saved table of blocks lacks {', '.join(missing)}; measure the cost again."
            )
        kept = {name: saved[name] for name in names} | {"correction": tuple(saved["correction"])}
        made = cls(**kept)
        made._check_space(space)
        return made

    def _check_space(self, space: StudentSpace) -> None:
        ours = space_of(space)
        if differing := [key for key in ours if ours[key] != self.space.get(key)]:
            raise ConfigError(
                f"the table of {self.quantity} was measured over a space with another "
                f"{' and '.join(differing)}; measure the cost of this one."
            )

    def _totals(self, space: StudentSpace, every: Sequence[Architecture]) -> NDArray[np.float64]:
        rows = features(space, every, self.blocks, self.length)
        return np.array(rows @ np.array(self.correction))


def space_of(space: StudentSpace) -> dict[str, Any]:
    """What a table must have been measured over to be used: plain JSON values."""
    encoder, reads = space.encoder, {}
    if isinstance(encoder, ImageCnnEncoder):
        reads = {"size": encoder.config.size, "channels": encoder.config.channels}
    elif isinstance(encoder, TextTransformerEncoder):
        reads = {"vocabulary": encoder.vocabulary}
    return {
        "kind": space.kind,
        "layers": [[layer.name, list(layer.options)] for layer in space.space.layers],
        "inputs": reads,
        "classes": space.classes,
    }


def features(
    space: StudentSpace,
    every: Sequence[Architecture],
    blocks: Mapping[str, float],
    length: int | None = None,
) -> NDArray[np.float64]:
    """What the correction weighs: sum and number of blocks, 1, megabytes of weights; shape (n, 4).

    Raises:
        ConfigError: a block has no measurement.
    """
    known: dict[Block, tuple[float, float]] = {}
    found = np.empty((len(every), 4))
    for row, one in zip(found, every, strict=True):
        chain = blocks_of(space, one, length=length)
        for block in chain:
            if block not in known:
                if block.name not in blocks:
                    raise ConfigError(
                        f"the block '{block.name}' was not measured; measure the cost again."
                    )
                known[block] = blocks[block.name], work_of(block).weights / 1e6
        cost, weights = np.sum([known[block] for block in chain], axis=0)
        row[:] = cost, len(chain), 1.0, weights
    return found
