"""An additive cost fitted to measurements, with what it gets wrong on architectures it never saw.

    measure(a) ~ base + sum_l table[l][a_l],    by least squares over sampled architectures

A table of latencies lets a search prune by milliseconds; how far real ones are from a sum differs
from device to device, so the table is judged before it is used.

Source: the tables of latencies of mobile networks (Cai et al., "ProxylessNAS", ICLR 2019, Section
3.3; Wu et al., "FBNet", CVPR 2019, Section 3.2). They time each block alone; fitting whole
networks, so that what calls cost besides is in the sum, and the judgement are ours.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from limbeck.errors import ConfigError
from limbeck.search.costs import AdditiveCost
from limbeck.search.space import Architecture, LayerwiseSpace

Measured = Sequence[tuple[Architecture, float]]

_USES = 3
"""An option is in at least so many fitted architectures."""
_DRAWS = 1_000
_BALANCED = 50
_FEWEST_HELD_OUT = 2
_EXACT = 1e-9
_INDEPENDENT = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class FittedCost:
    """A table and how good it is.

    Args:
        cost: The table. Its bounds hold for its own totals, not for measurements.
        r2: Share of the variance of the held-out measurements that it explains, <= 1.
        worst_error: Largest |total - measured| / measured of a held-out architecture.
        median_error: Median of the same.
        samples: Architectures that it was fitted to.
        held_out: Architectures that it was judged on.
    """

    cost: AdditiveCost
    r2: float
    worst_error: float
    median_error: float
    samples: int
    held_out: int

    def check(self, r2: float = 0.9, worst: float = 0.15) -> None:
        """Refuse a table that is not good enough to prune with.

        Args:
            r2: Least share of the variance that it must explain.
            worst: Greatest relative error that a held-out architecture may have.

        Raises:
            ConfigError: it is not.
        """
        if self.r2 >= r2 and self.worst_error <= worst:
            return
        raise ConfigError(
            f"the table fitted to {self.samples} architectures has r2={self.r2:.3f} and a worst "
            f"error of {self.worst_error:.1%} (median {self.median_error:.1%}) on {self.held_out} "
            f"held-out ones, but pruning with it needs r2 >= {r2:g} and a worst error <= "
            f"{worst:.1%}: fit to more samples or steadier measurements, or search with "
            f"BlackBoxCost, or with another cost and the measured one as a final check only."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the layers of the space among them."""
        return {
            "layers": _layers(self.cost.space),
            "base": self.cost.base,
            "table": [list(row) for row in self.cost.table],
            "r2": self.r2,
            "worst_error": self.worst_error,
            "median_error": self.median_error,
            "samples": self.samples,
            "held_out": self.held_out,
        }

    @classmethod
    def from_dict(cls, space: LayerwiseSpace, saved: Mapping[str, Any]) -> Self:
        """What `to_dict` described, over an equal space.

        Raises:
            ConfigError: something is missing, or it was fitted over other layers or options.
        """
        names = ("layers", "base", "table", "r2", "worst_error", "median_error")
        if missing := [n for n in (*names, "samples", "held_out") if n not in saved]:
            raise ConfigError(f"a saved fit lacks {', '.join(missing)}; fit the cost again.")
        if [list(one) for one in saved["layers"]] != _layers(space):
            raise ConfigError(
                "a saved fit is over other layers or options than the space; fit the cost again."
            )
        return cls(
            AdditiveCost(space, saved["table"], base=saved["base"]),
            r2=float(saved["r2"]),
            worst_error=float(saved["worst_error"]),
            median_error=float(saved["median_error"]),
            samples=int(saved["samples"]),
            held_out=int(saved["held_out"]),
        )


def least_samples(space: LayerwiseSpace) -> int:
    """Fewest architectures that a fit needs, the held-out ones not counted.

    As many as the sum has free numbers, and four for each option of the largest layer, so that all
    options can be in three.
    `fit_cost` takes twice as many unless told otherwise. Noise, and what is not a sum, ask for
    more: of the latencies of one server (FBNet's 22 layers of 9 options) tables fitted to 354,
    1,000 and 2,000 networks explained 84, 96 and 97 % of the variance of 500 others.
    """
    return max((_USES + 1) * max(space.sizes), 1 + sum(k - 1 for k in space.sizes))


