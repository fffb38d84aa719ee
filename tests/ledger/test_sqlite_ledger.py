"""Buying and reading, one step at a time."""

import sqlite3
import threading

import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.errors import (
    AnswerError,
    BudgetError,
    ConfigError,
    DataError,
    LimbeckWarning,
    StorageError,
)
from limbeck.ledger import Budget, SqliteLedger
from limbeck.teachers.base import Money, Replies

TEACHER = "f" * 64


def test_answers_come_back_in_the_order_asked_for_with_repeats(shop):
    shop.buy(1, 2, 3)
    wanted = shop.ids(3, 1, 3, 2)
    got = shop.ledger.answers(TEACHER, wanted)
    assert torch.equal(got.probs, shop.probs(wanted))
    assert np.array_equal(got.ids, wanted)


def test_answers_survive_closing_the_file(shop, tmp_path):
    shop.buy(5)
    shop.ledger.close()
    with SqliteLedger(tmp_path / "ledger.sqlite") as again:
        assert torch.equal(again.answers(TEACHER, shop.ids(5)).probs, shop.probs(shop.ids(5)))


def test_no_rows_give_no_answers(shop):
    assert len(shop.answers()) == 0
    shop.buy(1)
    assert shop.answers().probs.shape == (0, 3)
    assert shop.known() == []


def test_reading_many_answers_crosses_the_size_of_one_statement(shop):
    numbers = range(3000)
    shop.buy(*numbers, queries=3000)
    mixed = np.random.default_rng(0).permutation(3000)
    assert torch.equal(shop.answers(*mixed).probs, shop.probs(shop.ids(*mixed)))
    assert shop.known(*mixed, 4000) == [True] * 3000 + [False]


def test_answers_of_another_teacher_are_not_served(shop):
    shop.buy(1)
    assert not shop.ledger.known("g" * 64, shop.ids(1)).any()
    with pytest.raises(DataError, match=r"has no answer of teacher gggg.*buy it"):
        shop.ledger.answers("g" * 64, shop.ids(1))


def test_a_question_without_an_answer_cannot_be_read(shop):
    shop.buy(1)
    with pytest.raises(DataError, match="no answer"):
        shop.answers(1, 2)


def test_reserving_skips_what_is_answered_and_what_is_in_flight(shop):
    shop.buy(1)
    first = shop.reserve(1, 2)
    assert shop.numbers(first.ids) == [2]
    second = shop.reserve(1, 2, 3)
    assert shop.numbers(second.ids) == [3]
    third = shop.reserve(1, 2, 3)
    assert len(third.ids) == 0


def test_a_question_reserved_by_one_run_is_skipped_by_another(shop):
    shop.reserve(1, run="a")
    assert len(shop.reserve(1, run="b").ids) == 0


def test_as_many_questions_are_granted_as_fit_in_order(shop):
    granted = shop.reserve(7, 5, 9, queries=2)
    assert shop.numbers(granted.ids) == [7, 5]
    with pytest.raises(BudgetError, match=r"spent 2 of 2 queries.*raise the budget"):
        shop.reserve(9, queries=2)


def test_a_spent_budget_is_no_error_when_nothing_has_to_be_asked(shop):
    shop.buy(1, queries=1)
    assert len(shop.reserve(1, queries=1).ids) == 0


def test_each_run_has_its_own_budget(shop):
    shop.buy(1, 2, run="a", queries=2)
    shop.buy(3, 4, run="b", queries=2)
    assert shop.spent("a").queries == shop.spent("b").queries == 2


def test_failures_count_are_not_served_and_may_be_asked_again(shop):
    shop.record(shop.reserve(1, 2, queries=3), failed=[2])
    assert shop.known(1, 2) == [True, False]
    spent = shop.spent()
    assert (spent.answered, spent.failed, spent.queries) == (1, 1, 2)
    again = shop.reserve(2, queries=3)
    assert shop.numbers(again.ids) == [2]
    with pytest.raises(BudgetError):
        shop.reserve(3, queries=3)


