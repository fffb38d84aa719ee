"""Money, or the limit of the ledger, ends in the middle of the pool: what is told, what is bought.

Every answer costs half a cent. 70 answers on validation and test come first, 80 of the pool follow.
"""

import json
import re

import pytest

from limbeck.cli import run
from limbeck.ledger import Limit, SqliteLedger
from limbeck.teachers import Money
from tests.distill.material import make

PRICED = ("--teacher.price-per-answer", "5000")
FIRST, POOL = 70, 80


@pytest.fixture
def material(tmp_path):
    return make(tmp_path)


@pytest.fixture
def limbeck(material, capsys):
    """Run a command on the run file; give its exit code and what it wrote."""

    def command(name, *words):
        code = run([name, str(material.run_file), *PRICED, *map(str, words)])
        return code, *capsys.readouterr()

    return command


def limit(material, **caps):
    with SqliteLedger(material.folder / "ledger.sqlite") as ledger:
        ledger.set_limit(Limit(**caps))


def short(count, what=r"the money \(0\.50 USD\)"):
    return f"{what} ended: {count} of 80 pool rows that were to be asked about have an answer"


def test_labelling_with_too_little_money_says_so_and_leaves_with_3(material, limbeck):
    code, out, err = limbeck("label", "--money", "0.5", "--yes")
    assert code == 3
    assert len(material.questions()) == 100
    assert re.search(short(30), out)
    assert re.search(short(30), err)
    assert "run the same command again" in out
    code, out, _ = limbeck("label", "--money", "0.5", "--json")
    assert code == 3
    assert re.fullmatch(short(30), json.loads(out)["short"])


def test_more_money_buys_the_rest_that_the_plan_offers(material, limbeck):
    assert limbeck("label", "--money", "0.5", "--yes")[0] == 3
    code, out, _ = limbeck("label", "--money", "0.75", "--dry-run", "--json")
    plan = json.loads(out)
    assert (plan["pool"], plan["price"]["micros"], plan["ends"]) == (50, 250_000, "")
    code, out, err = limbeck("label", "--money", "0.75")
    assert (code, len(material.questions())) == (2, 100)
    assert "up to 0.25 USD" in err
    code, out, err = limbeck("label", "--money", "0.75", "--yes", "--json")
    found = json.loads(out)
    assert (code, found["short"], found["pool_answers"]) == (0, "", POOL)
    assert found["splits"][2]["bought"] == 50
    assert len(set(material.questions())) == len(material.questions()) == FIRST + POOL


def test_nothing_is_asked_of_the_person_where_no_answer_can_be_bought(material, limbeck):
    assert limbeck("label", "--money", "0.502", "--yes")[0] == 3
    code, _, err = limbeck("label", "--money", "0.502")  # 0.2 cents are left
    assert (code, len(material.questions())) == (3, 100)
    assert "Go on?" not in err
    assert "0 to buy" in err
    assert "is spent: nothing will be bought; raise it to buy the other 50" in err


@pytest.mark.parametrize("caps", [{"queries": 90}, {"money": Money(450_000)}], ids=str)
def test_the_limit_of_the_ledger_ends_a_pool_as_money_does(material, limbeck, caps):
    limit(material, **caps)
    code, out, _ = limbeck("label", "--yes", "--json")
    assert (code, len(material.questions())) == (3, 90)
    assert json.loads(out)["short"] == short(20, "the limit of the ledger")
    code, _, err = limbeck("label")
    assert (code, len(material.questions())) == (3, 90)
    assert "the limit of the ledger is spent: nothing will be bought" in err
    limit(material, queries=140)
    _, _, err = limbeck("label", "--dry-run")
    code, _, err = limbeck("label", "--yes")
    assert "the limit of the ledger ends after about 50 of them" in err
    assert (code, len(material.questions())) == (3, 140)
    limit(material, queries=1_000)
    assert limbeck("label", "--yes")[0] == 0
    assert len(set(material.questions())) == len(material.questions()) == FIRST + POOL


def test_the_plan_says_where_money_will_end_before_the_first_answer(material, limbeck):
    _, out, _ = limbeck("plan", "--money", "0.5")
    assert "150 to buy" in out
    assert "the money (0.50 USD) ends after about 100 of them" in out
    assert "at most 0.50 USD" in out
    assert "ends" not in limbeck("plan", "--money", "0.75")[1]
    assert "ends" not in limbeck("plan")[1]


@pytest.mark.slow
def test_a_run_trains_on_what_it_has_and_says_so(material, limbeck):
    code, out, err = limbeck("distill", "--money", "0.5", "--yes")
    assert (code, len(material.questions())) == (0, 100)
    assert re.search(short(30), out)
    assert re.search(short(30), err)
    metrics = json.loads((material.folder / "run/metrics.json").read_text())
    assert re.fullmatch(short(30), metrics["cost"]["short"])
    report = (material.folder / "run/report.html").read_text()
    assert re.search(short(30), report)
    # Trained: the folder buys nothing more, offers nothing, and keeps on saying so.
    code, out, err = limbeck("distill", "--money", "0.75")
    assert (code, len(material.questions())) == (0, 100)
    assert "0 to buy" in err
    assert "ended without 50 of its 80 answers, and nothing more is bought in this folder" in err
    assert re.search(short(30), out)
    code, out, _ = limbeck("label", "--money", "0.75", "--json")
    assert (code, len(material.questions())) == (0, 100)
    assert re.fullmatch(short(30), json.loads(out)["short"])
    # Another folder has them for the price of what is missing.
    assert limbeck("label", "--out", material.folder / "other", "--yes")[0] == 0
    assert len(set(material.questions())) == len(material.questions()) == FIRST + 90


@pytest.mark.slow
def test_distill_after_a_short_purchase_buys_the_rest_first(material, limbeck):
    assert limbeck("label", "--money", "0.5", "--yes")[0] == 3
    code, out, _ = limbeck("distill", "--money", "0.75", "--yes", "--json")
    assert (code, len(material.questions())) == (0, FIRST + POOL)
    assert json.loads(out)["cost"]["short"] == ""
    assert len(set(material.questions())) == FIRST + POOL


@pytest.mark.slow
def test_a_run_without_a_short_purchase_says_nothing_of_one(material, limbeck):
    code, out, err = limbeck("distill", "--yes")
    assert code == 0
    assert "ended:" not in out + err
    assert "Ended early" not in (material.folder / "run/report.html").read_text()
