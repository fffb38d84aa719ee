"""`limbeck ledger` as a person meets it, over the ledger of a real run."""

import csv
import json
import shutil

import pytest

from limbeck.cli import run
from limbeck.distill.label import label
from limbeck.distill.ledger_jobs import questions_in, reparse_run
from limbeck.ledger import SqliteLedger
from limbeck.ledger.facts import teachers_of
from limbeck.ledger.purge import Purged, purge
from limbeck.ledger.reparse import Reparsed
from limbeck.ledger.verify import verify
from tests.distill.material import make
from tests.distill.test_ensemble_of_teachers import Lab
from tests.ledger.conftest import Shop


def limbeck(capsys, *words):
    """Run a command; give its exit code and what it wrote."""
    code = run([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def told(capsys, *words):
    """Run a command that must do well; give its JSON."""
    code, out, err = limbeck(capsys, "ledger", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def refused(capsys, *words, code=2):
    found, out, err = limbeck(capsys, "ledger", *words)
    assert found == code, err
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("limbeck: ")]
    return line


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """The folder of a purchase of 150 answers for 1 cent each."""
    material = make(tmp_path_factory.mktemp("labelled"))
    words = ["--teacher.price-per-answer", "10000", "--yes", "--json"]
    assert run(["label", str(material.run_file), *words]) == 0
    return material


@pytest.fixture
def material(labelled, tmp_path):
    """A copy of it, to be changed."""
    shutil.copytree(labelled.folder, tmp_path / "material")
    return tmp_path / "material"


@pytest.fixture
def ledger(material):
    return material / "ledger.sqlite"


def test_show_and_stats_tell_what_a_run_has_bought(capsys, ledger):
    found = told(capsys, "show", ledger)
    (teacher,) = found["teachers"]
    assert teacher["answers"] == 150
    assert teacher["classes"] == ["down", "up"]
    assert found["total"]["money"] == {"micros": 1_500_000, "currency": "USD"}
    (stats,) = told(capsys, "stats", ledger)
    assert stats["prices"]["mean"] == 10_000
    code, out, _ = limbeck(capsys, "ledger", "show", ledger)
    assert code == 0
    assert "150 answers" in out
    code, out, _ = limbeck(capsys, "ledger", "stats", ledger)
    assert code == 0
    assert "1.50 USD for 150 questions" in out


def test_export_writes_every_answer(capsys, ledger, tmp_path):
    out = tmp_path / "answers.csv"
    assert told(capsys, "export", ledger, out) == {"out": str(out), "answers": 150}
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["question"] for row in rows}) == 150
    assert {row["prob_up"] for row in rows} == {"0.8999999761581421", "0.20000000298023224"}
    _, stdout, talk = limbeck(capsys, "ledger", "export", ledger, out)
    assert (stdout, talk) == ("", f"150 answers written to {out}\n")


def test_a_limit_is_kept_shown_and_stops_a_run_with_its_exit_code(capsys, material, ledger):
    found = told(capsys, "limit", ledger, "--queries", 150, "--money", 2.5)
    assert found["limit"]["queries"] == 150
    assert found["limit"]["money"]["micros"] == 2_500_000
    _, out, _ = limbeck(capsys, "ledger", "limit", ledger)
    assert out == "limit     150 queries (150 spent), 2.50 USD (1.50 USD spent)\n"
    shutil.rmtree(material / "run")
    (material / "pool.csv").write_text("a,b\n" + "".join(f"{i},{i + 1}\n" for i in range(9)))
    code, _, err = limbeck(capsys, "label", material / "run.toml", "--yes")
    assert code == 3, err
    assert "not all pool rows were answered" in err
    assert "all runs of this ledger have spent 150 of 150 queries" in err
    assert "limbeck ledger limit" in err
    assert told(capsys, "limit", ledger, "--none")["limit"] == {"queries": None, "money": None}
    assert limbeck(capsys, "label", material / "run.toml", "--yes")[0] == 0


def test_a_limit_can_be_set_before_the_first_run(capsys, tmp_path):
    assert "there is no ledger" in refused(capsys, "limit", tmp_path / "new.sqlite")
    told(capsys, "limit", tmp_path / "new.sqlite", "--queries", 10)
    assert told(capsys, "limit", tmp_path / "new.sqlite")["limit"]["queries"] == 10


def test_verify_leaves_with_1_and_sentences_when_something_is_wrong(capsys, ledger):
    assert told(capsys, "verify", ledger) == {"whole": True, "findings": []}
    with SqliteLedger(ledger) as opened, opened.writing() as connection:
        connection.execute("UPDATE reservations SET answered = answered + 1 WHERE id = 1")
        connection.execute("UPDATE answers SET probs = x'00' WHERE id = 1")
    code, out, _ = limbeck(capsys, "ledger", "verify", ledger)
    assert code == 1
    assert "1 reservations whose counters differ" in out
    assert len(out.splitlines()) == 2
    code, out, _ = limbeck(capsys, "ledger", "verify", ledger, "--json")
    assert code == 1
    assert len(json.loads(out)["findings"]) == 2


def test_merge_twice_is_merge_once(capsys, ledger, tmp_path):
    new = tmp_path / "all.sqlite"
    first = told(capsys, "merge", new, ledger)
    assert (first["answers"], first["teachers"]) == (150, 1)
    assert set(told(capsys, "merge", new, ledger).values()) == {0}
    assert told(capsys, "show", new)["total"]["money"]["micros"] == 1_500_000
    assert "there is no ledger" in refused(capsys, "merge", new, tmp_path / "none.sqlite")