def test_releasing_gives_the_place_back(shop):
    reservation = shop.reserve(1, 2, worst=100)
    shop.ledger.release(reservation, unknown=False)
    assert shop.spent().queries == 0
    assert shop.spent().money.micros == 0
    assert shop.numbers(shop.reserve(1, 2).ids) == [1, 2]


def test_unknown_questions_stay_counted_at_their_worst_price(shop):
    shop.ledger.release(shop.reserve(1, 2, worst=100), unknown=True)
    assert shop.spent().unknown == 2
    assert shop.spent().money == Money(100)
    with pytest.raises(BudgetError):
        shop.reserve(1, queries=2)


def test_money_is_held_at_its_worst_and_settled_at_its_price(shop):
    reservation = shop.reserve(1, 2, worst=100, money=100)
    assert shop.spent().money == Money(100)
    with pytest.raises(BudgetError, match=r"0\.00010 USD of 0\.00010 USD"):
        shop.reserve(3, worst=1, money=100)
    shop.record(reservation, price=20)
    assert shop.spent().money == Money(40)
    shop.reserve(3, worst=60, money=100)
    assert shop.spent().money == Money(100)


def test_odd_millionths_are_not_lost_between_shares(shop):
    # 100 over 3 questions is 34 + 33 + 33: two of them fit into 67 and not into 66.
    assert len(shop.reserve(1, 2, 3, run="a", worst=100, money=67).ids) == 2
    assert len(shop.reserve(4, 5, 6, run="b", worst=100, money=66).ids) == 1


def test_money_of_two_currencies_is_not_added(shop):
    with pytest.raises(ConfigError, match=r"paid in EUR.*in USD"):
        shop.ledger.reserve("run", TEACHER, shop.ids(1), Money(1, "EUR"), Budget(9, Money(9)))


def test_a_reply_after_its_reservation_was_given_up_still_counts(shop):
    reservation = shop.reserve(1, worst=10)
    shop.ledger.release(reservation, unknown=True)
    shop.record(reservation, price=4)
    assert shop.known(1) == [True]
    assert shop.spent().unknown == 0
    assert shop.spent().money == Money(4)


def test_recording_twice_changes_nothing(shop):
    reservation = shop.reserve(1, 2)
    shop.record(reservation, failed=[2], price=3)
    before = shop.spent()
    shop.record(reservation, price=5)
    assert shop.spent() == before
    assert shop.known(1, 2) == [True, False]


def test_a_reply_to_a_question_nobody_reserved_is_refused(shop):
    reservation = shop.reserve(1)
    ids = shop.ids(2)
    replies = Replies(ids, [b""], np.zeros(1, np.int64), [None])
    with pytest.raises(ConfigError, match="belongs to no question of reservation"):
        shop.ledger.record(reservation, replies, Answers(ids, shop.probs(ids)), False)
    assert shop.known(1, 2) == [False, False]


def test_embeddings_are_kept_as_float16(shop):
    embeddings = torch.tensor([[1.0, 0.1, -1e-3], [65504.0, 1e-8, 7.0]])
    shop.record(shop.reserve(1, 2), embeddings=embeddings)
    got = shop.answers(2, 1).embeddings.flip(0)
    assert got.dtype == torch.float32
    normal = embeddings.abs() >= 6.2e-5
    assert ((got - embeddings).abs()[normal] <= embeddings.abs()[normal] * 2**-11).all()
    assert ((got - embeddings).abs()[~normal] <= 2**-25).all()


def test_embeddings_beyond_float16_are_cut_with_a_warning_and_not_lost(shop):
    reservation = shop.reserve(1)
    with pytest.warns(LimbeckWarning, match=r"reach 1e\+06.*float16.*scale"):
        shop.record(reservation, embeddings=torch.tensor([[1e6, -1e6]]))
    assert shop.answers(1).embeddings.tolist() == [[65504.0, -65504.0]]


def test_a_teacher_may_not_change_the_width_of_its_answers(shop):
    shop.record(shop.reserve(1), embeddings=torch.zeros(1, 4))
    reservation = shop.reserve(2)
    with pytest.raises(AnswerError, match="embedding of 5 values but earlier 3 and 4"):
        shop.record(reservation, embeddings=torch.zeros(1, 5))
    assert shop.known(2) == [False]


