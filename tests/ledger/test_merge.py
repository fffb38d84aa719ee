"""Two ledgers become one: nothing is lost, and nothing is counted twice."""

import shutil
import sqlite3

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.answers import Answers
from limbeck.errors import AnswerError, ConfigError, StorageError
from limbeck.ledger import Limit, tables
from limbeck.ledger.merge import Merged, merge
from limbeck.ledger.migrations import APPLICATION_ID, MIGRATIONS
from limbeck.ledger.verify import verify
from limbeck.teachers.base import Money, Replies

from .conftest import TEACHER, Shop

NOTHING = Merged(0, 0, 0, 0, 0)


@pytest.fixture
def other(tmp_path):
    other = Shop(tmp_path / "other.sqlite")
    yield other
    other.ledger.close()


def contents(shop):
    """Everything but the log and the numbers of rows."""
    with shop.ledger.reading() as connection:
        return [
            sorted(connection.execute(query).fetchall(), key=repr)
            for query in (
                "SELECT fingerprint, info, num_classes, embedding_dim, has_spread FROM teachers",
                "SELECT question, probs, embedding, spread, raw, price, run, at FROM answers",
                "SELECT r.uid, question, worst, state, price, failure, a.raw FROM attempts a "
                "JOIN reservations r ON r.id = a.reservation",
                "SELECT run, currency, answered, failed, in_flight, unknown, micros FROM totals",
            )
        ]


def test_answers_raw_replies_and_spending_come_along(shop, other):
    shop.record(shop.reserve(1, run="a", worst=5), price=3)
    other.record(other.reserve(2, 3, run="b", worst=20), failed=[3], price=7, keep=True)
    other.ledger.describe(TEACHER, {"classes": ["x", "y", "z"]})
    assert merge(shop.ledger, other.ledger.path) == Merged(0, 1, 0, 1, 0)
    assert shop.known(1, 2, 3) == [True, True, False]
    assert torch.equal(shop.answers(1, 2).probs, Shop.probs(Shop.ids(1, 2)))
    assert (shop.spent("a").money, shop.spent("b").money) == (Money(3), Money(14))
    assert (shop.spent("b").answered, shop.spent("b").failed) == (1, 1)
    with shop.ledger.reading() as connection:
        assert connection.execute("SELECT raw FROM answers WHERE run = 'b'").fetchall() == [
            (b"raw",)
        ]
        failed = connection.execute("SELECT raw FROM attempts WHERE state = 'failed'").fetchall()
    assert failed == [(b"raw",)]
    assert verify(shop.ledger.path) == []


def test_merging_again_changes_nothing(shop, other):
    other.record(other.reserve(2, 3, worst=20), failed=[3], price=7)
    other.ledger.release(other.reserve(4, worst=3), unknown=True)
    merge(shop.ledger, other.ledger.path)
    before = contents(shop)
    events = shop.ledger._connections.get().execute("SELECT COUNT(*) FROM events").fetchone()
    assert merge(shop.ledger, other.ledger.path) == NOTHING
    assert contents(shop) == before
    after = shop.ledger._connections.get().execute("SELECT COUNT(*) FROM events").fetchone()
    assert after == events


def test_what_came_from_here_is_known_again_when_it_comes_back(shop, other):
    shop.record(shop.reserve(1, worst=5), price=3)
    merge(other.ledger, shop.ledger.path)
    other.record(other.reserve(2, worst=5), price=4)
    merge(shop.ledger, other.ledger.path)
    assert shop.spent().money == Money(7)
    assert contents(shop) == contents(other)


def test_two_copies_of_one_file_that_went_on_apart_lose_nothing(shop, tmp_path):
    shop.record(shop.reserve(1, worst=5), price=1)
    shop.ledger._connections.get().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(shop.ledger.path, tmp_path / "copy.sqlite")
    copy = Shop(tmp_path / "copy.sqlite")
    shop.record(shop.reserve(2, worst=5), price=2)
    copy.record(copy.reserve(3, worst=5), price=4)
    merge(shop.ledger, copy.ledger.path)
    assert shop.known(1, 2, 3) == [True, True, True]
    assert shop.spent().money == Money(7)
    copy.ledger.close()


@pytest.mark.parametrize("here_first", [True, False])
def test_of_two_answers_the_one_recorded_first_stays(shop, other, monkeypatch, here_first):
    def buy(where, at, row):
        monkeypatch.setattr(tables, "now", lambda: at)
        reservation = where.reserve(1, worst=1)
        replies = Replies(reservation.ids, [b""], np.ones(1, np.int64), [None])
        where.ledger.record(
            reservation, replies, Answers(reservation.ids, torch.tensor([row])), False
        )

    mine, theirs = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    buy(shop, 1000 if here_first else 2000, mine)
    buy(other, 2000 if here_first else 1000, theirs)
    done = merge(shop.ledger, other.ledger.path)
    assert done.replaced == (0 if here_first else 1)
    assert shop.answers(1).probs.tolist() == [mine if here_first else theirs]
    assert shop.spent().money == Money(2), "both were paid for"
    assert merge(shop.ledger, other.ledger.path) == NOTHING


