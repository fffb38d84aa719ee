"""Purchases: what is asked, what is recorded, and what stays when they are cut short."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
import torch

from limbeck.answers import Answers
from limbeck.data.dataset import Dataset
from limbeck.data.schema import Schema
from limbeck.engines import ask_about, purchase
from limbeck.engines import local as engine
from limbeck.errors import AnswerError, ConfigError, TeacherError, WorkerLostError
from limbeck.ledger import Budget, SqliteLedger
from limbeck.teachers import Money, Replies, Teacher

SCHEMA = Schema((), ("x",), (), None, ("even", "odd"))


def dataset(values):
    return Dataset.from_table({"x": [float(value) for value in values]}, SCHEMA)


@dataclass
class Parity:
    """Answers whether a number is even, notes what it was asked, and can be told to misbehave."""

    price: int = 0
    worst: int = 0
    max_in_flight: int = 1
    fail: frozenset[int] = frozenset()
    delay: float = 0.0
    before: object = None
    asked: list[int] = field(default_factory=list)
    fingerprint: str = "parity"
    classes: tuple[str, ...] = SCHEMA.classes
    columns: tuple[str, ...] = ("x",)
    keep_raw: bool = True

    def quote(self, rows):
        return Money((self.worst or self.price) * rows.num_rows)

    def ask(self, ids, rows):
        numbers = [int(x) for x in rows.column("x").to_pylist()]
        if self.before is not None:
            self.before(numbers)
        self.asked.extend(numbers)
        time.sleep(self.delay)
        failure = [f"{n} is too hard" if n in self.fail else None for n in numbers]
        raw = [None if why else str(n).encode() for n, why in zip(numbers, failure, strict=True)]
        return Replies(ids, raw, np.full(len(ids), self.price, np.int64), failure)

    def parse(self, replies):
        ok = np.array([raw is not None for raw in replies.raw], bool)
        probs = [[1.0, 0.0] if int(raw) % 2 == 0 else [0.0, 1.0] for raw in replies.raw if raw]
        return Answers(replies.ids[ok], torch.tensor(probs).reshape(-1, 2)), ok


@pytest.fixture
def ledger(tmp_path):
    with SqliteLedger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def buy(teacher, ledger, values, *, queries=10_000, money=None, **settings):
    data = dataset(values)
    budget = Budget(queries, None if money is None else Money(money))
    rows = np.arange(len(data), dtype=np.int64)
    settings = {"run": "run", "batch_size": 4} | settings
    return purchase(teacher, ledger, data, rows, budget=budget, **settings)


def test_every_row_gets_its_own_answer_whatever_the_order(ledger):
    teacher = Parity(max_in_flight=3)
    assert isinstance(teacher, Teacher)
    data = dataset([5, 2, 9, 4, 7, 1])
    rows = np.array([5, 0, 3, 0], np.int64)
    report = purchase(teacher, ledger, data, rows, run="run", budget=Budget(9), batch_size=2)
    answers = ledger.answers(teacher.fingerprint, report.ids)
    assert answers.probs.argmax(1).tolist() == [1, 1, 0, 1]
    assert report.answered.all()
    assert (report.questions, report.bought, report.cached, report.failed) == (3, 3, 0, 0)


def test_equal_questions_are_asked_once_and_fanned_out(ledger):
    teacher = Parity()
    report = buy(teacher, ledger, [3, 4, 3, 3, 4])
    assert sorted(teacher.asked) == [3, 4]
    assert report.answered.all()
    assert report.spent.queries == 2
    assert ledger.answers("parity", report.ids).probs[:, 1].tolist() == [1, 0, 1, 1, 0]


def test_cached_answers_are_free_and_counted_as_such(ledger):
    teacher = Parity(price=5)
    buy(teacher, ledger, range(6), run="first")
    report = buy(teacher, ledger, range(8), run="second", queries=2)
    assert (report.cached, report.bought) == (6, 2)
    assert report.spent.queries == 2
    assert report.spent.money.micros == 10
    assert len(teacher.asked) == 8


@pytest.mark.parametrize("cap", [0, 1, 3, 4, 5, 9, 10, 11])
def test_the_cap_on_queries_is_reached_and_never_passed(ledger, cap):
    teacher = Parity(max_in_flight=2)
    report = buy(teacher, ledger, range(10), queries=cap)
    assert len(teacher.asked) == min(cap, 10)
    assert report.exhausted == (cap < 10)
    assert report.answered.sum() == min(cap, 10)
    # The first rows in the order asked for are the ones that are bought.
    assert report.answered.tolist() == [i < cap for i in range(10)]


@pytest.mark.parametrize("money", [0, 6, 7, 20, 69, 70])
def test_the_cap_on_money_is_reached_and_never_passed(ledger, money):
    teacher = Parity(price=7, max_in_flight=3)
    report = buy(teacher, ledger, range(10), money=money)
    assert len(teacher.asked) == money // 7
    assert report.spent.money.micros == 7 * (money // 7)
    assert report.exhausted == (money < 70)


def test_settled_prices_below_the_worst_leave_money_for_more(ledger):
    report = buy(Parity(price=1, worst=10), ledger, range(10), money=40)
    assert report.spent.money.micros <= 40
    assert report.bought == 10


@dataclass
class Dear(Parity):
    """The number x costs x, for certain."""

    def quote(self, rows):
        return Money(int(sum(rows.column("x").to_pylist())))

    def ask(self, ids, rows):
        replies = super().ask(ids, rows)
        price = np.array([int(x) for x in rows.column("x").to_pylist()], np.int64)
        return Replies(replies.ids, replies.raw, price, replies.failure)


@pytest.mark.parametrize("values", [[100, 1, 1, 1], [1, 1, 100, 1], [30, 30, 30, 30]])
@pytest.mark.parametrize("money", [50, 61, 102])
def test_unequal_prices_never_pass_the_cap(ledger, values, money):
    values = [value + i / 8 for i, value in enumerate(values)]  # distinct questions
    report = buy(Dear(), ledger, values, money=money)
    assert report.spent.money.micros <= money
    assert report.spent.reserved == 0


def test_failures_are_told_counted_and_not_answered(ledger):
    report = buy(Parity(fail=frozenset([1, 2])), ledger, range(5))
    assert report.answered.tolist() == [True, False, False, True, True]
    assert (report.bought, report.failed) == (3, 2)
    assert report.failures == ("1 is too hard", "2 is too hard")
    assert report.spent.failed == 2


def test_no_rows_cost_nothing(ledger):
    report = buy(Parity(), ledger, [1, 2, 3][:0])
    assert (report.questions, report.bought, len(report.answered)) == (0, 0, 0)


def test_progress_counts_failures_as_done(ledger):
    seen = []
    teacher = Parity(fail=frozenset([0, 5]))
    buy(teacher, ledger, range(6), on_progress=lambda done, total, _: seen.append((done, total)))
    assert seen == [(0, 6), (4, 6), (6, 6)]


def test_progress_and_stop(ledger):
    seen = []
    teacher = Parity()

    def progress(done, total, spent):
        seen.append((done, total, spent.queries))

    report = buy(
        teacher, ledger, range(12), on_progress=progress, stop=lambda: len(teacher.asked) >= 8
    )
    assert seen == [(0, 12, 0), (4, 12, 4), (8, 12, 8)]
    assert report.stopped
    assert not report.exhausted
    assert report.spent.reserved == 0
    report = buy(teacher, ledger, range(12))
    assert report.answered.all()
    assert sorted(teacher.asked) == list(range(12))


def test_batches_are_in_flight_together_but_no_more_than_allowed(ledger):
    running, most, lock = 0, 0, threading.Lock()

    def before(_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    buy(Parity(max_in_flight=3, before=before), ledger, range(40))
    assert 2 <= most <= 3


def raise_at(number, error):
    def before(numbers):
        if number in numbers:
            raise error

    return before


@pytest.mark.parametrize(("price", "unknown"), [(0, 0), (2, 4)])
def test_a_broken_teacher_keeps_what_was_bought_and_gives_back_the_rest(ledger, price, unknown):
    teacher = Parity(price=price, before=raise_at(5, TeacherError("the server is gone")))
    with pytest.raises(TeacherError, match="the server is gone"):
        buy(teacher, ledger, range(12))
    spent = ledger.spent("run")
    # A batch that was in flight may have been billed, unless it cannot cost anything.
    assert (spent.answered, spent.reserved, spent.unknown) == (4, 0, unknown)
    teacher.before = None
    report = buy(teacher, ledger, range(12))
    assert report.answered.all()
    assert sorted(teacher.asked) == list(range(12))


def test_batches_in_flight_beside_a_broken_one_are_recorded(ledger):
    def before(numbers):
        if 0 in numbers:
            time.sleep(0.1)
            raise TeacherError("one of two")
        time.sleep(0.2)

    with pytest.raises(TeacherError, match="one of two"):
        buy(Parity(price=1, max_in_flight=2, before=before), ledger, range(8))
    spent = ledger.spent("run")
    assert (spent.answered, spent.unknown, spent.reserved) == (4, 4, 0)


def test_an_interrupt_records_what_came_back(ledger, monkeypatch):
    monkeypatch.setattr(engine, "INTERRUPT_GRACE_SECONDS", 0.05)
    hang = threading.Event()
    teacher = Parity(price=1, max_in_flight=2)
    teacher.before = lambda numbers: hang.wait(5) if 4 in numbers else None

    def progress(done, total, spent):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        buy(teacher, ledger, range(12), on_progress=progress)
    hang.set()
    spent = ledger.spent("run")
    assert spent.answered == 4
    assert spent.reserved == 0
    assert spent.unknown == 4


def test_a_parser_that_breaks_settles_what_was_billed(ledger):
    class Unreadable(Parity):
        def parse(self, replies):
            raise AnswerError("row 0 holds NaN")

    for price, failed in ((0, 0), (3, 4)):
        with pytest.raises(AnswerError, match="row 0 holds NaN"):
            buy(Unreadable(price=price), ledger, range(8), run=f"at {price}")
        spent = ledger.spent(f"at {price}")
        assert (spent.failed, spent.reserved, spent.unknown) == (failed, 0, 0)
        assert spent.money.micros == 4 * price


def test_two_purchases_at_once_ask_each_question_once(ledger):
    teacher = Parity(delay=0.01)
    reports = {}

    def work(name, values):
        reports[name] = buy(teacher, ledger, values, run=name)

    threads = [
        threading.Thread(target=work, args=("up", list(range(40)))),
        threading.Thread(target=work, args=("down", list(range(39, -1, -1)))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(teacher.asked) == list(range(40))
    for report in reports.values():
        assert report.answered.all()
        assert report.bought + report.cached == 40


def test_a_batch_size_below_one_is_refused(ledger):
    with pytest.raises(ConfigError, match="batch_size=0"):
        buy(Parity(), ledger, [1], batch_size=0)


def test_list_columns_are_part_of_the_question():
    table = pa.table({"x": [1.0, 1.0, 1.0], "probs": [[0.5, 0.5], [0.5, 0.5], [0.5, 0.25]]})
    ids = np.zeros((3, 16), np.uint8)
    data = Dataset(SCHEMA, table, ids)
    teacher = Parity(columns=("x", "probs"))
    got = ask_about(teacher, data, np.arange(3, dtype=np.int64))
    assert (got[0] == got[1]).all()
    assert (got[0] != got[2]).any()


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_purchase import Parity, buy
from limbeck.ledger import SqliteLedger

class Slow(Parity):
    def ask(self, ids, rows):
        replies = super().ask(ids, rows)
        with open({log!r}, "a") as log:
            log.write(" ".join(map(str, self.asked[-len(ids):])) + "\\n")
        time.sleep(0.05)
        return replies

buy(Slow(price={price}, max_in_flight=2), SqliteLedger(Path({path!r})), range(200))
"""


