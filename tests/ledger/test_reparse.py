"""A better parser over replies that were paid for: nobody is asked and nothing is lost."""

import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.errors import AnswerError, ConfigError
from limbeck.ledger import Budget
from limbeck.ledger.reparse import Reparsed, reparse
from limbeck.ledger.verify import verify
from limbeck.teachers.base import Money, Replies

CLASSES = ("no", "yes")


class Words:
    """Reads words; a lax one also understands them in capitals and in a sentence."""

    fingerprint = "w" * 64
    classes = CLASSES

    def __init__(self, *, lax=False, sure=1.0, dim=None):
        self.lax, self.sure, self.dim = lax, sure, dim

    def ask(self, *_):
        raise AssertionError("nobody may be asked")

    def _class(self, raw):
        word = raw.decode().lower().rpartition(" ")[2] if self.lax else raw.decode()
        return CLASSES.index(word) if word in CLASSES else None

    def parse(self, replies):
        found = [None if raw is None else self._class(raw) for raw in replies.raw]
        ok = np.array([c is not None for c in found], bool)
        rows = torch.full((len(found), 2), 1 - self.sure)
        for i, c in enumerate(found):
            rows[i, c or 0] = self.sure
        embeddings = None if self.dim is None else torch.zeros(int(ok.sum()), self.dim)
        return Answers(replies.ids[ok], rows[torch.from_numpy(ok)], embeddings), ok


def buy(shop, raws, *, run="run", price=3, teacher=None, version="v1"):
    """Buy an answer to question i by reply i, with the strict parser."""
    teacher = teacher or Words()
    ids = shop.ids(*raws)
    worst = Money(10 * len(raws))
    reservation = shop.ledger.reserve(run, teacher.fingerprint, ids, worst, Budget(999))
    raw = [raws[number] for number in shop.numbers(reservation.ids)]
    n = len(raw)
    replies = Replies(reservation.ids, raw, np.full(n, price, np.int64), [None] * n, [version] * n)
    answers, _ = teacher.parse(replies)
    shop.ledger.record(reservation, replies, answers, True)


def known(shop, *numbers):
    return shop.ledger.known(Words.fingerprint, shop.ids(*numbers)).tolist()


def probs(shop, *numbers):
    return shop.ledger.answers(Words.fingerprint, shop.ids(*numbers)).probs.tolist()


def test_failures_that_can_be_read_now_become_answers_at_no_cost(shop):
    buy(shop, {1: b"yes", 2: b"I think YES", 3: b"dunno", 4: b"No"})
    before = shop.spent()
    assert (before.answered, before.failed) == (1, 3)
    assert reparse(shop.ledger, Words(lax=True)) == Reparsed(4, 0, 2, 0)
    assert known(shop, 1, 2, 3, 4) == [True, True, False, True]
    assert probs(shop, 2, 4) == [[0.0, 1.0], [1.0, 0.0]]
    after = shop.spent()
    assert (after.answered, after.failed, after.queries) == (3, 1, 4)
    assert after.money == before.money == Money(12)
    assert shop.ledger.versions(Words.fingerprint) == {"v1": 3}
    assert verify(shop.ledger.path) == []
    assert reparse(shop.ledger, Words(lax=True)) == Reparsed(4, 0, 0, 0), "nothing is left to do"


def test_the_reply_of_a_recovered_answer_is_kept_and_can_be_read_again(shop):
    buy(shop, {2: b"surely YES"})
    reparse(shop.ledger, Words(lax=True))
    assert reparse(shop.ledger, Words(lax=True, sure=0.75)) == Reparsed(1, 1, 0, 0)
    assert probs(shop, 2) == [[0.25, 0.75]]


def test_answers_that_change_are_replaced_and_the_others_stay(shop):
    buy(shop, {1: b"yes", 2: b"no"})
    assert reparse(shop.ledger, Words(sure=0.75)) == Reparsed(2, 2, 0, 0)
    assert probs(shop, 1, 2) == [[0.25, 0.75], [0.75, 0.25]]
    with shop.ledger.reading() as connection:
        told = connection.execute("SELECT detail FROM events WHERE kind = 'reparse'").fetchall()
    assert told == [('{"changed": 2, "recovered": 0}',)]


