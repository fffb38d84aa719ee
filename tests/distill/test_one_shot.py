import numpy as np
import pytest
import torch

from limbeck.distill.arms import ArmTrainer
from limbeck.distill.run import distill
from limbeck.distill.run_file import load_config
from limbeck.distill.search.alone import search_alone
from limbeck.distill.search.one_shot import SharedTrainer, agreement, to_check
from limbeck.errors import ConfigError
from limbeck.report.search import SearchTrial
from limbeck.students import load

from .search_material import asked, make_search

RUN = """
budget = 400
out = "run"
onnx = false

[data]
labelled = "labelled.npz"
validation = "validation.npz"
test = "test.npz"
pool = "pool.npz"

[teacher]
kind = "fit"

[student]
kind = "image_cnn"
arch = "search"

[student.settings]
width = 8
last_width = 16
augment = "none"

[train]
steps = 20
pool_batch = 32
labelled_batch = 16
folds = 2

[objective]
arms = ["labels", "soft_kd"]

[search]
trials = 12
one_shot = true
check = 5
share = 9
arm = "labels"

[search.options]
width = [8, 16]
expansion = [1.0, 2.0]
kernel = [3, 5]
blocks = [1, 2]
last_width = [16, 24]
last_kernel = [3]
last_blocks = [1]
"""


@pytest.fixture
def run_file(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("labelled", 64), ("validation", 60), ("test", 40), ("pool", 64)):
        y = rng.integers(0, 2, n)
        x = rng.integers(0, 120, (n, 16, 16)).astype(np.uint8)
        x[y == 1, :, :8] += 40
        labels = {} if name == "pool" else {"label": y}
        np.savez(tmp_path / f"{name}.npz", image=x, **labels)
    path = tmp_path / "run.toml"
    path.write_text(RUN)
    return path


def test_trials_borrow_their_weights_and_some_are_trained_to_say_how_true_that_is(
    run_file, monkeypatch
):
    trained, fitted = [], ArmTrainer.fitted

    def counted(self, name, checkpoint, *rest, **more):
        trained.append(checkpoint)
        return fitted(self, name, checkpoint, *rest, **more)

    monkeypatch.setattr(ArmTrainer, "fitted", counted)
    view = search_alone(load_config(run_file)).view
    assert len(view.trials) == 12
    assert trained[0] == "search.supernet"
    assert len(trained) == 1 + 5
    assert all(one.reward is not None and one.steps == 0 for one in view.trials)
    assert view.answer.reward > 0.6
    assert any("Kendall's tau with the rewards of 5" in note for note in view.notes)
    trained.clear()
    assert search_alone(load_config(run_file)).view == view
    assert trained == []


def test_a_search_that_died_gives_what_one_that_did_not_gives(run_file, monkeypatch, tmp_path):
    whole = search_alone(load_config(run_file, ["--out", str(tmp_path / "whole")])).view
    evaluate, seen = SharedTrainer.evaluate, []

    def dying(self, name, architecture, look):
        seen.append(name)
        if len(seen) in (2, 5):
            raise KeyboardInterrupt
        return evaluate(self, name, architecture, look)

    monkeypatch.setattr(SharedTrainer, "evaluate", dying)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search_alone(load_config(run_file))
    again = search_alone(load_config(run_file)).view
    rewards = [(one.options, one.reward) for one in again.trials]
    assert rewards == [(one.options, one.reward) for one in whole.trials]
    assert again.notes == whole.notes


@pytest.mark.slow
def test_a_run_trains_what_a_one_shot_search_has_found(run_file):
    outcome = distill(load_config(run_file, ["--search.arm", "soft_kd", "--search.trials", "6"]))
    shipped = load(outcome.student).student.module.settings
    found = outcome.record.search
    chosen = {
        layer.name: layer.options[at]
        for layer, at in zip(found.layers, found.answer.options, strict=True)
    }
    assert {name: f"{getattr(shipped, name):g}" for name in chosen} == chosen


def test_only_images_have_a_shared_network(tmp_path):
    run_file = make_search(tmp_path)
    with pytest.raises(ConfigError, match="one_shot knows the student image_cnn"):
        search_alone(load_config(run_file, ["--search.one-shot"]))
    assert asked(run_file) == []


def test_stopping_early_does_not_go_with_it(run_file):
    with pytest.raises(ConfigError, match="none can be given up"):
        load_config(run_file, ["--search.stop", "median"])


def trial(number, reward, in_range=True):
    return SearchTrial(number, (0,), 1.0, in_range, reward, "sweep")


def test_students_to_check_are_spread_from_the_worst_to_the_best():
    trials = [trial(i, i / 10) for i in range(11)] + [trial(11, 9.0, False), trial(12, None)]
    assert [one.number for one in to_check(trials, 3)] == [0, 5, 10]
    assert len(to_check(trials, 100)) == 11
    assert to_check(trials, 0) == []
    assert [one.number for one in to_check(trials, 1)] == [0]


def test_agreement_is_kendalls_tau():
    pairs = [(1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (4.0, 4.0)]  # one of six pairs is swapped
    assert "0.67" in agreement(pairs)
    assert "1.00" in agreement([(x, x**2) for x in (1.0, 2.0, 3.0, 4.0)])
    assert agreement(pairs[:3]) == ""
    assert "nothing" in agreement([(x, 1.0) for x in (1.0, 2.0, 3.0, 4.0)])


def test_the_global_generator_is_left_alone(run_file):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    search_alone(load_config(run_file, ["--search.trials", "2", "--search.check", "0"]))
    assert torch.equal(before, torch.get_rng_state())