@pytest.mark.parametrize("price", [0, 3])
def test_a_killed_purchase_asks_nothing_settled_again(tmp_path, price):
    path, log = tmp_path / "ledger.sqlite", tmp_path / "asked.txt"
    code = KILLED.format(tests=os.path.dirname(__file__), log=str(log), path=str(path), price=price)
    child = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 5):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with SqliteLedger(path) as ledger:
        before = ledger.spent("run")
        data = dataset(range(200))
        ids = ask_about(Parity(), data, np.arange(200, dtype=np.int64))
        settled = set(np.flatnonzero(ledger.known("parity", ids)).tolist())
        assert before.answered == len(settled) >= 12
        assert before.reserved == 0
        assert before.unknown <= (8 if price else 0)  # two batches of four in flight
        teacher = Parity(price=price)
        report = buy(teacher, ledger, range(200))
        assert report.answered.all()
        assert not settled & set(teacher.asked)
        assert report.cached == len(settled)
        assert report.spent.queries == 200 + before.unknown


@dataclass
class Mortal(Parity):
    """Its worker dies the first time that it is asked about some numbers."""

    deadly: set[int] = field(default_factory=set)
    batches: list[list[int]] = field(default_factory=list)

    def ask(self, ids, rows):
        numbers = [int(x) for x in rows.column("x").to_pylist()]
        if self.deadly & set(numbers):
            self.deadly -= set(numbers)
            raise WorkerLostError("a worker died")
        self.batches.append(numbers)
        return super().ask(ids, rows)


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_worker_that_dies_loses_nothing_of_a_free_teacher(ledger, in_flight):
    teacher = Mortal(max_in_flight=in_flight, deadly={5, 9, 17})
    report = buy(teacher, ledger, range(18), queries=18)
    assert report.answered.all()
    assert (report.bought, report.failed, report.spent.queries) == (18, 0, 18)
    assert not report.exhausted
    # The same batches as without a death, so that answers that depend on them are the same.
    assert sorted(teacher.batches) == [list(range(s, min(s + 4, 18))) for s in range(0, 18, 4)]


