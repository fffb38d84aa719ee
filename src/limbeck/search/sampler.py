"""Searches as samplers of Optuna: one categorical parameter a layer.

Optuna keeps the trials; the search is a mirror of them and is rebuilt from the study alone. So
storages, dashboards, pruners, plots and parallel workers of Optuna serve as they are.

    study = optuna.create_study(direction="maximize", sampler=LayerNASSampler(cost, limit, seed=0))
    study.optimize(objective, n_trials=60)

An objective asks for its options with `trial.suggest_categorical(layer.name, layer.options)`, or
for all of them with `suggest(trial, space)`.

Source: Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework" (KDD 2019).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from limbeck.errors import ConfigError, missing_extra
from limbeck.search.base import Note, Searcher, note_from_plain, note_to_plain
from limbeck.search.costs import Cost
from limbeck.search.layernas import LayerNAS, LayerNASConfig
from limbeck.search.space import Architecture, LayerwiseSpace, Option

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise missing_extra("optuna", "search") from error

ATTRIBUTE = "limbeck:trial"
_TRIES, _LOOKS = 16, 20


class SearchSampler(optuna.samplers.BaseSampler):
    """Any search of ours as a sampler.

    Args:
        make: Builds a fresh search; the same one every time.

    A trial that fails or is pruned counts as failed: what a pruner has stopped early has no reward
    that compares. Parameters that are no layers (a learning rate) are drawn at random.

    Raises:
        ConfigError: no architecture is in range.
    """

    def __init__(self, make: Callable[[], Searcher]) -> None:
        self._make = make
        self._search = make()
        if self._search.status == "infeasible":
            low, high = self._search.range_of_costs()
            raise ConfigError(
                f"no architecture is in range: costs go from {low:g} to {high:g}, and the limit is "
                f"{self._search.limit.low:g} to {self._search.limit.high:g}; change the limit."
            )
        self._numbers: dict[int, int] = {}
        """Number in the search by number in the study."""
        self._others = optuna.samplers.RandomSampler(self._search.seed % 2**32)

    @property
    def space(self) -> LayerwiseSpace:
        """What is searched."""
        return self._search.space

    def search(self, study: "optuna.Study") -> Searcher:
        """The search as the study has it now: for its diagnostics and front."""
        self._follow(study)
        return self._search

    # -- what Optuna calls -----------------------------------------------------------------------

    def infer_relative_search_space(
        self, study: "optuna.Study", trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All layers: an architecture is chosen whole."""
        return distributions(self.space)

    def before_trial(self, study: "optuna.Study", trial: FrozenTrial) -> None:
        """Refuse a study with several objectives."""
        if len(study.directions) != 1:
            raise ConfigError(
                f"the study has {len(study.directions)} objectives and a layerwise search has one; "
                f"give the cost as its limit."
            )

    def sample_relative(
        self,
        study: "optuna.Study",
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Ask the search, and write down in the study what it asked and why."""
        for _ in range(_TRIES):
            self._follow(study, but=trial.number)
            asked = self._search.ask()
            if asked is None:
                return self._nothing(study)
            plain: Any = {
                "architecture": list(asked.architecture),
                "note": note_to_plain(asked.note),
            }
            study._storage.set_trial_system_attr(trial._trial_id, ATTRIBUTE, plain)
            if not self._taken(study, trial.number, asked.architecture):
                self._numbers[trial.number] = asked.number
                return dict(self.space.values(asked.architecture))
            self._restart()
        raise ConfigError(
            f"other workers took {_TRIES} proposals in a row; use fewer workers for this space."
        )

    def _nothing(self, study: "optuna.Study") -> dict[str, Any]:
        """End the study, and the trial that was begun for nothing."""
        why = f"the search is {self._search.status}: no architecture is left to propose"
        if study._thread_local.in_optimize_loop:
            study.stop()
            raise optuna.TrialPruned(why)
        raise ConfigError(f"{why}; ask for fewer trials, or widen the limit.")

    def sample_independent(
        self,
        study: "optuna.Study",
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw what is not a layer."""
        if param_name in {layer.name for layer in self.space.layers}:
            raise ConfigError(
                f"the objective asks for {param_name!r} with other options than the layer has; use "
                f"suggest_categorical with the options of the layer, in their order."
            )
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: "optuna.Study",
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """End the study when the search has nothing left."""
        self._learn(trial, _reward(study, state, values))
        if not self._search.has_more() and study._thread_local.in_optimize_loop:
            study.stop()

    def reseed_rng(self) -> None:
        """Nothing: what is asked follows from the study, and workers see each other there."""

    # -- the mirror ------------------------------------------------------------------------------

    def _follow(self, study: "optuna.Study", *, but: int = -1) -> None:
        """Take over what the study has and the mirror has not, but for one trial."""
        trials = [one for one in study.get_trials(deepcopy=False) if one.number != but]
        if any(self._differs(one) for one in trials):
            self._restart()
        for trial in trials:
            if trial.number not in self._numbers:
                self._enter(trial)
            if trial.state.is_finished():
                self._learn(trial, _reward(study, trial.state, trial.values))

    def _architecture(self, trial: FrozenTrial) -> Architecture | None:
        """What a trial evaluates: its parameters where it has them all, else what was asked."""
        if all(layer.name in trial.params for layer in self.space.layers):
            return self.space.architecture(
                {layer.name: trial.params[layer.name] for layer in self.space.layers}
            )
        asked = trial.system_attrs.get(ATTRIBUTE)
        return None if asked is None else tuple(asked["architecture"])

    def _differs(self, trial: FrozenTrial) -> bool:
        """Whether the mirror knows another proposal: another worker has given it up, or a trial
        that was put in by hand has fixed some of its options."""
        number, architecture = self._numbers.get(trial.number), self._architecture(trial)
        if number is None or architecture is None:
            return False
        return self._search.history.trials[number].architecture != architecture

    def _enter(self, trial: FrozenTrial) -> None:
        architecture, asked = self._architecture(trial), trial.system_attrs.get(ATTRIBUTE)
        if architecture is None:
            return  # just begun elsewhere, or failed before it had one
        if asked is not None and tuple(asked["architecture"]) == architecture:
            note = note_from_plain(asked["note"])
        else:
            # Put there by hand, or by another sampler: it counts, and stands for no prefix.
            note = Note("given", cursor=self._search.cursor)
        self._numbers[trial.number] = self._search.enter(architecture, note).number

    def _learn(self, trial: FrozenTrial, reward: float | None) -> None:
        mirrored = self._numbers.get(trial.number)
        known = mirrored is None or mirrored in self._search.history.rewards
        if mirrored is not None and not known and not self._differs(trial):
            self._search.tell(mirrored, reward)

    def _taken(self, study: "optuna.Study", number: int, architecture: Architecture) -> bool:
        """Whether another worker has written down the same architecture and stays with it.

        Of two that have, the younger trial gives way at once, and the older one looks again before
        it does: if both gave way they could meet again and again.
        """
        for _ in range(_LOOKS):
            others = study.get_trials(deepcopy=False)
            same = [
                other.number
                for other in others
                if other.number != number and self._architecture(other) == architecture
            ]
            if not same:
                return False
            if min(same) < number:
                return True
        return True

    def _restart(self) -> None:
        self._search = self._make()
        self._numbers = {}


def LayerNASSampler(  # a sampler's name, as Optuna's users write them
    cost: Cost,
    limit: float | tuple[float, float],
    config: LayerNASConfig | None = None,
    *,
    constraints: Sequence[tuple[Cost, float | tuple[float, float]]] = (),
    seed: int = 0,
) -> SearchSampler:
    """`LayerNAS` as a sampler of Optuna.

    Args:
        cost, limit, config, constraints: As for `LayerNAS`.
        seed: Every worker of a study must have the same one.
    """
    return SearchSampler(
        lambda: LayerNAS(
            cost,
            limit,
            config,
            constraints=constraints,
            generator=torch.Generator().manual_seed(seed),
        )
    )


def distributions(space: LayerwiseSpace) -> dict[str, BaseDistribution]:
    """One categorical parameter a layer, by name: for `study.ask` or a user's own sampler."""
    return {layer.name: CategoricalDistribution(layer.options) for layer in space.layers}


def suggest(trial: "optuna.Trial", space: LayerwiseSpace) -> dict[str, Option]:
    """Ask a trial for the option of every layer."""
    chosen = {
        layer.name: trial.suggest_categorical(layer.name, layer.options) for layer in space.layers
    }
    return {name: option for name, option in chosen.items() if option is not None}


def _reward(
    study: "optuna.Study", state: TrialState, values: Sequence[float] | None
) -> float | None:
    """Of a finished trial, to be maximised; None for one that failed or was pruned."""
    if state != TrialState.COMPLETE or not values:
        return None
    sign = 1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1.0
    return sign * float(values[0])
