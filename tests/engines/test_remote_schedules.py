"""Random schedules of replies, refusals, losses, stops and errors, against small budgets.

`LIMBECK_SCHEDULES=1000` tries as many; the suite tries 500, beside 500 of the ledger alone.
"""

import asyncio
import contextlib
import os
import tempfile
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.answers import Answers
from limbeck.data.dataset import Dataset
from limbeck.data.schema import Schema
from limbeck.engines import asker, purchase, watch
from limbeck.engines.retry import Backoff
from limbeck.errors import TeacherError
from limbeck.ledger import Budget, SqliteLedger
from limbeck.teachers import Money
from limbeck.teachers.remote import Denied, Limits, Lost, Refused, Rejected, RemoteTeacher, Reply

SCHEMA = Schema((), ("x",), (), None, ("even", "odd"))
WORST = 10
ENDS = ("reply", "unreadable", "refused", "lost", "rejected")


@dataclass
class Scripted:
    """Says whether a number is even, when its script says so; notes what may have been billed."""

    script: list[list[str]]
    waits: list[int]
    limits: Limits
    denied_at: int = -1
    votes: int = 1
    tells_most: bool = True
    """Whether it knows what a lost request may have cost."""
    fingerprint: str = "scripted"
    classes: tuple[str, ...] = SCHEMA.classes
    columns: tuple[str, ...] = ("x",)
    max_in_flight: int = 1
    keep_raw: bool = True
    smoke_gate: bool = False
    tries: Counter = field(default_factory=Counter)
    billed: int = 0
    """What the server has really taken."""
    sent: list[int] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def quote(self, rows):
        return Money(WORST * self.votes * rows.num_rows)

    def quote_each(self, rows):
        return np.full(rows.num_rows, WORST * self.votes, np.int64)

    def tokens_each(self, rows):
        return np.full(rows.num_rows, 5, np.int64)

    @asynccontextmanager
    async def connect(self):
        yield self

    async def send(self, question, row, before):
        number = int(row["x"])
        place = len(self.sent)
        self.sent.append(number)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            for _ in range(self.waits[place % len(self.waits)]):
                await asyncio.sleep(0)
        finally:
            self.in_flight -= 1
        if place == self.denied_at:
            raise Denied("wrong key")
        ends = self.script[number]
        end = ends[min(self.tries[number], len(ends) - 1)]
        self.tries[number] += 1
        if end == "refused":
            raise Refused("busy", busy=bool(number % 2))
        if end == "rejected":
            raise Rejected("too long")
        price = 1 + number % WORST
        self.billed += price
        if end == "lost":
            raise Lost("reset", most=WORST if self.tells_most else None)
        raw = str(number) if end == "reply" else "?"
        return Reply(raw.encode(), price, 3, None, complete=len(before) + 1 == self.votes)

    def ask(self, ids, rows):
        raise NotImplementedError

    def parse(self, replies):
        lines = [b"" if raw is None else raw for raw in replies.raw]
        ok = np.array(
            [line.count(b"\n") + 1 == self.votes and line and b"?" not in line for line in lines],
            bool,
        )
        numbers = [int(line.split(b"\n")[0]) for line, good in zip(lines, ok, strict=True) if good]
        probs = torch.tensor([[1.0 - n % 2, float(n % 2)] for n in numbers]).reshape(-1, 2)
        return Answers(replies.ids[ok], probs), ok

    def explain(self, question, raw):
        return "it is no number"


@st.composite
def teachers(draw):
    count = draw(st.integers(1, 14))
    ends = st.lists(st.sampled_from(ENDS), min_size=1, max_size=4)
    limits = Limits(draw(st.integers(1, 5)), retries=draw(st.integers(0, 3)))
    return Scripted(
        script=draw(st.lists(ends, min_size=count, max_size=count)),
        waits=draw(st.lists(st.integers(0, 6), min_size=1, max_size=8)),
        limits=limits,
        denied_at=draw(st.integers(-1, 10)),
        votes=draw(st.integers(1, 3)),
        tells_most=draw(st.booleans()),
    )


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("LIMBECK_SCHEDULES", "0")) or 500)
@given(
    teacher=teachers(),
    queries=st.integers(0, 20),
    money=st.integers(0, 300),
    stop_at=st.none() | st.integers(0, 12),
    interrupt_at=st.none() | st.integers(1, 8),
)
def test_no_cap_is_passed_and_nothing_owned_is_asked_for_again(
    teacher, queries, money, stop_at, interrupt_at
):
    assert isinstance(teacher, RemoteTeacher)
    count = len(teacher.script)
    data = Dataset.from_table({"x": [float(i) for i in range(count)]}, SCHEMA)
    rows = np.arange(count, dtype=np.int64)
    calls = 0

    def interrupt(*_):
        nonlocal calls
        calls += 1
        if calls == interrupt_at:
            raise KeyboardInterrupt

    backoff = partial(Backoff, first_seconds=1e-4, most_seconds=1e-4)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(asker, "Backoff", backoff),
        patch.object(watch, "UNANSWERED_IN_A_ROW", 5),
        patch("limbeck.engines.asynchronous._TELL_SECONDS", 0.0),
        SqliteLedger(Path(folder) / "ledger.sqlite") as ledger,
    ):
        budget = Budget(queries, Money(money))
        owned: set[int] = set()
        for time in range(3):
            before = len(teacher.sent)
            with contextlib.suppress(TeacherError, KeyboardInterrupt):
                purchase(
                    teacher,
                    ledger,
                    data,
                    rows,
                    run="run",
                    budget=budget,
                    stop=lambda: stop_at is not None and len(teacher.sent) >= stop_at,
                    on_progress=interrupt if time == 0 else None,
                )
            assert not owned & set(teacher.sent[before:])
            spent = ledger.spent("run")
            assert spent.reserved == 0
            assert spent.queries <= queries
            # What the server has taken, seen or unseen, is within what the ledger holds.
            assert teacher.billed <= spent.money.micros <= money
            assert teacher.most_in_flight <= teacher.limits.concurrency
            known = ledger.known("scripted", data.content_ids)
            owned = set(np.flatnonzero(known).tolist())
            assert spent.answered == len(owned)
            if owned:
                answers = ledger.answers("scripted", data.content_ids[known])
                assert answers.probs.argmax(1).tolist() == [i % 2 for i in sorted(owned)]
