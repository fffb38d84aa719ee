"""Class maps against sums of probabilities, one output at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics.classmap import ClassMap


@given(
    extra=st.lists(st.integers(0, 3), max_size=6),
    order=st.randoms(),
    temperature=st.floats(0.25, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_class_has_the_sum_of_its_outputs(extra, order, temperature, seed):
    class_of = [0, 1, 2, 3, *extra]
    order.shuffle(class_of)
    outputs = 5 * torch.randn(
        3, len(class_of), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    shares = torch.softmax(outputs / temperature, dim=1)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for place, owner in enumerate(class_of):
        expected[:, owner] += shares[:, place]
    logits = ClassMap(tuple(class_of), temperature).class_logits(outputs)
    found = torch.softmax(logits / temperature, dim=1)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)


@given(temperature=st.floats(0.25, 4), seed=st.integers(0, 2**32 - 1))
def test_equal_outputs_of_a_class_are_one_output_at_any_temperature(temperature, seed):
    logits = 5 * torch.randn(
        4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    found = ClassMap((0, 0, 1, 1, 2, 2), temperature).log_probs(logits.repeat_interleave(2, 1))
    torch.testing.assert_close(found, torch.log_softmax(logits, 1))
    alone = ClassMap((2, 0, 1), temperature).class_logits(logits)
    torch.testing.assert_close(alone, logits[:, [1, 2, 0]])


def test_one_output_a_class_changes_nothing():
    plain = ClassMap.plain(3)
    outputs = torch.randn(4, 3)
    assert plain.is_plain
    assert plain.class_logits(outputs) is outputs
    assert not ClassMap((0, 1, 2), 2.0).is_plain
    assert not ClassMap((1, 0, 2)).is_plain


def test_far_apart_outputs_give_finite_values_and_gradients():
    outputs = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    logs = ClassMap((0, 1, 1)).log_probs(outputs)
    logs.sum().backward()
    assert logs.isfinite().all()
    assert outputs.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    outputs = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(ClassMap((0, 2, 1, 2, 2), 1.5).log_probs, (outputs,))


@pytest.mark.parametrize(
    ("class_of", "temperature", "message"),
    [
        ((0, 2), 1.0, "leaves out a class"),
        ((-1, 0, 1), 1.0, "leaves out a class"),
        ((), 1.0, "leaves out a class"),
        ((0, 1), 0.0, "temperature=0.0"),
        ((0, 1), float("inf"), "temperature=inf"),
    ],
)
def test_a_map_that_cannot_be_is_refused(class_of, temperature, message):
    with pytest.raises(ConfigError, match=message):
        ClassMap(class_of, temperature)


def test_another_number_of_outputs_is_refused():
    with pytest.raises(ShapeError, match=r"gave 3 outputs .* known for 4"):
        ClassMap((0, 0, 1, 1)).class_logits(torch.zeros(2, 3))
