"""Fits of a run's student on a device that is made up, from the run file to the file of costs."""

import json

import numpy as np
import pytest

from limbeck.cli import run
from limbeck.cli.cost_fit import cost_fit
from limbeck.distill import cost_task
from limbeck.distill.cost_fit import fit_student_cost, load_student_cost, plan_student_cost
from limbeck.distill.cost_task import CostFitConfig, CostTask
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError, MissingExtraError, StorageError
from limbeck.students import StudentSpace
from limbeck.students.blocks import Block, blocks_of, work_of
from limbeck.students.energy import EnergyMeter

from .material import make

TEXT = """
budget = 5
out = "run"

[data]
labelled = "labelled.csv"
pool = "pool.csv"
text = ["text"]

[teacher]
kind = "table"

[student]
kind = "text_bag"

[student.settings]
dim = 16
"""
FEW = CostFitConfig(samples=8, rounds=3)


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    words = [" ".join(f"w{i}" for i in rng.integers(0, 50, n)) for n in rng.integers(2, 9, 120)]
    lines = [f"{text},{'yes' if i % 2 else 'no'}" for i, text in enumerate(words[:60])]
    (tmp_path / "labelled.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    (tmp_path / "pool.csv").write_text("text\n" + "\n".join(words[60:]) + "\n")
    (tmp_path / "run.toml").write_text(TEXT)
    return load_config(tmp_path / "run.toml")


@pytest.fixture
def device(monkeypatch):
    """A device whose networks take 1.2 times what their blocks take, and 0.1."""
    calls = []

    def times(task, extra=lambda one: 1.0):
        found = {block.name: time_of(block) for block in task.blocks}
        for one in task.networks:
            chain = blocks_of(task.space, one, length=task.length)
            name = "network " + " ".join(map(str, one))
            found[name] = (1.2 * sum(map(time_of, chain)) + 0.1) * extra(one)
        return found

    def install(extra=lambda one: 1.0, stop_after=None):
        def builds(task):
            told = times(task, extra)
            return {name: lambda name=name: lambda: told[name] for name in told}

        calls.clear()

        def meter(run):
            calls.append(run())
            if stop_after is not None and len(calls) > stop_after:
                raise KeyboardInterrupt
            return calls[-1]

        monkeypatch.setattr(CostTask, "builds", builds)
        monkeypatch.setattr(cost_task, "meter_of", lambda settings: meter)
        return calls

    return install


def time_of(block: Block) -> float:
    work = work_of(block)
    return 0.05 + work.macs / 1e4 + work.weights / 1e6


def test_a_fit_writes_a_table_that_a_search_can_load(config, device):
    device()
    fit = fit_student_cost(config, FEW)
    assert fit.path == config.out / "cost.json"
    assert fit.table.worst_error < 1e-9
    assert fit.table.length > 1
    assert "yes: a search may prune" in fit.text()
    space = _space(config)
    cost = load_student_cost(fit.path, space)
    for one in np.ndindex(*space.space.sizes):
        chain = blocks_of(space, one, length=fit.table.length)
        assert cost.total(one) == pytest.approx(1.2 * sum(map(time_of, chain)) + 0.1)


def _space(config) -> StudentSpace:
    return CostTask.of(config, FEW, None).space


def test_a_stopped_fit_goes_on_and_gives_the_same_bytes(config, device, tmp_path):
    device(stop_after=130)
    with pytest.raises(KeyboardInterrupt):
        fit_student_cost(config, FEW)
    assert not (config.out / "cost.json").exists()
    calls = device()
    assert plan_student_cost(config, FEW).done == 2
    calls.clear()
    fit = fit_student_cost(config, FEW)
    assert len(calls) == 56  # of three rounds of 40 blocks and 16 networks the last
    again = fit_student_cost(config, FEW, path=tmp_path / "other.json")
    assert len(calls) == 56  # all rounds are there
    assert again.path.read_bytes() == fit.path.read_bytes()


def test_a_plan_says_what_would_be_measured_and_writes_no_table(config, device):
    device()
    plan = plan_student_cost(config, FEW)
    assert (plan.blocks, plan.networks, plan.rounds, plan.done) == (40, 16, 3, 0)
    assert plan.seconds > 0
    assert not plan.path.exists()
    assert plan_student_cost(config, FEW, options={"hidden": (32, 64)}).blocks == 32


def test_a_poor_table_is_written_but_no_search_may_prune_with_it(config, device):
    device(extra=lambda one: 1.0 + 2.0 * (one[2] == 3) * (one[1] > 1))
    fit = fit_student_cost(config, FEW)
    assert not fit.to_dict()["prunes"]
    assert "no: the table of latency has r2=" in fit.text()
    with pytest.raises(ConfigError, match="but pruning with it needs"):
        load_student_cost(fit.path, _space(config))
    loose = load_student_cost(fit.path, _space(config), r2=-9, worst=9)
    assert loose.proven


def test_files_that_are_no_table_are_refused(config, tmp_path, device):
    device()
    space = _space(config)
    with pytest.raises(StorageError, match=r"FileNotFoundError.*cost-fit"):
        load_student_cost(tmp_path / "none.json", space)
    for text in ("{", "[]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(StorageError, match="is no table"):
            load_student_cost(tmp_path / "bad.json", space)


def test_a_student_without_a_space_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'tabular' has no search space"):
        fit_student_cost(load_config(make(tmp_path).run_file), FEW)


def test_energy_without_a_counter_is_refused(config, monkeypatch, tmp_path):
    monkeypatch.setattr(cost_task, "EnergyMeter", lambda: EnergyMeter(tmp_path))
    with pytest.raises(ConfigError, match="shows no energy counter"):
        fit_student_cost(config, CostFitConfig(quantity="energy", samples=8))


def test_a_missing_extra_names_its_install_line(config, monkeypatch):
    monkeypatch.setattr("limbeck.distill.export.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"limbeck\[export\]"):
        fit_student_cost(config, CostFitConfig(runtime="onnxruntime"))


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime"])
def test_a_real_fit_measures_every_block_and_network(config, runtime):
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="needs the extra export")
    few = {"buckets": (4096, 65_536), "dim": (16, 32), "hidden": (32, 64, 128, 256)}
    settings = CostFitConfig(runtime=runtime, samples=8, rounds=2)
    fit = fit_student_cost(config, settings, options=few)
    assert len(fit.table.blocks) == 4 + 8
    assert all(value > 0 for value in fit.table.blocks.values())
    assert fit.table.device["runtime"] == runtime
    assert (fit.table.samples, fit.table.held_out) == (8, 8)


def test_the_command_tells_r2_errors_and_whether_to_prune(config, device, capsys, tmp_path):
    device()
    file = tmp_path / "run.toml"
    assert cost_fit(file, samples=8, rounds=3, dry_run=True, json=True) == 0
    assert json.loads(capsys.readouterr().out)["blocks"] == 40
    assert cost_fit(file, samples=8, rounds=3) == 0
    told = capsys.readouterr()
    assert "r2        1.000" in told.out
    assert "worst 0.0%" in told.out
    assert "40 blocks and 16 whole networks of text_bag" in told.err
    assert cost_fit(file, samples=8, rounds=3, json=True, out=tmp_path / "c.json") == 0
    assert json.loads(capsys.readouterr().out)["prunes"] is True
    device(extra=lambda one: 1.0 + 2.0 * (one[2] == 3) * (one[1] > 1))
    assert cost_fit(file, samples=9, rounds=3) == 1
    assert "prune     no:" in capsys.readouterr().out


def test_options_and_length_of_the_run_are_measured(config, device, tmp_path):
    device()
    (tmp_path / "run.toml").write_text(TEXT + "[search]\nlength = 4\n[search.options]\ndim=[16]\n")
    task = CostTask.of(load_config(tmp_path / "run.toml"), FEW, None)
    assert task.length == 4
    assert {block.sizes[1] for block in task.blocks if block.part == "bag"} == {16}


def test_the_shell_knows_the_command(config, device, capsys, tmp_path):
    device()
    file = str(tmp_path / "run.toml")
    assert run(["search", "cost-fit", file, "--samples", "8", "--rounds", "2"]) == 0
    assert "yes: a search may prune" in capsys.readouterr().out
    assert run(["search", "cost-fit", file, "--samples", "2"]) == 2
    assert "samples=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", 0), ("rounds", 1), ("samples", 7), ("runtime", "tf"), ("quantity", "heat")],
)
def test_bad_settings_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"{name}="):
        CostFitConfig(**{name: value})
