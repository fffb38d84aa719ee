from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.data.config import DataConfig
from limbeck.distill.config import DistillConfig, ObjectiveConfig, TrainConfig
from limbeck.distill.folder import RunFolder, to_toml
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError, LimbeckWarning
from limbeck.teachers.config import TeacherConfig

RUN = """
budget = 100
[data]
labelled = "labelled.csv"
pool = "pool.csv"
[teacher]
kind = "fit"
[train]
steps = 7
[student.settings]
hidden = 32
"""


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(RUN)
    return path


def test_a_file_gives_the_settings_with_paths_relative_to_itself(run_file, tmp_path):
    config = load_config(run_file)
    assert config.budget == 100
    assert config.train.steps == 7
    assert config.student.settings == {"hidden": 32}
    assert config.data.labelled == tmp_path / "labelled.csv"
    assert config.ledger == tmp_path / "ledger.sqlite"


def test_an_option_wins_over_the_environment_and_that_over_the_file(run_file, monkeypatch):
    monkeypatch.setenv("LIMBECK_TRAIN_STEPS", "8")
    assert load_config(run_file).train.steps == 8
    assert load_config(run_file, ["--train.steps", "9"]).train.steps == 9


def test_a_path_given_as_an_option_is_relative_to_where_the_command_runs(
    run_file, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_config(run_file, ["--out", "here"]).out == elsewhere / "here"


def test_options_alone_are_enough():
    options = ["--data.labelled", "a.csv", "--teacher.kind", "fit", "--budget", "5"]
    assert load_config(None, options).budget == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RUN.replace("steps", "stesp"), r"stesp.*Did you mean.*steps"),
        (RUN.replace("[train]", "[trian]"), r"trian"),
        (RUN.replace("= 7", '= "many"'), r"many.*int"),
        (RUN.replace("budget = 100", ""), r"budget"),
        (RUN.replace("budget = 100", "budget = "), r"not valid TOML.*run.toml"),
        (RUN.replace("= 7", "= -1"), r"train.steps=-1"),
    ],
)
def test_a_bad_file_is_refused_with_what_is_wrong(run_file, text, message):
    run_file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(run_file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RUN.replace("hidden = 32", "hidden = [1]"), r"student\.settings\.hidden=\[1\]: must be"),
        (RUN.replace("[student.settings]\nhidden", "[student]\nsettings"), r"must be a table"),
        (RUN + "[objective]\nsettings.taylor = 3", r"objective\.settings\.taylor=3: .* a table"),
        (RUN + "[objective.settings.tailor]\norder = 3", r"settings holds 'tailor'.*'taylor'"),
    ],
)
def test_settings_that_are_no_tables_of_plain_values_are_refused(run_file, text, message):
    run_file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(run_file)


def test_settings_keep_the_types_that_the_file_gives_them(run_file):
    values = {"one": 1, "half": 0.5, "real": 1.0, "on": True, "word": "1", "far": float("inf")}
    lines = ["one = 1", "half = 0.5", "real = 1.0", "on = true", 'word = "1"', "far = inf"]
    tables = ("student.settings", "objective.settings.taylor", 'objective.settings."a.b:C+slam"')
    run_file.write_text(
        RUN.split("[student", maxsplit=1)[0]
        + "".join(f"[{t}]\n" + "\n".join(lines) + "\n" for t in tables)
    )
    config = load_config(run_file)
    found = [config.student.settings, *config.objective.settings.values()]
    assert list(config.objective.settings) == ["taylor", "a.b:C+slam"]
    for table in found:
        assert {key: (type(v), v) for key, v in table.items()} == {
            key: (type(v), v) for key, v in values.items()
        }
    again = run_file.with_name("again.toml")
    again.write_text(to_toml(config))
    assert load_config(again) == config


def test_an_option_changes_one_setting_and_leaves_the_others(run_file):
    run_file.write_text(RUN + '[objective.settings.ups]\nrule = "ensemble"\npositive = 0.8\n')
    options = [
        *("--student.settings.dropout", "0.5", "--objective.settings.ups.positive=0.9"),
        *("--objective.settings.my.losses:Mine.max-dim", "3", "--train.steps", "4"),
    ]
    config = load_config(run_file, options)
    assert config.student.settings == {"hidden": 32, "dropout": 0.5}
    assert config.objective.settings == {
        "ups": {"rule": "ensemble", "positive": 0.9},
        "my.losses:Mine": {"max_dim": 3},
    }
    assert config.train.steps == 4


