"""What a search is: `ask` for an architecture, train it wherever you like, `tell` its reward.

Every search keeps its trials, knows its best answer and the best for every limit, and can be
restored from its trials alone: what it asks next is a function of the seed and of the trials so
far. So a journal, or a study of Optuna, is all that has to survive.
"""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from limbeck.errors import ConfigError
from limbeck.search.costs import Bounds, Cost, Limit
from limbeck.search.space import Architecture

Status = Literal["searching", "waiting", "infeasible", "exhausted"]
"""`waiting`: nothing can be proposed before a trial in flight has its reward. `infeasible`: the
cheapest architecture is above the limit, or the dearest one below it. `exhausted`: nothing is left
that this search would try."""

LAST = -math.inf
"""Reward of a trial that failed."""


@dataclass(frozen=True, slots=True)
class Note:
    """Why an architecture was asked for: what a search needs to be restored.

    Args:
        how: Part of the search that asked, such as "sweep" or "polish".
        length: Layers of the prefix that the trial stands for; 0 if for none.
        cursor: Where the search stood after asking.
        free: What was settled on the way without a trial, as length of the prefix and architecture.
    """

    how: str
    length: int = 0
    cursor: tuple[int, ...] = ()
    free: tuple[tuple[int, Architecture], ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """One architecture to evaluate.

    Args:
        number: 0, 1, 2, ... in the order of asking.
        architecture: Position of the option of each layer.
        cost: In the unit of the cost.
        in_range: Whether it may be the answer.
        note: Why it was asked for.
    """

    number: int
    architecture: Architecture
    cost: float
    in_range: bool
    note: Note


@dataclass(frozen=True, slots=True)
class Found:
    """An evaluated architecture."""

    architecture: Architecture
    reward: float
    cost: float
    number: int

    def rank(self) -> tuple[float, float, Architecture]:
        """Ascending from the best: reward, then the cheaper, then the smaller options."""
        return (-self.reward, self.cost, self.architecture)


@dataclass(slots=True, eq=False)
class History:
    """Trials, rewards, and the best of them."""

    trials: list[Trial] = field(default_factory=list)
    rewards: dict[int, float] = field(default_factory=dict)
    by_key: dict[Hashable, int] = field(default_factory=dict)
    """Trial number by what equal networks have in common."""
    best: Found | None = None

    @property
    def pending(self) -> int:
        """Trials in flight."""
        return len(self.trials) - len(self.rewards)


class Searcher(ABC):
    """A search over one space under one limit.

    Args:
        cost: What is limited; its space is searched.
        limit: Admissible range of the cost, ends included: (least, most), or the most alone.
        constraints: Further costs with their ranges, which grouping does not look at.
        generator: Seeds the search.

    Raises:
        ConfigError: a range is empty or NaN, or a constraint is over another space.
    """

    name: ClassVar[str]

    def __init__(
        self,
        cost: Cost,
        limit: float | tuple[float, float],
        *,
        constraints: Sequence[tuple[Cost, float | tuple[float, float]]] = (),
        generator: torch.Generator,
    ) -> None:
        self.space = cost.space
        self.cost = cost
        self.limit = as_limit(limit)
        self.constraints = [(other, as_limit(range_)) for other, range_ in constraints]
        if any(other.space is not self.space for other, _ in self.constraints):
            raise ConfigError("every constraint must be a cost over the same space as `cost`.")
        self.seed = int(torch.randint(2**62, (), generator=generator))
        self.history = History()
        self._infeasible = not self.reachable(())
        self._ended = self._waiting = False

    # -- asking and telling ----------------------------------------------------------------------

    def ask(self) -> Trial | None:
        """The next architecture to evaluate; None where `status` is not "searching".

        No architecture is asked for twice, and none that `space.canonical` says is equal.
        """
        if self._infeasible or self._ended:
            return None
        proposed = self._propose(self._rng())
        if proposed is None:
            self._waiting = self.history.pending > 0
            self._ended = not self._waiting
            return None
        return self.enter(*proposed)

    def tell(self, number: int, reward: float | None) -> None:
        """Say what an architecture is worth.

        Args:
            number: Of the trial.
            reward: To be maximised. NaN, -inf or None: the trial has failed; it counts, and is
                neither kept nor asked for again.

        Raises:
            ConfigError: there is no such trial, or it has another reward already.
        """
        history = self.history
        if not 0 <= number < len(history.trials):
            raise ConfigError(
                f"trial {number} was never asked for; there are {len(history.trials)} trials."
            )
        value = LAST if reward is None or math.isnan(reward) else float(reward)
        if value == math.inf:
            raise ConfigError(f"trial {number} has reward inf; rewards are finite.")
        if number in history.rewards:
            if history.rewards[number] != value:
                raise ConfigError(
                    f"trial {number} was told {history.rewards[number]:g} and is now told "
                    f"{value:g}; a trial has one reward."
                )
            return
        history.rewards[number] = value
        self._waiting = False
        trial = history.trials[number]
        found = Found(trial.architecture, value, trial.cost, number)
        best = history.best
        if trial.in_range and value > LAST and (best is None or found.rank() < best.rank()):
            history.best = found
        self._told(trial, value)

    def enter(self, architecture: Architecture, note: Note) -> Trial:
        """Put a trial on the list: one that `ask` proposes, or one that a journal holds."""
        history = self.history
        trial = Trial(
            len(history.trials),
            architecture,
            self.cost.total(architecture),
            self.feasible(architecture),
            note,
        )
        history.trials.append(trial)
        history.by_key.setdefault(self.space.key(architecture), trial.number)
        self._asked(trial)
        return trial

    # -- what is known ---------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """Whether `ask` has something to propose, and if not, why."""
        if self._infeasible:
            return "infeasible"
        if self._ended:
            return "exhausted"
        return "waiting" if self._waiting else "searching"

    @property
    def best(self) -> Found | None:
        """The answer: the best evaluated architecture whose own cost is in range."""
        return self.history.best

    def front(self) -> list[Found]:
        """The best for every limit: what is evaluated and beaten by nothing as cheap.

        Ascending in cost and reward; networks that were evaluated out of range are among them.
        """
        found: list[Found] = []
        best = LAST
        for one in sorted(self.evaluated(), key=lambda f: (f.cost, -f.reward, f.architecture)):
            if one.reward > best:
                best = one.reward
                found.append(one)
        return found

    def evaluated(self) -> list[Found]:
        """Every trial that has a reward, failed ones left out, in the order of asking."""
        trials, rewards = self.history.trials, self.history.rewards
        return [
            Found(trials[n].architecture, rewards[n], trials[n].cost, n)
            for n in sorted(rewards)
            if rewards[n] > LAST
        ]

    def known(self, architecture: Architecture) -> int | None:
        """Number of the trial that has this architecture or an equal one; None if none has."""
        return self.history.by_key.get(self.space.key(architecture))

    def feasible(self, architecture: Architecture) -> bool:
        """Whether a finished architecture is valid and every cost is in range."""
        return (
            self.limit.holds(self.cost.total(architecture))
            and all(limit.holds(cost.total(architecture)) for cost, limit in self.constraints)
            and self.space.valid(architecture)
        )

    def reachable(self, prefix: Architecture) -> bool:
        """Whether a completion can be in range, as far as proven bounds can tell."""
        if self.cost.proven and not self.limit.meets(self.cost.bounds(prefix)):
            return False
        return all(
            not cost.proven or limit.meets(cost.bounds(prefix)) for cost, limit in self.constraints
        )

    def range_of_costs(self) -> Bounds:
        """Least and greatest cost of any architecture, as far as bounds tell."""
        return self.cost.bounds(())

    # -- keeping and restoring -------------------------------------------------------------------

    def state_dict(self) -> dict[str, object]:
        """Seed, journal and order of rewards, of plain types: all that `load_state_dict` needs."""
        rewards = self.history.rewards
        journal = [
            {
                "architecture": list(trial.architecture),
                "reward": _plain(rewards[trial.number]) if trial.number in rewards else "pending",
                "note": note_to_plain(trial.note),
            }
            for trial in self.history.trials
        ]
        return {"seed": self.seed, "journal": journal, "told": list(rewards)}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore a search that was built with the same settings.

        Raises:
            ConfigError: this search has trials already, or the journal is of another space.
        """
        if self.history.trials:
            raise ConfigError("load_state_dict needs a fresh search; this one has trials already.")
        journal, told = state["journal"], state["told"]
        assert isinstance(journal, list)
        assert isinstance(told, list)
        self.seed = int(state["seed"])  # type: ignore[call-overload]  # written by state_dict
        for row in journal:
            self.space.check(row["architecture"])
            self.enter(tuple(row["architecture"]), note_from_plain(row["note"]))
        for number in told:
            self.tell(number, journal[number]["reward"])

    @property
    def cursor(self) -> tuple[int, ...]:
        """Where the search stands: what a trial that others put in must hand on."""
        return ()

    def has_more(self) -> bool:
        """False where `ask` will surely propose nothing more; True where it may."""
        return not (self._infeasible or self._ended)

    # -- for a search to write -------------------------------------------------------------------

    @abstractmethod
    def _propose(self, rng: random.Random) -> tuple[Architecture, Note] | None:
        """An architecture that is not known yet, and why; None if there is none now."""

    def _asked(self, trial: Trial) -> None:  # noqa: B027 # most searches learn from rewards alone
        """Remember that a trial is in flight."""

    def _told(self, trial: Trial, reward: float) -> None:  # noqa: B027 # as above
        """Learn from a reward."""

    def _rng(self) -> random.Random:
        # From the seed and what is finished alone, so that a journal restores it. Only random() is
        # drawn from it: Python promises that it stays the same.
        history = self.history
        finished = len(history.rewards)
        return random.Random((self.seed << 64) | (finished << 32) | len(history.trials))


def as_limit(limit: float | tuple[float, float]) -> Limit:
    """Read a range, or the most alone.

    Raises:
        ConfigError: it is empty or NaN.
    """
    low, high = limit if isinstance(limit, tuple) else (-math.inf, float(limit))
    if not low <= high:
        raise ConfigError(f"limit=({low:g}, {high:g}): must be (least, most), least first.")
    return Limit(float(low), float(high))


def note_to_plain(note: Note) -> list[object]:
    """A note as lists, for JSON."""
    free = [[length, list(architecture)] for length, architecture in note.free]
    return [note.how, note.length, list(note.cursor), free]


def note_from_plain(plain: Sequence[object]) -> Note:
    """The way back."""
    how, length, cursor, free = plain
    assert isinstance(how, str)
    assert isinstance(length, int)
    assert isinstance(cursor, list)
    assert isinstance(free, list)
    return Note(how, length, tuple(cursor), tuple((n, tuple(arch)) for n, arch in free))


def pick(rng: random.Random, n: int) -> int:
    """A position of n, uniformly."""
    i = int(rng.random() * n)
    return i if i < n else n - 1  # the product may round up to n


def _plain(reward: float) -> float | None:
    return None if reward == LAST else reward
