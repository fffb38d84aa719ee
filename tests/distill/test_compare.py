"""Comparisons end to end, on files, with a teacher that counts its questions."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import limbeck
from limbeck.distill.compare import compare
from limbeck.distill.compare_config import CompareConfig, load_compare_config
from limbeck.distill.compare_plan import make_compare_plan
from limbeck.distill.processes import alone_in
from limbeck.distill.run import distill
from limbeck.distill.run_file import load_config
from limbeck.errors import AnswerError, ConfigError, LimbeckError, StorageError
from limbeck.report.comparison import Comparison

from .material import make


def config_of(material, *options, **given):
    given = {"arms": "labels,soft_kd,slam", "seeds": 2, "workers": 1, **given}
    return load_compare_config(material.run_file, list(options), **given)


def pool_rows(folder):
    return pq.read_table(folder / "selections" / "pool.parquet").column("row").to_pylist()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two seeds in this process; the budget holds 50 of 90 pool rows."""
    material = make(tmp_path_factory.mktemp("compared"), budget=120)
    outcome = compare(config_of(material))
    return material, outcome


def test_it_leaves_a_table_a_page_and_all_numbers(finished):
    material, outcome = finished
    folder = material.folder / "run-compare"
    assert outcome.folder == folder
    assert outcome.exit_code == 0
    found = Comparison.from_dict(json.loads((folder / "compare.json").read_text()))
    assert found == outcome.comparison
    assert [arm.name for arm in found.arms] == ["labels", "soft_kd", "slam_hard"]
    assert found.seeds == (0, 1)
    assert found.baseline == "soft_kd"
    page = (folder / "compare.html").read_text()
    table = (folder / "compare.md").read_text()
    for arm in found.everyone:
        assert arm.title in page
        assert f"| {arm.title} |" in table
    for seed in (0, 1):
        record = json.loads((folder / f"seed-{seed}" / "metrics.json").read_text())
        for arm in record["evaluation"]["arms"]:
            assert found.arm(arm["name"]).by_seed[seed] == arm["accuracy"]["estimate"]


def test_every_seed_learns_from_equally_many_rows_and_answers_are_paid_once(finished):
    """A run alone would get more pool rows where the ledger knows some already."""
    material, outcome = finished
    rows = {seed: pool_rows(material.folder / "run-compare" / f"seed-{seed}") for seed in (0, 1)}
    assert [len(rows[seed]) for seed in (0, 1)] == [50, 50]
    assert rows[0] != rows[1]
    asked = material.questions()[: sum(run.bought for run in outcome.comparison.runs)]
    # 30 validation and 40 test rows once for both seeds, and the union of their pool rows.
    assert len(asked) == len(set(asked)) == 70 + len({*rows[0], *rows[1]})


def test_a_seed_is_what_a_run_of_its_own_would_have_been(finished, tmp_path):
    material, outcome = finished
    alone = make(tmp_path, budget=120)
    config = config_of(alone).of_seed(0)
    # Nothing is in the ledger: the run draws the same pool rows by itself.
    result = distill(replace(config, out=tmp_path / "alone"), timed=False)
    assert result.record.size.latencies == ()
    assert pool_rows(tmp_path / "alone") == pool_rows(material.folder / "run-compare" / "seed-0")
    for arm in result.evaluation.arms:
        assert outcome.comparison.arm(arm.name).by_seed[0] == arm.accuracy.estimate


def test_the_same_command_again_runs_nothing_and_more_seeds_are_added(finished, tmp_path):
    material, outcome = finished
    copy = tmp_path / "copy"
    shutil.copytree(material.folder, copy)
    config = replace(outcome_config(material), out=copy / "run-compare", ledger=copy / "l.sqlite")
    shutil.copy(material.folder / "ledger.sqlite", copy / "l.sqlite")
    before = {p: p.stat().st_mtime_ns for p in copy.glob("run-compare/seed-*/metrics.json")}
    again = CompareConfig(config, seeds=2, workers=1)
    plan = make_compare_plan(again)
    assert (plan.left, plan.answers) == ((), 0)
    assert compare(again).comparison.arms == outcome.comparison.arms
    assert {p: p.stat().st_mtime_ns for p in before} == before
    more = compare(CompareConfig(config, seeds=3, workers=1)).comparison
    assert more.seeds == (0, 1, 2)
    assert more.arm("labels").by_seed[:2] == outcome.comparison.arm("labels").by_seed
    # Fewer than there are: the others are named, not hidden.
    fewer = compare(again).comparison
    assert any("also holds seeds 2" in note for note in fewer.notes)


