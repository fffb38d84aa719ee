"""Where work over many rows runs: here, for now, in this process."""

from limbeck.engines.local import PurchaseReport, purchase
from limbeck.engines.questions import ask_about

__all__ = ["PurchaseReport", "ask_about", "purchase"]