def test_spread_comes_back_bit_for_bit_beside_embeddings(shop):
    spread = torch.tensor([[0.1, 0.0, 1e-9], [0.3, 0.2, 0.1]])
    embeddings = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    shop.record(shop.reserve(1, 2), spread=spread, embeddings=embeddings)
    got = shop.answers(2, 1, 2)
    assert torch.equal(got.spread, spread[[1, 0, 1]])
    assert torch.equal(got.embeddings, embeddings[[1, 0, 1]])
    assert torch.equal(got.probs, shop.probs(got.ids))
    assert shop.answers().spread.shape == (0, 3)


def test_teachers_with_and_without_spread_share_a_ledger(shop):
    shop.buy(1)
    ids = shop.ids(1, 2)
    reservation = shop.ledger.reserve("run", "g" * 64, ids, Money(0), Budget(9))
    replies = Replies(ids, [b"", b""], np.zeros(2, np.int64), [None, None])
    answers = Answers(ids, shop.probs(ids), spread=torch.full((2, 3), 0.25))
    shop.ledger.record(reservation, replies, answers, False)
    assert shop.answers(1).spread is None
    assert torch.equal(shop.ledger.answers("g" * 64, ids).spread, answers.spread)


def test_a_teacher_may_not_begin_or_cease_to_give_a_spread(shop):
    shop.buy(1)
    reservation = shop.reserve(2)
    with pytest.raises(AnswerError, match=r"gave a spread.*but earlier none.*another fingerprint"):
        shop.record(reservation, spread=torch.zeros(1, 3))
    assert shop.known(2) == [False]


def test_raw_replies_are_kept_only_when_asked_for_also_of_failures(shop, tmp_path):
    shop.record(shop.reserve(1), keep=False)
    shop.record(shop.reserve(2, 3), failed=[3], keep=True)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as file:
        answers = file.execute("SELECT raw FROM answers ORDER BY question").fetchall()
        failed = file.execute("SELECT raw, failure FROM attempts WHERE state = 'failed'").fetchall()
    file.close()
    assert answers == [(None,), (b"raw",)]
    assert failed == [(b"raw", "it said nothing")]


def test_facts_about_a_teacher_are_kept(shop, tmp_path):
    shop.ledger.describe(TEACHER, {"classes": ["a", "b"]})
    file = sqlite3.connect(tmp_path / "ledger.sqlite")
    assert file.execute("SELECT info FROM teachers").fetchall() == [('{"classes": ["a", "b"]}',)]
    file.close()


def test_events_can_only_be_added(shop, tmp_path):
    shop.buy(1)
    file = sqlite3.connect(tmp_path / "ledger.sqlite")
    kinds = [kind for (kind,) in file.execute("SELECT kind FROM events ORDER BY id")]
    assert kinds == ["reserve", "record"]
    for statement in ("DELETE FROM events", "UPDATE events SET kind = 'x'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            file.execute(statement)
    file.close()


def test_every_commit_reaches_the_disk(shop):
    with shop.ledger.writing() as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_threads_share_a_ledger(shop):
    def buy(start):
        for number in range(start, start + 20):
            shop.buy(number)

    threads = [threading.Thread(target=buy, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shop.spent().answered == 80


def test_a_closed_ledger_says_so(shop):
    shop.ledger.close()
    shop.ledger.close()
    with pytest.raises(StorageError, match="was closed"):
        shop.known(1)


def test_a_ledger_that_another_process_is_just_making_is_waited_for(tmp_path):
    path = tmp_path / "ledger.sqlite"
    # What a process holds while it makes the file. Asked for a write-ahead log, SQLite says at once
    # that the file is busy, however long a connection is willing to wait.
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    spent = []

    def open_it():
        with SqliteLedger(path) as ledger:
            spent.append(ledger.spent("run").queries)

    thread = threading.Thread(target=open_it)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    other.execute("ROLLBACK")
    other.close()
    thread.join(30)
    assert spent == [0]