def fit_cost(
    space: LayerwiseSpace,
    measure: Callable[[Architecture], float],
    *,
    generator: torch.Generator,
    samples: int | None = None,
    held_out: int = 20,
    base: float | None = None,
) -> FittedCost:
    """Measure sampled architectures and fit an additive cost to them.

    Args:
        space: The space.
        measure: Cost of an architecture, > 0, such as milliseconds. It is called samples + held_out
            times, each time with another valid architecture, in a random order, so that a drift of
            the machine is not taken for a difference between the two sets.
        generator: Draws architectures: options of a layer equally often where the rule of the space
            lets them; held-out ones uniformly, layer by layer.
        samples: Architectures to fit to. Default: twice `least_samples(space)`.
        held_out: Architectures to judge the table on, >= 2.
        base: As for `fit_measured`.

    Raises:
        ConfigError: too few samples, a space too small for them, an option that no valid
            architecture seems to have, or a measurement that is not finite and > 0.

    Cost: O((samples + held_out) measurements) and O(samples d^2) time, d options of all layers.
    """
    least = least_samples(space)
    count = 2 * least if samples is None else samples
    if count < least:
        raise ConfigError(
            f"samples={count}: a table over {sum(space.sizes)} options needs at least {least} "
            f"measured architectures, and {held_out} held out; raise samples."
        )
    _check_held_out(held_out)
    rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
    drawn = _draw_all(space, rng, count, held_out)
    _check_uses(space, drawn[:count])
    values = {one: float(measure(one)) for one in rng.sample(drawn, len(drawn))}
    pairs = [(one, values[one]) for one in drawn]
    return fit_measured(space, pairs[:count], pairs[count:], base=base)


def fit_measured(
    space: LayerwiseSpace, fitted: Measured, held_out: Measured, *, base: float | None = None
) -> FittedCost:
    """The same from architectures that were measured already.

    Args:
        space: The space.
        fitted: Architectures with measurements, > 0, to fit to; each option of each layer in three.
        held_out: Others, at least 2, to judge the table on.
        base: What the cost calls its base. Totals do not hang on it: the sum says only what options
            cost more than others. Default: the total with the cheapest option of every layer,
            whose costs in the table are then 0.

    Raises:
        ConfigError: an option is in fewer than three, architectures are in both sets, or a
            measurement is not finite and > 0.
    """
    _check_held_out(len(held_out))
    if {one for one, _ in fitted} & {one for one, _ in held_out}:
        raise ConfigError(
            "an architecture is in the fitted and in the held-out set; the table must be judged "
            "on others than it was fitted to."
        )
    for one, value in (*fitted, *held_out):
        space.check(one)
        if not (np.isfinite(value) and value > 0):
            raise ConfigError(
                f"the measurement of {one} is {value:g}; a measured cost must be finite and > 0."
            )
    _check_uses(space, [one for one, _ in fitted])
    table, start = _least_squares(space, fitted)
    if base is None:
        base = start + sum(min(row) for row in table)
        table = [[c - min(row) for c in row] for row in table]
    else:
        share = (start - base) / len(space)
        table = [[c + share for c in row] for row in table]
    cost = AdditiveCost(space, table, base=base)

    true = np.array([value for _, value in held_out])
    wrong = np.array([cost.total(one) for one, _ in held_out]) - true
    errors = np.abs(wrong) / true
    return FittedCost(
        cost,
        r2=_explained(wrong, true),
        worst_error=float(errors.max()),
        median_error=float(np.median(errors)),
        samples=len(fitted),
        held_out=len(held_out),
    )


