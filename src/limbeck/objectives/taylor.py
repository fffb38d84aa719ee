"""Taylor cross-entropy: the first terms of the series of cross-entropy, which are bounded.

- log f = sum over j >= 1 of (1 - f)^j / j. Cut off after a few terms, a label that the student
finds absurd costs a bounded price.

Source: Feng, Shu, Lin, Lv, Li, An, "Can cross entropy loss be robust to label noise?", IJCAI 2020.
The formula is a reconstruction from the paper's idea; the tests check it against the series.
"""

from collections.abc import Iterable
from typing import Self, final

import torch
from torch import Tensor
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.errors import ConfigError
from limbeck.objectives.base import Evidence, Objective, StudentOut, Targets
from limbeck.objectives.checks import check_labels, working
from limbeck.objectives.mixing import first_max


def taylor_loss(logits: Tensor, labels: Tensor, *, order: int = 2) -> Tensor:
    """Sum the first terms of the series of cross-entropy: sum_{j=1..order} (1 - f_c)^j / j.

    Args:
        logits: Student logits z, floating point, shape (B, C); f = softmax(z).
        labels: The class c of each row, int64, shape (B,), in [0, C).
        order: Terms, >= 1. 1 is the absolute error 1 - f_c; many come close to cross-entropy.

    Returns:
        Loss of each row in nats, shape (B,), float32 (float64 for float64 logits); in
        [0, 1 + 1/2 + ... + 1/order] and never above cross-entropy. Its gradient is that of
        cross-entropy times 1 - (1 - f_c)^order: a row that the student finds absurd has no pull.

    Raises:
        ShapeError: `labels` is not one class a row.
        ConfigError: the order is not an integer >= 1.

    Cost: O(B (C + order)).
    """
    check_labels(logits, labels)
    _check_order(order)
    log_f = -functional.cross_entropy(working(logits), labels, reduction="none")
    miss = -torch.expm1(log_f)
    total = torch.full_like(miss, 1 / order)
    for j in range(order - 1, 0, -1):
        total = 1 / j + miss * total
    return miss * total


@final
class Taylor(Objective):
    """Taylor cross-entropy with the teacher's most probable class.

    Args:
        order: Terms of the series; see `taylor_loss`.
    """

    name = "taylor"

    def __init__(self, *, order: int = 2) -> None:
        _check_order(order)
        self.order = order

    def fit(self, answers: Iterable[Answers], evidence: Evidence | None) -> Self:
        """Return itself: nothing is learnt from answers."""
        return self

    def targets(self, answers: Answers) -> Targets:
        """Give `labels`, int64, shape (B,): of equally probable classes the first."""
        return Targets({"labels": first_max(answers.probs)})

    def loss(self, out: StudentOut, targets: Targets | None, labels: Tensor | None) -> Tensor:
        """Loss of each row in nats, shape (B,)."""
        if targets is None:
            return self.label_loss(out, labels)
        return taylor_loss(out.outputs, targets["labels"], order=self.order)


def _check_order(order: int) -> None:
    if type(order) is not int or order < 1:
        raise ConfigError(f"order={order!r}: must be an integer >= 1, the terms of the series.")
