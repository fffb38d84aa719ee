"""The variational bound against torch's own Gaussian, its best variance, and its network."""

import math

import pytest
import torch

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import StudentOut, Targets, Vid, vid_loss
from tests.objectives.test_embedding import WIDE, ready, student, told


def case(rows=6, width=4):
    g = torch.Generator().manual_seed(0)
    mean, teacher = torch.randn(2, rows, width, dtype=torch.float64, generator=g)
    return mean, teacher, torch.rand(width, dtype=torch.float64, generator=g) + 0.1


def test_it_is_a_gaussians_negative_log_likelihood_but_for_a_constant():
    mean, teacher, variance = case()
    told_by_torch = -torch.distributions.Normal(mean, variance.sqrt()).log_prob(teacher)
    wanted = (told_by_torch - 0.5 * math.log(2 * math.pi)).mean(1)
    torch.testing.assert_close(vid_loss(mean, teacher, variance), wanted)


def test_it_is_least_where_the_variance_is_the_mean_of_squared_differences():
    mean, teacher, _ = case()
    best = (mean - teacher).square().mean(0)
    v = best.clone().requires_grad_()
    (slope,) = torch.autograd.grad(vid_loss(mean, teacher, v).mean(), v)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-12, rtol=0)
    for other in (0.5, 2.0):
        assert vid_loss(mean, teacher, other * best).mean() > vid_loss(mean, teacher, best).mean()


def test_gradients_are_those_of_finite_differences():
    mean, teacher, variance = (x.requires_grad_() for x in case())
    assert torch.autograd.gradcheck(lambda m, v: vid_loss(m, teacher, v), (mean, variance))


def test_half_precision_is_computed_in_single():
    mean, teacher, variance = case()
    found = vid_loss(mean.bfloat16(), teacher.float(), variance.float())
    assert found.dtype == torch.float32
    again = vid_loss(mean.bfloat16().float(), teacher.float(), variance.float())
    torch.testing.assert_close(found, again)


def test_wrong_inputs_are_refused():
    mean, teacher, variance = case()
    with pytest.raises(ShapeError, match="same shape"):
        vid_loss(mean, teacher[:, :2], variance)
    with pytest.raises(ShapeError, match=r"variance must be floating point of shape \(4,\)"):
        vid_loss(mean, teacher, variance[:2])


@pytest.mark.parametrize("start", [1e-4, 0.3, 5.0, 200.0])
def test_the_variance_starts_where_it_is_told_to(start):
    made = ready(Vid(start=start))
    assert made.variance.shape == (WIDE,)
    torch.testing.assert_close(made.variance, torch.full((WIDE,), start), rtol=1e-3, atol=0)


def test_the_objective_is_three_layers_without_biases_under_the_bound():
    made, out = ready(Vid(weight=2.0)), student()
    raw, first, second, third = made.parameters()
    hidden = (out.embedding @ first.T).relu()
    mean = (hidden @ second.T).relu() @ third.T
    variance = raw.exp().add(1).log() + 1e-5
    found = made.loss(out, made.targets(told()), None)
    torch.testing.assert_close(found, 2 * vid_loss(mean, told().embeddings, variance))
    found.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in (first, second, third, raw))


def test_training_it_finds_the_noise_of_each_number_of_the_embedding():
    # The teacher is a line of the student plus noise of another size in each number.
    g = torch.Generator().manual_seed(5)
    width = 18
    e = torch.randn(1000, 3, generator=g)
    noise = torch.tensor([0.2, 0.5, 1.0]).repeat(width // 3)
    teacher = e @ torch.randn(3, width, generator=g) + noise * torch.randn(1000, width, generator=g)
    made = Vid().fit([told(width)], None).attach(3, g)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.02)
    targets, out = Targets({"embeddings": teacher}), StudentOut(e, e)
    for _ in range(300):
        optimizer.zero_grad()
        made.loss(out, targets, None).mean().backward()
        optimizer.step()
    ratio = made.variance.detach().sqrt() / noise
    assert ((ratio > 0.8) & (ratio < 1.3)).all(), ratio


def test_the_state_holds_the_network_and_the_variances():
    first, second = ready(Vid(), seed=3), ready(Vid(), seed=4)
    with torch.no_grad():
        for p in first.parameters():
            p.add_(0.5)
    second.load_state_dict({name: t.clone() for name, t in first.state_dict().items()})
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_start_at_the_floor_is_refused():
    with pytest.raises(ConfigError, match="start=1e-05"):
        Vid(start=1e-5)
