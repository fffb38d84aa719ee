"""Worst prices of single questions, the limit of a whole ledger, and running totals."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import BudgetError, ConfigError, LimitError
from limbeck.ledger import Budget, Limit, SqliteLedger
from limbeck.teachers.base import Money

from .conftest import TEACHER


def test_a_cap_in_money_counts_each_question_at_its_own_worst_price(shop):
    # Equal shares would hold 3 of them at 34 each for 102.
    assert shop.numbers(shop.reserve(1, 2, 3, shares=[100, 1, 1], money=101).ids) == [1, 2]
    with pytest.raises(BudgetError):
        shop.reserve(3, shares=[1], money=101)


def test_a_dear_question_keeps_its_price_when_those_before_it_are_answered(shop):
    shop.buy(1, 3)
    reservation = shop.reserve(1, 2, 3, 4, shares=[1, 70, 2, 5])
    assert (shop.numbers(reservation.ids), reservation.worst) == ([2, 4], Money(75))
    shop.record(reservation, only=[4], price=5)
    assert shop.spent().money == Money(75)


@settings(max_examples=25)
@given(shares=st.lists(st.integers(0, 40), max_size=8), money=st.integers(0, 120))
def test_the_longest_beginning_that_is_affordable_is_granted(tmp_path_factory, shares, money):
    with SqliteLedger(tmp_path_factory.mktemp("l") / "l.sqlite") as ledger:
        ids = np.arange(len(shares) * 16, dtype=np.uint8).reshape(-1, 16)
        fits = [n for n in range(len(shares) + 1) if sum(shares[:n]) <= money]
        args = ("run", TEACHER, ids, Money(sum(shares)), Budget(99, Money(money)))
        each = np.array(shares, np.int64)
        if shares and max(fits) == 0:
            with pytest.raises(BudgetError):
                ledger.reserve(*args, shares=each)
        else:
            assert len(ledger.reserve(*args, shares=each).ids) == max(fits)


@pytest.mark.parametrize("shares", [[1, 2], [1, 2, 4], [-1, 2, 5], [[1, 2, 3]]])
def test_shares_that_do_not_split_the_worst_price_are_refused(shop, shares):
    with pytest.raises(ConfigError, match="do not split 6 millionths over 3 questions"):
        shop.ledger.reserve(
            "run", TEACHER, shop.ids(1, 2, 3), Money(6), Budget(9), shares=np.array(shares)
        )
    assert shop.spent().queries == 0


def test_a_limit_of_queries_holds_over_all_runs_and_survives_closing(shop, tmp_path):
    shop.ledger.set_limit(Limit(queries=3))
    shop.buy(1, 2, run="a")
    shop.ledger.close()
    shop.ledger = SqliteLedger(tmp_path / "ledger.sqlite")
    assert shop.ledger.limit() == Limit(queries=3)
    assert shop.numbers(shop.reserve(3, 4, run="b").ids) == [3]
    with pytest.raises(LimitError, match=r"all runs.* 3 of 3 queries.*limbeck ledger limit"):
        shop.reserve(4, run="c")
    assert len(shop.reserve(1, run="c").ids) == 0, "what is answered needs no room"
    shop.ledger.set_limit(Limit())
    assert len(shop.reserve(4, run="c").ids) == 1


def test_a_limit_in_money_holds_over_all_runs(shop):
    shop.ledger.set_limit(Limit(money=Money(100)))
    first = shop.reserve(1, run="a", worst=60)
    with pytest.raises(BudgetError, match="raise its limit"):
        shop.reserve(2, run="b", worst=41)
    shop.record(first, price=59)
    assert len(shop.reserve(2, run="b", worst=41).ids) == 1
    assert len(shop.reserve(3, run="c", worst=0).ids) == 1, "what is free needs no money"


def test_a_run_has_the_smaller_of_its_budget_and_the_limit(shop):
    shop.ledger.set_limit(Limit(queries=5, money=Money(30)))
    assert len(shop.reserve(*range(9), run="a", shares=[10] * 9, queries=2).ids) == 2
    assert len(shop.reserve(*range(9), run="b", shares=[10] * 9).ids) == 1
    assert len(shop.reserve(*range(9), run="c", queries=9).ids) == 2


def test_a_limit_in_another_currency_refuses_a_paid_teacher_and_lets_a_free_one_pass(shop):
    shop.ledger.set_limit(Limit(money=Money(100, "EUR")))
    with pytest.raises(ConfigError, match=r"paid in USD.*limit is in EUR"):
        shop.reserve(1, worst=1)
    assert len(shop.reserve(1).ids) == 1


def test_a_cap_beyond_what_floats_count_exactly_is_not_passed_by_one_millionth(shop):
    cap = 2**53 + 1
    shop.record(shop.reserve(1, worst=2**53, money=cap), price=2**53)
    with pytest.raises(BudgetError):
        shop.reserve(2, worst=2, money=cap)
    shop.record(shop.reserve(2, worst=1, money=cap), price=1)
    assert shop.spent().money.micros == cap
    with pytest.raises(BudgetError):
        shop.reserve(3, worst=1, money=cap)


@pytest.mark.parametrize("limit", [Limit(queries=-1), Limit(money=Money(-1))])
def test_a_limit_below_zero_is_refused(shop, limit):
    with pytest.raises(ConfigError, match="must be >= 0"):
        shop.ledger.set_limit(limit)
    assert shop.ledger.limit() == Limit()


def test_a_free_teacher_and_one_in_another_currency_share_a_run(shop):
    shop.buy(1)  # free, so its USD are no currency
    reservation = shop.ledger.reserve(
        "run", TEACHER, shop.ids(2), Money(5, "EUR"), Budget(9, Money(9, "EUR"))
    )
    shop.record(reservation, price=5)
    assert shop.spent().money == Money(5, "EUR")
    assert shop.spent().queries == 2
    shop.buy(3)


def test_running_totals_equal_the_sum_over_reservations(shop, tmp_path):
    shop.record(shop.reserve(1, 2, 3, worst=30), failed=[2], price=4)
    shop.ledger.release(shop.reserve(4, 5, run="b", worst=9), unknown=True)
    shop.ledger.release(shop.reserve(6, run="b"), unknown=False)
    shop.reserve(7, worst=9)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as file:
        totals = file.execute("SELECT * FROM totals ORDER BY 1, 2, 3").fetchall()
        sums = file.execute(
            """SELECT run, teacher, currency, SUM(answered), SUM(failed), SUM(in_flight),
            SUM(unknown), SUM(micros) FROM reservations GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
        ).fetchall()
    file.close()
    assert totals == sums
    assert len(totals) == 2


def test_a_price_beyond_the_worst_is_counted_and_told(shop, tmp_path):
    shop.record(shop.reserve(1, worst=5), price=9)
    assert shop.spent().money == Money(9)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as file:
        details = file.execute("SELECT detail FROM events WHERE kind = 'record'").fetchall()
    file.close()
    assert '"over": 4' in details[0][0]
