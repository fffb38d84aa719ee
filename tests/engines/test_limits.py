"""Limits and waits, against a clock of the test's own."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.engines.limits import BURST_SECONDS, Bucket, Gate
from limbeck.engines.retry import Backoff
from limbeck.teachers.client import retry_after


class Time:
    """A clock that moves when someone sleeps."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds
        await asyncio.sleep(0)


def passages(gate, time, sizes):
    """When each request was let through, and how much it took."""

    async def run():
        found = []
        for size in sizes:
            taken = await gate.enter(size)
            found.append((time.now, taken))
        return found

    return asyncio.run(run())


@given(st.integers(1, 6000), st.integers(1, 60))
def test_no_span_of_time_lets_more_requests_through_than_the_limit(per_minute, count):
    time = Time()
    gate = Gate(per_minute, 0, clock=time, sleep=time.sleep)
    at = [when for when, _ in passages(gate, time, [0] * count)]
    rate = per_minute / 60
    size = max(1.0, rate * BURST_SECONDS)
    for i in range(count):
        for j in range(i, count):
            assert j - i + 1 <= rate * (at[j] - at[i]) + size + 1 + 1e-6


def test_requests_are_not_held_back_more_than_the_limit_asks_for():
    time = Time()
    gate = Gate(60, 0, clock=time, sleep=time.sleep)
    at = [when - 1000 for when, _ in passages(gate, time, [0] * 15)]
    assert at == pytest.approx([0.0] * 5 + list(range(1, 11)))


def test_tokens_are_limited_too_and_a_request_above_the_limit_passes_alone():
    time = Time()
    gate = Gate(0, 600, clock=time, sleep=time.sleep)  # 10 a second, 50 at once
    at = [when - 1000 for when, _ in passages(gate, time, [1000, 10, 10])]
    # The first takes the bucket to -950: 95.1 seconds until there is 1 again.
    assert at == pytest.approx([0.0, 95.1, 96.1])


def test_what_was_not_used_is_given_back_and_the_next_are_taken_to_be_alike():
    time = Time()
    gate = Gate(0, 600, clock=time, sleep=time.sleep)

    async def run():
        for _ in range(200):
            taken = await gate.enter(100)
            gate.leave(taken, 100, 10)
        return await gate.enter(100)

    # One tenth of the worst case is used, each time.
    assert asyncio.run(run()) == pytest.approx(10, rel=0.01)
    # 200 requests of 10 tokens at 10 a second, less the burst.
    assert time.now - 1000 == pytest.approx(200, rel=0.1)


def test_a_pause_holds_everything_back_and_a_shorter_one_does_not_end_it():
    time = Time()
    gate = Gate(0, 0, clock=time, sleep=time.sleep)
    gate.pause(7)
    gate.pause(2)
    assert passages(gate, time, [0])[0][0] == pytest.approx(1007)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing_away():
    time = Time()
    bucket = Bucket(60, time)
    for _ in range(5):
        bucket.take(1)
    time.now -= 3600
    assert bucket.wait_seconds() == pytest.approx(1.0, abs=1e-5)
    time.now += 1
    assert bucket.wait_seconds() == pytest.approx(0.0, abs=1e-5)


def test_waits_are_uniform_below_a_bound_that_doubles():
    backoff = Backoff(0, first_seconds=0.5, most_seconds=8)
    for tries, bound in ((1, 0.5), (2, 1), (3, 2), (5, 8), (50, 8), (5000, 8)):
        draws = np.array([backoff.seconds(tries) for _ in range(4000)])
        assert draws.min() >= 0
        assert draws.max() <= bound
        assert draws.mean() == pytest.approx(bound / 2, rel=0.05)


def test_what_the_server_asks_for_is_waited_in_full():
    backoff = Backoff(0)
    for _ in range(100):
        assert 7 <= backoff.seconds(3, 7.0) <= 7.5


def test_the_same_seed_gives_the_same_waits():
    one, two, other = Backoff(3), Backoff(3), Backoff(4)
    waits = [one.seconds(i) for i in range(1, 9)]
    assert waits == [two.seconds(i) for i in range(1, 9)]
    assert waits != [other.seconds(i) for i in range(1, 9)]


NOW = 1_784_106_000.0  # Wed, 15 Jul 2026 09:00:00 GMT
LATER = "Wed, 15 Jul 2026 09:00:30 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": LATER}, 30.0),
        ({"retry-after": "Wed, 15 Jul 2026 08:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after_is_read_in_every_form(headers, seconds):
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize("jump", [-86_400, 0, 86_400])
def test_a_date_is_taken_from_the_clock_of_the_server(jump):
    headers = {"retry-after": LATER, "date": "Wed, 15 Jul 2026 09:00:10 GMT"}
    assert retry_after(headers, NOW + jump) == 20.0
