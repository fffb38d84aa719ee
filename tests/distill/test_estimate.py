"""Estimates of price and time: from what the ledger holds, told before and while it is spent."""

import json

import numpy as np
import pytest

from limbeck.cli import run
from limbeck.distill import estimate
from limbeck.distill.compare_config import load_compare_config
from limbeck.distill.compare_plan import make_compare_plan
from limbeck.distill.estimate import UNKNOWN, Estimate
from limbeck.distill.label import label
from limbeck.distill.plan import make_plan
from limbeck.distill.run_file import load_config
from limbeck.ledger import Budget, SqliteLedger, tables
from limbeck.ledger.history import History
from limbeck.numerics.forecast import forecast_sum
from limbeck.teachers import Money, Replies
from tests.distill.material import make

PRICED = ("--teacher.price-per-answer", "10000")


class Clock:
    """The ledger's clock, set by hand; milliseconds."""

    def __init__(self, monkeypatch):
        self.now = 1_000_000
        for module in [tables, *_others()]:
            monkeypatch.setattr(module, "now", lambda: self.now)


def _others():
    """Modules that have taken the clock over from `tables`."""
    import sys

    names = [name for name in sys.modules if name.startswith("limbeck.ledger.")]
    return [m for m in map(sys.modules.get, names) if getattr(m, "now", None) is tables.now]


def replies(ids, price, failed=()):
    raw = [b"." for _ in ids]
    why = ["no" if i in failed else None for i in range(len(ids))]
    return Replies(ids, raw, np.full(len(ids), price, np.int64), why)


def answers(ids, kept):
    import torch

    from limbeck.answers import Answers

    return Answers(ids[kept], torch.full((len(kept), 2), 0.5))


def question(numbers):
    ids = np.zeros((len(numbers), 16), np.uint8)
    ids[:, :8] = np.array(numbers, ">u8").view(np.uint8).reshape(-1, 8)
    return ids


def buy(ledger, numbers, *, price=3, failed=(), run="run"):
    ids = question(numbers)
    held = ledger.reserve(run, "teacher", ids, Money(10 * len(ids)), Budget(10_000))
    kept = [i for i in range(len(ids)) if i not in failed]
    return held, lambda: ledger.record(held, replies(ids, price, failed), answers(ids, kept), True)


@pytest.fixture
def ledger(tmp_path):
    with SqliteLedger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def test_a_history_holds_every_price_and_the_time_of_every_block(ledger, monkeypatch):
    clock = Clock(monkeypatch)
    assert len(ledger.history("teacher")) == 0
    for start in (0, 10, 20):
        _, record = buy(ledger, range(start, start + 10), price=start, failed=(0,))
        clock.now += 4_000
        record()
        clock.now += 60_000  # a pause between batches is nobody's time
    found = ledger.history("teacher")
    assert sorted(found.prices.tolist()) == [0] * 10 + [10] * 10 + [20] * 10
    assert found.counts.tolist() == [9, 9, 9]
    assert found.seconds.tolist() == [4.0, 4.0, 4.0]
    assert len(ledger.history("another")) == 0


def test_batches_in_flight_at_once_are_not_counted_twice(ledger, monkeypatch):
    clock = Clock(monkeypatch)
    records = [buy(ledger, range(s, s + 5))[1] for s in range(0, 20, 5)]
    for record in records:
        clock.now += 1_000
        record()
    found = ledger.history("teacher")
    assert found.seconds.tolist() == [1.0] * 4  # four seconds on the wall, not 1 + 2 + 3 + 4
    assert found.counts.tolist() == [5] * 4


def test_a_clock_that_is_set_back_gives_no_time_back(ledger, monkeypatch):
    clock = Clock(monkeypatch)
    for start in (0, 5, 10):
        _, record = buy(ledger, range(start, start + 5))
        clock.now -= 30_000
        record()
    assert (ledger.history("teacher").seconds >= 0).all()


def test_a_history_looks_back_at_the_last_questions_only(ledger, monkeypatch):
    monkeypatch.setattr("limbeck.ledger.history.LAST", 20)
    for start in range(0, 50, 10):
        buy(ledger, range(start, start + 10), price=start)[1]()
    assert sorted(set(ledger.history("teacher").prices.tolist())) == [30, 40]


def history(prices, seconds=()):
    return History(
        np.array(prices, np.int64), "USD", np.full(len(seconds), 10), np.array(seconds, float)
    )


