"""The Taylor loss against its series, its limits and its gradient in closed form."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import taylor_loss


def case(seed=0, rows=6, classes=4, scale=2.0):
    g = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, classes, dtype=torch.float64, generator=g)
    return logits, torch.randint(classes, (rows,), generator=g)


@pytest.mark.parametrize("order", [1, 2, 3, 7])
def test_it_is_the_series_term_by_term(order):
    logits, labels = case()
    f = torch.softmax(logits, 1)[torch.arange(6), labels]
    wanted = sum((1 - f) ** j / j for j in range(1, order + 1))
    torch.testing.assert_close(taylor_loss(logits, labels, order=order), wanted)


def test_order_one_is_half_the_absolute_error_over_all_classes():
    logits, labels = case()
    error = (torch.softmax(logits, 1) - functional.one_hot(labels, 4)).abs().sum(1)
    torch.testing.assert_close(taylor_loss(logits, labels, order=1), error / 2)


def test_many_terms_come_to_cross_entropy():
    logits, labels = case()
    wanted = functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(taylor_loss(logits, labels, order=3000), wanted)


@given(seed=st.integers(0, 2**32 - 1), order=st.integers(1, 12), scale=st.floats(0.0, 20.0))
def test_more_terms_cost_more_and_never_more_than_cross_entropy_or_the_bound(seed, order, scale):
    logits, labels = case(seed, scale=scale)
    here, more = (taylor_loss(logits, labels, order=n) for n in (order, order + 1))
    crossed = functional.cross_entropy(logits, labels, reduction="none")
    assert (here <= more + 1e-12).all()
    assert (more <= crossed + 1e-9).all()
    assert (here <= sum(1 / j for j in range(1, order + 1)) + 1e-12).all()


@pytest.mark.parametrize("order", [1, 2, 5])
def test_its_gradient_is_that_of_cross_entropy_times_one_minus_miss_to_the_order(order):
    logits, labels = case()
    z = logits.requires_grad_()
    (found,) = torch.autograd.grad(taylor_loss(z, labels, order=order).sum(), z)
    (crossed,) = torch.autograd.grad(functional.cross_entropy(z, labels, reduction="sum"), z)
    f = torch.softmax(logits.detach(), 1)[torch.arange(6), labels]
    torch.testing.assert_close(found, crossed * (1 - (1 - f) ** order)[:, None])
    assert torch.autograd.gradcheck(lambda x: taylor_loss(x, labels, order=order), z)


def test_at_the_ends_value_and_gradient_are_exact_and_finite():
    logits = torch.tensor([[300.0, 0.0], [0.0, 300.0], [9.0, 0.0]], requires_grad=True)
    loss = taylor_loss(logits, torch.zeros(3, dtype=torch.long), order=2)
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    assert loss[:2].tolist() == [0.0, 1.5]
    miss = 1 / (1 + math.exp(9))
    assert float(loss[2].detach()) == pytest.approx(miss + miss**2 / 2, abs=2e-7)
    assert slope.isfinite().all()


@pytest.mark.parametrize("order", [0, -1, 1.5, True])
def test_an_order_that_is_no_positive_integer_is_refused(order):
    with pytest.raises(ConfigError, match=r"order=.*integer >= 1"):
        taylor_loss(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long), order=order)


def test_labels_that_are_not_one_class_a_row_are_refused():
    with pytest.raises(ShapeError, match=r"labels \(B,\)"):
        taylor_loss(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.long))
