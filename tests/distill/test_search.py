import json
import os
import signal
from pathlib import Path

import pytest

from limbeck.distill.folder import Event
from limbeck.distill.run import distill
from limbeck.distill.search import run as search_run
from limbeck.distill.search.alone import search_alone
from limbeck.distill.search.trials import TrialTrainer
from limbeck.errors import ConfigError, LimbeckError
from limbeck.report.search import SearchView
from limbeck.students import load

from .search_material import asked, config_of, make_search

METHODS = ("layernas", "paper", "evolution", "mnasnet", "local", "random", "tpe", "nsga2")


def journal(folder: Path) -> list[tuple[object, ...]]:
    """What was tried and what it gave, in order."""
    view = SearchView.from_dict(json.loads((folder / "search.json").read_text()))
    return [(one.options, one.cost, one.reward, one.stopped) for one in view.trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that was never stopped, and its run file."""
    run_file = make_search(tmp_path_factory.mktemp("whole"))
    return search_alone(config_of(run_file)), run_file


def test_a_search_tries_what_it_was_told_to_and_answers_with_the_best_in_range(whole):
    outcome = whole[0]
    view = outcome.view
    assert len(view.trials) == 6
    assert len({one.options for one in view.trials}) == 6
    assert view.high == pytest.approx(0.6 * view.base_cost)
    inside = [one for one in view.trials if one.in_range and one.reward is not None]
    assert view.answer.reward == max(one.reward for one in inside)
    assert all(one.in_range for one in view.trials)
    assert SearchView.from_dict(json.loads((outcome.folder / "search.json").read_text())) == view
    assert (outcome.folder / "search.html").read_text().startswith("<!doctype html>")
    assert set(outcome.settings) == {"buckets", "dim", "hidden"}


def test_the_reward_is_that_of_the_same_student_trained_in_a_run_of_its_own(whole, tmp_path):
    outcome, _ = whole
    run_file = make_search(tmp_path)
    given = [
        word
        for name, value in outcome.settings.items()
        for word in (f"--student.settings.{name}", str(value))
    ]
    fixed = config_of(run_file, "--student.arch", "fixed", "--train.steps", "6", *given)
    arm = distill(fixed).evaluation.arm("soft_kd")
    likelihoods = [-point.validation_nll for point in arm.curve]
    # The curve has the likelihood before temperature scaling; the reward the one after it, which
    # is never lower on the rows that the temperature was fitted to.
    assert outcome.view.answer.reward >= max(likelihoods) - 1e-6
    assert arm.parameters == outcome.view.answer.cost


def test_the_front_rises_with_the_cost(whole):
    view = whole[0].view
    front = [view.trial(number) for number in view.front]
    assert [one.cost for one in front] == sorted(one.cost for one in front)
    assert [one.reward for one in front] == sorted(one.reward for one in front)


def test_answers_are_bought_once(whole):
    _, run_file = whole
    before = asked(run_file)
    assert len(before) == len(set(before)) == 40 + 30 + 80
    search_alone(config_of(run_file))
    assert asked(run_file) == before


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends(tmp_path, method):
    config = config_of(make_search(tmp_path), "--search.method", method, "--search.arm", "labels")
    view = search_alone(config).view
    assert len(view.trials) == 6
    assert view.answer.in_range
    assert (view.diagnostics is not None) == (method in ("layernas", "paper"))


def test_an_arm_of_labels_asks_nobody(tmp_path):
    run_file = make_search(tmp_path)
    search_alone(config_of(run_file, "--search.arm", "labels"))
    assert asked(run_file) == []
    # and the budget of the run that follows is still looked at
    with pytest.raises(ConfigError, match="budget"):
        distill(config_of(run_file, "--search.arm", "labels", "--budget", "5"))


class Stopped(BaseException):
    """As if the process had died."""


def stop_after(monkeypatch, trials):
    """Die within the training of a trial, after `trials` of them."""
    train, seen = TrialTrainer.evaluate, []

    def evaluate(self, name, architecture, look):
        seen.append(name)
        if len(seen) <= trials:
            return train(self, name, architecture, look)

        def dying(reward, evaluation):
            raise Stopped

        return train(self, name, architecture, dying)

    monkeypatch.setattr(TrialTrainer, "evaluate", evaluate)


@pytest.mark.parametrize("method", ["layernas", "evolution"])
def test_a_search_that_died_at_any_trial_ends_as_one_that_did_not(tmp_path, monkeypatch, method):
    options = ("--search.method", method)
    search_alone(config_of(make_search(tmp_path / "never"), *options))
    run_file = make_search(tmp_path / "often")
    for trials in (0, 1, 2, 1):
        with monkeypatch.context() as patched:
            stop_after(patched, trials)
            with pytest.raises(Stopped):
                search_alone(config_of(run_file, *options))
    search_alone(config_of(run_file, *options))
    assert journal(tmp_path / "often" / "run") == journal(tmp_path / "never" / "run")
    assert not list((tmp_path / "often" / "run" / "checkpoints").glob("search*"))


@pytest.mark.slow
def test_a_search_that_was_killed_ends_as_one_that_was_not(whole, tmp_path):
    run_file = make_search(tmp_path)
    for seconds in (2.0, 2.5, 3.0, 3.5):
        child = os.fork()
        if child == 0:
            try:
                signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
                signal.setitimer(signal.ITIMER_REAL, seconds)
                search_alone(config_of(run_file))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    search_alone(config_of(run_file))
    assert journal(tmp_path / "run") == journal(whole[0].folder)
    questions = asked(run_file)
    assert set(questions) == set(asked(whole[1]))


def test_more_trials_add_to_those_that_are_there(tmp_path):
    run_file = make_search(tmp_path)
    few = search_alone(config_of(run_file, "--search.trials", "3")).view.trials
    more = search_alone(config_of(run_file)).view.trials
    assert more[:3] == few
    assert len(more) == 6


def test_the_same_trials_are_not_trained_again(whole, monkeypatch):
    def never(self, name, architecture, look):
        raise AssertionError(name)

    monkeypatch.setattr(TrialTrainer, "evaluate", never)
    assert search_alone(config_of(whole[1])).view == whole[0].view


@pytest.mark.slow
def test_processes_give_each_student_the_reward_that_it_has_here(whole, tmp_path):
    run_file = make_search(tmp_path)
    view = search_alone(config_of(run_file, "--search.workers", "2", "--search.trials", "8")).view
    here = {one.options: one.reward for one in whole[0].view.trials}
    assert len(view.trials) == 8
    assert all(one.reward is not None for one in view.trials)
    both = [one for one in view.trials if one.options in here]
    assert both
    assert all(one.reward == pytest.approx(here[one.options], abs=1e-5) for one in both)


@pytest.mark.slow
def test_ray_actors_train_too(whole, tmp_path):
    pytest.importorskip("ray")
    run_file = make_search(tmp_path)
    view = search_alone(config_of(run_file, "--engine", "ray", "--search.trials", "2")).view
    here = {one.options: one.reward for one in whole[0].view.trials}
    assert all(one.reward == pytest.approx(here[one.options], abs=1e-5) for one in view.trials)


@pytest.mark.parametrize("stop", ["median", "halving"])
def test_trials_that_are_given_up_have_no_reward(tmp_path, stop):
    config = config_of(
        make_search(tmp_path), "--search.stop", stop, "--search.trials", "12", "--search.steps",
        "10", "--train.evaluations", "5", "--search.share", "2",
    )  # fmt: skip
    view = search_alone(config).view
    stopped = [one for one in view.trials if one.stopped]
    assert stopped
    assert all(one.reward is None and one.steps < 10 for one in stopped)
    assert all(one.reward is not None for one in view.trials if not one.stopped)


def test_a_student_that_diverges_counts_and_the_search_goes_on(tmp_path, monkeypatch):
    train = TrialTrainer.evaluate

    def evaluate(self, name, architecture, look):
        if name == "search.trial-1":
            raise ConfigError("the mean loss is nan")
        return train(self, name, architecture, look)

    monkeypatch.setattr(TrialTrainer, "evaluate", evaluate)
    view = search_alone(config_of(make_search(tmp_path))).view
    assert [one.number for one in view.trials if one.failed] == [1]
    assert len(view.trials) == 6
    assert any("the mean loss is nan" in note for note in view.notes)


def test_where_every_trial_fails_the_search_says_so(tmp_path, monkeypatch):
    train = TrialTrainer.evaluate

    def evaluate(self, name, architecture, look):
        if name != "search.base":
            raise ConfigError("the mean loss is nan")
        return train(self, name, architecture, look)

    monkeypatch.setattr(TrialTrainer, "evaluate", evaluate)
    with pytest.raises(LimbeckError, match=r"6 students, 6 of which failed"):
        search_alone(config_of(make_search(tmp_path)))


def test_a_run_trains_what_its_search_has_found(tmp_path, monkeypatch):
    run_file = make_search(tmp_path)
    searched = search_alone(config_of(run_file))
    outcome = distill(config_of(run_file))
    assert outcome.record.search == searched.view
    shipped = load(outcome.student).student.module.settings
    assert {name: getattr(shipped, name) for name in searched.settings} == searched.settings
    sizes = {arm.parameters for arm in outcome.evaluation.arms}
    assert sizes == {int(searched.view.answer.cost)}
    assert "Search" in outcome.report.read_text()

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(search_run, "search", never)
    assert distill(config_of(run_file)).record.evaluation == outcome.record.evaluation
    with pytest.raises(ConfigError, match="has settled on the best of 6 trials"):
        distill(config_of(run_file, "--search.trials", "9"))


def test_what_happens_is_told(tmp_path):
    events: list[Event] = []
    search_alone(config_of(make_search(tmp_path)), events.append)
    progress = [event.done for event in events if event.stage == "search" and event.total == 6]
    assert progress == [1, 2, 3, 4, 5, 6]
    assert any("is the best of 1 of 6 so far" in event.message for event in events)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--search.limit", "10"), "no student is within the limit"),
        (("--search.cost", "watts"), "the costs of text_bag are"),
        (("--search.options.dim", "[8, 32]"), "dim=16 of the base settings is not among"),
        (("--search.options.width", "[8]"), "did you mean"),
        (("--search.options.dim", "['a']"), "must be a list of numbers"),
        (("--search.arm", "slam"), "must be one of the arms of this run"),
        (("--search.cost", "latency"), "latency is read from a table"),
        (("--search.storage", "nowhere://x"), "cannot be used"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anybody_is_asked(tmp_path, options, message):
    run_file = make_search(tmp_path)
    with pytest.raises(ConfigError, match=message):
        search_alone(config_of(run_file, *options))
    assert asked(run_file) == []


def test_several_processes_of_one_run_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="without accelerate launch"):
        search_alone(config_of(make_search(tmp_path)))


def test_other_settings_do_not_go_on_with_a_study(whole, tmp_path):
    run_file = make_search(tmp_path)
    search_alone(config_of(run_file, "--search.arm", "labels"))
    with pytest.raises(ConfigError, match="other rows or settings"):
        search_alone(config_of(run_file, "--search.arm", "labels", "--search.steps", "7"))
