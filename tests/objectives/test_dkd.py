"""Decoupled distillation against its identity, a slow loop, and plain distillation at C = 2."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.answers import Answers
from limbeck.errors import ConfigError, LimbeckWarning, ShapeError
from limbeck.objectives import Dkd, SoftKD, StudentOut, dkd_loss, kd_loss, nckd, tckd

SETTINGS = {"alpha": 0.7, "beta": 3.0, "temperature": 2.5}


def case(seed=0, rows=6, classes=5):
    g = torch.Generator().manual_seed(seed)
    logits, teacher = 2 * torch.randn(2, rows, classes, dtype=torch.float64, generator=g)
    return logits, torch.softmax(teacher, 1), torch.randint(classes, (rows,), generator=g)


def tempered(p, tau):
    raised = [x ** (1 / tau) for x in p]
    return [x / sum(raised) for x in raised]


def slow(logits, probs, labels, alpha, beta, temperature):
    """The two divergences of each row, number by number."""
    losses = []
    for z, p, t in zip(logits.tolist(), probs.tolist(), labels.tolist(), strict=True):
        teacher = tempered(p, temperature)
        student = tempered([math.exp(x) for x in z], temperature)
        others = [c for c in range(len(z)) if c != t]
        pt, ps = 1 - teacher[t], 1 - student[t]
        target = teacher[t] * math.log(teacher[t] / student[t]) + pt * math.log(pt / ps)
        rest = sum(
            teacher[c] / pt * math.log((teacher[c] / pt) / (student[c] / ps)) for c in others
        )
        losses.append(temperature**2 * (alpha * target + beta * rest))
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_it_is_the_two_divergences_written_out(classes):
    logits, probs, labels = case(classes=classes)
    found = dkd_loss(logits, probs, labels, **SETTINGS)
    torch.testing.assert_close(
        found, slow(logits, probs, labels, **SETTINGS), atol=1e-12, rtol=1e-10
    )


@given(
    seed=st.integers(0, 2**32 - 1), classes=st.integers(2, 7), tau=st.sampled_from([0.5, 1.0, 4.0])
)
def test_plain_distillation_is_tckd_and_nckd_times_what_the_target_leaves(seed, classes, tau):
    logits, probs, labels = case(seed, classes=classes)
    left = 1 - torch.softmax(probs.log() / tau, 1)[torch.arange(6), labels]
    parts = tckd(logits, probs, labels, temperature=tau) + left * nckd(
        logits, probs, labels, temperature=tau
    )
    torch.testing.assert_close(
        parts, kd_loss(logits, probs, temperature=tau), atol=1e-12, rtol=1e-12
    )


@given(seed=st.integers(0, 2**32 - 1), beta=st.floats(0, 100))
def test_with_two_classes_it_is_alpha_times_plain_distillation(seed, beta):
    logits, probs, _ = case(seed, classes=2)
    z = logits.requires_grad_()
    found = dkd_loss(z, probs, alpha=0.7, beta=beta, temperature=3.0)
    wanted = 0.7 * kd_loss(z, probs, temperature=3.0)
    torch.testing.assert_close(found, wanted, atol=1e-13, rtol=1e-13)
    slopes = [torch.autograd.grad(loss.sum(), z)[0] for loss in (found, wanted)]
    torch.testing.assert_close(*slopes, atol=1e-13, rtol=1e-12)


def test_with_two_classes_nckd_and_its_gradient_are_exactly_zero():
    logits, probs, labels = case(classes=2)
    z = logits.requires_grad_()
    found = nckd(z, probs, labels)
    assert torch.equal(found, torch.zeros(6, dtype=torch.float64))
    assert torch.equal(torch.autograd.grad(found.sum(), z)[0], torch.zeros_like(logits))


def test_it_is_what_a_large_number_taken_from_the_target_gives():
    # The other way of leaving the target out, for logits of a size that it can be done with.
    logits, probs, labels = case()
    away = -1000.0 * torch.nn.functional.one_hot(labels, 5)
    student, teacher = logits / 4 + away, probs.log() / 4 + away
    rest = torch.nn.functional.kl_div(
        torch.log_softmax(student, 1), torch.log_softmax(teacher, 1), log_target=True,
        reduction="none",
    ).sum(1)  # fmt: skip
    torch.testing.assert_close(nckd(logits, probs, labels), 16 * rest)


def test_without_labels_the_teachers_first_most_probable_class_is_the_target():
    logits, probs, _ = case()
    probs[0] = torch.tensor([0.1, 0.35, 0.1, 0.35, 0.1])
    assert int(probs[0].argmax()) == 1
    found = dkd_loss(logits, probs)
    torch.testing.assert_close(found, dkd_loss(logits, probs, probs.max(1).indices))


def test_gradients_are_those_of_finite_differences():
    logits, probs, labels = case()
    z = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dkd_loss(x, probs, labels, **SETTINGS), z)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_student_or_teacher_that_is_wholly_sure_gives_no_nan(classes):
    logits = torch.zeros(2, classes)
    logits[:, 0] = 300.0
    z = logits.requires_grad_()
    loss = dkd_loss(z, torch.eye(classes)[:2])
    loss.sum().backward()
    assert loss.isfinite().all()
    assert z.grad.isfinite().all()


def test_half_precision_is_computed_in_single():
    logits, probs, labels = case()
    found = dkd_loss(logits.bfloat16(), probs.float(), labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, dkd_loss(logits.bfloat16().float(), probs.float(), labels))


def test_wrong_inputs_are_refused():
    logits, probs, labels = case()
    with pytest.raises(ShapeError, match="teacher_probs"):
        dkd_loss(logits, probs[:, :4])
    with pytest.raises(ShapeError, match=r"labels \(B,\)"):
        dkd_loss(logits, probs, labels[:3])
    for name in ("alpha", "beta"):
        with pytest.raises(ConfigError, match=f"{name}=-1"):
            dkd_loss(logits, probs, **{name: -1.0})
    for part in (tckd, nckd):
        with pytest.raises(ConfigError, match="temperature"):
            part(logits, probs, temperature=0.0)


def told(classes):
    g = torch.Generator().manual_seed(3)
    probs = torch.softmax(torch.randn(6, classes, generator=g), 1)
    return Answers(np.zeros((6, 16), np.uint8), probs)


def test_the_objective_is_the_function_and_warms_up_in_a_straight_line():
    answers, g = told(4), torch.Generator().manual_seed(4)
    out = StudentOut(torch.randn(6, 4, generator=g), torch.zeros(6, 3))
    objective = Dkd(**SETTINGS, warmup=0.2).fit([answers], None)
    full = dkd_loss(out.outputs, answers.probs, **SETTINGS)
    targets = objective.targets(answers)
    torch.testing.assert_close(objective.loss(out, targets, None), full)
    for share, ramp in ((0.0, 0.0), (0.05, 0.25), (0.2, 1.0), (0.9, 1.0)):
        objective.begin_step(share)
        torch.testing.assert_close(objective.loss(out, targets, None), ramp * full)
    steady = Dkd(**SETTINGS, warmup=0.0)
    steady.begin_step(0.0)
    torch.testing.assert_close(steady.loss(out, targets, None), full)


def test_fitting_it_to_two_classes_says_that_it_is_plain_distillation():
    with pytest.warns(LimbeckWarning, match="NCKD is 0 and this is soft_kd with temperature 4"):
        objective = Dkd().fit([told(2)], None)
    out = StudentOut(torch.randn(6, 2, generator=torch.Generator().manual_seed(5)), torch.zeros(6))
    targets = objective.targets(told(2))
    wanted = SoftKD(temperature=4.0).loss(out, targets, None)
    torch.testing.assert_close(objective.loss(out, targets, None), wanted)
