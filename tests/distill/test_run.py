"""The main job end to end, on files, with a teacher that counts its questions."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load as load_tensors

import limbeck
from limbeck.distill.folder import RunFolder
from limbeck.distill.plan import make_plan
from limbeck.distill.questions import questions
from limbeck.distill.run import distill, load_teacher, run_id, stage
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError, StorageError
from limbeck.ledger import Budget, SqliteLedger
from limbeck.report.record import RunRecord
from limbeck.teachers import Money

from .material import make


def student_bytes(folder):
    return {
        name: (folder / "student" / name).read_bytes()
        for name in ("model.safetensors", "config.json")
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never stopped."""
    material = make(tmp_path_factory.mktemp("finished"))
    outcome = distill(load_config(material.run_file))
    return material, outcome


def test_it_leaves_a_student_a_report_and_all_numbers(finished):
    material, outcome = finished
    run = material.folder / "run"
    record = RunRecord.from_dict(json.loads((run / "metrics.json").read_text()))
    assert record == outcome.record
    page = (run / "report.html").read_text()
    assert outcome.verdict.title in page
    assert {arm.name for arm in record.evaluation.arms} == {"labels", "slam_hard"}
    assert record.evaluation.teacher is not None
    assert record.cost.bought == 150
    assert sum(arm.chosen for arm in record.evaluation.arms) == 1


