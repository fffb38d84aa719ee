"""Labelling: the purchase of the main job and nothing else, which the job then goes on from."""

import json
import sqlite3
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest

from limbeck.cli import run
from limbeck.data import Dataset
from limbeck.data.schema import Schema
from limbeck.distill.folder import RunFolder
from limbeck.distill.label import label
from limbeck.distill.plan import make_plan
from limbeck.distill.run import distill, run_id
from limbeck.distill.run_file import load_config
from limbeck.errors import ConfigError, TeacherError
from limbeck.teachers.table import TableTeacher
from tests.distill.material import make

UPDOWN = ("down", "up")


@pytest.fixture
def material(tmp_path):
    return make(tmp_path)


def configured(material, *options):
    return load_config(material.run_file, options)


def answers_in(material):
    with sqlite3.connect(material.folder / "ledger.sqlite") as connection:
        return connection.execute("SELECT COUNT(*) FROM answers").fetchone()[0]


def selection_of(folder):
    return pq.read_table(folder / "run" / "selections" / "pool.parquet").to_pydict()


def test_labelling_buys_validation_test_and_pool_and_trains_nothing(material):
    found = label(configured(material))
    # 30 validation, 40 test, and the rest of 150 from the pool.
    assert [tally.bought for tally in found.tallies] == [30, 40, 80]
    assert found.pool_answers == 80
    assert found.rate > 0
    assert len(material.questions()) == len(set(material.questions())) == answers_in(material)
    assert not (material.folder / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_distill_after_it_buys_nothing_and_ends_as_one_that_bought_itself(material, tmp_path):
    label(configured(material))
    asked = material.questions()
    # What shapes no purchase may still be chosen.
    outcome = distill(configured(material, "--train.steps", "9"))
    assert material.questions() == asked
    assert (outcome.record.cost.bought, outcome.record.cost.cached) == (150, 0)
    alone = make(tmp_path / "alone")
    other = distill(configured(alone, "--train.steps", "9"))
    weights = "model.safetensors"
    assert (outcome.student / weights).read_bytes() == (other.student / weights).read_bytes()
    assert selection_of(alone.folder) == selection_of(material.folder)
    assert sorted(alone.questions()) == sorted(asked)


def test_a_stopped_purchase_goes_on_without_asking_twice(material):
    teacher = next(material.folder.glob("teacher_*.py"))
    whole = teacher.read_text()
    fingerprint = ("--teacher.fingerprint", "the same")
    teacher.write_text(
        whole.replace("def ask(rows):", "def ask(rows):\n    if len(rows) == 80: 1/0")
    )
    config = configured(material, *fingerprint)
    with pytest.raises(TeacherError, match="ZeroDivisionError"):
        label(config)
    assert len(material.questions()) == 70
    chosen = selection_of(material.folder)
    __import__(teacher.stem).ask.__code__ = compile_ask(whole, teacher)
    found = label(config)
    assert [tally.bought for tally in found.tallies] == [0, 0, 80]
    assert [tally.cached for tally in found.tallies] == [30, 40, 0]
    assert selection_of(material.folder) == chosen
    assert len(set(material.questions())) == len(material.questions()) == 150
    assert found.spending.answered == 150


def compile_ask(source, path):
    namespace = {"__file__": str(path)}
    exec(source, namespace)
    return namespace["ask"].__code__


def test_the_folder_is_tied_to_what_was_bought_and_to_nothing_else(material):
    label(configured(material))
    with pytest.raises(ConfigError, match="another seed"):
        label(configured(material, "--seed", "7"))
    with pytest.raises(ConfigError, match=r"another teacher\.fingerprint"):
        distill(configured(material, "--teacher.fingerprint", "x"))
    make_plan(configured(material, "--objective.temperature", "2", "--budget", "160"))


def test_commands_that_begin_at_once_in_one_folder_are_one_run_with_one_budget(
    tmp_path, monkeypatch
):
    both = threading.Barrier(2)
    real = uuid.uuid4

    def drawn():
        both.wait(20)  # neither has found a name before
        return real()

    monkeypatch.setattr(uuid, "uuid4", drawn)
    with ThreadPoolExecutor(2) as pool:
        names = list(pool.map(lambda _: run_id(RunFolder(tmp_path)), range(2)))
    assert names[0] == names[1] == run_id(RunFolder(tmp_path))


def test_the_plan_of_a_purchase_times_no_training(material):
    plan = make_plan(configured(material), trains=False)
    assert (plan.arms, plan.steps, plan.seconds, plan.student) == ((), 0, 0.0, "")
    assert "training" not in plan.text()
    assert (plan.validation, plan.test, plan.pool) == (30, 40, 80)


def test_the_exported_answers_are_those_of_the_ledger_and_serve_as_a_table_teacher(material):
    config = configured(material)
    path = material.folder / "answers.parquet"
    found = label(config, answers=path)
    table = pq.read_table(path)
    assert table.column_names == ["a", "b", "prob_down", "prob_up"]
    assert table.num_rows == found.pool_answers == 80
    for row in table.to_pylist():
        assert row["prob_up"] == pytest.approx(0.9 if row["a"] + 0.4 * row["b"] > 0 else 0.2)
    pool = Dataset.open(
        config.out / "data" / "pool.arrow", Schema((), ("a", "b"), (), None, UPDOWN)
    )
    teacher = TableTeacher(path, pool.schema, columns=("a", "b"))
    batch = pool.take(pq.read_table(config.out / "selections" / "pool.parquet")["row"].to_numpy())
    answers, ok = teacher.parse(teacher.ask(np.zeros((80, 16), np.uint8), batch))
    assert ok.all()
    assert answers.probs[:, 1].tolist() == table["prob_up"].to_pylist()


def limbeck(capsys, *words):
    code = run([str(word) for word in words])
    return code, *capsys.readouterr()


def test_the_command_ends_with_a_table_or_with_json(capsys, material):
    code, out, err = limbeck(capsys, "label", material.run_file)
    assert code == 0
    assert "150 to buy" in err
    assert "training" not in err
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert rows["pool"] == ["80", "0", "80", "0", "0"]
    assert rows["price"][:5] == ["0.00", "USD", "for", "150", "answers"]
    code, out, _ = limbeck(capsys, "label", material.run_file, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["splits"][2] | {"seconds": 0} == {
        "split": "pool", "rows": 80, "questions": 80, "cached": 80, "bought": 0, "failed": 0,
        "seconds": 0, "unanswered": 0,
    }  # fmt: skip
    assert found["spent"]["answered"] == 150


def test_files_and_a_teacher_serve_as_well_as_a_run_file(capsys, tmp_path):
    words = [f"a {mood} film no. {i}" for i in range(90) for mood in ("good", "bad")[i % 2 :][:1]]
    rows = [f"{text},{'pos' if 'good' in text else 'neg'},{0.9 if 'good' in text else 0.1}"
            for text in words]  # fmt: skip
    (tmp_path / "labelled.csv").write_text("text,label\n" + "\n".join(
        row.rsplit(",", 1)[0] for row in rows[:60]) + "\n")  # fmt: skip
    (tmp_path / "pool.csv").write_text("text\n" + "\n".join(words[60:]) + "\n")
    lines = [f"{row},{1 - float(row.rsplit(',', 1)[1]):.1f}" for row in rows]
    answers = "text,label,prob_pos,prob_neg\n" + "\n".join(lines) + "\n"
    (tmp_path / "answers.csv").write_text(answers)
    code, out, err = limbeck(
        capsys, "label", "--labelled", tmp_path / "labelled.csv", "--pool", tmp_path / "pool.csv",
        "--teacher", "table", "--teacher.path", tmp_path / "answers.csv", "--budget", "80",
        "--out", tmp_path / "run", "--ledger", tmp_path / "ledger.sqlite", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["spent"]["answered"] > 30


def test_labelling_asks_before_it_spends_money(capsys, material):
    priced = ("--teacher.price-per-answer", "10000")
    code, _, err = limbeck(capsys, "label", material.run_file, *priced)
    assert code == 2
    assert "add --yes to agree" in err
    assert material.questions() == []
    code, out, err = limbeck(capsys, "label", material.run_file, *priced, "--yes", "--json")
    assert code == 0
    assert json.loads(out)["spent"]["money"] == 1_500_000
    code, out, _ = limbeck(capsys, "label", material.run_file, *priced, "--dry-run", "--json")
    assert (code, json.loads(out)["price"]["micros"]) == (0, 0)
