"""What the classes add to the loss functions: targets, trust and refusals."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.errors import ConfigError, LimbeckWarning
from limbeck.objectives import (
    OBJECTIVES,
    Evidence,
    HardKD,
    Slam,
    SoftKD,
    StudentOut,
    Supervised,
    hard_kd_loss,
    kd_loss,
    objective_class,
    slam_loss,
)


def answers(rows: int = 6, classes: int = 4) -> Answers:
    g = torch.Generator().manual_seed(1)
    probs = torch.softmax(2 * torch.randn(rows, classes, generator=g), dim=1)
    return Answers(np.zeros((rows, 16), np.uint8), probs)


def student(rows: int = 6, classes: int = 4) -> StudentOut:
    g = torch.Generator().manual_seed(2)
    return StudentOut(torch.randn(rows, classes, generator=g), torch.zeros(rows, 3))


def evidence(k: int = 3, lowest: float = 0.6) -> Evidence:
    told = answers()
    trust = lambda p: lowest + (1 - lowest) * p.max(dim=1).values  # noqa: E731
    return Evidence(told.probs, torch.zeros(6, dtype=torch.long), trust, k)


@pytest.mark.parametrize("target", ["soft", "hard"])
@pytest.mark.parametrize("normalized", [False, True])
def test_the_slam_objective_is_the_slam_function_with_the_evidences_alpha_and_k(target, normalized):
    told, out, known = answers(), student(), evidence()
    objective = Slam(target=target, normalized=normalized).fit([], known)
    wanted = slam_loss(
        out.outputs, told.probs, known.alpha(told.probs), 3, target=target, normalized=normalized
    )
    torch.testing.assert_close(objective.loss(out, objective.targets(told), None), wanted)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("alphas", [(0.5, 0.6), (0.6, 1.0), (1.0, 1.0), (0.2, 0.9), (0.99, 1.0)])
@pytest.mark.filterwarnings("ignore:slam. alpha falls:limbeck.errors.LimbeckWarning")
def test_the_quick_form_of_the_hard_loss_has_the_value_and_gradient_of_the_general_one(
    normalized, alphas
):
    # Rows that attract, that are sure, that repel, and that reach a floor of 0.1.
    told = answers()
    alpha = torch.tensor(alphas).repeat(3)
    known = Evidence(told.probs, torch.zeros(6, dtype=torch.long), lambda _: alpha, 3)
    for eps in (1e-7, 0.1):
        slam = Slam(target="hard", normalized=normalized, eps=eps).fit([], known)
        both = []
        for quick in (True, False):
            z = (30 * student().outputs).requires_grad_()
            if quick:
                loss = slam.loss(StudentOut(z, z), slam.targets(told), None)
            else:
                loss = slam_loss(
                    z, told.probs, alpha, 3, target="hard", normalized=normalized, eps=eps
                )
            both.append((loss, torch.autograd.grad(loss.sum(), z)[0]))
        torch.testing.assert_close(both[0][0], both[1][0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(both[0][1], both[1][1], atol=1e-6, rtol=1e-5)


def test_the_floor_of_the_mix_reaches_the_loss():
    told, out = answers(), student()
    low, high = (Slam(eps=eps).fit([], evidence()) for eps in (1e-7, 0.5))
    assert (high.loss(out, high.targets(told), None) < low.loss(out, low.targets(told), None)).all()


def test_the_kd_objectives_are_the_kd_functions():
    told, out = answers(), student()
    hard, soft = HardKD(), SoftKD(temperature=2.0)
    torch.testing.assert_close(
        hard.loss(out, hard.targets(told), None), hard_kd_loss(out.outputs, told.probs.argmax(1))
    )
    torch.testing.assert_close(
        soft.loss(out, soft.targets(told), None), kd_loss(out.outputs, told.probs, temperature=2.0)
    )


def test_fitting_slam_leaves_the_original_unfitted():
    slam = Slam()
    slam.fit([], evidence())
    with pytest.raises(ConfigError, match="not fitted"):
        slam.targets(answers())


def test_slam_without_evidence_is_refused():
    with pytest.raises(ConfigError, match="validation rows"):
        Slam().fit([], None)


def test_slam_with_a_k_beyond_the_classes_is_refused():
    with pytest.raises(ConfigError, match=r"\[2, 4\]"):
        Slam().fit([], evidence(k=5))


def constant(alpha: float, k: int) -> Evidence:
    labels = torch.zeros(6, dtype=torch.long)
    return Evidence(answers().probs, labels, lambda p: torch.full((len(p),), alpha), k)


@pytest.mark.parametrize(("normalized", "alpha"), [(False, 0.49), (True, 0.24)])
def test_a_trust_below_the_sign_bound_warns_when_it_is_fitted(normalized, alpha):
    with pytest.warns(LimbeckWarning, match="pushes the student away"):
        Slam(normalized=normalized).fit([], constant(alpha, k=4))


@pytest.mark.parametrize(("normalized", "alpha"), [(False, 0.5), (True, 0.26)])
def test_a_trust_at_or_above_the_sign_bound_is_taken_in_silence(normalized, alpha):
    Slam(normalized=normalized).fit([], constant(alpha, k=4))


def test_labels_only_refuses_pool_rows():
    with pytest.raises(ConfigError, match="labelled rows only"):
        Supervised().loss(student(), Supervised().targets(answers()), None)


# The teacher of subclasses adds an auxiliary loss to its labelled rows, by definition.
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "subclass_teacher"])
def test_labelled_rows_cost_their_cross_entropy_in_every_objective(name):
    objective = OBJECTIVES[name]()
    out, labels = student(classes=objective.width(4)), torch.tensor([0, 1, 2, 3, 0, 1])
    if objective.class_map(4).is_plain:
        wanted = functional.cross_entropy(out.outputs, labels, reduction="none")
    else:
        wanted = -objective.class_map(4).log_probs(out.outputs)[torch.arange(6), labels]
    torch.testing.assert_close(objective.loss(out, None, labels), wanted)


def test_an_unknown_objective_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'slam'"):
        objective_class("slim")