def test_the_student_predicts_in_a_fresh_process(finished):
    material, _ = finished
    student = material.folder / "run" / "student"
    code = (
        f"import limbeck; print(limbeck.load({str(student)!r}).predict([{{'a': 2.0, 'b': 0.0}}]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() in ("['up']", "['down']")
    predictor = limbeck.load(student)
    assert predictor.predict_proba([{"a": 2.0, "b": 0.0}]).shape == (1, 2)


def test_the_budget_is_kept_and_nothing_is_asked_twice(finished):
    material, _ = finished
    asked = material.questions()
    assert len(asked) == len(set(asked)) == 150
    # 30 validation and 40 test rows come first; the rest is what the pool gets.
    rows = pq.read_table(material.folder / "run" / "selections" / "pool.parquet")
    assert rows.num_rows == 80
    assert np.allclose(rows.column("inclusion_probability").to_numpy(), 80 / 90)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_student(finished, tmp_path):
    material, _ = finished
    again = make(tmp_path / "again")
    distill(load_config(again.run_file))
    assert student_bytes(again.folder / "run") == student_bytes(material.folder / "run")


LOSS = """
import torch
from torch import nn
from limbeck.objectives import Objective, Targets


class Match(Objective):
    name = "match"

    def __init__(self, *, dim: int):
        self.projector = nn.Linear(dim, 2)

    def fit(self, answers, evidence):
        return self

    def targets(self, answers):
        return Targets({"probs": answers.probs})

    def loss(self, out, targets, labels):
        if targets is None:
            return self.label_loss(out, labels)
        return (self.projector(out.embedding) - targets["probs"]).square().sum(1)

    def parameters(self):
        return self.projector.parameters()

    def state_dict(self):
        return {name: tensor.data for name, tensor in self.projector.state_dict().items()}

    def load_state_dict(self, state):
        self.projector.load_state_dict(state)
"""


@pytest.mark.slow
def test_slam_and_a_loss_of_your_own_are_one_arm(tmp_path):
    material = make(tmp_path)
    (tmp_path / "losses_of_mine.py").write_text(LOSS)
    text = material.run_file.read_text().replace('"slam"', '"slam+losses_of_mine:Match", "taylor"')
    table = '[objective.settings."losses_of_mine:Match"]\ndim = 8\n'
    material.run_file.write_text(text + table)
    config = load_config(material.run_file)
    make_plan(config)
    record = distill(config).record
    titles = {arm.name: arm.title for arm in record.evaluation.arms}
    assert titles["slam_hard+losses_of_mine:Match"] == "SLaM, hard target + losses_of_mine:Match"
    assert list(titles) == ["labels", "slam_hard+losses_of_mine:Match", "taylor"]
    assert record.trust.check is not None
    assert load_config(material.folder / "run" / "run.toml") == config
    # Other code is another experiment.
    (tmp_path / "losses_of_mine.py").write_text(LOSS + "# and more\n")
    with pytest.raises(StorageError, match="other settings"):
        distill(config)


def test_an_objective_that_cannot_be_made_is_refused_before_anything_is_asked(tmp_path):
    material = make(tmp_path)
    with material.run_file.open("a") as file:
        file.write("[objective.settings.slam]\nepsilon = 1.0\n")
    config = load_config(material.run_file)
    for job in (make_plan, distill):
        with pytest.raises(ConfigError, match="slam has no setting 'epsilon'; did you mean 'eps'"):
            job(config)
    assert material.questions() == []


@pytest.mark.slow
def test_the_same_command_again_asks_nothing_and_changes_nothing(finished):
    material, _ = finished
    before = student_bytes(material.folder / "run")
    outcome = distill(load_config(material.run_file))
    assert len(material.questions()) == 150
    assert (outcome.record.cost.bought, outcome.record.cost.cached) == (150, 0)
    assert student_bytes(material.folder / "run") == before


@pytest.mark.slow
def test_another_run_on_the_same_ledger_gets_known_answers_for_nothing(finished):
    material, _ = finished
    config = replace(load_config(material.run_file), out=material.folder / "second", budget=160)
    plan = make_plan(config)
    # 160 questions were put in all by now at most; every one of the 150 answers is free.
    assert (plan.owned, plan.validation, plan.test, plan.pool) == (150, 0, 0, 10)
    outcome = distill(config)
    assert len(material.questions()) == 160
    assert (outcome.record.cost.bought, outcome.record.cost.cached) == (10, 150)


def test_the_plan_spends_nothing(tmp_path):
    material = make(tmp_path)
    plan = make_plan(load_config(material.run_file))
    assert material.questions() == []
    assert (plan.validation, plan.test, plan.pool) == (30, 40, 80)
    assert plan.rows == {"labelled": 24, "validation": 30, "test": 40, "pool": 90}
    assert plan.steps == 8
    assert plan.seconds_low <= plan.seconds <= plan.seconds_high


@pytest.mark.parametrize("budget", [1, 70])
def test_a_budget_smaller_than_validation_and_test_is_refused_before_anything_is_asked(
    tmp_path, budget
):
    material = make(tmp_path, budget=budget)
    with pytest.raises(ConfigError, match=r"30 validation rows and 40 test rows.*above 70"):
        distill(load_config(material.run_file))
    assert material.questions() == []


@pytest.mark.slow
def test_without_test_answers_there_is_no_teacher_arm_and_the_report_says_why(tmp_path):
    material = make(tmp_path, budget=60)
    outcome = distill(replace(load_config(material.run_file), ask_test=False))
    assert outcome.evaluation.teacher is None
    assert outcome.record.deferral is None
    assert "not asked" in outcome.record.missing["deferral"]
    assert len(material.questions()) == 60


def test_fewer_validation_rows_than_folds_are_refused_before_anything_is_asked(tmp_path):
    material = make(tmp_path)
    lines = (tmp_path / "validation.csv").read_text().splitlines()
    (tmp_path / "validation.csv").write_text("\n".join(lines[:3]) + "\n")
    config = load_config(material.run_file, ["--train.folds", "3"])
    with pytest.raises(ConfigError, match=r"validation has 2 rows but train.folds=3"):
        distill(config)
    assert material.questions() == []


def test_a_pool_is_needed(tmp_path):
    material = make(tmp_path)
    config = load_config(material.run_file)
    with pytest.raises(ConfigError, match="needs a pool"):
        distill(replace(config, data=replace(config.data, pool=None)))


@pytest.mark.slow
def test_costs_can_be_changed_afterwards_and_move_the_threshold_alone(tmp_path):
    material = make(tmp_path)
    plain = distill(load_config(material.run_file))
    weights = student_bytes(tmp_path / "run")["model.safetensors"]
    assert plain.record.decision is None
    assert plain.evaluation.positive == "up"
    rows = [{"a": a, "b": 0.3} for a in np.linspace(-2, 2, 60)]
    before = limbeck.load(plain.student).predict(rows)

    options = ["--decision.positive", "down", "--decision.cost-false-negative", "9"]
    outcome = distill(load_config(material.run_file, options))
    found = outcome.record.decision
    assert found is not None
    assert (found.positive, found.threshold, found.test_rows) == ("down", 0.1, 40)
    assert "fewer than 50" in found.rule
    assert outcome.evaluation.positive == "down"
    assert student_bytes(tmp_path / "run")["model.safetensors"] == weights
    assert len(material.questions()) == 150
    student = limbeck.load(outcome.student)
    assert student.decision is not None
    down = student.predict_proba(rows)[:, student.classes.index("down")]
    after = student.predict(rows)
    assert after == ["down" if p >= 0.1 else "up" for p in down.astype(float)]
    assert after.count("down") > before.count("down")
    card = (outcome.student / "README.md").read_text()
    assert "`down` from probability 0.1 on" in card
    assert f"{found.ways[0].cost.estimate:.4g} (95% interval" in card
    assert "a false negative costs 9" in outcome.text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--decision.cost-false-negative", "-2"], r"cost_false_negative=-2.0: must be >= 0"),
        (["--decision.positive", "upp"], r"'upp' is none of the classes .*did you mean 'up'"),
    ],
)
def test_a_bad_decision_is_refused_before_anything_is_asked(tmp_path, options, message):
    material = make(tmp_path)
    for job in (make_plan, distill):
        with pytest.raises(ConfigError, match=message):
            job(load_config(material.run_file, options))
    assert material.questions() == []


