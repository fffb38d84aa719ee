"""Every answer paid for, kept in SQLite before it is used; the budget."""

from limbeck.ledger.base import Budget, Ledger, Reservation, Spending
from limbeck.ledger.sqlite import SqliteLedger

__all__ = ["Budget", "Ledger", "Reservation", "Spending", "SqliteLedger"]
