"""Which answers a run would still buy, at what worst price, and what may end that early."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from limbeck.data import Splits
from limbeck.data.ids import GatheredIds
from limbeck.distill.buying import HUMAN, has_ended
from limbeck.distill.config import DistillConfig
from limbeck.distill.estimate import A_HANDFUL
from limbeck.distill.folder import RunFolder
from limbeck.distill.pool_choice import draw_pool, read_selection
from limbeck.distill.questions import (
    AnswerBook,
    Questions,
    check_budget,
    check_money,
    count_distinct,
    open_book,
    worst_money,
)
from limbeck.distill.round_files import read_sizes, rows_of_rounds
from limbeck.distill.round_sizes import forecast_rows
from limbeck.distill.run import run_id
from limbeck.ledger import Limit, SqliteLedger
from limbeck.ledger.history import History
from limbeck.ledger.show import summarize
from limbeck.teachers import Money, Teacher
from limbeck.teachers.base import worst_prices
from limbeck.teachers.mean import members_of

_PRICED_ROWS = 512


@dataclass(frozen=True, slots=True)
class _Room:
    """What may still be spent: answers, or millionths of the currency; None: without a limit."""

    name: str
    queries: int | None
    micros: int | None


def _rooms(config: DistillConfig, ledger: SqliteLedger | None, run: str) -> list[_Room]:
    """What the money of a run and the limit of its ledger leave; people are ordered elsewhere."""
    rooms: list[_Room] = []
    if config.teacher.kind == HUMAN:
        return rooms
    if config.money:
        money = Money(round(config.money * 1e6), config.teacher.currency)
        spent = 0 if ledger is None else ledger.spent(run).money.micros
        rooms.append(_Room(f"the money ({money})", None, max(0, money.micros - spent)))
    if ledger is not None and (limit := ledger.limit()) != Limit():
        total = summarize(ledger, events=0).total
        queries = None if limit.queries is None else max(0, limit.queries - total.queries)
        micros = None if limit.money is None else max(0, limit.money.micros - total.money.micros)
        rooms.append(_Room("the limit of the ledger", queries, micros))
    return rooms


@dataclass(frozen=True, slots=True)
class ToBuy:
    """Answers to buy, and how many pool rows will have one."""

    validation: int
    test: int
    pool: int
    owned: int
    pool_rows: int
    history: History
    counts: tuple[int, ...]
    """The same for each teacher that is asked."""
    ends: str = ""
    """Why fewer of them will be bought, or none."""
    room: int | None = None
    """Most that they may still cost, in millionths."""

    @property
    def total(self) -> int:
        return self.validation + self.test + self.pool

    def at_most(self, worst: Money) -> Money:
        """The worst price, but no more than may still be spent."""
        return worst if self.room is None else Money(min(worst.micros, self.room), worst.currency)

    def within(self, rooms: Sequence[_Room], splits: Splits, teacher: Teacher) -> Self:
        """The same where money or the ledger's limit may end first: then it says so.

        Where not even the cheapest question fits, there is nothing to buy.
        """
        if not self.total or not rooms:
            return self
        least, mean = self._prices(splits, teacher)
        money = [room.micros for room in rooms if room.micros is not None]
        found = replace(self, room=min(money, default=None))
        fits, name = self.total, ""
        for room in rooms:
            count = self.total if room.queries is None else min(self.total, room.queries)
            if room.micros is not None and least > room.micros:
                count = 0
            elif room.micros is not None and mean > 0:
                count = min(count, max(1, int(room.micros / mean)))
            if count < fits:
                fits, name = count, room.name
        if fits == self.total:
            return found
        if fits:
            return replace(found, ends=f"{name} ends after about {fits:,} of them")
        ends = f"{name} is spent: nothing will be bought; raise it to buy the other {self.total:,}"
        nothing = tuple(0 for _ in self.counts)
        return replace(found, validation=0, test=0, pool=0, counts=nothing, ends=ends)

    def _prices(self, splits: Splits, teacher: Teacher) -> tuple[int, float]:
        """The worst price of the cheapest of some questions, and the usual price of one."""
        assert splits.pool is not None
        sample = splits.pool.take(np.arange(min(_PRICED_ROWS, len(splits.pool))))
        asked = [
            worst_prices(member, sample)[0]
            for member, count in zip(members_of(teacher), self.counts, strict=True)
            if count
        ]
        if len(self.history.prices) >= A_HANDFUL:
            return min(int(one.min()) for one in asked), float(np.mean(self.history.prices))
        worst = worst_money(teacher, splits.pool, self.counts).micros
        return min(int(one.min()) for one in asked), worst / self.total


def count_answers(
    config: DistillConfig,
    splits: Splits,
    asked: Questions,
    teacher: Teacher | None,
    folder: RunFolder,
) -> ToBuy:
    if teacher is None or not config.ledger.exists():
        buy = _count(config, asked, None, spent=0, folder=folder)
        return buy if teacher is None else buy.within(_rooms(config, None, ""), splits, teacher)
    with SqliteLedger(config.ledger) as ledger:
        run = run_id(folder) if folder.claimed else ""
        book = open_book(ledger, teacher, asked, run=run)
        spent = 0
        if run:
            spending = ledger.spent(run)
            # What is in flight, or out with people, is counted among the answers to come.
            spent = spending.queries - spending.reserved
        if spent == 0:
            check_money(config, splits, teacher, asked, book)
        buy = _count(config, asked, book, spent=spent, folder=folder)
        return buy.within(_rooms(config, ledger, run), splits, teacher)


def _count(
    config: DistillConfig,
    asked: Questions,
    book: AnswerBook | None,
    *,
    spent: int,
    folder: RunFolder,
) -> ToBuy:
    if spent == 0:
        check_budget(config, asked, book)
    none = (0,) * (len(asked.members) or 1)
    names = ("validation", "test")[: 1 + config.ask_test]
    # Each purchase ends once; what has failed then is not asked about again.
    before = [none if has_ended(folder, one) else asked.to_buy(book, one) for one in names]
    rows = read_selection(folder)
    chosen = rows is not None
    if rows is None and config.buy.in_rounds:
        rows = forecast_rows(config, asked, read_sizes(folder), rows_of_rounds(folder))
    pool_ids = GatheredIds(asked.pool, rows)
    distinct_rows = count_distinct(pool_ids)
    missing = asked.unanswered(book, "pool", rows)
    left = max(0, config.budget - spent - sum(map(sum, before)))
    if rows is None and asked.members:
        rows = draw_pool(config, asked, book, left=left)
    ended = has_ended(folder, "pool")
    wanted = none if ended else asked.to_buy(book, "pool", rows)
    pool = min(sum(wanted), left)
    questions = [asked.validation, asked.test][: len(before)]
    everything = distinct_rows + sum(count_distinct(part) for part in questions)
    incomplete = missing
    if asked.members and book is not None:
        incomplete = int(pool_ids.without(pool_ids.leads(), book.known).sum())
    elif asked.members:
        incomplete = distinct_rows
    # Where the budget ends before the rows do, it falls on all teachers alike.
    shares = [-(-count * pool // max(1, sum(wanted))) for count in wanted]
    lacking = missing + sum(asked.unanswered(book, name) for name in names)
    ends = ""
    if ended and missing:
        ends = (
            f"the purchase of the pool has ended without {missing:,} of its "
            f"{len(wanted) * distinct_rows:,} answers, and nothing more is bought in this folder; "
            f"another --out buys them"
        )
    elif chosen and pool < sum(wanted):
        # Failures and lost replies have taken places that these rows were drawn for.
        ends = (
            f"the budget of {config.budget:,} answers leaves {pool:,} for the pool; raise it to "
            f"buy the other {sum(wanted) - pool:,}"
        )
    elif config.buy.in_rounds and not ended and pool:
        ends = (
            f"{config.buy.rule} chooses in {config.buy.rounds} rounds: fewer where the ledger "
            f"holds what it chooses, or where buying stops early"
        )
    return ToBuy(
        validation=sum(before[0]),
        test=sum(sum(counts) for counts in before[1:]),
        pool=pool,
        owned=max(0, len(wanted) * everything - lacking),
        pool_rows=distinct_rows - incomplete + incomplete * pool // max(1, missing),
        history=History.empty() if book is None else book.history(),
        counts=tuple(sum(counts) for counts in zip(*before, shares, strict=True)),
        ends=ends,
    )


def worst_price(
    config: DistillConfig,
    splits: Splits,
    teacher: Teacher | None,
    counts: tuple[int, ...],
    *,
    runs: int = 1,
) -> Money:
    """Each teacher's worst case for a sample of the pool, scaled to its answers of some runs."""
    if teacher is None:
        return Money(0, config.teacher.currency)
    assert splits.pool is not None
    worst = worst_money(teacher, splits.pool, counts)
    cap = runs * round(config.money * 1e6)
    return Money(min(worst.micros, cap) if cap else worst.micros, worst.currency)
