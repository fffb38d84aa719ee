import json

import pytest

from limbeck.cli import run
from tests.distill.search_material import asked, make_search


@pytest.fixture
def run_file(tmp_path):
    return make_search(tmp_path)


def test_the_plan_says_what_there_is_to_search_and_asks_nobody(run_file, capsys):
    assert run(["search", str(run_file), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "6 trials of 6 steps of the arm soft_kd, by layernas" in said
    assert "27 students of" in said
    assert asked(run_file) == []


def test_a_search_shows_its_answer_its_front_and_where_to_go_on(run_file, capsys):
    assert run(["search", str(run_file), "--trials", "3", "--yes"]) == 0
    said = capsys.readouterr()
    assert "[student.settings]" in said.out
    assert "search.html" in said.out
    assert "limbeck distill" in said.out
    assert "is the best of" in said.err


def test_results_as_json(run_file, capsys):
    words = ["search", str(run_file), "--trials", "3", "--search.arm", "labels", "--json"]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["trials"]) == 3
    assert set(found["settings"]) == {"buckets", "dim", "hidden"}
    assert asked(run_file) == []


def test_a_search_that_asks_nobody_needs_no_budget(run_file, capsys):
    words = ["search", str(run_file), "--trials", "2", "--search.arm", "labels", "--budget", "1"]
    assert run([*words, "--dry-run"]) == 0
    assert "answers   none to buy" in capsys.readouterr().out
    assert run(words) == 0


def test_a_run_file_without_arch_is_searched_too(run_file, capsys):
    run_file.write_text(run_file.read_text().replace('arch = "search"\n', ""))
    assert run(["search", str(run_file), "--trials", "2", "--search.arm", "labels"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", "1"], "no student is within the limit"),
        (["--method", "magic"], "method"),
        (["--trials", "0"], "search.trials=0: must be at least 1"),
        (["--search.optoins.dim", "[8]"], "optoins"),
        (["--share", "0"], "search.share=0.0: must be > 0"),
        (["--student.kind", "tabular"], "tabular"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(run_file, capsys, words, message):
    assert run(["search", str(run_file), *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert asked(run_file) == []


def test_options_alone_need_no_run_file(capsys):
    assert run(["search", "--trials", "3"]) == 2
    assert "data.labelled is missing" in capsys.readouterr().err
