"""What people are told of a ledger agrees with what was done to it."""

import json

import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.ledger import Budget, Limit, SqliteLedger
from limbeck.ledger.facts import choose_teacher
from limbeck.ledger.show import keep_limit, summarize
from limbeck.ledger.stats import stats
from limbeck.teachers.base import Money, Replies

from .conftest import TEACHER


@pytest.fixture
def used(shop):
    shop.ledger.describe(TEACHER, {"classes": ["a", "b", "c"], "columns": ["text"]})
    shop.record(shop.reserve(1, 2, 3, run="first", worst=300), failed=[3], price=50, version="v1")
    shop.record(shop.reserve(4, run="second", worst=900), price=850, version="v2")
    shop.ledger.release(shop.reserve(5, run="second", worst=7), unknown=True)
    shop.ledger.set_limit(Limit(queries=20, money=Money(5_000_000)))
    shop.record(shop.ledger.reserve("first", "g" * 64, shop.ids(1), Money(0), Budget(99)))
    return shop


def test_show_tells_teachers_runs_limit_and_the_last_events(used):
    found = summarize(used.ledger, events=3)
    assert [(t.fingerprint, t.answers, t.classes) for t in found.teachers] == [
        (TEACHER, 3, ("a", "b", "c")),
        ("g" * 64, 1, ("0", "1", "2")),
    ]
    assert {run: (s.answered, s.failed, s.unknown) for run, s in found.runs.items()} == {
        "first": (3, 1, 0),
        "second": (1, 0, 1),
    }
    assert found.runs["second"].money == Money(857)
    assert (found.total.queries, found.total.money) == (6, Money(150 + 857))
    assert [event.kind for event in found.events] == ["limit", "reserve", "record"]
    assert json.loads(json.dumps(found.to_dict()))["teachers"][0]["answers"] == 3
    text = found.text()
    for part in ("4 answers", "20 queries (6 spent), 5.00 USD (0.0010 USD spent)", "a, b, c"):
        assert part in text
    assert len(text.splitlines()) == 3 + 2 + 2 + 2 + 2 + 2 + 3


def test_an_empty_ledger_can_be_shown(shop):
    found = summarize(shop.ledger)
    assert found.teachers == ()
    assert "none (0 queries and 0.00 USD spent)" in found.text()
    assert stats(shop.ledger) == []


def test_stats_tell_prices_failures_and_versions(used):
    mine, other = stats(used.ledger)
    assert mine.prices.questions == 4
    assert mine.prices.total == 3 * 50 + 850
    assert (mine.prices.mean, mine.prices.median) == (250.0, 50)
    assert (mine.prices.high, mine.prices.most) == (850, 850)
    assert (mine.failed, mine.failures) == (1, {"it said nothing": 1})
    assert mine.unknown == 1
    assert mine.versions == {"v1": 2, "v2": 1}
    assert (other.prices.total, other.versions, other.failures) == (0, {}, {})
    assert "mean 0.000250, median 0.000050" in mine.text()
    assert json.loads(json.dumps(mine.to_dict()))["failed"] == 1


def test_the_most_frequent_failures_are_told_first(shop):
    reservation = shop.reserve(*range(9))
    shop.record(reservation, only=[0], failed=[0])
    ids = shop.ids(*range(1, 9))
    replies = Replies(ids, [None] * 8, np.zeros(8, np.int64), ["no words"] * 7 + ["late"])
    shop.ledger.record(reservation, replies, Answers(ids[:0], torch.zeros(0, 3)), False)
    (found,) = stats(shop.ledger)
    assert list(found.failures.items()) == [("no words", 7), ("it said nothing", 1), ("late", 1)]


def test_a_teacher_is_found_by_the_beginning_of_its_fingerprint(used):
    with used.ledger.reading() as connection:
        assert choose_teacher(connection, "f").fingerprint == TEACHER
        with pytest.raises(ConfigError, match=r"2 teachers .* has answers.*--teacher"):
            choose_teacher(connection, "")
        with pytest.raises(ConfigError, match=r"0 teachers .*begins with 'x'.*ffffffffffff, ggg"):
            choose_teacher(connection, "x")


def test_the_parts_of_a_limit_are_kept_apart(shop, tmp_path):
    keep_limit(shop.ledger, queries=10)
    keep_limit(shop.ledger, money=2.5, currency="EUR")
    assert shop.ledger.limit() == Limit(10, Money(2_500_000, "EUR"))
    keep_limit(shop.ledger, queries=0)
    assert shop.ledger.limit() == Limit(0, Money(2_500_000, "EUR"))
    keep_limit(shop.ledger, money=1.0, fresh=True)
    assert shop.ledger.limit() == Limit(None, Money(1_000_000))
    for wrong in (-1.0, float("nan"), float("inf"), 1e13):
        with pytest.raises(ConfigError, match="must lie between 0"):
            keep_limit(shop.ledger, money=wrong)
    shop.ledger.close()
    with SqliteLedger(tmp_path / "ledger.sqlite") as again:
        assert again.limit() == Limit(None, Money(1_000_000))