@pytest.mark.parametrize("in_flight", [1, 2, 3, 9])
@pytest.mark.parametrize("deadly", [{1}, {6}, {1, 6}])
def test_a_batch_that_was_lost_keeps_its_place_in_the_budget(ledger, in_flight, deadly):
    teacher = Mortal(max_in_flight=in_flight, deadly=set(deadly))
    report = buy(teacher, ledger, range(18), queries=8)
    assert sorted(teacher.asked) == list(range(8))
    assert report.exhausted
    assert report.answered.tolist() == [i < 8 for i in range(18)]


def test_what_a_dead_worker_may_have_been_paid_for_stays_counted(ledger):
    teacher = Mortal(price=2, deadly={5})
    report = buy(teacher, ledger, range(12), queries=100, money=24)
    spent = report.spent
    # Four unknown at their worst price, so the last four do not fit any more.
    assert (spent.answered, spent.unknown, spent.failed, spent.reserved) == (8, 4, 0, 0)
    assert spent.money.micros == 24
    assert report.exhausted
    assert sorted(teacher.asked) == list(range(8))


def test_no_worker_is_started_when_every_answer_is_known(ledger, monkeypatch):
    buy(Parity(), ledger, range(6))

    def never(*_, **__):
        raise AssertionError("there is nothing to ask")

    monkeypatch.setattr("limbeck.engines.local.ThreadPoolExecutor", never)
    assert buy(Parity(), ledger, range(6)).cached == 6
