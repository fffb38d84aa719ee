import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.distill.batches import EndlessPermutation
from limbeck.errors import ConfigError


@given(n=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 99))
def test_every_epoch_sees_every_row_once(n, batch, seed):
    order = EndlessPermutation(n, batch, seed)
    seen = np.concatenate([order.rows(step) for step in range(-(-3 * n // batch))])[: 3 * n]
    for epoch in seen.reshape(3, n):
        assert sorted(epoch) == list(range(n))


@given(n=st.integers(1, 40), batch=st.integers(1, 50), step=st.integers(0, 30))
def test_a_step_gives_the_same_rows_whichever_steps_came_before(n, batch, step):
    walked = EndlessPermutation(n, batch, 7)
    for earlier in range(step):
        walked.rows(earlier)
    assert np.array_equal(walked.rows(step), EndlessPermutation(n, batch, 7).rows(step))


def test_epochs_and_seeds_differ_in_order():
    order = EndlessPermutation(100, 100, 0)
    assert not np.array_equal(order.rows(0), order.rows(1))
    assert not np.array_equal(order.rows(0), EndlessPermutation(100, 100, 1).rows(0))


@pytest.mark.parametrize(("n", "batch"), [(0, 4), (4, 0)])
def test_nothing_to_shuffle_is_refused(n, batch):
    with pytest.raises(ConfigError, match="at least one row"):
        EndlessPermutation(n, batch, 0)
