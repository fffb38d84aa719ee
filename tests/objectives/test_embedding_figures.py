"""Figures of embeddings against closed forms, planted data and plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives.embedding_figures import collapse, split_gain


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def simplex(count, dim, size):
    """Vertices of a simplex around a middle that is not zero, in a turned basis."""
    corners = torch.eye(count, dtype=torch.float64) - 1 / count
    corners = size * corners / corners.norm(dim=1, keepdim=True)
    turn, _ = torch.linalg.qr(draw(dim, dim, seed=7))
    return corners @ turn[:count] + draw(dim, seed=8)


def crossed(means, step):
    """Each mean with a row one step away along either side of every axis; and their classes."""
    dim = means.shape[1]
    steps = step * torch.cat([torch.eye(dim), -torch.eye(dim)]).double()
    rows = (means[:, None] + steps).reshape(-1, dim)
    return rows, torch.arange(len(means)).repeat_interleave(2 * dim)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_points_on_a_simplex_have_collapsed(count):
    means = simplex(count, 6, 2.0)
    found = collapse([(means.repeat(3, 1), torch.arange(count).repeat(3))])
    assert (found.rows, found.dim, found.classes) == (3 * count, 6, count)
    assert found.between == pytest.approx(4.0)
    for zero in (found.within, found.nc1, found.norm_spread, found.angle_gap, found.ratio):
        assert zero == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_even_noise_around_a_simplex_has_closed_forms(count):
    size, step, dim = 2.0, 0.3, 6
    found = collapse([crossed(simplex(count, dim, size), step)])
    assert found.within == pytest.approx(step**2)
    assert found.between == pytest.approx(size**2)
    # Sw = step^2 / D I, and Sb has C - 1 eigenvalues size^2 / (C - 1).
    wanted = (count - 1) * (step**2 / dim) * (count - 1) / size**2 / count
    assert found.nc1 == pytest.approx(wanted)
    assert found.ratio == pytest.approx(step**2 / size**2)
    assert found.angle_gap == pytest.approx(0, abs=1e-12)


def test_a_mean_out_of_place_shows_in_norms_and_angles():
    means = simplex(4, 6, 1.0)
    means[0] = means[0] + 2.0 * (means[1] - means[0])
    found = collapse([crossed(means, 0.1)])
    middle = means - means.mean(dim=0)
    norms = middle.norm(dim=1)
    assert found.norm_spread == pytest.approx(float(norms.std(correction=0) / norms.mean()))
    gaps = [
        abs(float(middle[i] @ middle[j] / norms[i] / norms[j]) + 1 / 3)
        for i in range(4)
        for j in range(4)
        if i != j
    ]
    assert found.angle_gap == pytest.approx(sum(gaps) / len(gaps))
    assert found.angle_gap > 0.1


@given(seed=st.integers(0, 10_000), count=st.integers(2, 4), head=st.integers(1, 6))
def test_figures_are_those_of_the_covariances_written_out(seed, count, head):
    dim, rows = 5, 30
    h, weight = draw(rows, dim, seed=seed) + 3, draw(head, dim, seed=seed + 1)
    y = torch.arange(rows) % count
    found = collapse([(h, y)], weight=weight)
    means = torch.stack([h[y == c].mean(dim=0) for c in range(count)])
    middle = means - means.mean(dim=0)
    between = sum(torch.outer(m, m) for m in middle) / count
    off = h - means[y]
    within = off.T @ off / rows
    wanted = float(torch.trace(within @ torch.linalg.pinv(between, rtol=1e-10))) / count
    assert found.nc1 == pytest.approx(wanted, rel=1e-6)
    assert found.within == pytest.approx(float(torch.trace(within)))
    assert found.between == pytest.approx(float(torch.trace(between)))
    for layer, share in (
        (weight, found.null_share),
        (weight - weight.mean(dim=0), found.centered_null_share),
    ):
        null = torch.eye(dim).double() - torch.linalg.pinv(layer, rtol=1e-6) @ layer
        energy = float((off @ null).square().sum() / off.square().sum())
        assert share == pytest.approx(energy, abs=1e-9)
    assert found.null_room == pytest.approx(1 - min(head, dim) / dim)


def test_noise_spread_evenly_has_the_share_of_the_room():
    h, y = crossed(simplex(2, 6, 1.0), 0.5)
    found = collapse([(h, y)], weight=draw(2, 6, seed=3))
    assert found.null_share == pytest.approx(4 / 6) == pytest.approx(found.null_room)
    assert found.centered_null_share == pytest.approx(5 / 6)


def test_what_varies_in_the_rows_of_the_layer_alone_has_no_energy_elsewhere():
    weight = draw(2, 6, seed=1)
    y = torch.arange(40) % 2
    inside = draw(40, 2, seed=2) @ weight
    assert collapse([(inside, y)], weight=weight).null_share == pytest.approx(0, abs=1e-9)
    outside = draw(40, 6, seed=4)
    outside = outside - outside @ torch.linalg.pinv(weight) @ weight
    assert collapse([(outside, y)], weight=weight).null_share == pytest.approx(1)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_batches_of_any_size_and_order_give_the_same(size):
    h, y = draw(40, 5) + 1000, torch.randint(3, (40,), generator=torch.Generator().manual_seed(0))
    whole = collapse([(h, y)], weight=h[:2])
    parts = [(h[i : i + size], y[i : i + size]) for i in range(0, 40, size)]
    found = collapse(parts[::-1], weight=h[:2])
    for name in ("within", "between", "nc1", "norm_spread", "angle_gap", "null_share"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-9)


def test_half_precision_is_read_in_full():
    h, y = (draw(60, 4) + 20).half(), torch.arange(60) % 2
    assert collapse([(h, y)]) == collapse([(h.double(), y)])


def test_a_class_without_rows_does_not_count_and_one_class_has_nothing_between():
    h = draw(20, 4)
    gap = collapse([(h, 2 * (torch.arange(20) % 2))])
    assert gap == collapse([(h, torch.arange(20) % 2)])
    one = collapse([(h, torch.zeros(20, dtype=torch.long))], weight=h[:1])
    assert (one.nc1, one.ratio, one.between, one.angle_gap) == (None, None, 0, 0)
    assert one.null_share is not None
    same = collapse([(torch.ones(6, 3), torch.arange(6) % 2)], weight=torch.ones(1, 3))
    assert (same.nc1, same.within, same.null_share) == (None, 0, None)


def test_what_cannot_be_measured_is_refused():
    h, y = draw(4, 3), torch.tensor([0, 1, 0, 1])
    with pytest.raises(ConfigError, match="read only once"):
        collapse(iter([(h, y)]))
    with pytest.raises(ShapeError, match=r"classes \(3,\)"):
        collapse([(h, y[:3])])
    with pytest.raises(ShapeError, match="last layer has shape"):
        collapse([(h, y)], weight=draw(2, 4))
    for none in ([], [(h[:0], y[:0])]):
        with pytest.raises(ShapeError, match="no embeddings"):
            collapse(none)


def parts_of(q):
    p = q.sum(axis=2)
    with np.errstate(invalid="ignore"):
        return p, q / p[..., None]


def kl(a, b):
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


@given(seed=st.integers(0, 10_000), count=st.integers(2, 3), size=st.integers(1, 4))
def test_the_gain_of_a_split_is_that_of_a_slow_loop_and_the_rest_of_a_chain_rule(seed, count, size):
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.full(count * size, 0.4), 12).reshape(12, count, size)
    found = split_gain([torch.from_numpy(q[:5]), torch.from_numpy(q[5:])])
    p, w = parts_of(q)
    mean_p = p.mean(axis=0)
    mean_w = (p[..., None] * w).mean(axis=0) / mean_p[:, None]
    loop = sum(
        p[i, c] * kl(w[i, c], mean_w[c]) for i in range(12) for c in range(count)
    ) / 12  # fmt: skip
    assert found.split_nats == pytest.approx(loop, abs=1e-9)
    assert found.class_nats == pytest.approx(sum(kl(one, mean_p) for one in p) / 12, abs=1e-9)
    whole = (mean_p[:, None] * mean_w).ravel()
    together = sum(kl(one.ravel(), whole) for one in q) / 12
    assert found.class_nats + found.split_nats == pytest.approx(together, abs=1e-9)
    assert 0 <= found.split_nats <= found.bound + 1e-9
    assert found.bound == pytest.approx(math.log(size))


def test_a_split_that_says_nothing_adds_nothing_and_a_hard_even_one_all_there_is():
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.7, 0.3]])
    constant = p[:, :, None] * torch.tensor([[0.3, 0.7], [0.5, 0.5]])
    assert split_gain([constant]).split_nats == pytest.approx(0, abs=1e-7)
    assert split_gain([p[:, :, None]]).bound == 0
    hard = torch.zeros(4, 2, 2)
    hard[torch.arange(4), :, torch.tensor([0, 1, 0, 1])] = 0.5
    found = split_gain([hard])
    assert found.split_nats == pytest.approx(math.log(2), abs=1e-7) == pytest.approx(found.bound)
    assert found.class_nats == pytest.approx(0, abs=1e-7)


def test_a_subclass_that_no_row_has_does_not_raise_the_bound():
    q = torch.zeros(3, 2, 4)
    q[:, 0, :2], q[:, 1, :4] = 0.25, 0.125
    assert split_gain([q]).bound == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


def test_targets_that_are_none_are_refused():
    with pytest.raises(ShapeError, match="no targets"):
        split_gain([])
    with pytest.raises(ShapeError, match=r"\(n, C, S\)"):
        split_gain([torch.ones(3, 2)])