def outcome_config(material):
    return config_of(material).run


def test_the_plan_counts_what_seeds_share_once_and_spends_nothing(tmp_path):
    material = make(tmp_path, budget=120)
    plan = make_compare_plan(config_of(material, seeds=3))
    assert material.questions() == []
    assert plan.left == plan.seeds == (0, 1, 2)
    assert plan.needed == plan.answers
    # At least one seed's, at most validation, test and the whole pool once.
    assert 120 < plan.answers <= 160
    assert plan.budget == 120
    assert plan.seconds_low <= plan.seconds <= plan.seconds_high
    assert "for all seeds" in plan.text()


def test_the_plan_is_what_is_bought(finished):
    material, outcome = finished
    fresh = replace(outcome_config(material), out=material.folder / "other",
                    ledger=material.folder / "other.sqlite")  # fmt: skip
    bought = sum(run.bought for run in outcome.comparison.runs)
    assert make_compare_plan(CompareConfig(fresh, seeds=2)).answers == bought


def test_a_failing_seed_is_told_and_the_others_finish(tmp_path, monkeypatch):
    material = make(tmp_path)

    def fail(config, listener, *, timed):
        if config.seed == 1:
            raise AnswerError("the teacher said nothing.")
        return distill(config, listener, timed=timed)

    monkeypatch.setattr("limbeck.distill.compare_seeds.distill", fail)
    outcome = compare(config_of(material, seeds=3, arms="labels,soft_kd"))
    assert outcome.comparison.seeds == (0, 2)
    assert outcome.comparison.failed == {"1": "the teacher said nothing."}
    assert outcome.exit_code == AnswerError.exit_code
    assert any("1 of 3 seeds have no result" in note for note in outcome.comparison.notes)
    page = (material.folder / "run-compare" / "compare.html").read_text()
    assert "Seed 1 failed: the teacher said nothing." in page


def test_where_every_seed_fails_the_first_reason_is_the_error(tmp_path, monkeypatch):
    def fail(config, listener, *, timed):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("limbeck.distill.compare_seeds.distill", fail)
    with pytest.raises(LimbeckError, match=r"0 of 2 seeds finished.*seed 0: RuntimeError: out of"):
        compare(config_of(make(tmp_path)))
    trace = (tmp_path / "run-compare" / "seed-0" / "failure.txt").read_text()
    assert "out of luck" in trace


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("teacher", "seed 1 asked another teacher than seed 0"),
        ("own code", r"have changed between the seeds \(seed 0 and seed 1"),
    ],
)
def test_seeds_that_differ_in_teacher_or_code_are_refused(finished, tmp_path, what, words):
    material, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(material.folder, copy)
    path = copy / "run-compare" / "seed-1" / "metrics.json"
    record = json.loads(path.read_text())
    record["environment"][what] = "another"
    path.write_text(json.dumps(record))
    config = replace(outcome_config(material), out=copy / "run-compare")
    with pytest.raises(ConfigError, match=words):
        compare(CompareConfig(config, seeds=2, workers=1))


def test_two_processes_do_not_work_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("limbeck.distill.processes._LOCK_SECONDS", 0.0)
    with (
        alone_in(tmp_path / "seed-0"),
        pytest.raises(StorageError, match="another process is working"),
        alone_in(tmp_path / "seed-0"),
    ):
        pass


# What a comparison refuses, before anything is asked.


def test_money_that_could_end_purchases_early_is_refused(tmp_path):
    material = make(tmp_path)
    priced = ("--teacher.price-per-answer", "10000")
    with pytest.raises(ConfigError, match=r"150 answers may cost 1\.50 USD; raise money"):
        make_compare_plan(config_of(material, *priced, "--money", "1.49"))
    plan = make_compare_plan(config_of(material, *priced, "--money", "1.5"))
    # 30 validation, 40 test and 90 pool rows at most, for both seeds together.
    assert 1_500_000 < plan.price.micros <= 1_600_000
    assert material.questions() == []


