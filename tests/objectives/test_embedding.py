"""Regression of embeddings: values, maps, and what a sum does with a hint that leads."""

import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import (
    Combined,
    Crd,
    EmbeddingRegression,
    FitNet,
    Rkd,
    SoftKD,
    StudentOut,
    Vid,
    embedding_loss,
    kd_loss,
)

ROWS, NARROW, WIDE = 6, 3, 5
FEATURES = (EmbeddingRegression, FitNet, Vid, Rkd, Crd)


def told(width=WIDE, rows=ROWS):
    g = torch.Generator().manual_seed(1)
    probs = torch.softmax(torch.randn(rows, 3, generator=g), 1)
    return Answers(np.zeros((rows, 16), np.uint8), probs, torch.randn(rows, width, generator=g))


def student(width=NARROW, dtype=torch.float32):
    g = torch.Generator().manual_seed(2)
    outputs, e = torch.randn(ROWS, 3, generator=g), torch.randn(ROWS, width, generator=g)
    return StudentOut(outputs.to(dtype), e.to(dtype))


def ready(objective, width=NARROW, answers=None, seed=3):
    fitted = objective.fit([answers or told()], None)
    return fitted.attach(width, torch.Generator().manual_seed(seed))


def test_the_loss_is_the_mean_of_squares_number_by_number():
    a, b = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = [sum((x - y) ** 2 for x, y in zip(*p, strict=True)) / 5
              for p in zip(a.tolist(), b.tolist(), strict=True)]  # fmt: skip
    torch.testing.assert_close(embedding_loss(a, b), torch.tensor(wanted, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: embedding_loss(x, b), a.requires_grad_())


def test_embeddings_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"\(4, 3\) but the teacher's \(4, 5\).*same shape"):
        embedding_loss(torch.zeros(4, 3), torch.zeros(4, 5))
    with pytest.raises(ShapeError, match="teacher's embeddings must be a floating-point matrix"):
        embedding_loss(torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("objective", "factor"), [(EmbeddingRegression(weight=2.0), 2.0), (FitNet(), 100.0)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_another_width_is_mapped_by_a_line_that_is_learnt(objective, factor, dtype):
    made, out = ready(objective), student(dtype=dtype)
    weight, bias = (p.detach().to(dtype) for p in made.parameters())
    assert weight.shape == (WIDE, NARROW)
    wanted = factor * (out.embedding @ weight.T + bias - told().embeddings).square().mean(1)
    found = made.loss(out, made.targets(told()), None)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted.to(dtype))
    found.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in made.parameters())


def test_with_equal_widths_regression_learns_nothing_and_a_hint_still_its_line():
    plain, hint, out = (
        ready(EmbeddingRegression(), WIDE),
        ready(FitNet(weight=1.0), WIDE),
        student(WIDE),
    )
    assert list(plain.parameters()) == []
    found = plain.loss(out, plain.targets(told()), None)
    torch.testing.assert_close(found, embedding_loss(out.embedding, told().embeddings))
    assert len(list(hint.parameters())) == 2
    assert not torch.allclose(hint.loss(out, hint.targets(told()), None), found)


@pytest.mark.parametrize("kind", [EmbeddingRegression, FitNet, Vid, Crd])
def test_initial_weights_are_a_function_of_the_generator_alone(kind):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (ready(kind(), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b, c in zip(*(list(x.parameters()) for x in (first, again, other)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c) or (kind is Vid and a.ndim == 1)


@pytest.mark.parametrize("kind", FEATURES)
def test_answers_without_embeddings_are_refused_with_what_to_do(kind):
    bare = Answers(told().ids, told().probs)
    for ask in (lambda: kind().fit([bare], None), lambda: kind().targets(bare)):
        with pytest.raises(ConfigError, match=rf"^{kind.name} learns from .*soft_kd\.$"):
            ask()
    with pytest.raises(ConfigError, match=f"{kind.name}: there are no answers to fit on"):
        kind().fit([], None)


@pytest.mark.parametrize("kind", [EmbeddingRegression, FitNet, Vid, Crd])
def test_a_loss_without_a_projector_is_refused_with_what_to_call(kind):
    with pytest.raises(ConfigError, match=f"{kind.name}: not fitted yet"):
        kind().attach(NARROW, torch.Generator())
    fitted = kind().fit([told()], None)
    for ask in (
        lambda: fitted.loss(student(), fitted.targets(told()), None),
        lambda: fitted.load_state_dict({}),
    ):
        with pytest.raises(ConfigError, match=f"{kind.name}: there is no projector yet"):
            ask()


@pytest.mark.parametrize("kind", [EmbeddingRegression, FitNet, Vid, Crd])
def test_attaching_leaves_the_fitted_objective_without_a_projector(kind):
    fitted = kind().fit([told()], None)
    attached = fitted.attach(NARROW, torch.Generator().manual_seed(0))
    assert list(fitted.parameters()) == []
    assert len(list(attached.parameters())) > 0


@pytest.mark.parametrize("kind", FEATURES)
def test_a_loss_over_embeddings_goes_with_any_head_and_teaches_none(kind):
    made = ready(kind())
    assert not made.uses_outputs
    assert made.needs_embeddings
    outputs = student().outputs.requires_grad_()
    targets = made.targets(told())
    targets = type(targets)({**targets.tensors, "row": torch.arange(ROWS)})
    e = student().embedding.requires_grad_()
    made.loss(StudentOut(outputs, e), targets, None).sum().backward()
    assert outputs.grad is None
    assert e.grad.abs().sum() > 0


def test_a_hint_that_leads_teaches_alone_at_the_start_of_a_sum():
    both = ready(Combined(SoftKD(), FitNet(weight=1.0, leads=0.3)))
    out, targets = student(), both.targets(told())
    hint = both.second.loss(out, both.second.targets(told()), None)
    plain = kd_loss(out.outputs, told().probs)
    labels = torch.zeros(ROWS, dtype=torch.long)
    both.begin_step(0.0)
    torch.testing.assert_close(both.loss(out, targets, None), hint)
    assert torch.equal(both.loss(out, None, labels), torch.zeros(ROWS))
    both.begin_step(0.3)
    torch.testing.assert_close(both.loss(out, targets, None), plain + hint)
    assert (both.loss(out, None, labels) > 0).all()
