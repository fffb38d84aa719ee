"""LayerNAS: layerwise architecture search as a dynamic programme under a budget.

Layers are searched in their order. A prefix p of l options is completed by a tail, the whole is
evaluated, and p goes with that reward into one of H groups by its cost; each group keeps its best
prefixes, which the next layer extends. Costs group and rewards compare: they are never mixed into
one number.

Source: Fan, Alon, Shen, Peng, Kumar, Long, Wang, Iliopoulos, Juan and Vee, "LayerNAS: Neural
Architecture Search in Polynomial Complexity" (arXiv 2304.11517, 2023). The form of the loop is a
reconstruction from its abstract and public reviews. `paper()` is the literal reading; the tail
`fit`, the rank rule and `polish` are ours.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from limbeck.errors import ConfigError
from limbeck.search.base import LAST, Found, Note, Searcher, Trial
from limbeck.search.buckets import Buckets, as_buckets
from limbeck.search.costs import Bounds, Cost
from limbeck.search.diagnostics import Diagnostics, prefix_validity
from limbeck.search.explorer import GUESSES, Explorer, Guess
from limbeck.search.kept import Keep, Kept
from limbeck.search.local import Neighbourhoods
from limbeck.search.random_search import draw_feasible
from limbeck.search.selection import SELECT, Select
from limbeck.search.space import Architecture
from limbeck.search.sweep import Complete, Sweep
from limbeck.search.tails import Fit, Fixed

Tail = Literal["fit", "max", "min", "default", "incumbent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNASConfig:
    """Settings of the search; `paper` gives those of the source."""

    buckets: "int | Sequence[float] | str | Buckets" = 20
    """Groups of a layer: a count, a list of edges, "exact", "geometric". 100 in the source."""
    tail: Tail = "fit"
    """Completion of a prefix: "fit" in range, "max" the dearest options, "min" the cheapest,
    "default" those of the layers, "incumbent" those of an architecture that you give."""
    select: Select = "rank"
    """Which kept candidate is extended next."""
    keep: Keep = 1
    """Candidates that a group keeps, or "pareto": all that none beats in cost and reward."""
    picks: int = 10
    """Candidates that are extended in a layer before the next layer's turn (R)."""
    options: int = 2
    """Options of the layer that each of them is tried with at a turn (T); 0 for all."""
    polish: bool = True
    """Go on from the best architectures, one option changed, when the sweep has ended."""
    explore: float = 0.75
    """Share of the trials that leave the sweep aside and go on from the best architectures, in
    [0, 1]: what protects where prefixes tell little about what they become."""
    ramp: int = 100
    """Trials over which `explore` grows from 0 to its share: the sweep alone is best early on."""
    guess: Guess = "matches"
    """What screens mutations: "additive", a number an option; "matches", layers in common with the
    trials so far, by the order of their rewards."""

    def __post_init__(self) -> None:
        as_buckets(self.buckets)
        Kept(self.keep)
        if self.tail not in ("fit", "max", "min", "default", "incumbent"):
            raise ConfigError(
                f"tail={self.tail!r}: must be 'fit', 'max', 'min', 'default' or 'incumbent'."
            )
        if self.select not in SELECT:
            raise ConfigError(f"select={self.select!r}: must be one of {', '.join(SELECT)}.")
        if self.picks < 1:
            raise ConfigError(f"picks={self.picks}: must be >= 1 candidates a turn.")
        if self.options < 0:
            raise ConfigError(f"options={self.options}: must be >= 1 a turn, or 0 for all.")
        if not 0 <= self.explore <= 1:
            raise ConfigError(f"explore={self.explore:g}: must be a share in [0, 1].")
        if self.ramp < 0:
            raise ConfigError(f"ramp={self.ramp}: must be >= 0 trials.")
        if self.guess not in GUESSES:
            raise ConfigError(f"guess={self.guess!r}: must be one of {', '.join(GUESSES)}.")


def paper() -> LayerNASConfig:
    """The literal reading of the source: 100 groups, the dearest tail, no polish (reconstruction).

    Under a tight limit many of its trials are out of range; `docs/methods/layernas.md` has figures.
    """
    return LayerNASConfig(buckets=100, tail="max", select="uniform", polish=False, explore=0.0)


