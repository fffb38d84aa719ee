"""Subclass Distillation: its auxiliary loss against a slow loop, and who may be its teacher."""

import math

import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import (
    Evidence,
    StudentOut,
    SubclassDistillation,
    SubclassTeacher,
    TeacherHead,
    auxiliary_loss,
    lelp_loss,
)


def normal(*shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g).to(dtype)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_auxiliary_loss_is_that_of_a_slow_loop(temperature):
    logits = normal(6, 8)
    normed = []
    for row in logits.tolist():
        mean = sum(row) / 8
        deviation = math.sqrt(sum((x - mean) ** 2 for x in row) / 8)
        normed.append([(x - mean) / deviation for x in row])
    found = auxiliary_loss(logits, temperature=temperature)
    for i in range(6):
        total = sum(
            math.exp(sum(a * b for a, b in zip(normed[i], other, strict=True)) / 8 / temperature)
            for other in normed
        )
        wanted = math.log(total / 6) - 1 / temperature
        assert float(found[i]) == pytest.approx(wanted, abs=1e-4)


def test_the_auxiliary_loss_is_zero_for_equal_examples_and_negative_for_different_ones():
    equal = normal(1, 8).expand(32, 8)
    torch.testing.assert_close(
        auxiliary_loss(equal), torch.zeros(32, dtype=torch.float64), atol=1e-5, rtol=0
    )
    # Measured for outputs drawn at random, K = 8, T = 1.
    assert float(auxiliary_loss(normal(32, 8)).mean()) == pytest.approx(-0.86, abs=0.06)
    assert float(auxiliary_loss(normal(2000, 8)).mean()) == pytest.approx(-0.93, abs=0.02)


def test_the_auxiliary_loss_lies_between_minus_log_b_and_zero_and_ignores_shift_and_scale():
    logits = normal(12, 6)
    loss = auxiliary_loss(logits, temperature=0.01)
    assert bool((loss >= -math.log(12) - 1e-3).all())
    assert bool((loss <= 1e-3).all())
    moved = 7 * logits + normal(12, 1, seed=1)
    torch.testing.assert_close(auxiliary_loss(moved), auxiliary_loss(logits), atol=1e-5, rtol=0)


def test_equal_outputs_of_an_example_give_finite_gradients():
    logits = torch.zeros(4, 6, requires_grad=True)
    auxiliary_loss(logits).sum().backward()
    assert bool(logits.grad.isfinite().all())


def test_gradients_are_those_of_finite_differences():
    z = normal(5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: auxiliary_loss(x, temperature=0.7), z)


def test_wrong_input_of_the_auxiliary_loss_is_refused():
    with pytest.raises(ShapeError, match=r"\(B, K\)"):
        auxiliary_loss(torch.zeros(3, 1))
    with pytest.raises(ConfigError, match="temperature"):
        auxiliary_loss(torch.zeros(3, 2), temperature=0.0)


def test_the_teachers_loss_is_that_of_class_logits_plus_the_weighted_auxiliary_loss():
    outputs, labels = normal(6, 8), torch.arange(6) % 2
    logits = outputs.view(6, 2, 4).logsumexp(2)
    wanted = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    wanted = wanted + 0.5 * auxiliary_loss(outputs, temperature=2.0)
    teacher = SubclassTeacher(subclasses=4, weight=0.5, temperature=2.0)
    teacher.width(2)
    torch.testing.assert_close(teacher.loss(StudentOut(outputs, outputs), None, labels), wanted)
    with pytest.raises(ConfigError, match="labelled rows only"):
        teacher.loss(StudentOut(outputs, outputs), teacher.targets(told()[0]), None)


def told(rows=50, classes=2, size=4):
    h = normal(rows, 6, dtype=torch.float32)
    head = TeacherHead(normal(classes * size, 6, seed=1, dtype=torch.float32), torch.arange(8) / 8)
    probs = torch.softmax(h @ head.weight.T + head.bias, 1).view(rows, classes, size).sum(2)
    return Answers(np.zeros((rows, 16), np.uint8), probs, h), head


def evidence(answers, head):
    probs = answers.probs
    return Evidence(probs, probs.argmax(1), lambda p: torch.ones(len(p)), 2, head=head)


def test_the_student_fits_the_teachers_subclasses_at_the_temperature():
    answers, head = told()
    objective = SubclassDistillation(subclasses=4, temperature=3.0)
    fitted = objective.fit([answers], evidence(answers, head))
    q = torch.softmax((answers.embeddings @ head.weight.T + head.bias) / 3, 1).view(50, 2, 4)
    targets = fitted.targets(answers)
    torch.testing.assert_close(targets["pseudo_probs"], q)
    a = normal(50, 8, dtype=torch.float32)
    torch.testing.assert_close(
        fitted.loss(StudentOut(a, a), targets, None), lelp_loss(a, q, temperature=3.0)
    )


def test_a_calibrated_teacher_is_taken_and_its_layer_used_as_it_is():
    answers, head = told()
    cooled = torch.softmax(answers.probs.log() / 3, 1)
    warm = Answers(answers.ids, cooled, answers.embeddings)
    first, second = (
        SubclassDistillation(subclasses=4).fit([one], evidence(one, head))
        for one in (answers, warm)
    )
    assert torch.equal(first.pseudo_probs(answers), second.pseudo_probs(warm))


def test_a_teacher_without_subclasses_is_refused():
    answers, head = told()
    objective = SubclassDistillation(subclasses=4)
    with pytest.raises(ConfigError, match="last layer is not known"):
        objective.fit([answers], None)
    with pytest.raises(ConfigError, match="has 2 outputs"):
        objective.fit([answers], evidence(answers, TeacherHead(head.weight[:2], head.bias[:2])))
    with pytest.raises(ConfigError, match="8 outputs"):
        SubclassDistillation(subclasses=3).fit([answers], evidence(answers, head))
    turned = TeacherHead(head.weight.view(2, 4, 6).transpose(0, 1).flatten(0, 1), head.bias)
    with pytest.raises(ConfigError, match="neighbours"):
        objective.fit([answers], evidence(answers, turned))
    with pytest.raises(ConfigError, match="not fitted yet"):
        objective.targets(answers)
    with pytest.raises(ShapeError, match="no answers"):
        objective.fit([], evidence(answers, head))