def test_an_answer_that_the_parser_cannot_read_stays_as_it_was(shop):
    buy(shop, {1: b"YES"}, teacher=Words(lax=True))
    assert reparse(shop.ledger, Words()) == Reparsed(1, 0, 0, 1)
    assert probs(shop, 1) == [[0.0, 1.0]]


def test_a_dry_run_counts_and_changes_nothing(shop):
    buy(shop, {1: b"yes", 2: b"YES"})
    assert reparse(shop.ledger, Words(lax=True, sure=0.75), dry_run=True) == Reparsed(2, 1, 1, 0)
    assert known(shop, 2) == [False]
    assert probs(shop, 1) == [[0.0, 1.0]]


def test_a_question_that_failed_twice_is_answered_once(shop):
    buy(shop, {1: b"YES"})
    buy(shop, {1: b"definitely NO"}, run="again")
    assert reparse(shop.ledger, Words(lax=True)) == Reparsed(2, 0, 1, 0)
    assert probs(shop, 1) == [[0.0, 1.0]]  # the first reply that can be read
    assert (shop.spent().answered, shop.spent("again").failed) == (1, 1)
    assert verify(shop.ledger.path) == []


def test_a_failure_that_was_answered_later_stays_one(shop):
    buy(shop, {1: b"YES"})
    buy(shop, {1: b"no"}, run="again")
    assert reparse(shop.ledger, Words(lax=True)) == Reparsed(2, 0, 0, 0)
    assert probs(shop, 1) == [[1.0, 0.0]]


def test_all_of_it_is_one_transaction(shop, monkeypatch):
    buy(shop, {1: b"yes", 2: b"YES"})
    monkeypatch.setattr(
        "limbeck.ledger.reparse.recount", lambda *_: (_ for _ in ()).throw(RuntimeError("fault"))
    )
    with pytest.raises(RuntimeError, match="fault"):
        reparse(shop.ledger, Words(lax=True, sure=0.75))
    assert probs(shop, 1) == [[0.0, 1.0]]
    assert known(shop, 2) == [False]


def test_many_replies_are_read_in_batches(shop, monkeypatch):
    monkeypatch.setattr("limbeck.ledger.reparse._BATCH", 3)
    buy(shop, {i: b"yes" if i % 2 else b"YES" for i in range(20)})
    assert reparse(shop.ledger, Words(lax=True, sure=0.75)) == Reparsed(20, 10, 10, 0)
    assert probs(shop, *range(20)) == [[0.25, 0.75]] * 20


def test_a_first_answer_may_come_out_of_a_failure(shop):
    buy(shop, {1: b"YES"})
    assert reparse(shop.ledger, Words(lax=True)) == Reparsed(1, 0, 1, 0)
    assert probs(shop, 1) == [[0.0, 1.0]]


def test_a_parser_that_answers_in_another_form_is_refused(shop):
    buy(shop, {1: b"yes"})
    with pytest.raises(AnswerError, match=r"an embedding of 4 values.*another fingerprint"):
        reparse(shop.ledger, Words(dim=4))
    assert probs(shop, 1) == [[0.0, 1.0]]


def test_a_teacher_that_the_ledger_does_not_know_is_refused(shop):
    with pytest.raises(ConfigError, match=r"holds nothing of teacher w+ \(it has: none\)"):
        reparse(shop.ledger, Words())


def test_a_teacher_without_raw_replies_is_refused(shop):
    ids = shop.ids(1)
    reservation = shop.ledger.reserve("run", Words.fingerprint, ids, Money(0), Budget(9))
    replies = Replies(ids, [b"yes"], np.zeros(1, np.int64), [None])
    shop.ledger.record(reservation, replies, Words().parse(replies)[0], False)
    with pytest.raises(ConfigError, match="keeps no raw reply"):
        reparse(shop.ledger, Words())


def test_what_another_has_read_meanwhile_is_not_counted_again(shop, monkeypatch):
    buy(shop, {1: b"YES", 2: b"yes"})
    from limbeck.ledger import reparse as module

    write = module._write

    def late(connection, row, news):
        monkeypatch.setattr(module, "_write", write)
        assert reparse(shop.ledger, Words(lax=True)) == Reparsed(2, 0, 1, 0)
        return write(connection, row, news)

    monkeypatch.setattr(module, "_write", late)
    assert reparse(shop.ledger, Words(lax=True)) == Reparsed(2, 0, 0, 0)
    assert shop.spent().answered == 2
    assert verify(shop.ledger.path) == []
