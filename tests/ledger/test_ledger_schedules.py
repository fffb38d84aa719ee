"""Any schedule of purchases: the cap is never passed and nothing settled is asked again."""

import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import BudgetError

from .conftest import Shop

STEP = st.tuples(
    st.sampled_from(["record", "record", "fail", "release", "unknown", "keep"]),
    st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True),
)


class Model:
    """What must hold, kept in plain sets."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.settled: set[int] = set()
        self.in_flight: set[int] = set()
        self.counted = 0

    def reserve(self, shop: Shop, numbers: list[int]):
        free = [n for n in numbers if n not in self.settled and n not in self.in_flight]
        room = self.cap - self.counted
        if free and room == 0:
            with pytest.raises(BudgetError):
                shop.reserve(*numbers, queries=self.cap)
            return None
        reservation = shop.reserve(*numbers, worst=0, queries=self.cap)
        assert shop.numbers(reservation.ids) == free[:room]
        self.counted += len(reservation.ids)
        return reservation

    def end(self, shop: Shop, reservation, how: str) -> None:
        numbers = shop.numbers(reservation.ids)
        if how == "keep" or not numbers:
            self.in_flight.update(numbers)
        elif how == "record":
            shop.record(reservation)
            self.settled.update(numbers)
        elif how == "fail":
            shop.record(reservation, failed=numbers)
        else:
            shop.ledger.release(reservation, unknown=how == "unknown")
            self.counted -= len(numbers) if how == "release" else 0


@settings(max_examples=40)
@given(cap=st.integers(0, 10), schedule=st.lists(STEP, max_size=12))
def test_every_schedule_agrees_with_plain_bookkeeping(cap, schedule):
    with tempfile.TemporaryDirectory() as folder:
        shop, model = Shop(Path(folder) / "l.sqlite"), Model(cap)
        for how, numbers in schedule:
            reservation = model.reserve(shop, numbers)
            if reservation is not None:
                model.end(shop, reservation, how)
            spent = shop.spent()
            assert spent.queries == model.counted <= cap
            assert spent.reserved == len(model.in_flight)
            assert spent.answered == len(model.settled)
            assert shop.known(*range(12)) == [n in model.settled for n in range(12)]
            if model.settled:
                shop.answers(*model.settled)
        shop.ledger.close()


@settings(max_examples=10)
@given(
    cap=st.integers(0, 30),
    price=st.integers(1, 5),
    hands=st.lists(st.lists(STEP, min_size=1, max_size=6), min_size=2, max_size=4),
)
def test_threads_never_pass_the_cap_and_never_ask_twice(cap, price, hands):
    money, asked, errors = cap * 3, [], []
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder) / "l.sqlite")

        def work(steps):
            try:
                for how, numbers in steps:
                    try:
                        got = shop.reserve(
                            *numbers, worst=price * len(numbers), queries=cap, money=money
                        )
                    except BudgetError:
                        continue
                    spent = shop.spent()
                    assert spent.queries <= cap
                    assert spent.money.micros <= money
                    if how == "record":
                        asked.extend(shop.numbers(got.ids))
                        shop.record(got, price=price)
                    elif how == "fail":
                        shop.record(got, failed=shop.numbers(got.ids), price=price)
                    elif got.key:
                        shop.ledger.release(got, unknown=how == "unknown")
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(steps,)) for steps in hands]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(asked) == len(set(asked)) == shop.spent().answered
        shop.answers(*asked)
        assert shop.spent().queries <= cap
        assert shop.spent().money.micros <= money
        shop.ledger.close()
