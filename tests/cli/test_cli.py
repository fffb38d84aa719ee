"""The command as a person meets it: exit codes, one sentence an error, results on stdout."""

import errno
import json
import subprocess
import sys

import pytest

from limbeck import storage
from limbeck.cli import run
from limbeck.distill.run_file import load_config
from tests.distill.material import make


@pytest.fixture
def material(tmp_path):
    return make(tmp_path)


def limbeck(capsys, *words):
    """Run a command; give its exit code and what it wrote."""
    code = run([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys, *words):
    """Run a command that must be refused; give its one sentence."""
    code, out, err = limbeck(capsys, *words)
    assert code == 2, err
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("limbeck: ")]
    assert "Traceback" not in err
    return line


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_help_names_every_command(capsys):
    code, out, _ = limbeck(capsys, "--help")
    assert code == 0
    assert all(
        f" {name} " in out
        for name in (
            "demo",
            "plan",
            "label",
            "ask",
            "tell",
            "distill",
            "compare",
            "predict",
            "doctor",
        )
    )


@pytest.mark.parametrize(
    "command", ["demo", "plan", "label", "ask", "tell", "distill", "compare", "predict", "doctor"]
)
def test_every_command_has_help(capsys, command):
    code, out, _ = limbeck(capsys, command, "--help")
    assert code == 0
    assert f"Usage: limbeck {command}" in out


def test_a_wrong_command_and_a_wrong_option_are_refused(capsys):
    assert "distil" in refused(capsys, "distil")
    assert "--jsn" in refused(capsys, "doctor", "--jsn")