def test_an_estimate_is_the_forecast_and_never_beyond_the_worst_case():
    prices = [10, 20, 30, 40, 50]
    found = Estimate.of(history(prices), 100, Money(10_000))
    assert found.price == forecast_sum(np.array(prices), 100)
    tight = Estimate.of(history(prices), 100, Money(3_100))
    assert (tight.price.estimate, tight.price.high) == (3_000, 3_100)


def test_nothing_is_said_before_a_handful_of_answers():
    found = Estimate.of(history([5] * 4, [1.0] * 4), 10, Money(100))
    assert found.price is None
    assert found.seconds is None
    assert all(UNKNOWN in line for line in found.lines)
    free = Estimate.of(history([0] * 9, [2.0] * 5), 100, Money(0))
    assert free.lines[0] == "price     none"
    assert "about 20 s (95 % interval 20 s to 20 s)" in free.lines[1]
    assert Estimate.of(history([0] * 9), 0, Money(0)).lines == ["price     none"]


def test_a_plan_says_what_the_first_answers_lead_to_expect(tmp_path):
    material = make(tmp_path, pool=1_300, budget=1_200)
    config = load_config(material.run_file, PRICED)
    before = make_plan(config, trains=False)
    assert UNKNOWN in before.text()
    assert before.expected.price is None
    label(config)
    more = load_config(
        material.run_file, (*PRICED, "--budget", "100", "--out", str(tmp_path / "b"))
    )
    after = make_plan(more, trains=False)
    # Every answer has cost one cent, so there is no doubt about a hundred more.
    assert (after.price.micros, after.expected.price.high) == (1_000_000, 1_000_000)
    assert after.expected.seen == 1_200
    assert "at most 1.00 USD; about 1.00 USD (95 % interval 1.00 to 1.00 USD)" in after.text()
    assert after.expected.seconds.low <= after.expected.seconds.estimate
    assert json.dumps(after.to_dict())


def test_the_rest_is_estimated_while_answers_come_in(tmp_path, monkeypatch):
    material = make(tmp_path, pool=900, budget=900)
    heard = []
    monkeypatch.setattr("limbeck.distill.buying._LOOK_SECONDS", 0.0)
    monkeypatch.setattr("limbeck.distill.buying._FIRST_LOOK_SECONDS", 0.0)
    label(load_config(material.run_file, PRICED), heard.append)
    lines = [event.message for event in heard if event.message.startswith("pool: the other")]
    assert len(lines) == 1  # later ones stand beside the bar
    assert "the other 574: about 5.74 USD (95 % interval 5.74 to 5.74 USD)" in lines[0]
    notes = [event.note for event in heard if event.stage == "answers on pool"]
    assert notes[0] == ""
    assert any("the other" in note for note in notes[1:-1])
    assert notes[-1] == ""


def test_the_question_before_money_is_spent_names_what_is_likely(tmp_path, capsys, monkeypatch):
    material = make(tmp_path, pool=400)
    words = [str(material.run_file), *PRICED]
    assert run(["label", *words, "--yes"]) == 0
    capsys.readouterr()
    assert run(["label", *words, "--budget", "100", "--out", str(tmp_path / "b")]) == 2
    _, err = capsys.readouterr()
    assert "up to 1.00 USD, probably 1.00 to 1.00 USD. Go on? Nobody is here to answer" in err
    assert "--yes" in err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "3 s"), (89, "89 s"), (90, "2 min"), (5_399, "90 min"), (7_200, "2.0 h")],
)
def test_a_duration_is_told_in_the_unit_that_fits(seconds, text):
    assert estimate.span(seconds) == text


def test_a_comparison_says_it_over_all_its_seeds(tmp_path):
    material = make(tmp_path, pool=400)
    config = load_compare_config(material.run_file, PRICED, seeds=2, arms="labels,soft_kd")
    before = make_compare_plan(config)
    assert f"at most {before.price}; {UNKNOWN}" in before.text()
    assert f"asking    {UNKNOWN}" in before.text()
    label(load_config(material.run_file, PRICED))
    after = make_compare_plan(config)
    assert after.answers < before.answers  # validation, test and some pool rows are owned
    price = Money(10_000 * after.answers)
    assert f"at most {price}; about {price} (95 % interval" in after.text()
    assert json.dumps(after.to_dict())
