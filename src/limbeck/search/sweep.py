"""One sweep of LayerNAS over the layers: which prefix is extended by which option.

The table M[l] keeps the best prefixes of l layers in each group. A turn of a layer extends `picks`
of the prefixes kept before it, each by `options` of its untried options; then it is the next
layer's turn, and after the last one the first's again, until nothing that is kept has an untried
option.

Source: Fan et al., arXiv 2304.11517, Algorithm 1 as far as its public reviews give it (a
reconstruction).
"""

import random
from collections.abc import Callable, Hashable

from limbeck.search.base import LAST, History, Note, Trial, pick
from limbeck.search.buckets import Phi
from limbeck.search.costs import Bounds, Cost
from limbeck.search.kept import Candidate, Keep, Kept
from limbeck.search.selection import Rule
from limbeck.search.space import Architecture

Complete = Callable[[Architecture], Architecture | None]


class Sweep:
    """The table, and where the search stands in it.

    Args:
        cost: Groups prefixes.
        history: Trials and rewards of the search.
        reachable: Whether a prefix can become an answer.
        complete: The tail.
        groups: phi of the prefixes of 0..L layers.
        keep, rule, picks, options: As in `LayerNASConfig`.
        ends: What the rule may know of costs: the cheapest architecture and the limit.
    """

    def __init__(
        self,
        cost: Cost,
        history: History,
        *,
        reachable: Callable[[Architecture], bool],
        complete: Complete,
        groups: list[Phi],
        keep: Keep,
        rule: Rule,
        picks: int,
        options: int,
        ends: Bounds,
    ) -> None:
        self.cost, self.space, self.history = cost, cost.space, history
        self.reachable, self.complete, self.groups = reachable, complete, groups
        self.rule, self.picks, self.options, self.ends = rule, picks, options, ends
        self.table = [Kept(keep) for _ in range(len(self.space))]
        self.table[0].insert(0, Candidate((), 0.0, 0.0, 0.0))
        self._open: dict[Architecture, list[int]] = {}
        self._waiting: dict[int, list[Architecture]] = {}
        self._layer = self._picked = self._left = 0
        self._parent: Architecture = ()
        self._settled: list[tuple[int, Architecture]] = []

    # -- asking ----------------------------------------------------------------------------------

    def propose(self, rng: random.Random) -> tuple[Architecture, int] | None:
        """An architecture that is not known yet, with the length of its prefix.

        None: nothing that is kept now can be extended.
        """
        while (step := self._next(rng)) is not None:
            prefix = step
            whole = self.complete(prefix)
            if whole is None:
                self._settle(len(prefix), prefix)
            elif self.space.key(whole) in self.history.by_key:
                self._settle(len(prefix), whole)
            else:
                return whole, len(prefix)
        return None

    def note(self, how: str, length: int = 0) -> Note:
        """What a trial has to remember, so that the sweep can be restored from it."""
        settled, self._settled = tuple(self._settled), []
        return Note(how, length, self.cursor, settled)

    @property
    def cursor(self) -> tuple[int, ...]:
        """Layer, prefixes picked at this turn, options left for the last one, and that prefix."""
        return (self._layer, self._picked, self._left, *self._parent)

    def _next(self, rng: random.Random) -> Architecture | None:
        """The next prefix to evaluate, by the order of turns."""
        for _ in range(len(self.space) + 1):
            if self._left and self._open.get(self._parent):
                return self._extended(rng)
            if self._picked < self.picks:
                candidates = self._extendable(self._layer)
                if candidates:
                    chosen = candidates[self.rule(candidates, self.ends, rng)]
                    self._parent = chosen.prefix
                    self._picked += 1
                    self._left = self.options or len(self._open[chosen.prefix])
                    return self._extended(rng)
            self._layer = (self._layer + 1) % len(self.space)
            self._picked = self._left = 0
        return None

    def _extended(self, rng: random.Random) -> Architecture:
        options = self._open[self._parent]
        self._left -= 1
        return (*self._parent, options[pick(rng, len(options))])

    def _extendable(self, layer: int) -> list[Candidate]:
        """Kept prefixes before a layer with an untried option, best first."""
        kept = [one for one in self.table[layer] if self._options(one.prefix)]
        kept.sort(key=Candidate.rank)
        return kept

    def _options(self, prefix: Architecture) -> list[int]:
        """Untried options of the next layer from which an answer can be reached."""
        if prefix not in self._open:
            options = (s for s in range(self.space.sizes[len(prefix)]))
            allowed = (s for s in options if self.space.allows(prefix, s))
            self._open[prefix] = [s for s in allowed if self.reachable((*prefix, s))]
        return self._open[prefix]

    @property
    def ended(self) -> bool:
        """Whether nothing that is kept has an untried option, and nothing is in flight."""
        layers = range(len(self.space))
        return not self._waiting and not any(self._extendable(layer) for layer in layers)

    # -- learning --------------------------------------------------------------------------------

    def asked(self, trial: Trial) -> None:
        """Take over a trial of the search, its own or one of another part."""
        self._layer, self._picked, self._left = trial.note.cursor[:3]
        self._parent = trial.note.cursor[3:]
        for length, architecture in trial.note.free:
            self._take(length, architecture)
        if trial.note.length:
            self._take(trial.note.length, trial.architecture)

    def told(self, trial: Trial, reward: float) -> None:
        """Put the prefixes that waited for a reward into their groups."""
        for prefix in self._waiting.pop(trial.number, []):
            self._insert(prefix, reward, trial)

    def _settle(self, length: int, architecture: Architecture) -> None:
        """Take a prefix that needs no trial, and remember it for the next note."""
        self._settled.append((length, architecture))
        self._take(length, architecture)

    def _take(self, length: int, architecture: Architecture) -> None:
        """Mark a prefix as tried, and give it the reward of its architecture, now or later."""
        prefix, known = architecture[:length], self.history.by_key.get(self.space.key(architecture))
        if known is None and len(architecture) == len(self.space):
            return  # settled by another worker, by a trial that is not here yet: it comes up again
        untried = self._options(prefix[:-1])
        if prefix[-1] in untried:
            untried.remove(prefix[-1])
        if known is None:
            return  # no completion is in range
        reward = self.history.rewards.get(known)
        if reward is None:
            waiting = self._waiting.setdefault(known, [])
            if prefix not in waiting:
                waiting.append(prefix)
        else:
            self._insert(prefix, reward, self.history.trials[known])

    def _insert(self, prefix: Architecture, reward: float, trial: Trial) -> None:
        # The last layer needs no groups: the history knows the best architecture in range.
        if reward == LAST or len(prefix) == len(self.space):
            return
        key = self.cost.key(prefix)
        group: Hashable = self.groups[len(prefix)](prefix, key)
        self.table[len(prefix)].insert(group, Candidate(prefix, reward, key, trial.cost))