def test_doctor_says_what_is_installed(capsys):
    code, out, _ = limbeck(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code in (0, 1)
    assert found["torch"] != "missing"
    assert found["extra export"] == "installed"


def test_distill_writes_results_to_stdout_and_talk_to_stderr(capsys, material):
    code, out, err = limbeck(capsys, "distill", material.run_file, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["verdict"]["title"]
    assert "150 to buy" in err


def test_dry_run_and_plan_say_the_same_and_spend_nothing(capsys, material):
    code, first, _ = limbeck(capsys, "plan", material.run_file, "--json")
    other, second, _ = limbeck(capsys, "distill", material.run_file, "--dry-run", "--json")
    assert code == other == 0
    assert json.loads(first)["pool"] == json.loads(second)["pool"] == 80
    assert material.questions() == []


def test_the_plan_shows_the_limit_of_the_ledger(capsys, material):
    assert "\nlimit " not in limbeck(capsys, "plan", material.run_file)[1]
    ledger = load_config(material.run_file).ledger
    assert limbeck(capsys, "ledger", "limit", ledger, "--queries", "500")[0] == 0
    code, out, _ = limbeck(capsys, "plan", material.run_file)
    assert code == 0
    assert "limit     500 queries (0 spent)" in out


def test_answers_are_written_as_parquet_or_not_asked_for(capsys, material):
    line = refused(capsys, "label", material.run_file, "--answers", "answers.csv")
    assert "Parquet" in line
    assert material.questions() == []


@pytest.mark.slow
def test_money_is_not_spent_without_a_word(capsys, material, monkeypatch):
    priced = ("--teacher.price-per-answer", "10000")
    assert "add --yes" in refused(capsys, "distill", material.run_file, *priced)
    assert material.questions() == []
    code, out, err = limbeck(capsys, "distill", material.run_file, *priced, "--yes", "--json")
    assert code == 0
    assert "at most 1.50 USD" in err
    assert json.loads(out)["cost"]["money"] == 1_500_000


def test_a_budget_in_money_is_never_passed(capsys, material):
    words = ("--teacher.price-per-answer", "10000", "--money", "1.0", "--yes", "--json")
    code, out, _ = limbeck(capsys, "distill", material.run_file, *words)
    assert code == 0
    assert json.loads(out)["cost"]["money"] == 1_000_000
    assert len(material.questions()) == 100


def test_ctrl_c_says_how_to_go_on(capsys, material, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("limbeck.distill.run.fit_trust", interrupt)
    code, _, err = limbeck(capsys, "distill", material.run_file)
    assert code == 130
    assert f"To go on: limbeck distill {material.run_file}" in err


@pytest.mark.slow
def test_a_spent_budget_has_its_own_exit_code(capsys, material, monkeypatch):
    code, _, _ = limbeck(capsys, "distill", material.run_file)
    assert code == 0
    # The validation rows have changed, so their answers are missing, and nothing is left to spend.
    import shutil

    run_folder = material.folder / "run"
    for name in ("data", "checkpoints", "encoded", "selections"):
        shutil.rmtree(run_folder / name)
    replace(material.folder / "validation.csv", ".", ".0")
    code, _, err = limbeck(capsys, "distill", material.run_file)
    assert code == 3
    assert "budget" in err


# What a person gets wrong. Each is one sentence, exit code 2, before anything is asked.


def test_missing_file(capsys, material):
    (material.folder / "pool.csv").rename(material.folder / "pol.csv")
    assert "pool.csv" in refused(capsys, "distill", material.run_file)


def test_empty_file(capsys, material):
    (material.folder / "pool.csv").write_text("")
    assert "is empty" in refused(capsys, "distill", material.run_file)


def test_missing_column(capsys, material):
    replace(material.folder / "pool.csv", "a,b\n", "a,c\n")
    line = refused(capsys, "distill", material.run_file)
    assert "pool.csv" in line
    assert "'b'" in line


def test_missing_label_column(capsys, material):
    replace(material.folder / "labelled.csv", ",label\n", ",lable\n")
    assert "label" in refused(capsys, "distill", material.run_file)


def test_one_class_only(capsys, material):
    replace(material.folder / "labelled.csv", "down", "up")
    assert "one class only" in refused(capsys, "distill", material.run_file)


def test_unknown_class_in_test(capsys, material):
    replace(material.folder / "test.csv", "down", "downn")
    line = refused(capsys, "distill", material.run_file)
    assert "downn" in line
    assert "test.csv" in line


def test_label_outside_the_classes(capsys, material):
    line = refused(capsys, "distill", material.run_file, "--data.classes", "up",
                   "--data.classes", "left")  # fmt: skip
    assert "down" in line


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("[float('nan'), 1.0]", "NaN"),
        ("[float('inf'), 1.0]", "infinity"),
        ("[-0.5, 1.5]", "negative"),
        ("[0.5, 0.6]", "sums to 1.1"),
        ("[0.2, 0.3, 0.5]", "3 probabilities"),
    ],
)
def test_bad_teacher_probabilities(capsys, material, answer, message):
    (teacher,) = material.folder.glob("teacher_*.py")
    replace(teacher, "[1 - p, p]", answer)
    assert message in refused(capsys, "distill", material.run_file)


@pytest.mark.parametrize("split", ["labelled", "validation"])
def test_duplicates_across_splits(capsys, material, split):
    stolen = (material.folder / "test.csv").read_text().splitlines()[1]
    with (material.folder / f"{split}.csv").open("a") as file:
        file.write(stolen + "\n")
    line = refused(capsys, "distill", material.run_file)
    assert "test" in line
    assert "drop_test_overlap" in line


def test_zero_length_text(capsys, tmp_path):
    rows = [f"word{i} {'good' if i % 2 else 'bad'},{i % 2}" for i in range(60)]
    (tmp_path / "labelled.csv").write_text("\n".join(["text,label", *rows, ",1"]) + "\n")
    (tmp_path / "pool.csv").write_text("text\n" + "\n".join(f"row {i}" for i in range(50)) + "\n")
    words = ("--labelled", tmp_path / "labelled.csv", "--pool", tmp_path / "pool.csv",
             "--teacher", "fit", "--budget", "50", "--out", tmp_path / "run",
             "--ledger", tmp_path / "ledger.sqlite")  # fmt: skip
    line = refused(capsys, "distill", *words)
    assert "labelled.csv" in line


def test_a_budget_smaller_than_validation(capsys, material):
    line = refused(capsys, "distill", material.run_file, "--budget", "20")
    assert "budget=20" in line
    assert "raise it above 70" in line
    assert material.questions() == []


def test_unknown_key_in_the_toml(capsys, material):
    replace(material.run_file, "labelled_batch", "labeled_batch")
    line = refused(capsys, "distill", material.run_file)
    assert "labeled_batch" in line
    assert "labelled-batch" in line


def test_no_pool(capsys, material):
    replace(material.run_file, 'pool = "pool.csv"\n', "")
    assert "needs a pool" in refused(capsys, "distill", material.run_file)


@pytest.mark.slow
def test_another_run_in_the_folder(capsys, material):
    assert limbeck(capsys, "distill", material.run_file)[0] == 0
    line = refused(capsys, "distill", material.run_file, "--seed", "7")
    assert "another seed" in line


def test_plans_may_be_compared_before_anything_is_spent(capsys, material):
    pools = []
    for budget in ("100", "120"):
        code, out, _ = limbeck(capsys, "plan", material.run_file, "--budget", budget, "--json")
        assert code == 0
        pools.append(json.loads(out)["pool"])
    assert pools == [30, 50]
    # A wrong file name does not claim the folder for the wrong name.
    refused(capsys, "distill", material.run_file, "--pool", material.folder / "nowhere.csv")
    assert limbeck(capsys, "plan", material.run_file, "--seed", "7")[0] == 0


@pytest.mark.slow
def test_the_plan_of_a_finished_run_has_nothing_to_buy(capsys, material):
    assert limbeck(capsys, "distill", material.run_file)[0] == 0
    _, out, _ = limbeck(capsys, "plan", material.run_file, "--json")
    plan = json.loads(out)
    assert (plan["owned"], plan["validation"], plan["test"], plan["pool"]) == (150, 0, 0, 0)


def test_settings_can_be_given_without_a_run_file(capsys, material):
    files = [word for name in ("labelled", "pool", "test")
             for word in (f"--{name}", material.folder / f"{name}.csv")]  # fmt: skip
    (teacher,) = material.folder.glob("teacher_*.py")
    code, out, err = limbeck(
        capsys, "plan", *files, "--budget", "100", "--out", material.folder / "other",
        "--teacher", "callable", "--teacher.function", f"{teacher.stem}:ask",
        "--code", material.folder, "--ledger", material.folder / "l.sqlite",
        "--train.steps", "5", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["steps"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "many"], "many"),
        (["--train.stpes", "3"], "Did you mean --train.steps?"),
        (["--teacher", "calable"], "did you mean 'callable'"),
    ],
)
def test_wrong_options_are_named_without_programmers_talk(capsys, material, words, message):
    line = refused(capsys, "plan", material.run_file, *words)
    assert message in line
    assert "Function defined" not in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data.labelled is missing; give it with --labelled"),
        (["--labelled", "a.csv", "--teacher", "fit"], "budget is missing; give it with --budget"),
        (["--labelled", "a.csv", "--budget", "5"], "teacher.kind is missing; give it with --teac"),
    ],
)
def test_what_has_no_default_is_named(capsys, words, message):
    assert message in refused(capsys, "distill", *words)


