"""Streaming moments against the same sums over all rows at once."""

import pytest
import torch

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.moments import ClassMoments


def rows(count=300, dim=5, classes=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(count, dim, dtype=torch.float64, generator=g)
    return h @ torch.randn(dim, dim, dtype=torch.float64, generator=g), torch.randint(
        0, classes, (count,), generator=g
    )


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_batches_of_any_size_give_the_moments_of_all_rows(batch):
    h, y = rows()
    moments = ClassMoments()
    for part in torch.arange(300).split(batch):
        moments.update(h[part], y[part])
    for c in range(3):
        own = h[y == c]
        group = moments.groups[c]
        assert group.count == len(own)
        torch.testing.assert_close(group.mean, own.mean(0))
        torch.testing.assert_close(group.scatter / len(own), own.T.cov(correction=0))
    torch.testing.assert_close(moments.total().scatter / 300, h.T.cov(correction=0))


def test_a_mean_of_a_million_deviations_loses_no_digits():
    h, y = rows()
    moments, far = ClassMoments(), ClassMoments()
    for part in torch.arange(300).split(50):
        moments.update(h[part], y[part])
        far.update(h[part] + 1e6, y[part])
    for c in range(3):
        torch.testing.assert_close(
            far.groups[c].scatter, moments.groups[c].scatter, rtol=1e-6, atol=1e-5
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rows_are_summed_in_full(dtype):
    h, y = rows()
    moments, exact = ClassMoments(), ClassMoments()
    moments.update(h.to(dtype), y)
    exact.update(h.to(dtype).double(), y)
    assert torch.equal(moments.groups[1].scatter, exact.groups[1].scatter)


def test_the_layer_behind_linear_probabilities_is_recovered():
    h, y = rows()
    weight = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    probs = torch.softmax(h @ weight.T + torch.arange(4.0, dtype=torch.float64), dim=1)
    moments = ClassMoments()
    for part in torch.arange(300).split(64):
        moments.update(h[part], y[part], probs[part])
    torch.testing.assert_close(moments.head(), weight - weight.mean(0), rtol=1e-7, atol=1e-8)


def test_a_layer_is_found_too_where_embeddings_vary_in_a_few_directions():
    h, y = rows()
    flat = h @ torch.diag(torch.tensor([1.0, 1, 1, 0, 0], dtype=torch.float64))
    weight = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    probs = torch.softmax(flat @ weight.T, dim=1)
    moments = ClassMoments()
    moments.update(flat, y, probs)
    wanted = weight - weight.mean(0)
    wanted[:, 3:] = 0
    torch.testing.assert_close(moments.head(), wanted, rtol=1e-7, atol=1e-8)


def test_what_does_not_fit_is_refused():
    h, y = rows()
    moments = ClassMoments()
    moments.update(h, y)
    with pytest.raises(ShapeError, match="earlier ones had 5"):
        moments.update(h[:, :4], y)
    with pytest.raises(ShapeError, match="classes must be int64"):
        moments.update(h, y.float())
    with pytest.raises(ShapeError, match="floating-point"):
        moments.update(h.long(), y)
    with pytest.raises(ConfigError, match="start at 0"):
        moments.update(h, y - 1)
    with pytest.raises(ConfigError, match="probabilities"):
        moments.head()