def test_what_is_in_flight_there_is_unknown_here_until_a_later_merge_tells(shop, other):
    dear, free = other.reserve(1, 2, worst=10), other.reserve(3)
    merge(shop.ledger, other.ledger.path)
    assert (shop.spent().unknown, shop.spent().reserved) == (2, 0)
    assert shop.spent().money == Money(10)
    other.record(dear, failed=[2], price=4)
    other.record(free)
    assert merge(shop.ledger, other.ledger.path) == Merged(0, 2, 0, 0, 2)
    assert (shop.spent().answered, shop.spent().failed, shop.spent().unknown) == (2, 1, 0)
    assert shop.spent().money == Money(8)
    assert verify(shop.ledger.path) == []


def test_the_other_ledger_is_only_read(shop, other):
    other.buy(1)
    other.ledger.close()
    before = other.ledger.path.read_bytes()
    merge(shop.ledger, other.ledger.path)
    assert other.ledger.path.read_bytes() == before


def test_a_ledger_of_the_first_version_is_merged_and_stays_one(shop, tmp_path):
    path = tmp_path / "old.sqlite"
    file = sqlite3.connect(path)
    MIGRATIONS[0](file)
    file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    file.execute("PRAGMA user_version = 1")
    file.execute("INSERT INTO teachers VALUES (1, ?, '{}', 3, NULL)", (TEACHER,))
    file.execute(
        "INSERT INTO reservations VALUES (1, 'old', 1, 'b/n/1/2', 'USD', 5, 1, 0, 0, 0, 9)"
    )
    key, probs = Shop.ids(1).tobytes(), Shop.probs(Shop.ids(1)).numpy().tobytes()
    file.execute(
        "INSERT INTO attempts (reservation, question, teacher, worst, state, price) "
        "VALUES (1, ?, 1, 9, 'settled', 9)",
        (key,),
    )
    file.execute(
        "INSERT INTO answers (teacher, question, probs, price, run, at) "
        "VALUES (1, ?, ?, 9, 'old', 6)",
        (key, probs),
    )
    file.commit()
    file.close()
    before = path.read_bytes()
    assert merge(shop.ledger, path) == Merged(1, 1, 0, 1, 0)
    assert merge(shop.ledger, path) == NOTHING
    assert shop.spent("old").money == Money(9)
    assert path.read_bytes() == before


def test_a_teacher_of_another_form_stops_the_merge_before_anything_is_written(shop, other):
    shop.buy(1)
    other.record(other.reserve(2), embeddings=torch.zeros(1, 4))
    before = contents(shop)
    with pytest.raises(AnswerError, match=r"an embedding of 4 values.*nothing was merged"):
        merge(shop.ledger, other.ledger.path)
    assert contents(shop) == before


def test_a_fault_in_the_middle_writes_nothing(shop, other, monkeypatch):
    shop.buy(1)
    other.buy(2)
    before = contents(shop)
    monkeypatch.setattr(
        "limbeck.ledger.merge.recount", lambda *_: (_ for _ in ()).throw(RuntimeError("fault"))
    )
    with pytest.raises(RuntimeError, match="fault"):
        merge(shop.ledger, other.ledger.path)
    assert contents(shop) == before


def test_a_merge_may_pass_the_limit_and_then_nothing_more_is_granted(shop, other):
    shop.ledger.set_limit(Limit(queries=2))
    other.buy(1, 2, 3)
    merge(shop.ledger, other.ledger.path)
    assert shop.ledger.limit() == Limit(queries=2)
    with pytest.raises(Exception, match="3 of 2 queries"):
        shop.reserve(4)


def test_a_ledger_cannot_be_merged_with_itself_nor_with_what_is_not_there(shop, tmp_path):
    with pytest.raises(ConfigError, match="is this ledger itself"):
        merge(shop.ledger, shop.ledger.path)
    with pytest.raises(StorageError, match="there is no ledger"):
        merge(shop.ledger, tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("id,label\n" * 200)
    with pytest.raises(StorageError, match="not an SQLite file"):
        merge(shop.ledger, tmp_path / "text.sqlite")


STEP = st.tuples(
    st.sampled_from(["record", "fail", "unknown", "release", "keep"]),
    st.lists(st.integers(0, 7), min_size=1, max_size=3, unique=True),
    st.integers(0, 2),
)


@pytest.mark.slow
@settings(max_examples=10)
@given(steps=st.lists(STEP, max_size=8))
def test_merging_in_any_order_and_number_gives_the_same(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("merge")
    shops = [Shop(folder / f"{i}.sqlite") for i in range(3)]
    bought = 0
    for how, numbers, where in steps:
        reservation = shops[where].reserve(*numbers, worst=3 * len(numbers))
        bought += len(reservation.ids) if how != "release" else 0
        if how in ("record", "fail"):
            failed = numbers if how == "fail" else ()
            shops[where].record(reservation, failed=failed, price=3)
        elif how != "keep":
            shops[where].ledger.release(reservation, unknown=how == "unknown")
    one, two = Shop(folder / "one.sqlite"), Shop(folder / "two.sqlite")
    for i in (0, 1, 2, 1):
        merge(one.ledger, shops[i].ledger.path)
    for i in (2, 1, 1, 0):
        merge(two.ledger, shops[i].ledger.path)
    assert contents(one)[1:] == contents(two)[1:]
    assert one.spent().queries == bought
    assert one.spent().money.micros == 3 * bought
    assert verify(one.ledger.path) == []
    for shop in (*shops, one, two):
        shop.ledger.close()