def test_too_little_money_is_refused_before_anything_is_asked(capsys, material):
    words = ("--teacher.price-per-answer", "10000", "--money", "0.5", "--yes")
    line = refused(capsys, "distill", material.run_file, *words)
    assert "money=0.5 USD is less than what comes before the pool" in line
    assert "0.70 USD" in line
    assert material.questions() == []


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    material = make(tmp_path_factory.mktemp("student"), onnx=True)
    assert run(["distill", str(material.run_file)]) == 0
    return material.folder / "run" / "student", material.folder / "pool.csv"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_predict_writes_a_row_for_every_row(capsys, student, tmp_path, ending):
    folder, pool = student
    out = tmp_path / f"out.{ending}"
    code, text, _ = limbeck(capsys, "predict", folder, pool, "--out", out, "--json")
    assert code == 0
    found = json.loads(text)
    assert found["rows"] == sum(found["predictions"].values()) == 90
    if ending == "csv":
        lines = out.read_text().splitlines()
        assert lines[0].replace('"', "") == "prediction,confidence,defer,prob_down,prob_up"
        assert len(lines) == 91


def test_predict_writes_csv_to_stdout(student):
    folder, pool = student
    command = [sys.executable, "-m", "limbeck", "predict", str(folder), str(pool)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(result.stdout.splitlines()) == 91


def test_predict_refuses_another_ending(capsys, student, tmp_path):
    folder, pool = student
    assert ".xlsx" in refused(capsys, "predict", folder, pool, "--out", tmp_path / "out.xlsx")


def test_predict_refuses_a_file_without_the_columns(capsys, student, tmp_path):
    folder, _ = student
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    assert "'a'" in refused(capsys, "predict", folder, tmp_path / "other.csv", "--out",
                            tmp_path / "out.csv")  # fmt: skip


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.onnx", "SHA256SUMS"])
def test_a_student_folder_with_a_missing_file(capsys, student, tmp_path, name):
    import shutil

    folder, pool = student
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).unlink()
    assert name in refused(capsys, "predict", copy, pool)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.onnx"])
def test_a_student_folder_with_a_tampered_file(capsys, student, tmp_path, name):
    import shutil

    folder, pool = student
    copy = shutil.copytree(folder, tmp_path / "copy")
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    line = refused(capsys, "predict", copy, pool)
    assert name in line
    assert "changed" in line


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 3, 10, 25])
def test_a_full_disk_loses_nothing(capsys, material, monkeypatch, after):
    """The disk fills up after some files; when there is room again, the run goes on."""
    written = []
    rename = storage.os.replace

    def full(source, target):
        if len(written) >= after:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(target)
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "replace", full)
        line = refused(capsys, "distill", material.run_file)
        assert "the disk is full" in line
    asked = material.questions()
    code, _, _ = limbeck(capsys, "distill", material.run_file)
    assert code == 0
    assert len(material.questions()) == len(set(material.questions())) == 150
    assert material.questions()[: len(asked)] == asked
    assert not list((material.folder / "run").rglob("*.tmp"))


@pytest.mark.slow
def test_only_debug_shows_a_traceback(material):
    command = [sys.executable, "-m", "limbeck", "distill", str(material.folder / "none.toml")]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert plain.returncode == 2
    assert "Traceback" not in plain.stderr
    debug = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert debug.returncode == 2
    assert "Traceback" in debug.stderr
