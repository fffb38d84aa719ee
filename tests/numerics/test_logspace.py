"""Log-space helpers against high precision and plain formulas."""

from decimal import Decimal, getcontext

import pytest
import torch

from limbeck.numerics.logspace import log1mexp, log_probs, retemper


@pytest.mark.parametrize("x", [-1e-12, -1e-6, -0.1, -0.6931, -0.6932, -2.0, -30.0, -300.0])
def test_log1mexp_keeps_all_digits(x):
    getcontext().prec = 200
    exact = float((1 - Decimal(x).exp()).ln())
    assert float(log1mexp(torch.tensor(x, dtype=torch.float64))) == pytest.approx(exact, rel=1e-14)


def test_log1mexp_at_its_ends():
    ends = log1mexp(torch.tensor([0.0, -torch.inf]))
    assert ends.tolist() == [-torch.inf, 0.0]


def test_log1mexp_has_the_right_gradient_everywhere_below_zero():
    x = torch.tensor([-1e-3, -0.5, -0.7, -5.0, -200.0], dtype=torch.float64, requires_grad=True)
    log1mexp(x).sum().backward()
    torch.testing.assert_close(x.grad, -1 / torch.expm1(-x.detach()))


def test_retempering_probabilities_equals_dividing_logits():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probs = torch.softmax(logits, 1)
    for tau in (0.3, 1.0, 2.0, 20.0):
        torch.testing.assert_close(retemper(probs, tau), torch.softmax(logits / tau, 1))


def test_zero_probabilities_stay_finite():
    one_hot = torch.eye(3)
    assert log_probs(one_hot).isfinite().all()
    torch.testing.assert_close(retemper(one_hot, 0.5), one_hot)
