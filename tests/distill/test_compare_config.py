"""What a comparison refuses before it reads a row: one sentence each."""

from dataclasses import replace

import pytest

from limbeck.distill.compare_config import CompareConfig, load_compare_config
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError

from .material import make


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    return make(tmp_path_factory.mktemp("config")).run_file


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({"seeds": 1}, [], r"seeds=1: must be at least 2"),
        ({"workers": -1}, [], r"workers=-1: must be >= 0"),
        ({"arms": "labels"}, [], r"arms='labels' leaves nothing to compare"),
        ({"arms": "labels,hard_kf"}, [], r"arms holds 'hard_kf'; .*did you mean 'hard_kd'"),
        ({"arms": "hard_kd,slam"}, [], r"needs 'labels'"),
        ({"arms": "labels,slam,slam"}, [], r"each once"),
        ({"arms": "labels,labels_and_validation"}, [], r"all learn from labels alone"),
        ({"baseline": "soft_kd"}, [], r"baseline='soft_kd' is none of the arms"),
        ({"baseline": "slam"}, [], r"baseline='slam' is none .* \(did you mean 'slam_hard'\?\)\."),
        ({}, ["--train.patience", "3"], r"train.patience=3 lets arms stop at different steps"),
    ],
)
def test_what_leaves_nothing_to_compare_is_refused(run_file, given, options, message):
    with pytest.raises(ConfigError, match=message):
        load_compare_config(run_file, options, **given)


def test_a_launcher_of_processes_is_refused(run_file, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="without accelerate launch"):
        load_compare_config(run_file)


@pytest.mark.parametrize(
    ("arms", "expected"),
    [
        ("labels,slam", "labels"),
        ("labels,hard_kd,slam", "hard_kd"),
        ("labels,slam,soft_kd,hard_kd", "soft_kd"),
    ],
)
def test_the_baseline_is_the_plainest_way_of_using_answers_that_is_there(run_file, arms, expected):
    assert load_compare_config(run_file, arms=arms).compared_with == expected
    assert load_compare_config(run_file, arms=arms, baseline="slam_hard").compared_with == (
        "slam_hard"
    )


def test_slam_with_an_open_target_is_two_arms(run_file):
    config = load_compare_config(run_file, ["--objective.slam-target", "auto"], arms="labels,slam")
    assert config.arms == ("labels", "slam_soft", "slam_hard")


def test_the_folder_is_beside_that_of_the_run_and_seeds_have_their_own(run_file, tmp_path):
    config = load_compare_config(run_file, ["--seed", "10"], seeds=3)
    assert config.run.out == run_file.parent / "run-compare"
    assert config.all_seeds == (10, 11, 12)
    one = config.of_seed(11)
    assert (one.seed, one.out.name, one.onnx) == (11, "seed-11", False)
    assert load_compare_config(run_file, out=tmp_path / "x").run.out == tmp_path / "x"


def test_processes_are_at_most_one_for_each_seed(run_file, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    config = CompareConfig(replace(load_config(run_file), onnx=False))
    assert [config.at_once(left) for left in (0, 1, 5, 20)] == [1, 1, 5, 8]
    assert replace(config, workers=3).at_once(5) == 3
