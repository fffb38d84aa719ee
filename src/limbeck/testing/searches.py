"""What every architecture search must do, whoever wrote it."""

import itertools
import json
import math
import random
from abc import ABC, abstractmethod

from limbeck.errors import ConfigError
from limbeck.search import AdditiveCost, Architecture, Cost, Layer, LayerwiseSpace, Searcher

_SIZES = (4, 3, 5, 3)
_TRIALS = 60


class SearchSuite(ABC):
    """Tests of one search; derive from it and say how it is made."""

    @abstractmethod
    def make(self, cost: Cost, limit: float, seed: int) -> Searcher:
        """A new search without trials; equal ones for equal seeds."""

    def problem(
        self, sizes: tuple[int, ...] = _SIZES
    ) -> tuple[AdditiveCost, dict[Architecture, float], float]:
        """Costs in whole numbers, rewards without structure, and a limit half way."""
        rng = random.Random(3)
        space = LayerwiseSpace(tuple(Layer(f"l{i}", tuple(range(k))) for i, k in enumerate(sizes)))
        cost = AdditiveCost(space, [[float(rng.randrange(9)) for _ in range(k)] for k in sizes])
        every = itertools.product(*map(range, sizes))
        low, high = cost.bounds(())
        return cost, {one: rng.gauss(0, 1) for one in every}, float(int((low + high) / 2))

    def run(self, search: Searcher, rewards: dict[Architecture, float], trials: int) -> int:
        """Evaluate what is asked for; how many that were."""
        for done in range(trials):
            trial = search.ask()
            if trial is None:
                return done
            search.tell(trial.number, rewards[trial.architecture])
        return trials

    def test_nothing_is_asked_twice_and_the_best_is_the_best_in_range(self) -> None:
        cost, rewards, limit = self.problem()
        search = self.make(cost, limit, 0)
        self.run(search, rewards, 2 * _TRIALS)
        seen = [trial.architecture for trial in search.history.trials]
        assert len(set(seen)) == len(seen) > 10
        inside = [one for one in seen if cost.total(one) <= limit]
        assert search.best is not None
        assert search.best.reward == max(rewards[one] for one in inside)
        assert search.best.cost == cost.total(search.best.architecture)

    def test_a_seed_gives_the_same_journal_and_another_seed_another(self) -> None:
        cost, rewards, limit = self.problem()
        journals = []
        for seed in (3, 3, 4):
            search = self.make(cost, limit, seed)
            self.run(search, rewards, 40)
            journals.append([trial.architecture for trial in search.history.trials])
        assert journals[0] == journals[1] != journals[2]

    def test_restored_from_its_journal_at_any_trial_it_goes_on_the_same_way(self) -> None:
        cost, rewards, limit = self.problem()
        whole = self.make(cost, limit, 1)
        self.run(whole, rewards, _TRIALS)
        for stop in range(0, _TRIALS, 7):
            first, second = self.make(cost, limit, 1), self.make(cost, limit, 9)
            self.run(first, rewards, stop)
            second.load_state_dict(json.loads(json.dumps(first.state_dict())))
            self.run(second, rewards, _TRIALS - len(second.history.trials))
            assert second.history.trials == whole.history.trials
            assert second.best == whole.best

    def test_with_many_in_flight_a_restored_search_asks_the_same(self) -> None:
        cost, rewards, limit = self.problem()
        rng, flying = random.Random(0), []
        search = self.make(cost, limit, 5)
        for _ in range(80):
            if rng.random() < 0.6 and (trial := search.ask()) is not None:
                flying.append(trial)
            elif flying:
                trial = flying.pop(rng.randrange(len(flying)))
                search.tell(trial.number, rewards[trial.architecture])
        other = self.make(cost, limit, 6)
        other.load_state_dict(json.loads(json.dumps(search.state_dict())))
        for _ in range(10):
            mine, theirs = search.ask(), other.ask()
            assert mine == theirs
            if mine is not None:
                for one in (search, other):
                    one.tell(mine.number, rewards[mine.architecture])

    def test_failed_trials_count_and_are_neither_the_answer_nor_asked_again(self) -> None:
        cost, rewards, limit = self.problem()
        search = self.make(cost, limit, 0)
        for turn in range(2 * _TRIALS):
            trial = search.ask()
            if trial is None:
                break
            bad = (None, math.nan, -math.inf)[turn % 3]
            failed = trial.architecture[1] == 1
            search.tell(trial.number, bad if failed else rewards[trial.architecture])
        asked = [trial.architecture for trial in search.history.trials]
        assert len(set(asked)) == len(asked)
        assert search.best is not None
        assert search.best.architecture[1] != 1
        assert all(found.architecture[1] != 1 for found in search.front())

    def test_when_every_trial_fails_it_ends_without_an_answer(self) -> None:
        cost, rewards, limit = self.problem((2, 2, 2))
        search = self.make(cost, limit, 0)
        assert self.run(search, dict.fromkeys(rewards, math.nan), 1_000) <= len(rewards)
        assert search.best is None
        assert search.front() == []
        assert search.status == "exhausted"
        assert not search.has_more()

    def test_a_limit_that_nothing_meets_is_said_before_any_trial(self) -> None:
        cost, _, _ = self.problem()
        search = self.make(cost, cost.bounds(()).low - 1, 0)
        assert search.status == "infeasible"
        assert search.ask() is None

    def test_the_front_is_what_nothing_as_cheap_beats(self) -> None:
        cost, rewards, limit = self.problem()
        search = self.make(cost, limit, 0)
        self.run(search, rewards, _TRIALS)
        front = search.front()
        assert [one.cost for one in front] == sorted(one.cost for one in front)
        for one in search.evaluated():
            as_cheap = [other for other in front if other.cost <= one.cost]
            assert max(other.reward for other in as_cheap) >= one.reward

    def test_options_that_may_not_follow_are_never_asked_for(self) -> None:
        layers = tuple(Layer(f"l{i}", (0, 1, 2)) for i in range(4))
        space = LayerwiseSpace(layers, is_valid=lambda prefix, s: prefix[-1:] != (s,))
        search = self.make(AdditiveCost(space, [[0.0, 1.0, 2.0]] * 4), 5.0, 0)
        every = itertools.product(range(3), repeat=4)
        self.run(search, {one: float(sum(one)) for one in every}, _TRIALS)
        assert all(space.valid(trial.architecture) for trial in search.history.trials)
        assert search.best is not None

    def test_a_trial_has_one_reward_and_an_unknown_one_none(self) -> None:
        cost, _, limit = self.problem()
        search = self.make(cost, limit, 0)
        assert "never asked" in self._refusal(search, 0, 1.0)
        trial = search.ask()
        assert trial is not None
        search.tell(trial.number, 1.0)
        search.tell(trial.number, 1.0)
        assert "one reward" in self._refusal(search, trial.number, 2.0)
        trial = search.ask()
        assert trial is not None
        assert "finite" in self._refusal(search, trial.number, math.inf)

    def _refusal(self, search: Searcher, number: int, reward: float) -> str:
        """What a search says to a reward that it refuses."""
        try:
            search.tell(number, reward)
        except ConfigError as error:
            return str(error)
        return ""
