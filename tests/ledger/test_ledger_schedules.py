"""Any schedule of purchases: no cap is passed, nothing settled is asked again, all can be read.

The suite tries 1,000 random schedules in all: 500 here, and 500 of purchases from servers
(`tests/engines/test_remote_schedules.py`). `LIMBECK_SCHEDULES=1000` tries as many of each kind.
"""

import copy
import os
import shutil
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.answers import Answers
from limbeck.errors import BudgetError
from limbeck.ledger import Budget, Limit, SqliteLedger, attempts, connections
from limbeck.ledger.verify import verify
from limbeck.teachers.base import Money, Replies

from .bookkeeping import Attempt, Book, Purchase
from .conftest import TEACHER, Shop

SCHEDULES = int(os.environ.get("LIMBECK_SCHEDULES", "0"))
RUNS = ("one", "two")
WORKERS = 4
KINDS = ("reserve", "reserve", "record", "record", "group", "time-out", "late", "cancel", "crash")

STEP = st.tuples(
    st.integers(0, WORKERS - 1),
    st.sampled_from(KINDS),
    st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(0, 30), min_size=5, max_size=5),  # shares; prices are parts of them
    st.integers(0, 2**5 - 1),  # which of the open questions are meant
    st.sampled_from([None] * 8 + ["before", "after"]),  # the process dies at the commit
)
CAPS = st.fixed_dictionaries(
    {run: st.tuples(st.integers(0, 8), st.integers(0, 90)) for run in RUNS}
)
LIMIT = st.tuples(st.integers(0, 14), st.integers(0, 150))


class Died(Exception):
    """A process ends at a commit."""


