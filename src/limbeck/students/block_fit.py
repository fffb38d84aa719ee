"""Measured blocks corrected to whole networks, and judged on networks that the fit has not seen."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import ConfigError
from limbeck.search.space import Architecture
from limbeck.students.block_costs import BlockTable, features, space_of
from limbeck.students.search_spaces import StudentSpace

Measured = Sequence[tuple[Architecture, float]]

LEAST_SAMPLES = 8
"""Whole networks to fit the four numbers of the correction to."""
LEAST_HELD_OUT = 4
_DRAWS = 1_000
_EXACT = 1e-9


def fit_blocks(
    space: StudentSpace,
    blocks: Mapping[str, float],
    fitted: Measured,
    held_out: Measured,
    *,
    quantity: str = "latency",
    unit: str = "ms",
    length: int | None = None,
    noise: tuple[float, float] = (0.0, 0.0),
    device: Mapping[str, str | int] | None = None,
) -> BlockTable:
    """A table of blocks from measurements.

    The correction is that of the least squares of relative errors, so that a network of one
    millisecond counts as much as one of twenty.

    Args:
        space: The space.
        blocks: Cost of each of `all_blocks(space)` alone, > 0, by its name.
        fitted: Whole networks with measurements, > 0, to fit the correction to; at least 8.
        held_out: Others, at least 4, to judge the table on.
        quantity: What was measured.
        unit: Of all measurements.
        length: Entries of the row that was measured, for texts. Default: what the space costs.
        noise: Median and largest relative difference of two measurements of one network.
        device: Where it was measured, and with what.

    Raises:
        ConfigError: too few networks, one in both sets, a block that is not there, or a measurement
            that is not finite and > 0.
    """
    check_numbers(len(fitted), len(held_out))
    if {one for one, _ in fitted} & {one for one, _ in held_out}:
        raise ConfigError(
            "a network is in the fitted and in the held-out set; the table must be judged on "
            "others than it was fitted to."
        )
    for name, value in (*blocks.items(), *fitted, *held_out):
        if not (np.isfinite(value) and value > 0):
            raise ConfigError(
                f"the measurement of {name} is {value:g}; a measured cost must be finite and > 0."
            )
    known = features(space, [one for one, _ in fitted], blocks, length)
    correction = _correct(known, np.array([value for _, value in fitted]))
    true = np.array([value for _, value in held_out])
    wrong = features(space, [one for one, _ in held_out], blocks, length) @ correction - true
    errors = np.abs(wrong) / true
    scale, per_block, base, per_megabyte = correction.tolist()
    return BlockTable(
        space=space_of(space),
        quantity=quantity,
        unit=unit,
        length=length or space.length,
        device=dict(device or {}),
        blocks={name: float(value) for name, value in blocks.items()},
        correction=(scale, per_block, base, per_megabyte),
        r2=_explained(wrong, true),
        worst_error=float(errors.max()),
        median_error=float(np.median(errors)),
        noise=float(noise[0]),
        worst_noise=float(noise[1]),
        samples=len(fitted),
        held_out=len(held_out),
    )


def check_numbers(samples: int, held_out: int) -> None:
    """Refuse to fit to, or to judge on, too few networks.

    Raises:
        ConfigError: names which.
    """
    for name, given, least in (
        ("samples", samples, LEAST_SAMPLES),
        ("held_out", held_out, LEAST_HELD_OUT),
    ):
        if given < least:
            raise ConfigError(
                f"{name}={given}: a table of blocks needs at least {least} whole networks; 24 tell "
                f"more."
            )


def draw_networks(space: StudentSpace, count: int, seed: int) -> list[Architecture]:
    """Distinct valid architectures, each layer's option uniformly among those that may follow.

    Raises:
        ConfigError: the space has not so many.
    """
    rng, drawn = random.Random(seed), dict.fromkeys([space.space.default])
    for _ in range(_DRAWS * count):
        if len(drawn) >= count:
            return list(drawn)
        prefix: Architecture = ()
        for layer, k in enumerate(space.space.sizes):
            options = [s for s in range(k) if space.space.allows(prefix, s)]
            if not options:
                break
            prefix = (*prefix, options[rng.randrange(len(options))])
            if layer == len(space.space) - 1:
                drawn[prefix] = None
    raise ConfigError(
        f"{count} different networks are wanted but only {len(drawn)} could be drawn; lower "
        f"samples, or measure all of so small a space and use TableCost."
    )


def _correct(known: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """The correction nearest to none among those with the least relative errors."""
    # In units of the columns' sizes, so that the nearest does not hang on the unit of the cost.
    none = np.array([1.0, 0.0, 0.0, 0.0])
    rows = known / true[:, None]
    sizes = np.sqrt((rows**2).mean(0))
    sizes[sizes == 0] = 1.0
    step = np.linalg.lstsq(rows / sizes, 1.0 - rows @ none, rcond=1e-9)[0] / sizes
    return np.asarray(none + step)


def _explained(wrong: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    left, spread = float((wrong**2).sum()), float(((true - true.mean()) ** 2).sum())
    if left <= _EXACT**2 * float((true**2).sum()):
        return 1.0
    return 1 - left / spread if spread else 0.0
