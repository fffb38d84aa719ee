"""Alpha as weight: limits, and what the weighted mean estimates."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import (
    AlphaWeighted,
    Evidence,
    StudentOut,
    alpha_weighted_loss,
    hard_kd_loss,
    kd_loss,
)


def pair(rows=6, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 4, dtype=dtype, generator=g)
    return logits, torch.softmax(torch.randn(rows, 4, dtype=dtype, generator=g), 1)


def test_where_alpha_is_one_it_is_plain_distillation():
    logits, p = pair()
    one = torch.ones(6)
    hard = alpha_weighted_loss(logits, p, one, target="hard")
    torch.testing.assert_close(hard, hard_kd_loss(logits, p.argmax(1)))
    soft = alpha_weighted_loss(logits, p, one, target="soft")
    entropy = torch.distributions.Categorical(p).entropy()
    torch.testing.assert_close(soft, kd_loss(logits, p) + entropy)


def test_its_mean_is_the_loss_of_the_rows_that_are_right_in_expectation():
    # Over all ways in which four rows can be right or wrong, weighted by their probability.
    logits, p = pair(4)
    alpha = torch.tensor([0.9, 0.5, 0.7, 1.0], dtype=torch.float64)
    plain = hard_kd_loss(logits, p.argmax(1))
    expected = 0.0
    for case in range(16):
        right = torch.tensor([bool(case >> i & 1) for i in range(4)])
        chance = torch.where(right, alpha, 1 - alpha).prod()
        expected = expected + chance * (plain * right).mean()
    torch.testing.assert_close(alpha_weighted_loss(logits, p, alpha).mean(), expected)


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_alpha_gets_no_gradient_and_the_logits_get_their_own(target):
    logits, p = pair()
    alpha = torch.linspace(0.3, 1.0, 6, dtype=torch.float64, requires_grad=True)
    z = logits.requires_grad_()
    loss = alpha_weighted_loss(z, p, alpha, target=target)
    loss.sum().backward()
    assert alpha.grad is None
    fitted = p if target == "soft" else functional.one_hot(p.argmax(1), 4)
    wanted = alpha.detach()[:, None] * (torch.softmax(z.detach(), 1) - fitted)
    torch.testing.assert_close(z.grad, wanted)


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_the_objective_is_the_function_with_the_evidences_alpha(target):
    logits, p = pair(dtype=torch.float32)
    trust = lambda probs: probs.max(dim=1).values  # noqa: E731
    known = Evidence(p, torch.zeros(6, dtype=torch.long), trust, 2)
    objective = AlphaWeighted(target=target).fit([], known)
    targets = objective.targets(Answers(np.zeros((6, 16), np.uint8), p))
    torch.testing.assert_close(
        objective.loss(StudentOut(logits, logits), targets, None),
        alpha_weighted_loss(logits, p, trust(p), target=target),
    )


def test_what_cannot_be_used_is_refused():
    logits, p = pair()
    with pytest.raises(ConfigError, match="target='mild'"):
        alpha_weighted_loss(logits, p, torch.ones(6), target="mild")
    with pytest.raises(ConfigError, match=r"alpha lies in \[0, 1\]"):
        alpha_weighted_loss(logits, p, torch.tensor([0.0, 1, 1, 1, 1, 1]))
    with pytest.raises(ShapeError, match=r"alpha must be .* shape \(6,\)"):
        alpha_weighted_loss(logits, p, torch.ones(5))
    with pytest.raises(ConfigError, match="validation rows"):
        AlphaWeighted().fit([], None)
    with pytest.raises(ConfigError, match="not fitted"):
        AlphaWeighted().targets(Answers(np.zeros((6, 16), np.uint8), p.float()))