class Office:
    """Workers with names of their own as processes, two open ledgers, and the books beside."""

    def __init__(self, folder, empty, caps, limit):
        path = Path(folder) / "l.sqlite"
        shutil.copy(empty, path)
        self.book = Book(caps, limit)
        self.ledgers = [SqliteLedger(path), SqliteLedger(path)]
        self.ledgers[0].set_limit(Limit(limit[0], Money(limit[1])))
        self.here = threading.local()
        self.owners = [f"boot/ns/{worker}/0" for worker in range(WORKERS)]
        self.book.alive = set(self.owners)
        self.lock = threading.RLock()

    def patch(self, monkeypatch):
        real = SqliteLedger._commit

        def commit(ledger, connection):
            fault, self.here.fault = getattr(self.here, "fault", None), None
            if fault == "before":
                raise Died
            real(ledger, connection)
            if fault == "after":
                raise Died

        monkeypatch.setattr(attempts, "this_process", lambda: self.here.owner)
        monkeypatch.setattr(attempts, "is_alive", lambda owner, age: owner in self.book.alive)
        monkeypatch.setattr(SqliteLedger, "_commit", commit)

    def act(self, step, *, alone):
        """One step of one worker; `alone` says that no other worker does anything meanwhile."""
        worker, kind, numbers, amounts, mask, fault = step
        self.here.owner, self.here.fault = self.owners[worker], fault
        ledger, run = self.ledgers[worker % 2], RUNS[worker // 2]
        mine = [p for p in self.book.purchases if p.owner == self.here.owner]
        if kind == "crash":
            self.die(worker)
        elif kind == "reserve":
            self.reserve(ledger, worker, run, numbers, amounts, fault, alone)
        elif kind == "group" and mine:
            self.group(ledger, worker, run, mine, numbers, amounts, fault, alone)
        elif mine:
            self.end(ledger, worker, kind, mine[-1], amounts, mask, fault)
        self.here.fault = None  # a step that wrote nothing had no commit to die at

    def die(self, worker):
        with self.lock:
            self.book.alive.discard(self.owners[worker])
            boot, ns, pid, life = self.owners[worker].split("/")
            self.owners[worker] = f"{boot}/{ns}/{pid}/{int(life) + 1}"
            self.book.alive.add(self.owners[worker])

    def reserve(self, ledger, worker, run, numbers, amounts, fault, alone):
        before = set(self.book.settled)
        shares = amounts[: len(numbers)]
        after = copy.deepcopy(self.book) if alone else None
        wanted = None
        if after is not None:
            after.bury()
            wanted = after.grant(run, numbers, shares)
        try:
            got = self.call_reserve(ledger, run, numbers, shares)
        except BudgetError:
            assert not alone or wanted is None
            self.here.fault = None
            return
        except Died:
            if fault == "after" and alone:
                self.book.bury()
                self.note(run, self.here.owner, wanted)
            self.die(worker)
            return
        granted = Shop.numbers(got.ids)
        assert not before & set(granted), "a settled question was granted"
        share = dict(zip(numbers, shares, strict=True))
        pairs = [(number, share[number]) for number in granted]
        assert got.worst == Money(sum(s for _, s in pairs))
        if alone:
            assert pairs == wanted
            self.book.bury()
        self.note(run, self.here.owner, pairs, got)

    def call_reserve(self, ledger, run, numbers, shares):
        queries, money = self.book.caps[run]
        return ledger.reserve(
            run,
            TEACHER,
            Shop.ids(*numbers),
            Money(sum(shares)),
            Budget(queries, Money(money)),
            shares=np.array(shares, np.int64),
        )

    def note(self, run, owner, pairs, reservation=None):
        if pairs:
            with self.lock:
                made = {number: Attempt(number, share) for number, share in pairs}
                self.book.purchases.append(Purchase(run, owner, made, reservation))

    def replies(self, purchase, numbers, amounts):
        """Replies with prices up to the worst, the odd questions failed every other time."""
        prices = [purchase.attempts[n].share * (a % 5) // 4 for n, a in zip(numbers, amounts)]  # noqa: B905
        bad = [n for n, a in zip(numbers, amounts) if a % 3 == 0]  # noqa: B905
        ids, good = Shop.ids(*numbers), Shop.ids(*(n for n in numbers if n not in bad))
        failure = ["no words" if n in bad else None for n in numbers]
        told = Replies(ids, [b"raw"] * len(ids), np.array(prices, np.int64), failure)
        return told, Answers(good, Shop.probs(good)), prices, bad

    def end(self, ledger, worker, kind, purchase, amounts, mask, fault):
        if purchase.reservation is None:
            return
        numbers = purchase.unknown() if kind == "late" else purchase.open()
        if kind != "cancel":
            numbers = [n for i, n in enumerate(numbers) if mask >> i & 1]
        if not numbers:
            return
        ids = Shop.ids(*numbers)
        try:
            if kind in ("record", "late"):
                told, answers, prices, bad = self.replies(purchase, numbers, amounts)
                ledger.record(purchase.reservation, told, answers, True)
            else:
                ledger.release(purchase.reservation, unknown=kind == "time-out", ids=ids)
            died = False
        except Died:
            died = True
        if not died or fault == "after":
            with self.lock:
                if kind in ("record", "late"):
                    self.book.record(purchase, numbers, prices, bad)
                else:
                    state = "unknown" if kind == "time-out" else "released"
                    self.book.close(purchase, numbers, state)
        if died:
            self.die(worker)

    def group(self, ledger, worker, run, mine, numbers, amounts, fault, alone):
        """Record every open purchase and reserve the next, in one transaction."""
        after = copy.deepcopy(self.book)
        done, pairs, got = [], [], None
        share = dict(zip(numbers, amounts, strict=False))
        try:
            with ledger.together():
                for purchase in mine:
                    if purchase.reservation is not None and (own := purchase.open()[:5]):
                        told, answers, prices, bad = self.replies(purchase, own, amounts)
                        ledger.record(purchase.reservation, told, answers, True)
                        done.append((purchase, own, prices, bad))
                        twin = after.purchases[self.book.purchases.index(purchase)]
                        after.record(twin, own, prices, bad)
                try:
                    got = self.call_reserve(ledger, run, numbers, amounts[: len(numbers)])
                    pairs = [(n, share[n]) for n in Shop.numbers(got.ids)]
                except BudgetError:
                    pairs = None
            died = False
        except Died:
            died = True
        if alone:
            after.bury()
            assert pairs == after.grant(run, numbers, amounts[: len(numbers)])
        if not died or fault == "after":
            with self.lock:
                for purchase, own, prices, bad in done:
                    self.book.record(purchase, own, prices, bad)
            if alone and pairs is not None:
                self.book.bury()
            self.note(run, self.here.owner, pairs or [], None if died else got)
        if died:
            self.die(worker)

    def check_caps(self):
        """What holds at any moment, whoever is at work."""
        for run, (queries, money) in self.book.caps.items():
            spent = self.ledgers[0].spent(run)
            assert spent.queries <= queries
            assert spent.money.micros <= money

    def check_books(self):
        """What holds when nobody is at work: every number and every answer."""
        for run in RUNS:
            spent = self.ledgers[1].spent(run)
            assert (spent.queries, spent.money.micros) == self.book.spent(run)
        queries, money = self.book.spent()
        assert queries <= self.book.limit[0]
        assert money <= self.book.limit[1]
        settled = sorted(self.book.settled)
        known = self.ledgers[0].known(TEACHER, Shop.ids(*range(10)))
        assert known.tolist() == [n in settled for n in range(10)]
        if settled:
            ids = Shop.ids(*settled)
            assert torch.equal(self.ledgers[1].answers(TEACHER, ids).probs, Shop.probs(ids))

    def close(self):
        path = self.ledgers[0].path
        for ledger in self.ledgers:
            ledger.close()
        self.here.owner = "boot/ns/9/9"
        assert verify(path) == []


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A ledger that is new: schedules begin with a copy of it."""
    path = tmp_path_factory.mktemp("empty") / "l.sqlite"
    SqliteLedger(path).close()
    return path


@pytest.fixture
def quick(monkeypatch):
    """No waiting for the disk: power cuts are not what is tested here."""
    real = connections._connect

    def connect(path):
        connection = real(path)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    monkeypatch.setattr(connections, "_connect", connect)
    return monkeypatch


def schedules(count):
    allowed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=SCHEDULES or count, deadline=None, suppress_health_check=allowed)


def in_turn(empty, quick, caps, limit, steps):
    with tempfile.TemporaryDirectory() as folder, quick.context() as patches:
        office = Office(folder, empty, caps, limit)
        office.patch(patches)
        for step in steps:
            office.act(step, alone=True)
            office.check_caps()
            office.check_books()
        office.close()


@schedules(40)
@given(caps=CAPS, limit=LIMIT, steps=st.lists(STEP, max_size=14))
def test_every_schedule_agrees_with_plain_bookkeeping(empty, quick, caps, limit, steps):
    in_turn(empty, quick, caps, limit, steps)


@pytest.mark.slow
@schedules(260)
@given(caps=CAPS, limit=LIMIT, steps=st.lists(STEP, min_size=10, max_size=30))
def test_long_schedules_agree_with_plain_bookkeeping(empty, quick, caps, limit, steps):
    in_turn(empty, quick, caps, limit, steps)


@pytest.mark.slow
@schedules(200)
@given(
    caps=CAPS,
    limit=LIMIT,
    hands=st.lists(st.lists(STEP, min_size=1, max_size=8), min_size=WORKERS, max_size=WORKERS),
)
def test_workers_at_once_never_pass_a_cap_and_never_ask_twice(empty, quick, caps, limit, hands):
    errors = []

    def work(office, worker, steps):
        try:
            for _, *rest in steps:
                # Whether a reservation of the dead was real nobody can tell but the ledger.
                dies = rest[-1] is not None and rest[0] in ("reserve", "group")
                office.act((worker, *rest[:-1], None if dies else rest[-1]), alone=False)
                office.check_caps()
        except BaseException as error:
            errors.append(error)

    with tempfile.TemporaryDirectory() as folder, quick.context() as patches:
        office = Office(folder, empty, caps, limit)
        office.patch(patches)
        threads = [
            threading.Thread(target=work, args=(office, worker, steps))
            for worker, steps in enumerate(hands)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        office.here.owner = "boot/ns/8/8"
        with office.ledgers[0].writing() as connection:
            attempts.free_the_dead(connection)
        office.book.bury()
        office.check_caps()
        office.check_books()
        office.close()
