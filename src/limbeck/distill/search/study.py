"""The study of a search: an Optuna study that holds every trial, and is all that has to survive.

One process asks and tells. A trial that was under way when it died is taken up again before
anything new is asked for, so the trials are those of a run that was never stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.distill.config import DistillConfig
from limbeck.distill.folder import RunFolder, settings_hash
from limbeck.distill.search.problem import SearchProblem
from limbeck.distill.search.samplers import make_sampler
from limbeck.distill.search.storage import open_study, quiet
from limbeck.distill.search.trials import TrialResult
from limbeck.errors import ConfigError, missing_extra
from limbeck.report.search import SearchTrial
from limbeck.search import Architecture, Searcher

try:
    import optuna
    from optuna.trial import FrozenTrial, TrialState

    from limbeck.search.sampler import ATTRIBUTE, SearchSampler, distributions
except ImportError as error:
    raise missing_extra("optuna", "search") from error

BASE, SETTINGS, CHECK = "limbeck:base", "limbeck:settings", "limbeck:check"
RESULT, WHY = "limbeck:result", "limbeck:why"
_MEMORY = 4
"""Proposals for each trial after which a sampler that repeats itself is told to end."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial to train.

    Args:
        number: In the study.
        architecture: Positions of options.
    """

    number: int
    architecture: Architecture

    @property
    def name(self) -> str:
        """Of its checkpoint."""
        return f"search.trial-{self.number}"


class SearchStudy:
    """Asks for architectures, is told what they gave, and keeps both.

    Args:
        config: The run's settings.
        problem: The space.
        folder: Where the study lies, unless `search.storage` says another place.
        name: Of the study.
        rows: Hash of what trials learn from.

    Raises:
        ConfigError: the storage cannot be used, or holds a study of other rows or settings.
    """

    def __init__(
        self,
        config: DistillConfig,
        problem: SearchProblem,
        folder: RunFolder,
        name: str,
        rows: str = "",
    ) -> None:
        self.problem = self._problem = problem
        self._config = config
        self._sampler = make_sampler(config, problem)
        with quiet():
            self.study = open_study(config, folder, name, self._sampler)
        shape = settings_hash(
            repr(problem.students.space.layers), problem.arm, config.search.method, config.seed,
            config.search.cost, list(problem.limit), config.search.reward, rows,
            config.search.one_shot,
        )  # fmt: skip
        known = self.study.user_attrs.get(SETTINGS)
        if known is None:
            self.study.set_user_attr(SETTINGS, shape)
        elif known != shape:
            raise ConfigError(
                f"the study {name} was begun with other rows or settings; choose another folder "
                f"with --out."
            )
        self._given: set[int] = set()

    # -- the base --------------------------------------------------------------------------------

    @property
    def base(self) -> dict[str, Any] | None:
        """What the student gave that the search begins with; None before it was trained."""
        found = self.study.user_attrs.get(BASE)
        return None if found is None else dict(found)

    def keep_base(self, result: TrialResult) -> None:
        """Write it down."""
        self.study.set_user_attr(BASE, result.to_dict())

    @property
    def checked(self) -> dict[str, float]:
        """Rewards of trials that were also trained on their own, by number."""
        return dict(self.study.user_attrs.get(CHECK, {}))

    def keep_check(self, number: int, result: TrialResult) -> None:
        """Write one of them down."""
        self.study.set_user_attr(CHECK, {**self.checked, str(number): result.reward})

    # -- asking and telling ----------------------------------------------------------------------

    def ask(self) -> Asked | None:
        """A trial that was under way, or a new one; None where there is none to give now."""
        for trial in self._trials((TrialState.RUNNING,)):
            if trial.number not in self._given:
                self._given.add(trial.number)
                if (architecture := self._whole(trial)) is not None:
                    return Asked(trial.number, architecture)
        for _ in range(_MEMORY * self._config.search.trials):
            if self.count() >= self._config.search.trials:
                return None
            asked = self._new()
            if asked is None or self._problem.students.space.valid(asked.architecture):
                return asked
            self.fail(asked, "the options do not go together")
        return None

    def _new(self) -> Asked | None:
        with quiet():
            try:
                trial = self.study.ask(distributions(self._problem.students.space))
            except ConfigError:  # nothing is left, or nothing before a reward comes in
                for begun in self._trials((TrialState.RUNNING,)):
                    if begun.number not in self._given:
                        self.study.tell(begun.number, state=TrialState.FAIL)
                return None
            architecture = self._problem.students.space.architecture(trial.params)
            self._constrain(trial, architecture)
        self._given.add(trial.number)
        return Asked(trial.number, architecture)

    def _constrain(self, trial: "optuna.Trial", architecture: Architecture) -> None:
        """Tell a sampler of Optuna's by how much a trial misses the limit; ours know it."""
        if isinstance(self._sampler, SearchSampler):
            return
        cost, limit = self._problem.cost.total(architecture), self._problem.limit
        trial.set_constraint("most", cost / limit.high - 1)
        if limit.low:
            trial.set_constraint("least", 1 - cost / limit.low)

    def tell(self, asked: Asked, result: TrialResult) -> None:
        """Write down what a trial gave; its details before its reward, which ends it."""
        self._detail(asked.number, RESULT, result.to_dict())
        with quiet():
            if result.stopped:
                self.study.tell(asked.number, state=TrialState.PRUNED)
            else:
                self.study.tell(asked.number, result.reward)

    def fail(self, asked: Asked, why: str) -> None:
        """Write down that a trial has no reward, and why."""
        self._detail(asked.number, WHY, why)
        with quiet():
            self.study.tell(asked.number, state=TrialState.FAIL)

    def known(self, architecture: Architecture) -> TrialResult | None:
        """What an equal architecture gave before, the base among them; None where none has."""
        key = self._problem.students.space.key
        if self.base is not None and key(architecture) == key(self._problem.base):
            return TrialResult(**self.base)
        for trial in self._trials((TrialState.COMPLETE,)):
            if self._architecture(trial) == architecture:
                return TrialResult(**trial.user_attrs[RESULT])
        return None

    def unfinished(self) -> bool:
        """Whether there may be something to train."""
        running = self._trials((TrialState.RUNNING, TrialState.WAITING))
        return bool(running) or self.count() < self._config.search.trials

    def notes(self) -> tuple[str, ...]:
        """Why trials have failed, each reason once."""
        found = [trial.user_attrs[WHY] for _, trial in self.trials() if WHY in trial.user_attrs]
        return tuple(f"A trial failed: {why}" for why in dict.fromkeys(found))

    def count(self) -> int:
        """Trials that have an architecture, those under way and those that failed included."""
        return len(self.trials())

    def trials(self) -> list[tuple[Architecture, FrozenTrial]]:
        """Trials with their architectures, in the order of asking."""
        found = ((self._architecture(one), one) for one in self._trials())
        valid = self._problem.students.space.valid
        return [(one, trial) for one, trial in found if one is not None and valid(one)]

    def _trials(self, states: Sequence[TrialState] | None = None) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=None if states is None else (*states,))

    def _detail(self, number: int, name: str, value: object) -> None:
        trial_id = self._trials()[number]._trial_id
        self.study._storage.set_trial_user_attr(trial_id, name, value)

    def _architecture(self, trial: FrozenTrial) -> Architecture | None:
        space = self._problem.students.space
        if all(layer.name in trial.params for layer in space.layers):
            return space.architecture({one.name: trial.params[one.name] for one in space.layers})
        asked = trial.system_attrs.get(ATTRIBUTE)
        return None if asked is None else tuple(asked["architecture"])

    def _whole(self, trial: FrozenTrial) -> Architecture | None:
        """The architecture of a trial that was begun, whose parameters a kill may have cut off."""
        architecture = self._architecture(trial)
        if architecture is None:  # cut off before anything was asked for
            self.study.tell(trial.number, state=TrialState.FAIL)
            return None
        space = self._problem.students.space
        for name, kind in distributions(space).items():
            if name not in trial.params:
                value = kind.to_internal_repr(space.values(architecture)[name])
                self.study._storage.set_trial_param(trial._trial_id, name, value, kind)
        return architecture

    # -- what is known ---------------------------------------------------------------------------

    def search(self) -> Searcher | None:
        """The search as it stands, for its diagnostics; None for a sampler of Optuna's own."""
        if not isinstance(self._sampler, SearchSampler):
            return None
        return self._sampler.search(self.study)

    def rows(self) -> tuple[SearchTrial, ...]:
        """The trials as a report shows them."""
        return tuple(self._row(n, *one) for n, one in enumerate(self.trials()))

    def _row(self, number: int, architecture: Architecture, trial: FrozenTrial) -> SearchTrial:
        result = trial.user_attrs.get(RESULT, {})
        cost = self._problem.cost.total(architecture)
        asked = trial.system_attrs.get(ATTRIBUTE)
        finished = trial.state == TrialState.COMPLETE
        return SearchTrial(
            number=number,
            options=architecture,
            cost=cost,
            in_range=self._problem.limit.holds(cost),
            reward=result["reward"] if finished else None,
            how=self._config.search.method if asked is None else asked["note"][0],
            seconds=result.get("seconds"),
            steps=result.get("steps"),
            stopped=trial.state == TrialState.PRUNED,
        )