def test_purge_asks_first(capsys, ledger, tmp_path):
    (tmp_path / "ids.txt").write_text(_first_question(ledger))
    line = refused(capsys, "purge", ledger, "--ids", tmp_path / "ids.txt")
    assert "Remove 1 answers and 1 attempts" in line
    assert "add --yes" in line
    assert told(capsys, "show", ledger)["teachers"][0]["answers"] == 150
    found = told(capsys, "purge", ledger, "--ids", tmp_path / "ids.txt", "--dry-run")
    assert found == {"answers": 1, "attempts": 1}
    assert told(capsys, "purge", ledger, "--ids", tmp_path / "ids.txt", "--yes") == found
    assert told(capsys, "show", ledger)["teachers"][0]["answers"] == 149
    assert told(capsys, "verify", ledger)["whole"]


def _first_question(ledger):
    with SqliteLedger(ledger) as opened, opened.reading() as connection:
        return bytes(connection.execute("SELECT question FROM answers").fetchone()[0]).hex() + "\n"


def test_rows_of_a_file_are_purged_and_no_others(capsys, labelled, material):
    lines = (material / "pool.csv").read_text().splitlines()
    (material / "gone.csv").write_text("\n".join([lines[0], lines[3], lines[40], "77,78"]) + "\n")
    words = ("--rows", material / "gone.csv", "--run", material / "run.toml", "--yes")
    assert told(capsys, "purge", *words) == {"answers": 2, "attempts": 2}
    asked = labelled.questions()  # the copy's teacher is the module that is loaded already
    shutil.rmtree(material / "run")
    assert limbeck(capsys, "label", material / "run.toml", "--yes")[0] == 0
    again, before = (
        {tuple(map(float, line.split())) for line in part}
        for part in (labelled.questions()[len(asked) :], asked)
    )
    gone = {tuple(map(float, lines[i].split(","))) for i in (3, 40)}
    assert again & before == gone


def test_rows_without_a_column_that_a_teacher_sees_are_refused(capsys, material):
    (material / "gone.csv").write_text("a\n1\n")
    line = refused(
        capsys, "purge", "--rows", material / "gone.csv", "--run", material / "run.toml", "--yes"
    )
    assert "has no column b, which teacher" in line


def test_purge_needs_to_know_what(capsys, ledger, material):
    for words in ([], ["--rows", material / "pool.csv"], ["--run", material / "run.toml"]):
        line = refused(capsys, "purge", ledger, *words, "--yes")
        assert "--ids, or --rows with --run" in line


def test_vacuum_tells_sizes(capsys, ledger):
    found = told(capsys, "vacuum", ledger)
    assert found["after"] == ledger.stat().st_size
    code, out, _ = limbeck(capsys, "ledger", "vacuum", ledger)
    assert code == 0
    assert "MB before" in out


def test_reparse_finds_the_teacher_of_a_run_file(capsys, material, ledger):
    # This teacher's raw replies hold nothing more than its answers, so none are kept.
    line = refused(capsys, "reparse", material / "run.toml")
    assert "keeps no raw reply of teacher" in line
    with SqliteLedger(ledger) as opened, opened.writing() as connection:
        connection.execute("UPDATE answers SET raw = probs")
        connection.execute("UPDATE answers SET probs = zeroblob(8) WHERE id <= 3")
    dry = told(capsys, "reparse", material / "run.toml", "--dry-run")
    assert dry == {"read": 150, "changed": 3, "recovered": 0, "unreadable": 0}
    assert told(capsys, "reparse", material / "run.toml") == dry
    assert told(capsys, "verify", ledger)["whole"]
    code, out, _ = limbeck(capsys, "ledger", "reparse", material / "run.toml")
    assert code == 0
    assert out.startswith("150 raw replies read: 0 answers were changed")


@pytest.mark.parametrize("command", ["show", "stats", "verify", "vacuum"])
def test_a_ledger_that_is_not_there_is_not_made(capsys, tmp_path, command):
    assert "there is no ledger" in refused(capsys, command, tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()


def test_the_commands_have_help_and_wrong_words_are_refused(capsys):
    code, out, _ = limbeck(capsys, "ledger", "--help")
    assert code == 0
    for name in ("show", "stats", "export", "verify", "reparse", "merge", "purge", "vacuum"):
        assert f" {name} " in out
        assert f"Usage: limbeck ledger {name}" in limbeck(capsys, "ledger", name, "--help")[1]
    assert "shw" in refused(capsys, "shw")
    assert "--jsn" in refused(capsys, "show", "--jsn")


def test_a_ledger_in_the_working_folder_needs_no_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Shop(tmp_path / "ledger.sqlite").ledger.close()
    assert told(capsys, "show")["teachers"] == []


def test_the_teachers_of_an_ensemble_are_read_again_and_purged_on_their_own(tmp_path):
    lab = Lab(tmp_path)
    config = lab.config("one", "two", budget=240, columns={"two": ("b",)})
    label(config)
    with SqliteLedger(config.ledger) as ledger:
        with ledger.writing() as connection:  # the second teacher alone has raw replies
            connection.execute("UPDATE answers SET raw = probs WHERE teacher = 2")
            connection.execute("UPDATE answers SET probs = zeroblob(8) WHERE teacher = 2")
            (replies,) = connection.execute("SELECT COUNT(raw) FROM answers").fetchone()
        assert reparse_run(config) == Reparsed(replies, replies, 0, 0)
        with ledger.reading() as connection:
            teachers = teachers_of(connection)
        lines = (tmp_path / "validation.csv").read_text().splitlines()
        (tmp_path / "gone.csv").write_text("\n".join([lines[0], lines[5]]) + "\n")
        ids = questions_in(config, tmp_path / "gone.csv", teachers)
        assert purge(ledger, ids) == Purged(2, 2)
    assert verify(config.ledger) == []
