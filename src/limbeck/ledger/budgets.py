"""What has been spent, and how many more questions fit, per run and for the ledger as a whole."""

import sqlite3
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from limbeck.errors import BudgetError, ConfigError, LimitError
from limbeck.ledger.base import Budget, Limit, Spending
from limbeck.teachers.base import Money


def worst_shares(worst: Money, shares: NDArray[np.int64] | None, n: int) -> list[int]:
    """What each of n questions can cost at worst, in millionths; equal parts without `shares`.

    Raises:
        ConfigError: `shares` are not n amounts >= 0 that add up to `worst`.
    """
    if shares is None:
        share, odd = divmod(worst.micros, max(n, 1))
        return [share + (i < odd) for i in range(n)]  # the odd millionths fall on the first
    each: list[int] = np.asarray(shares).tolist()
    if np.shape(shares) != (n,) or min(each, default=0) < 0 or sum(each) != worst.micros:
        raise ConfigError(
            f"shares of shape {np.shape(shares)} do not split {worst.micros} millionths over {n} "
            f"questions; give one amount >= 0 a question, which add up to worst."
        )
    return each


def shares_of(free: list[bytes], keys: list[bytes], shares: list[int]) -> list[int]:
    """The shares of the free ones among these questions."""
    if len(free) == len(keys):
        return shares
    share = dict(zip(keys, shares, strict=True))
    return [share[key] for key in free]


def check_fit(
    connection: sqlite3.Connection,
    run: str,
    *,
    shares: Sequence[int],
    currency: str,
    budget: Budget,
) -> int:
    """The longest run of questions, from the first, that the run and the ledger can still hold.

    Raises:
        BudgetError: there are questions but not even the first fits; LimitError: into the limit of
            the ledger.
        ConfigError: the currency is not that of the budget, the limit or earlier spending.
    """
    spent, limit = spending(connection, run), ledger_limit(connection)
    worst = Money(sum(shares), currency)
    check_currency(run, worst, budget, spent)
    fit = _how_many_fit(shares, budget.queries, budget.money, spent)
    if shares and fit == 0:
        raise BudgetError(
            f"run {run!r} has spent {spent.queries} of {budget.queries} queries and "
            f"{spent.money} of {budget.money or 'unlimited money'}, so not one of "
            f"{len(shares)} more questions fits; raise the budget to go on."
        )
    if limit == Limit():
        return fit
    if limit.money is not None and worst.micros and limit.money.currency != currency:
        raise ConfigError(
            f"run {run!r}: the teacher is paid in {currency} but the ledger's limit is in "
            f"{limit.money.currency}; use another ledger or change its limit."
        )
    total = ledger_spending(connection, limit.money.currency if limit.money else currency)
    # Where nothing can be charged, spent money cannot stand in the way.
    held = _how_many_fit(shares, limit.queries, limit.money if worst.micros else None, total)
    if shares and held == 0:
        queries = "any number of" if limit.queries is None else limit.queries
        raise LimitError(
            f"all runs of this ledger have spent {total.queries} of {queries} queries and "
            f"{total.money} of {limit.money or 'unlimited money'}, so not one of {len(shares)} "
            f"more questions fits; raise its limit (limbeck ledger limit) to go on."
        )
    return min(fit, held)


def _how_many_fit(
    shares: Sequence[int], queries: int | None, money: Money | None, spent: Spending
) -> int:
    fit = len(shares) if queries is None else min(len(shares), max(0, queries - spent.queries))
    if money is not None:
        room = money.micros - spent.money.micros
        # The sums never fall, so the insertion point counts the ones that are at most `room`.
        fit = int(np.searchsorted(np.cumsum(shares[:fit], dtype=np.int64), room, side="right"))
    return fit


def check_currency(run: str, worst: Money, budget: Budget, spent: Spending) -> None:
    """Refuse to add up money of different currencies; nothing is the same in all of them."""
    others = [budget.money] if budget.money is not None else []
    if spent.money.micros:
        others.append(spent.money)
    for other in others:
        if worst.micros and other.currency != worst.currency:
            raise ConfigError(
                f"run {run!r}: the teacher is paid in {worst.currency} but the budget or earlier "
                f"spending is in {other.currency}; give both in one currency."
            )


# SUM of whole numbers is exact, whatever their size; TOTAL adds floats.
_COUNTERS = "SUM(answered), SUM(failed), SUM(in_flight), SUM(unknown)"


def spending(connection: sqlite3.Connection, run: str) -> Spending:
    """What a run has spent."""
    row = connection.execute(
        f"""SELECT {_COUNTERS}, SUM(micros), COALESCE(MIN(currency) FILTER (WHERE micros > 0),
            MIN(currency), 'USD') FROM totals WHERE run = ?""",
        (run,),
    ).fetchone()
    return _spending(row, row[5])


def ledger_spending(connection: sqlite3.Connection, currency: str) -> Spending:
    """What all runs have spent: every query, and the money of one currency."""
    row = connection.execute(
        f"SELECT {_COUNTERS}, SUM(micros) FILTER (WHERE currency = ?) FROM totals", (currency,)
    ).fetchone()
    return _spending(row, currency)


def _spending(row: Sequence[int | None], currency: str) -> Spending:
    answered, failed, reserved, unknown, micros = (value or 0 for value in row[:5])
    return Spending(answered, failed, reserved, unknown, Money(micros, currency))


def ledger_limit(connection: sqlite3.Connection) -> Limit:
    """The limit that the ledger keeps for all runs together."""
    row = connection.execute("SELECT queries, micros, currency FROM limits").fetchone()
    if row is None:
        return Limit()
    return Limit(row[0], None if row[1] is None else Money(row[1], row[2]))


def set_ledger_limit(connection: sqlite3.Connection, limit: Limit) -> None:
    """Put another limit in the place of the one before.

    Raises:
        ConfigError: a number is below 0.
    """
    micros = None if limit.money is None else limit.money.micros
    if min(limit.queries or 0, micros or 0) < 0:
        raise ConfigError(f"limit of {limit.queries} queries, {limit.money}: both must be >= 0.")
    connection.execute(
        "INSERT OR REPLACE INTO limits VALUES (1, ?, ?, ?)",
        (limit.queries, micros, None if limit.money is None else limit.money.currency),
    )
