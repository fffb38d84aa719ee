"""Plain distillation against closed forms."""

import math

import pytest
import torch
from torch.nn import functional

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import hard_kd_loss, kd_loss


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, dtype=torch.float64, generator=g)
    teacher_logits = torch.randn(6, 4, dtype=torch.float64, generator=g)
    return logits, teacher_logits


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_soft_loss_is_the_divergence_of_retempered_teacher_logits_times_tau_squared(pair, tau):
    logits, teacher = pair
    wanted = functional.kl_div(
        torch.log_softmax(logits / tau, 1), torch.softmax(teacher / tau, 1), reduction="none"
    ).sum(1)
    loss = kd_loss(logits, torch.softmax(teacher, 1), temperature=tau)
    torch.testing.assert_close(loss, tau**2 * wanted)


def test_soft_loss_is_zero_with_zero_gradient_at_the_teacher(pair):
    teacher = pair[1].clone().requires_grad_()
    loss = kd_loss(teacher, torch.softmax(teacher.detach(), 1), temperature=2.0)
    loss.sum().backward()
    assert float(loss.detach().abs().max()) < 1e-12
    assert float(teacher.grad.abs().max()) < 1e-12


def test_at_tau_one_it_is_cross_entropy_less_the_teachers_entropy(pair):
    logits, teacher = pair
    p = torch.softmax(teacher, 1)
    entropy = torch.distributions.Categorical(p).entropy()
    wanted = functional.cross_entropy(logits, p, reduction="none") - entropy
    torch.testing.assert_close(kd_loss(logits, p), wanted)


def test_at_a_high_temperature_it_fits_centred_logits(pair):
    # tau^2 KL -> half the mean squared difference of centred logits.
    logits, teacher = (x - x.mean(1, keepdim=True) for x in pair)
    loss = kd_loss(logits, torch.softmax(teacher, 1), temperature=1e4)
    torch.testing.assert_close(loss, ((logits - teacher) ** 2).mean(1) / 2, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
def test_a_one_hot_teacher_gives_no_nan(tau):
    logits = torch.tensor([[0.0, -200.0, 0.0], [300.0, 0.0, 0.0]], requires_grad=True)
    loss = kd_loss(logits, torch.eye(3)[:2], temperature=tau)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences(pair):
    logits, teacher = pair
    p = torch.softmax(teacher, 1)
    z = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: kd_loss(x, p, temperature=2.0), z)
    assert torch.autograd.gradcheck(lambda x: hard_kd_loss(x, p.argmax(1)), z)


def test_hard_loss_is_minus_the_log_probability_of_the_label():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert float(hard_kd_loss(logits, torch.tensor([1]))) == pytest.approx(-math.log(0.75))


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_no_positive_number_is_refused(tau):
    with pytest.raises(ConfigError, match="temperature"):
        kd_loss(torch.zeros(1, 2), torch.full((1, 2), 0.5), temperature=tau)


def test_wrong_shapes_are_refused():
    with pytest.raises(ShapeError, match="teacher_probs"):
        kd_loss(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"labels \(B,\)"):
        hard_kd_loss(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.long))
