import random

import numpy as np
import torch

from limbeck.students import rng


def draws():
    return (random.random(), float(np.random.rand()), float(torch.rand(())))  # noqa: NPY002


def test_the_callers_generators_are_handed_back_unchanged():
    torch.manual_seed(5)
    before = rng.states()
    with rng.isolated(3):
        draws()
    after = rng.states()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_same_seed_gives_the_same_draws():
    with rng.isolated(3):
        first = draws()
    with rng.isolated(3):
        assert draws() == first


def test_a_restored_state_goes_on_where_it_was():
    with rng.isolated(3):
        draws()
        kept = rng.states()
        expected = [draws() for _ in range(3)]
        rng.restore(kept)
        assert [draws() for _ in range(3)] == expected