def _explained(wrong: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    left, spread = float((wrong**2).sum()), float(((true - true.mean()) ** 2).sum())
    # Rounding is all that is left to explain where all measurements are equal.
    if left <= _EXACT**2 * float((true**2).sum()):
        return 1.0
    return 1 - left / spread if spread else 0.0


def _least_squares(space: LayerwiseSpace, fitted: Measured) -> tuple[list[list[float]], float]:
    """Costs of options and what all have in common; the shortest of the equal solutions."""
    first = np.cumsum([0, *space.sizes[:-1]])
    options = np.array([one for one, _ in fitted]) + first
    design = np.zeros((len(fitted), sum(space.sizes) + 1))
    np.put_along_axis(design, options, 1.0, axis=1)
    design[:, -1] = 1.0
    solved = np.linalg.lstsq(design, np.array([value for _, value in fitted]))[0]
    ends = [*first[1:], len(solved) - 1]
    return [solved[a:b].tolist() for a, b in zip(first, ends, strict=True)], float(solved[-1])


def _draw_all(
    space: LayerwiseSpace, rng: random.Random, count: int, held_out: int
) -> list[Architecture]:
    """Distinct architectures: first those to fit to, then those held out.

    Those to fit to have options equally often; and together they tell apart all that can be: the
    last of them must add what is missing, since a sum could otherwise not be recovered.
    """
    drawn: dict[Architecture, None] = {}
    uses = [[0] * k for k in space.sizes]
    basis, rank = _Basis(space), _rank(space, rng)
    while len(drawn) < count + held_out:
        fitting = len(drawn) < count
        must_add = fitting and rank - len(basis.rows) >= count - len(drawn)
        for attempt in range(_DRAWS):
            # The option that is least used may lead back to what is drawn already.
            one = _draw(space, rng, uses if fitting and attempt < _BALANCED else None)
            if one is not None and one not in drawn and not (must_add and not basis.adds(one)):
                break
        else:
            raise ConfigError(
                f"{count} architectures to fit to and {held_out} held out are wanted but only "
                f"{len(drawn)} different ones could be drawn; measure all of so small a space and "
                f"use TableCost, or lower samples or held_out."
            )
        drawn[one] = None
        if fitting:
            basis.add(one)
            for row, s in zip(uses, one, strict=True):
                row[s] += 1
    return list(drawn)


class _Basis:
    """Orthonormal rows that span the options of architectures, written as zeros and ones."""

    def __init__(self, space: LayerwiseSpace) -> None:
        self._first = np.cumsum([0, *space.sizes[:-1]])
        self.rows: NDArray[np.float64] = np.empty((0, sum(space.sizes)))

    def adds(self, one: Architecture) -> bool:
        """Whether an architecture is no sum of multiples of those added."""
        return float(np.linalg.norm(self._beyond(one))) > _INDEPENDENT

    def add(self, one: Architecture) -> None:
        """Take an architecture in."""
        beyond = self._beyond(one)
        if (norm := np.linalg.norm(beyond)) > _INDEPENDENT:
            self.rows = np.vstack([self.rows, beyond / norm])

    def _beyond(self, one: Architecture) -> NDArray[np.float64]:
        row = np.zeros(self.rows.shape[1])
        row[self._first + np.array(one)] = 1.0
        for _ in range(2):  # once leaves rounding errors of its own
            row -= self.rows.T @ (self.rows @ row)
        return row


def _rank(space: LayerwiseSpace, rng: random.Random) -> int:
    """Free numbers of a sum; where the space has a rule, as many as drawn architectures show."""
    most = 1 + sum(k - 1 for k in space.sizes)
    if space.is_valid is None:
        return most
    basis = _Basis(space)
    for _ in range(_DRAWS):
        if len(basis.rows) < most and (one := _draw(space, rng, None)) is not None:
            basis.add(one)
    return len(basis.rows)


def _draw(
    space: LayerwiseSpace, rng: random.Random, uses: list[list[int]] | None
) -> Architecture | None:
    """Layer by layer among the options that may follow; None where none may."""
    prefix: Architecture = ()
    for layer, k in enumerate(space.sizes):
        options = [s for s in range(k) if space.allows(prefix, s)]
        if not options:
            return None
        if uses is not None:
            fewest = min(uses[layer][s] for s in options)
            options = [s for s in options if uses[layer][s] == fewest]
        prefix = (*prefix, options[int(rng.random() * len(options))])
    return prefix


def _check_uses(space: LayerwiseSpace, fitted: Sequence[Architecture]) -> None:
    for i, layer in enumerate(space.layers):
        found = np.bincount([one[i] for one in fitted], minlength=len(layer.options))
        for option, times in zip(layer.options, found.tolist(), strict=True):
            if times < _USES:
                raise ConfigError(
                    f"option {option!r} of layer {layer.name!r} is in {times} of {len(fitted)} "
                    f"fitted architectures but its cost needs {_USES}; raise samples, or leave out "
                    f"an option that the rule of the space forbids nearly everywhere."
                )


def _check_held_out(count: int) -> None:
    if count < _FEWEST_HELD_OUT:
        raise ConfigError(
            f"held_out={count}: a table is judged on at least {_FEWEST_HELD_OUT} architectures "
            f"that it was not fitted to; 20 tell more."
        )


def _layers(space: LayerwiseSpace) -> list[list[Any]]:
    return [[layer.name, list(layer.options)] for layer in space.layers]
