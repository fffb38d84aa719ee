"""Every answer paid for, kept in SQLite before it is used; the budget."""

from limbeck.ledger.base import Budget, Ledger, Limit, Reservation, Spending
from limbeck.ledger.sqlite import SqliteLedger

__all__ = ["Budget", "Ledger", "Limit", "Reservation", "Spending", "SqliteLedger"]