@pytest.mark.parametrize(
    "options",
    [["--student.settings", "x"], ["--student.settings.hidden"], ["--objective.settings.order=1"]],
)
def test_an_option_without_a_key_or_a_value_is_refused(run_file, options):
    with pytest.raises(ConfigError, match=r"cannot be used; write --student.settings.<key>"):
        load_config(run_file, options)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no run file .*nowhere.toml"):
        load_config(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("name", ["pool_batch", "labelled_batch", "evaluations"])
def test_counts_must_be_positive(name):
    with pytest.raises(ConfigError, match=f"train.{name}=0: must be at least 1"):
        TrainConfig(**{name: 0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": 1}, "train.folds=1: must be at least 2"),
        ({"epochs": 0}, "train.epochs=0"),
        ({"warmup": 1.0}, "train.warmup=1.0"),
        ({"learning_rate": -1.0}, "train.learning_rate=-1.0"),
        ({"weight_decay": -1.0}, "train.weight_decay=-1.0"),
        ({"clip_norm": -1.0}, "train.clip_norm=-1.0"),
        ({"patience": -1}, "train.patience=-1"),
    ],
)
def test_bad_training_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": ("labels", "slaam")}, "slaam.*slam"),
        ({"arms": ("labels", "slam+taylr")}, "holds 'taylr'.*did you mean 'taylor'"),
        ({"settings": {"upps": {}}}, "objective.settings holds 'upps'.*did you mean 'ups'"),
        ({"arms": ("slam",)}, "needs 'labels'"),
        ({"arms": ("labels",)}, "at least one other"),
        ({"arms": ("labels", "slam", "slam")}, "each once"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"trust_lower": 0.3}, "trust_lower=0.3.*0.5"),
        ({"top_k_threshold": 0.0}, "top_k_threshold=0.0"),
    ],
)
def test_bad_objective_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ObjectiveConfig(**settings)


def config_of(folder: Path) -> DistillConfig:
    return DistillConfig(
        data=DataConfig(labelled=folder / 'odd "name".csv', classes=("a", "é")),
        teacher=TeacherConfig(kind="fit"),
        budget=10,
        out=folder / "run",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0}, "budget=0"),
        ({"money": -1.0}, "money=-1.0"),
        ({"seed": -1}, "seed=-1"),
        ({"money": float("nan")}, "money=nan"),
        ({"money": float("inf")}, "money=inf"),
    ],
)
def test_bad_run_settings_are_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(config_of(tmp_path), **change)


def test_the_resolved_settings_read_back_to_themselves(tmp_path):
    config = load_config(None, ["--data.labelled", str(tmp_path / 'odd "name".csv'),
                                "--data.classes", "a", "--data.classes", "é",
                                "--teacher.kind", "fit", "--budget", "10"])  # fmt: skip
    path = tmp_path / "again.toml"
    path.write_text(to_toml(config))
    assert load_config(path) == config


def test_a_folder_of_another_run_is_refused_and_the_difference_named(tmp_path):
    config = config_of(tmp_path)
    folder = RunFolder(config.out)
    folder.claim(config)
    folder.claim(config)  # the same again is how a run resumes
    with pytest.raises(ConfigError, match=r"another seed.*--out"):
        folder.claim(replace(config, seed=11))


def test_more_may_be_spent_on_a_run_that_has_begun(tmp_path):
    config = config_of(tmp_path)
    folder = RunFolder(config.out)
    folder.claim(config)
    folder.claim(replace(config, budget=11, money=2.0))


def test_the_folder_of_the_benchmarks_data_is_no_setting(run_file, tmp_path, monkeypatch):
    monkeypatch.setenv("LIMBECK_DATA", "/somewhere")
    assert load_config(run_file).data.labelled == tmp_path / "labelled.csv"


def test_lists_and_switches_in_the_environment(run_file, monkeypatch):
    monkeypatch.setenv("LIMBECK_OBJECTIVE_ARMS", "labels soft_kd")
    monkeypatch.setenv("LIMBECK_ONNX", "false")
    monkeypatch.setenv("LIMBECK_TRAIN_POOL_BATCH", "7")
    config = load_config(run_file)
    assert config.objective.arms == ("labels", "soft_kd")
    assert (config.onnx, config.train.pool_batch) == (False, 7)
    assert load_config(run_file, ["--train.pool-batch", "9"]).train.pool_batch == 9


def test_a_misspelt_variable_is_refused(run_file, monkeypatch):
    monkeypatch.setenv("LIMBECK_TRAIN_STEPZ", "3")
    with pytest.raises(ConfigError, match="did you mean LIMBECK_TRAIN_STEPS"):
        load_config(run_file)


@pytest.mark.parametrize("form", [["--out", "here"], ["--out=here"]])
def test_both_forms_of_an_option_mean_the_same_path(run_file, tmp_path, monkeypatch, form):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_config(run_file, form).out == elsewhere / "here"


def test_settings_of_another_kind_of_teacher_are_told():
    with pytest.warns(LimbeckWarning, match=r"teacher\.function means nothing to .* 'fit'"):
        TeacherConfig(kind="fit", function="a:b")


def test_a_run_folder_may_be_moved(tmp_path):
    config = config_of(tmp_path)
    folder = RunFolder(config.out)
    folder.claim(config)
    moved = config.out.rename(tmp_path / "moved")
    RunFolder(moved).claim(replace(config, out=moved))


def test_a_torn_last_line_of_the_log_is_passed_over(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log("start", "one")
    with folder.events.open("a") as log:
        log.write('{"at": 3, "sta')
    folder.log("data", "two")
    assert folder.seconds() >= 0
    assert folder.events.read_text().count("\n") == 3
