"""Where work over many rows runs: in this process, or on a Ray cluster."""

from limbeck.engines.local import PurchaseReport, purchase
from limbeck.engines.questions import ask_about

__all__ = ["PurchaseReport", "ask_about", "purchase"]
