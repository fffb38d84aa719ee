"""How far to believe the teacher at a row, learnt from validation rows with true labels."""

from limbeck.trust.isotonic import IsotonicTrust, choose_lower, margin
from limbeck.trust.margins import MarginsTrust
from limbeck.trust.neighbours import NeighbourTrust
from limbeck.trust.per_class import ClassTrust
from limbeck.trust.temperature import Temperature
from limbeck.trust.topk import top_k

__all__ = [
    "ClassTrust",
    "IsotonicTrust",
    "MarginsTrust",
    "NeighbourTrust",
    "Temperature",
    "choose_lower",
    "margin",
    "top_k",
]
