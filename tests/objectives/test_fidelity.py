"""Fidelity weighting: uncertainty in closed form, weights, and limits."""

import math

import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import (
    Fidelity,
    HardKD,
    StudentOut,
    fidelity_weights,
    kd_loss,
    teacher_uncertainty,
)

PROBS = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]])
Z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def answers(spread=None):
    return Answers(np.zeros((3, 16), np.uint8), PROBS, spread=spread)


def test_entropy_is_nothing_for_a_sure_answer_one_for_a_flat_one_and_half_for_two_of_four():
    torch.testing.assert_close(teacher_uncertainty(PROBS), torch.tensor([0.0, 1.0, 0.5]))


def test_spread_is_four_variances_of_the_top_class_over_the_members():
    # Members of a teacher: half say 1, half 0: the largest variance there is. Others agree.
    members = torch.tensor([[[1.0, 0], [0.9, 0.1]], [[0.0, 1], [0.7, 0.3]]])
    mean, spread = members.mean(0), members.std(0, correction=0)
    found = teacher_uncertainty(mean, spread, source="spread")
    torch.testing.assert_close(found, torch.tensor([1.0, 4 * 0.1**2]))
    assert float(teacher_uncertainty(mean, 3 * spread, source="spread")[0]) == 1.0


def test_weights_fall_from_one_to_e_to_the_minus_beta_and_take_no_gradient():
    u = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    found = fidelity_weights(u, beta=3.0)
    torch.testing.assert_close(found, torch.tensor([1.0, math.exp(-1.5), math.exp(-3)]))
    assert not found.requires_grad


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_the_loss_of_a_row_is_its_weight_times_the_plain_one_without_normalising(target):
    fidelity = Fidelity(beta=2.0, target=target).fit([answers()], None)
    found = fidelity.loss(StudentOut(Z, Z), fidelity.targets(answers()), None)
    plain = -torch.log_softmax(Z, 1)
    if target == "hard":
        crossed = plain[torch.arange(3), torch.tensor([0, 0, 0])]
    else:
        crossed = (PROBS * plain).sum(1)
    weights = torch.tensor([1.0, math.exp(-2), math.exp(-1)])
    torch.testing.assert_close(found, weights * crossed)


def test_beta_zero_is_plain_distillation():
    out = StudentOut(Z, Z)
    flat = Fidelity(beta=0.0)
    torch.testing.assert_close(
        flat.loss(out, flat.targets(answers()), None),
        HardKD().loss(out, HardKD().targets(answers()), None),
    )
    soft = Fidelity(beta=0.0, target="soft")
    difference = soft.loss(out, soft.targets(answers()), None) - kd_loss(Z, PROBS)
    torch.testing.assert_close(difference, torch.tensor([0.0, math.log(4), math.log(2)]))


def test_the_source_reaches_the_weights():
    spread = torch.full((3, 4), 0.25)
    objective = Fidelity(source="spread").fit([answers(spread)], None)
    torch.testing.assert_close(
        objective.targets(answers(spread))["weight"], torch.full((3,), math.exp(-0.25))
    )


def test_spread_is_refused_where_there_is_none():
    objective = Fidelity(source="spread")
    for attempt in (lambda: objective.fit([answers()], None), lambda: objective.targets(answers())):
        with pytest.raises(ConfigError, match=r"source='spread' needs answers with a spread"):
            attempt()


def test_what_cannot_be_used_is_refused():
    with pytest.raises(ShapeError, match="C >= 2"):
        teacher_uncertainty(torch.ones(3, 1))
    with pytest.raises(ShapeError, match="spread has shape"):
        teacher_uncertainty(PROBS, torch.zeros(2, 4), source="spread")
    with pytest.raises(ConfigError, match=r"beta=-1\.0"):
        fidelity_weights(torch.zeros(1), beta=-1.0)
    with pytest.raises(ConfigError, match="source='mood'"):
        teacher_uncertainty(PROBS, source="mood")