class LayerNAS(Searcher):
    """The search.

    Args:
        cost: Known without training; its space is searched.
        limit: Admissible range of the cost, ends included: (least, most), or the most alone.
        config: Settings; the default's answers are always in range.
        constraints: Further costs with their ranges.
        incumbent: The tail of `tail="incumbent"`: your network of today, or the answer of a search
            before, from which this sweep goes on.
        generator: Seeds the search.

    Raises:
        ConfigError: the range is empty, or `tail="incumbent"` and `incumbent` do not go together.

    Cost: an ask is O(L H log H + K L); memory is O(trials + H L).
    Guarantee: with additive rewards and costs, exact buckets and a fixed tail, an exhausted sweep
    has found the optimum; with buckets of width w, something at least as good as the optimum of the
    limit less (L - 1) w. With keep="pareto" and a fixed tail it is exact for any buckets.
    """

    name: ClassVar[str] = "layernas"

    def __init__(
        self,
        cost: Cost,
        limit: float | tuple[float, float],
        config: LayerNASConfig | None = None,
        *,
        constraints: Sequence[tuple[Cost, float | tuple[float, float]]] = (),
        incumbent: Architecture | None = None,
        generator: torch.Generator,
    ) -> None:
        super().__init__(cost, limit, constraints=constraints, generator=generator)
        self.config = config or LayerNASConfig()
        if (self.config.tail == "incumbent") != (incumbent is not None):
            raise ConfigError(
                f"tail={self.config.tail!r} with incumbent={incumbent}: give an architecture with "
                f"tail='incumbent', and only with it."
            )
        if incumbent is not None:
            self.space.check(incumbent)
        self.incumbent = incumbent
        self.buckets = as_buckets(self.config.buckets)
        lengths = range(len(self.space) + 1)
        self.ranges = [cost.key_range(n, self.limit) for n in lengths]
        low, high = self.range_of_costs()
        self.sweep = Sweep(
            cost,
            self.history,
            reachable=self.reachable,
            complete=self._tail(),
            groups=[self.buckets.phi(keys) for keys in self.ranges],
            keep=self.config.keep,
            rule=SELECT[self.config.select],
            picks=self.config.picks,
            options=self.config.options,
            ends=Bounds(low, min(high, self.limit.high)),
        )
        self.around = Neighbourhoods(self)
        self.explorer = Explorer(self, GUESSES[self.config.guess](self.space))

    def diagnostics(self) -> Diagnostics:
        """What the search can tell of itself; cost O(trials L)."""
        history, lengths = self.history, range(1, len(self.space))
        trials = len(history.trials)
        inside = [one for one in self.evaluated() if history.trials[one.number].in_range]
        away = sum(not trial.in_range for trial in history.trials)
        table = self.sweep.table
        return Diagnostics(
            status=self.status,
            swept=self.sweep.ended,
            trials=trials,
            failed=sum(reward == LAST for reward in history.rewards.values()),
            pending=history.pending,
            out_of_range=away / trials if trials else 0.0,
            validity=prefix_validity(table, inside),
            kept=tuple(len(table[n]) for n in lengths),
            widths=tuple(self.buckets.width(self.ranges[n]) for n in lengths),
        )

    def _propose(self, rng: random.Random) -> tuple[Architecture, Note] | None:
        ramp = self.config.ramp
        grown = min(1.0, len(self.history.trials) / ramp) if ramp else 1.0
        early = rng.random() < self.config.explore * grown
        if early and (explored := self.explorer.propose(rng)) is not None:
            return explored[1], self.sweep.note(explored[0])
        if (proposed := self.sweep.propose(rng)) is not None:
            return proposed[0], self.sweep.note("sweep", proposed[1])
        # What is kept may be waiting for rewards: then a worker need not wait with it.
        if not (self.config.polish or self.history.pending):
            return None
        return self._polish(rng)

    def _polish(self, rng: random.Random) -> tuple[Architecture, Note] | None:
        """What is left to try when nothing that is kept can be extended."""
        if (explored := self.explorer.propose(rng)) is not None:
            return explored[1], self.sweep.note(explored[0])
        # What is in range need not hang together by single changes.
        near = self.around.propose(rng) or draw_feasible(self, rng)
        return None if near is None else (near, self.sweep.note("polish"))

    @property
    def cursor(self) -> tuple[int, ...]:
        """Where the sweep stands."""
        return self.sweep.cursor

    def has_more(self) -> bool:
        """Whether something is in flight, can be extended, or has an untried neighbour."""
        if not super().has_more():
            return False
        if self.history.pending or not self.sweep.ended:
            return True
        polish = self.config.polish
        return polish and (self.around.more() or draw_feasible(self, self._rng()) is not None)

    def _asked(self, trial: Trial) -> None:
        self.sweep.asked(trial)
        self.explorer.asked(trial)

    def _told(self, trial: Trial, reward: float) -> None:
        self.sweep.told(trial, reward)
        if reward > LAST:
            found = Found(trial.architecture, reward, trial.cost, trial.number)
            self.explorer.told(found, in_range=trial.in_range)
            if trial.in_range:
                self.around.add(found)

    def _tail(self) -> Complete:
        orders = [self.cost.order(layer) for layer in range(len(self.space))]
        tail = self.config.tail
        if tail == "fit":
            return Fit(self.cost, self.limit, self.feasible, self.reachable)
        if tail == "max":
            return Fixed(self.space, tuple(order[-1] for order in orders))
        if tail == "min":
            return Fixed(self.space, tuple(order[0] for order in orders))
        return Fixed(self.space, self.incumbent or self.space.default)