def test_a_folder_of_another_comparison_and_one_of_a_run_are_refused(finished, tmp_path):
    material, _ = finished
    with pytest.raises(ConfigError, match=r"seed-0 holds a run with another objective.arms"):
        make_compare_plan(config_of(material, arms="labels,hard_kd"))
    with pytest.raises(ConfigError, match=r"seed 0 in .* had a budget of 120 answers but 130"):
        make_compare_plan(config_of(material, "--budget", "130", seeds=3))
    alone = make(tmp_path)
    distill(load_config(alone.run_file), timed=False)
    with pytest.raises(ConfigError, match="holds a run, not a comparison"):
        make_compare_plan(config_of(alone, out=tmp_path / "run"))


@pytest.mark.slow
def test_several_at_once_are_the_same_as_one_after_the_other(finished, tmp_path):
    """In processes of their own, on one shared ledger."""
    _, outcome = finished
    material = make(tmp_path, budget=120)
    events = []
    found = compare(config_of(material, workers=2), listener=events.append).comparison
    for arm in outcome.comparison.arms:
        assert found.arm(arm.name).by_seed == arm.by_seed
    assert len(material.questions()) == len(set(material.questions()))
    assert any("seed 1 is done" in event.message for event in events)


@pytest.mark.slow
def test_a_process_that_is_killed_is_told_and_the_others_finish(tmp_path):
    material = make(tmp_path, budget=120)

    def kill_the_first(event):
        for child in multiprocessing.active_children():
            if child.name == "seed-0" and event.stage == "compare":
                child.kill()

    config = config_of(material, seeds=3, workers=2)
    outcome = compare(config, listener=kill_the_first)
    assert outcome.comparison.seeds == (1, 2)
    assert "was killed by signal 9 without a word" in outcome.comparison.failed["0"]
    assert outcome.exit_code == 1
    # The same call goes on where it was.
    assert compare(config).comparison.seeds == (0, 1, 2)


def start(material, *words):
    path = str(Path(limbeck.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "limbeck", "compare", str(material.run_file), "--seeds", "3",
         "--workers", "2", "--arms", "labels,soft_kd,slam", *words],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for(path, process):
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_killed_or_interrupted_it_goes_on_and_ends_with_the_same_numbers(tmp_path, how):
    reference = make(tmp_path / "reference", budget=120)
    expected = compare(config_of(reference, seeds=3)).comparison
    material = make(tmp_path / "material", budget=120)
    folder = material.folder / "run-compare"
    first = start(material)
    wait_for(folder / "seed-0" / "checkpoints" / "labels.safetensors", first)
    if how == "kill":
        first.kill()
    else:
        os.killpg(first.pid, signal.SIGINT)  # as a terminal does: to the parent and its children
    _, err = first.communicate()
    if how == "interrupt":
        assert first.returncode == 130, err
        assert "To go on: limbeck compare" in err
        assert "Traceback" not in err
    second = start(material, "--json")
    out, err = second.communicate()
    assert second.returncode == 0, err
    found = json.loads(out)
    assert [run["seed"] for run in found["runs"]] == [0, 1, 2]
    for arm in found["arms"]:
        assert tuple(arm["by_seed"]) == expected.arm(arm["name"]).by_seed
    assert set(material.questions()) == set(reference.questions())


def test_seeds_that_buy_in_rounds_learn_from_equally_many_rows(tmp_path):
    """What one seed has bought is free for the next, and makes it no longer."""
    material = make(tmp_path, budget=100)
    options = ("--buy.rule", "rad", "--buy.rounds", "2", "--buy.steps", "8")
    config = config_of(material, *options, arms="labels,soft_kd")
    plan = make_compare_plan(config)
    assert plan.answers <= 130  # 70 once, and 30 pool rows of each seed
    found = compare(config).comparison
    assert [run.pool_rows for run in found.runs] == [30, 30]
    assert len(material.questions()) == len(set(material.questions())) <= 130
    more = config_of(material, *options, "--budget", "110", arms="labels,soft_kd", seeds=3)
    with pytest.raises(ConfigError, match="had a budget of 100"):
        make_compare_plan(more)
