"""Correlation with the teacher against numpy, its invariances, and what is left of it at C = 2."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.answers import Answers
from limbeck.errors import ConfigError, LimbeckWarning, ShapeError
from limbeck.objectives import Dist, StudentOut, dist_loss


def case(seed=0, rows=7, classes=5):
    g = torch.Generator().manual_seed(seed)
    logits, teacher = torch.randn(2, rows, classes, dtype=torch.float64, generator=g)
    return logits, torch.softmax(2 * teacher, 1)


def slow(logits, probs, beta, gamma, tau):
    """One correlation after the other, by numpy."""
    student = np.exp(logits.numpy() / tau)
    student /= student.sum(1, keepdims=True)
    teacher = probs.numpy() ** (1 / tau)
    teacher /= teacher.sum(1, keepdims=True)
    rows = [np.corrcoef(s, t)[0, 1] for s, t in zip(student, teacher, strict=True)]
    columns = [np.corrcoef(s, t)[0, 1] for s, t in zip(student.T, teacher.T, strict=True)]
    return tau**2 * (beta * (1 - np.array(rows)) + gamma * (1 - np.mean(columns)))


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("beta", "gamma"), [(1.0, 1.0), (2.0, 0.0), (0.0, 3.0)])
def test_it_is_the_mean_dissimilarity_of_rows_and_of_columns(tau, beta, gamma):
    logits, probs = case()
    found = dist_loss(logits, probs, beta=beta, gamma=gamma, temperature=tau)
    torch.testing.assert_close(
        found, torch.from_numpy(slow(logits, probs, beta, gamma, tau)), atol=1e-5, rtol=1e-5
    )


@given(seed=st.integers(0, 2**32 - 1), tau=st.sampled_from([1.0, 3.0]))
def test_it_is_zero_at_the_teacher_and_never_beyond_its_bounds(seed, tau):
    logits, probs = case(seed)
    found = dist_loss(logits, probs, temperature=tau)
    assert (found >= -1e-12).all()
    assert (found <= 4 * tau**2).all()
    assert dist_loss(probs.log(), probs, temperature=tau).abs().max() < 1e-3 * tau**2


@given(seed=st.integers(0, 2**32 - 1))
def test_with_two_classes_a_row_only_says_on_which_side_of_a_half_it_is(seed):
    logits, probs = case(seed, rows=40, classes=2)
    lean = torch.minimum((probs - 0.5).abs(), (torch.softmax(logits, 1) - 0.5).abs())[:, 0]
    clear = lean > 0.05  # where both are nearly even, the small number under the fraction shows
    z, probs = logits[clear].requires_grad_(), probs[clear]
    found = dist_loss(z, probs, beta=1.0, gamma=0.0)
    agree = (z[:, 0] > z[:, 1]) == (probs[:, 0] > probs[:, 1])
    wanted = torch.where(agree, 0.0, 2.0).double()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    slope = torch.autograd.grad(found.sum(), z)[0]
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-4, rtol=0)


def test_with_two_classes_the_rest_is_one_correlation_over_the_batch():
    logits, probs = case(classes=2)
    first = torch.softmax(logits, 1)[:, 0]
    wanted = 1 - np.corrcoef(first.numpy(), probs[:, 0].numpy())[0, 1]
    found = dist_loss(logits, probs, beta=0.0, gamma=1.0)
    torch.testing.assert_close(
        found, torch.full((7,), wanted, dtype=torch.float64), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_gradients_are_those_of_finite_differences(tau):
    logits, probs = case(rows=4)
    z = logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dist_loss(x, probs, temperature=tau), z)


def test_one_row_has_no_intra_class_part():
    logits, probs = case(rows=1)
    only = dist_loss(logits, probs, beta=1.0, gamma=0.0)
    assert torch.equal(dist_loss(logits, probs, beta=1.0, gamma=5.0), only)


@pytest.mark.parametrize("constant", ["student", "teacher", "both", "column"])
def test_what_is_constant_is_finite_and_has_finite_gradients(constant):
    logits, probs = (x.float() for x in case(classes=3))
    if constant in ("student", "both"):
        logits = torch.zeros_like(logits)
    if constant in ("teacher", "both"):
        probs = torch.full_like(probs, 1 / 3)
    if constant == "column":
        logits[:, 0] = -300.0
    z = logits.clone().requires_grad_()
    loss = dist_loss(z, probs)
    loss.mean().backward()
    assert loss.isfinite().all()
    assert z.grad.isfinite().all()
    if constant in ("student", "both"):
        torch.testing.assert_close(loss, torch.full((7,), 2.0))


def test_half_precision_is_computed_in_single():
    logits, probs = case()
    found = dist_loss(logits.bfloat16(), probs.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, dist_loss(logits.bfloat16().float(), probs.float()))


def test_wrong_inputs_are_refused():
    logits, probs = case()
    with pytest.raises(ShapeError, match="teacher_probs"):
        dist_loss(logits, probs[:3])
    with pytest.raises(ConfigError, match="temperature"):
        dist_loss(logits, probs, temperature=-1.0)
    for name in ("beta", "gamma"):
        with pytest.raises(ConfigError, match=f"{name}=nan"):
            dist_loss(logits, probs, **{name: float("nan")})


def told(classes):
    probs = torch.softmax(torch.randn(6, classes, generator=torch.Generator().manual_seed(3)), 1)
    return Answers(np.zeros((6, 16), np.uint8), probs)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.filterwarnings("ignore:dist. with two:limbeck.errors.LimbeckWarning")
def test_the_objective_is_the_function(classes):
    objective = Dist(beta=2.0, gamma=0.5, temperature=3.0).fit([told(classes)], None)
    z = torch.randn(6, classes, generator=torch.Generator().manual_seed(4))
    found = objective.loss(StudentOut(z, z), objective.targets(told(classes)), None)
    wanted = dist_loss(z, told(classes).probs, beta=2.0, gamma=0.5, temperature=3.0)
    torch.testing.assert_close(found, wanted)


def test_fitting_it_to_two_classes_says_what_is_left_unless_that_was_left_out():
    with pytest.warns(LimbeckWarning, match="inter-class part is a constant without gradient"):
        Dist().fit([told(2)], None)
    Dist(beta=0.0).fit([told(2)], None)
    Dist().fit([told(3)], None)
