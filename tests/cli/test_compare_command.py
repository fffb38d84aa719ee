"""`limbeck compare` as a person meets it."""

import json

import pytest

from tests.cli.test_cli import limbeck, refused, replace
from tests.distill.material import make

TWO = ("--seeds", "2", "--workers", "1", "--arms", "labels,hard_kd")


@pytest.fixture
def material(tmp_path):
    return make(tmp_path)


def test_it_asks_nobody_in_a_dry_run_and_then_writes_sentences_and_a_table(capsys, material):
    code, out, _ = limbeck(capsys, "compare", material.run_file, *TWO, "--dry-run", "--json")
    plan = json.loads(out)
    assert code == 0
    assert (plan["seeds"], plan["arms"]) == ([0, 1], ["labels", "hard_kd"])
    assert material.questions() == []
    code, out, err = limbeck(capsys, "compare", material.run_file, *TWO)
    assert code == 0
    assert f"{plan['answers']} to buy for all seeds" in err
    assert len(material.questions()) == plan["answers"]
    assert "with 2 seeds nothing is claimed" in out
    assert "Labels only" in out
    assert str(material.folder / "run-compare" / "compare.html") in out
    code, out, _ = limbeck(capsys, "compare", material.run_file, *TWO, "--json")
    assert code == 0
    assert json.loads(out)["baseline"] == "hard_kd"
    line = refused(capsys, "compare", material.run_file, "--seeds", "2", "--train.steps", "9")
    assert "holds a run with another" in line


def test_money_is_not_spent_without_a_word(capsys, material):
    line = refused(capsys, "compare", material.run_file, *TWO, "--teacher.price-per-answer", "10")
    assert "add --yes" in line
    assert "over all seeds" in line
    assert material.questions() == []


def test_ctrl_c_says_how_to_go_on(capsys, material, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("limbeck.distill.run.fit_trust", interrupt)
    code, _, err = limbeck(capsys, "compare", material.run_file, *TWO)
    assert code == 130
    assert f"To go on: limbeck compare {material.run_file} --seeds 2" in err


def test_a_failing_teacher_ends_with_its_own_exit_code(capsys, material):
    (teacher,) = material.folder.glob("teacher_*.py")
    replace(teacher, "[1 - p, p]", "[0.5, 0.6]")
    line = refused(capsys, "compare", material.run_file, *TWO)
    assert "0 of 2 seeds finished" in line
    assert "sums to 1.1" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "1"], "seeds=1: must be at least 2"),
        (["--seeds", "many"], "many"),
        (["--arms", "labels"], "give at least two"),
        (["--arms", "labels,slma"], "did you mean 'slam'"),
        (["--baseline", "soft_kd"], "is none of the arms"),
        (["--train.patience", "2"], "set train.patience = 0"),
        (["--train.stpes", "3"], "Did you mean --train.steps?"),
        (["--budget", "20"], "budget=20"),
        (["--money", "0.5", "--teacher.price-per-answer", "10000"], "150 answers may cost 1.50"),
    ],
)
def test_what_a_person_gets_wrong_is_one_sentence(capsys, material, words, message):
    assert message in refused(capsys, "compare", material.run_file, *words)
    assert material.questions() == []


def test_no_run_file_is_named_as_such(capsys):
    assert "is missing; give it with" in refused(capsys, "compare", "--budget", "5")