def test_costs_in_a_task_of_three_classes_are_refused(tmp_path):
    material = make(tmp_path)
    lines = (tmp_path / "labelled.csv").read_text().splitlines()
    (tmp_path / "labelled.csv").write_text("\n".join([*lines, "1.5,0.5,side"]) + "\n")
    config = load_config(material.run_file, ["--decision.cost-false-negative", "2"])
    with pytest.raises(ConfigError, match=r"two classes but this one has 3"):
        distill(config)
    assert material.questions() == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["writes", "moments"])
def test_killed_again_and_again_it_makes_the_same_student(finished, tmp_path, mode):
    """`writes`: once before every file, log line and commit. `moments`: 20 random SIGKILLs."""
    reference, _ = finished
    result = subprocess.run(
        [sys.executable, "-m", "tests.distill.kills", mode, str(tmp_path), "20"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stdout + result.stderr
    kills, folders = json.loads(result.stdout.splitlines()[-1])
    assert kills >= (50 if mode == "writes" else 20)
    expected = student_bytes(reference.folder / "run")
    settled = Counter(reference.questions()[:150])  # other tests add to the log after these
    for folder in map(Path, folders):
        assert student_bytes(folder / "run") == expected
        asked = Counter((folder / "asked.txt").read_text().splitlines())
        assert asked.keys() == settled.keys()
        # Only what was in flight when the process died, at most a batch a kill, is asked again;
        # what was recorded is not: the harness counts after every attempt.
        assert (folder / "asked_though_settled.txt").read_text() == ""


@pytest.mark.slow
def test_answers_lost_in_a_kill_of_a_priced_teacher_are_named_and_never_paid_twice(tmp_path):
    """Half of the pool was in flight when an earlier attempt died: it may have been billed."""
    material = make(tmp_path)
    config = load_config(material.run_file, ["--teacher.price-per-answer", "1000"])
    with RunFolder(config.out).collecting_warnings():
        splits = stage(config, RunFolder(config.out))
    teacher = load_teacher(config, splits, RunFolder(config.out))
    ids = questions(splits, teacher).pool[:40]
    run = run_id(RunFolder(config.out))
    child = os.fork()
    if child == 0:
        ledger = SqliteLedger(config.ledger)
        ledger.reserve(run, teacher.fingerprint, ids, Money(40_000), Budget(config.budget))
        os._exit(9)  # no release, no commit of an answer: the process is simply gone
    os.waitpid(child, 0)

    outcome = distill(config)
    cost = outcome.record.cost
    assert (cost.bought, cost.unknown) == (110, 40)
    assert cost.bought + cost.unknown <= config.budget
    assert cost.money == 150 * 1000
    (warning,) = [w for w in outcome.record.warnings if "may have been billed" in w]
    assert "40 answers are unknown" in warning


@pytest.mark.slow
def test_an_arm_that_estimates_weights_as_it_trains_runs_from_files_alone(tmp_path):
    material = make(tmp_path)
    arms = [f"--objective.arms={name}" for name in ("labels", "hard_kd", "weighted")]
    outcome = distill(load_config(material.run_file, arms))
    steps = {arm.name: arm.steps for arm in outcome.evaluation.arms}
    assert steps == {"labels": 8, "hard_kd": 8, "weighted": 8}
    saved = (material.folder / "run" / "checkpoints" / "weighted.safetensors").read_bytes()
    weights = load_tensors(saved)["objective.weights"]
    assert len(weights) == 80  # 150 answers less 30 for validation and 40 for test
    assert bool(((weights >= 1e-3) & (weights <= 1)).all())
