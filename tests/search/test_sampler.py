"""Searches as samplers of Optuna: the study alone is the memory."""

import subprocess
import sys
import textwrap

import optuna
import pytest

from limbeck.errors import ConfigError
from limbeck.search import LayerNAS, RandomSearch
from limbeck.search.sampler import ATTRIBUTE, LayerNASSampler, SearchSampler, suggest

from .problems import gen, run
from .test_search import noisy

optuna.logging.set_verbosity(optuna.logging.WARNING)


def architectures(study, trials=None):
    trials = study.trials if trials is None else trials
    return [tuple(t.system_attrs[ATTRIBUTE]["architecture"]) for t in trials]


def objective_of(cost, reward, sign=1.0):
    def objective(trial):
        values = suggest(trial, cost.space)
        return sign * reward(cost.space.architecture(values))

    return objective


def test_a_study_goes_the_way_of_the_search():
    cost, reward, limit = noisy()
    study = optuna.create_study(direction="maximize", sampler=LayerNASSampler(cost, limit, seed=3))
    study.optimize(objective_of(cost, reward), n_trials=40)
    search = LayerNAS(cost, limit, generator=gen(3))
    run(search, reward, 40)
    assert architectures(study) == [t.architecture for t in search.history.trials]
    assert study.best_value == search.best.reward


def test_minimising_is_maximising_the_negative():
    cost, reward, limit = noisy()
    one = optuna.create_study(direction="maximize", sampler=LayerNASSampler(cost, limit))
    other = optuna.create_study(direction="minimize", sampler=LayerNASSampler(cost, limit))
    one.optimize(objective_of(cost, reward), n_trials=30)
    other.optimize(objective_of(cost, reward, -1.0), n_trials=30)
    assert architectures(one) == architectures(other)


@pytest.mark.parametrize("stop", [0, 1, 17, 29])
def test_a_study_resumed_from_its_storage_goes_on_as_if_never_stopped(tmp_path, stop):
    cost, reward, limit = noisy()
    whole = optuna.create_study(direction="maximize", sampler=LayerNASSampler(cost, limit))
    whole.optimize(objective_of(cost, reward), n_trials=30)
    for n in (stop, 30 - stop):
        study = optuna.create_study(
            study_name="s",
            storage=f"sqlite:///{tmp_path}/study.db",
            direction="maximize",
            load_if_exists=True,
            sampler=LayerNASSampler(cost, limit),
        )
        study.optimize(objective_of(cost, reward), n_trials=n)
    assert architectures(study) == architectures(whole)
    assert [t.value for t in study.trials] == [t.value for t in whole.trials]


def test_failed_and_pruned_trials_are_not_asked_again():
    cost, reward, limit = noisy()
    study = optuna.create_study(direction="maximize", sampler=LayerNASSampler(cost, limit))

    def objective(trial):
        values = suggest(trial, cost.space)
        if values["l1"] == 1:
            raise optuna.TrialPruned
        if values["l1"] == 2:
            raise ValueError("bad luck")
        return reward(cost.space.architecture(values))

    study.optimize(objective, n_trials=40, catch=(ValueError,))
    found = architectures(study)
    assert len(set(found)) == len(found)
    assert study.best_trial.params["l1"] == 0
    search = study.sampler.search(study)
    assert search.diagnostics().failed == sum(a[1] in (1, 2) for a in found)


def test_trials_put_in_by_hand_count_and_are_not_asked_again():
    cost, reward, limit = noisy()
    study = optuna.create_study(direction="maximize", sampler=LayerNASSampler(cost, limit))
    given = cost.space.values((0, 0, 0, 0))
    study.enqueue_trial(given)
    study.optimize(objective_of(cost, reward), n_trials=30)
    found = [tuple(t.params[f"l{i}"] for i in range(4)) for t in study.trials]
    assert found[0] == (0, 0, 0, 0)
    assert len(set(found)) == 30


def test_a_trial_with_some_options_fixed_counts_as_what_it_evaluated():
    cost, reward, limit = noisy()
    study = optuna.create_study(direction="maximize", sampler=LayerNASSampler(cost, limit))
    study.enqueue_trial({"l0": 3, "l2": 4})
    study.optimize(objective_of(cost, reward), n_trials=20)
    found = [tuple(t.params[f"l{i}"] for i in range(4)) for t in study.trials]
    assert found[0][0] == 3
    assert found[0][2] == 4
    search = study.sampler.search(study)
    assert {one.architecture: one.reward for one in search.evaluated()} == {
        one: reward(one) for one in found
    }


def test_the_study_stops_when_nothing_is_left():
    cost, reward, limit = noisy(sizes=(2, 2, 2))
    study = optuna.create_study(direction="maximize", sampler=LayerNASSampler(cost, limit))
    study.optimize(objective_of(cost, reward), n_trials=100)
    search = study.sampler.search(study)
    assert search.ask() is None
    evaluated = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(evaluated) == len(set(architectures(study, evaluated))) <= 8
    assert len(study.trials) <= len(evaluated) + 1


def test_other_searches_are_samplers_too():
    cost, reward, limit = noisy()
    sampler = SearchSampler(lambda: RandomSearch(cost, limit, generator=gen()))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective_of(cost, reward), n_trials=10)
    search = RandomSearch(cost, limit, generator=gen())
    run(search, reward, 10)
    assert architectures(study) == [t.architecture for t in search.history.trials]


def test_a_learning_rate_beside_the_layers_is_drawn():
    cost, reward, limit = noisy()
    study = optuna.create_study(direction="maximize", sampler=LayerNASSampler(cost, limit))

    def objective(trial):
        rate = trial.suggest_float("rate", 1e-4, 1e-2, log=True)
        assert 1e-4 <= rate <= 1e-2
        return reward(cost.space.architecture(suggest(trial, cost.space)))

    study.optimize(objective, n_trials=10)


def test_what_cannot_work_is_refused():
    cost, _reward, limit = noisy()
    with pytest.raises(ConfigError, match="no architecture is in range"):
        LayerNASSampler(cost, cost.bounds(()).low - 1)
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=LayerNASSampler(cost, limit)
    )
    with pytest.raises(ConfigError, match="2 objectives"):
        study.ask()
    study = optuna.create_study(sampler=LayerNASSampler(cost, limit))
    trial = study.ask()
    with pytest.raises((ConfigError, ValueError), match="dynamic"):
        trial.suggest_categorical("l0", ("other", "options"))


@pytest.mark.slow
def test_several_processes_share_a_study_and_evaluate_nothing_twice(tmp_path):
    code = textwrap.dedent(
        """
        import sys, time, optuna
        from tests.search.test_sampler import objective_of
        from tests.search.test_search import noisy
        from limbeck.search.sampler import LayerNASSampler
        cost, reward, limit = noisy()
        study = optuna.load_study(
            study_name="s", storage=sys.argv[1], sampler=LayerNASSampler(cost, limit)
        )
        def slowly(trial):
            time.sleep(0.01)
            return objective_of(cost, reward)(trial)
        study.optimize(slowly, n_trials=12)
        """
    )
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    workers = [subprocess.Popen([sys.executable, "-c", code, storage]) for _ in range(3)]
    assert [worker.wait(timeout=200) for worker in workers] == [0, 0, 0]
    found = architectures(study)
    assert len(found) == 36
    assert len(set(found)) == 36
