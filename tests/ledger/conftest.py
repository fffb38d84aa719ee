"""A ledger of a test's own, and short ways to buy from it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.ledger import Budget, SqliteLedger
from limbeck.teachers.base import Money, Replies

TEACHER = "f" * 64


class Shop:
    """A ledger with the steps of a purchase as one-liners; question i is answered by seed i."""

    def __init__(self, path: Path) -> None:
        self.ledger = SqliteLedger(path)

    @staticmethod
    def ids(*numbers: int) -> np.ndarray:
        keys = [int(number).to_bytes(16, "big") for number in numbers]
        return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16).copy()

    @staticmethod
    def numbers(ids: np.ndarray) -> list[int]:
        return [int.from_bytes(bytes(key), "big") for key in ids]

    @staticmethod
    def probs(ids: np.ndarray) -> torch.Tensor:
        rows = [
            torch.rand(3, generator=torch.Generator().manual_seed(number % 2**63)).softmax(0)
            for number in Shop.numbers(ids)
        ]
        return torch.stack(rows) if rows else torch.zeros(0, 3)

    def reserve(self, *numbers, run="run", worst=0, queries=1000, money=None, shares=None):
        budget = Budget(queries, None if money is None else Money(money))
        if shares is not None:
            shares, worst = np.array(shares, np.int64), sum(shares)
        return self.ledger.reserve(
            run, TEACHER, self.ids(*numbers), Money(worst), budget, shares=shares
        )

    def record(
        self,
        reservation,
        *,
        only=None,
        failed=(),
        price=0,
        raw=b"raw",
        keep=False,
        version=None,
        **more,
    ):
        """Record a reservation, or `only` some of it; the numbers in `failed` get no answer.

        `more` are embeddings and spread of the answers.
        """
        ids = reservation.ids if only is None else self.ids(*only)
        bad = np.array([number in failed for number in self.numbers(ids)], bool)
        n = len(ids)
        failure = ["it said nothing" if is_bad else None for is_bad in bad]
        versions = None if version is None else [version] * n
        replies = Replies(ids, [raw] * n, np.full(n, price, np.int64), failure, versions)
        good = ids[~bad]
        self.ledger.record(reservation, replies, Answers(good, self.probs(good), **more), keep)

    def buy(self, *numbers, **settings):
        reservation = self.reserve(*numbers, **settings)
        self.record(reservation)

    def known(self, *numbers):
        return self.ledger.known(TEACHER, self.ids(*numbers)).tolist()

    def answers(self, *numbers):
        return self.ledger.answers(TEACHER, self.ids(*numbers))

    def spent(self, run="run"):
        return self.ledger.spent(run)


@pytest.fixture
def shop(tmp_path):
    shop = Shop(tmp_path / "ledger.sqlite")
    yield shop
    shop.ledger.close()
