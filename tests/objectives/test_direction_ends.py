"""The ends of directions beside a sort of everything."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.direction_ends import direction_ends


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 30), size=st.integers(1, 12),
       k=st.integers(1, 4))  # fmt: skip
def test_ends_are_those_of_a_sort_however_rows_come(seed, rows, size, k):
    g = torch.Generator().manual_seed(seed)
    # Few values, so that scores are often equal.
    scores = torch.randint(-4, 5, (rows, 2, 3), generator=g).float()
    classes = torch.randint(2, (rows,), generator=g)
    parts = [(scores[i : i + size], classes[i : i + size]) for i in range(0, rows, size)]
    found = direction_ends(parts, k)
    for c in range(2):
        mine = [i for i in range(rows) if classes[i] == c]
        for s in range(3):
            low = sorted(mine, key=lambda i: float(scores[i, c, s]))[:k]
            high = sorted(mine, key=lambda i: -float(scores[i, c, s]))[:k]
            assert found.low[c, s].tolist() == low + [-1] * (k - len(low))
            got = [i for i in found.high[c, s].tolist() if i >= 0]
            assert got == [i for i in high if i not in low]
            for end, values in ((found.low, found.low_scores), (found.high, found.high_scores)):
                for row, value in zip(end[c, s].tolist(), values[c, s].tolist(), strict=True):
                    assert math.isnan(value) if row < 0 else value == float(scores[row, c, s])


def test_a_direction_that_is_not_there_has_no_ends():
    scores = torch.tensor([[[1.0, -torch.inf]], [[2.0, -torch.inf]]])
    found = direction_ends([(scores, torch.zeros(2, dtype=torch.long))], 1)
    assert found.low.tolist() == [[[0], [-1]]]
    assert found.high.tolist() == [[[1], [-1]]]
    assert found.low_scores[0, 1].isnan().all()


def test_nothing_to_look_through_is_refused():
    with pytest.raises(ShapeError, match="no scores"):
        direction_ends([], 2)
    with pytest.raises(ConfigError, match="k=0"):
        direction_ends([], 0)
