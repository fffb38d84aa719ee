"""Many small steps in one transaction, parts of a reservation, and version strings."""

import contextlib
import sqlite3

import numpy as np
import pytest

from limbeck.answers import Answers
from limbeck.errors import AnswerError, BudgetError, ConfigError, StorageError
from limbeck.ledger import SqliteLedger
from limbeck.teachers.base import Replies

from .conftest import TEACHER


class Fault(Exception):
    """What the tests inject."""


def test_steps_together_reach_the_disk_with_one_commit(shop, monkeypatch):
    commits, real = [], SqliteLedger._commit

    def commit(self, connection):
        commits.append(1)
        real(self, connection)

    monkeypatch.setattr(SqliteLedger, "_commit", commit)
    single = [shop.reserve(number, worst=1) for number in range(64)]
    commits.clear()
    with shop.ledger.together():
        for reservation in single:
            shop.record(reservation, price=1)
        following = shop.reserve(100, 101)
    assert len(commits) == 1
    assert shop.known(*range(64)) == [True] * 64
    assert len(following.ids) == 2


def test_others_see_nothing_of_it_before_its_end(shop, tmp_path):
    with SqliteLedger(tmp_path / "ledger.sqlite") as other, shop.ledger.together():
        reservation = shop.reserve(1)
        shop.record(reservation)
        file = sqlite3.connect(other.path)  # a second connection of this thread
        assert file.execute("SELECT COUNT(*) FROM answers").fetchone() == (0,)
        file.close()
        assert not other.known(TEACHER, shop.ids(1)).any()
    assert shop.known(1) == [True]


def test_an_exception_that_leaves_the_block_undoes_all_of_it(shop):
    reservation = shop.reserve(1, 2, worst=10)

    def steps():
        shop.record(reservation, only=[1], price=3)
        shop.ledger.release(reservation, unknown=True, ids=shop.ids(2))
        shop.reserve(3)
        raise Fault

    with pytest.raises(Fault), shop.ledger.together():
        steps()
    spent = shop.spent()
    assert (spent.answered, spent.unknown, spent.reserved) == (0, 0, 2)
    assert shop.known(1) == [False]
    shop.record(reservation, price=3)
    assert shop.known(1, 2) == [True, True]


@pytest.mark.parametrize("deep", [False, True])
def test_a_step_that_fails_and_is_caught_undoes_itself_alone(shop, deep):
    first, second = shop.reserve(1), shop.reserve(2)
    ids = shop.ids(2)
    wide = Answers(ids, shop.probs(ids)[:, :2].softmax(1))
    replies = Replies(ids, [b""], np.ones(1, np.int64), [None])

    def reserve_and_fail():
        shop.reserve(4)
        raise Fault

    def steps():
        shop.record(first)
        with pytest.raises(AnswerError):
            shop.ledger.record(second, replies, wide, False)
        with pytest.raises(BudgetError):
            shop.reserve(3, queries=2)
        with pytest.raises(Fault), shop.ledger.together():
            reserve_and_fail()
        shop.reserve(5)

    with shop.ledger.together():
        if deep:
            with shop.ledger.together():
                steps()
        else:
            steps()
    spent = shop.spent()
    assert (spent.answered, spent.reserved, spent.failed) == (1, 2, 0)  # 2 and 5 are in flight
    assert shop.known(1, 2, 4) == [True, False, False]


def test_a_full_disk_inside_undoes_all_of_it_and_says_so(shop):
    connection = shop.ledger._connections.get()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    reservation = shop.reserve(1)
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    def steps():
        shop.record(reservation)
        shop.buy(*range(10, 900))

    with pytest.raises(StorageError, match="the disk is full"), shop.ledger.together():
        steps()
    connection.execute("PRAGMA max_page_count = 1000000")
    assert shop.known(1) == [False]
    assert shop.spent().reserved == 1
    shop.record(reservation)
    assert shop.known(1) == [True]


def test_some_questions_of_a_reservation_can_be_unknown_while_others_go_on(shop):
    reservation = shop.reserve(1, 2, 3, shares=[10, 20, 30])
    shop.ledger.release(reservation, unknown=True, ids=shop.ids(2))
    shop.record(reservation, only=[1], price=4)
    spent = shop.spent()
    assert (spent.answered, spent.unknown, spent.reserved) == (1, 1, 1)
    assert spent.money.micros == 4 + 20 + 30
    # The unknown one may be asked again, under a place of its own in the budget.
    again = shop.reserve(1, 2, 3, shares=[1, 20, 1])
    assert shop.numbers(again.ids) == [2]
    assert shop.spent().money.micros == 4 + 20 + 30 + 20
    shop.record(reservation, only=[3], price=30)
    shop.ledger.release(reservation, unknown=False)
    assert shop.spent().reserved == 1
    assert shop.spent().unknown == 1


def test_the_place_of_an_undone_transaction_is_never_taken_for_anothers(shop):
    """Its key is given out again, to a purchase that may hold the same question."""
    with contextlib.suppress(RuntimeError), shop.ledger.together():
        undone = shop.reserve(1, worst=10)
        raise RuntimeError
    held = shop.reserve(1, worst=10)
    assert held.key == undone.key
    for step in (
        lambda: shop.ledger.release(undone, unknown=False),
        lambda: shop.ledger.release(undone, unknown=True, ids=undone.ids),
        lambda: shop.record(undone, price=1),
    ):
        with pytest.raises(ConfigError, match="is not in this ledger"):
            step()
    assert (shop.spent().reserved, shop.spent().money.micros) == (1, 10)
    shop.record(held, price=3)
    assert shop.known(1) == [True]


def test_releasing_what_was_recorded_or_released_changes_nothing(shop):
    reservation = shop.reserve(1, 2, worst=20)
    shop.record(reservation, only=[1], price=3)
    shop.ledger.release(reservation, unknown=True, ids=shop.ids(2))
    before = shop.spent()
    shop.ledger.release(reservation, unknown=False, ids=shop.ids(1, 2))
    shop.ledger.release(reservation, unknown=False)
    assert shop.spent() == before


def test_a_question_of_another_reservation_cannot_be_released(shop):
    reservation, _ = shop.reserve(1), shop.reserve(2)
    with pytest.raises(ConfigError, match="is not one of reservation"):
        shop.ledger.release(reservation, unknown=False, ids=shop.ids(2))
    assert shop.spent().reserved == 2


def test_a_reply_told_twice_in_one_batch_counts_once(shop):
    reservation = shop.reserve(1)
    ids = shop.ids(1, 1)
    replies = Replies(ids, [b"a", b"b"], np.array([3, 5], np.int64), [None, None])
    one = shop.ids(1)
    shop.ledger.record(reservation, replies, Answers(one, shop.probs(one)), False)
    assert shop.spent().money.micros == 3


def test_answers_are_counted_by_the_version_that_gave_them(shop):
    shop.record(shop.reserve(1, 2), version="m-2026-01")
    shop.record(shop.reserve(3), version="m-2026-02")
    shop.record(shop.reserve(4))
    assert shop.ledger.versions(TEACHER) == {"m-2026-01": 2, "m-2026-02": 1}
    assert shop.ledger.versions("g" * 64) == {}


def test_a_failure_keeps_the_version_that_gave_it(shop, tmp_path):
    shop.record(shop.reserve(1), failed=[1], version="m-1")
    with sqlite3.connect(tmp_path / "ledger.sqlite") as file:
        assert file.execute("SELECT server_version FROM attempts").fetchall() == [("m-1",)]
    file.close()
