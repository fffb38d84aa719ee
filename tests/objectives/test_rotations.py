"""Rotations and subspaces against their defining properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.objectives.rotations import (
    balanced,
    fix_signs,
    haar,
    haar_frame,
    row_space,
    subspace_iteration,
    top_directions,
    without,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 12))
def test_a_balanced_rotation_is_orthogonal_and_makes_all_variances_equal(seed, size):
    variances = torch.rand(size, dtype=torch.float64, generator=generator(seed)) ** 4
    q = balanced(variances)
    torch.testing.assert_close(q.T @ q, torch.eye(size, dtype=torch.float64))
    found = torch.diagonal(q.T @ torch.diag(variances) @ q)
    torch.testing.assert_close(found, variances.mean().expand(size), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variances", [[2.0, 2.0, 2.0], [0.0, 0.0], [5.0], [1.0, 0.0, 0.0, 0.0]])
def test_equal_or_single_or_missing_variances_are_balanced_too(variances):
    given_ = torch.tensor(variances, dtype=torch.float64)
    q = balanced(given_)
    found = torch.diagonal(q.T @ torch.diag(given_) @ q)
    torch.testing.assert_close(found, given_.mean().expand(len(given_)))


def test_haar_rotations_are_orthogonal_and_spread_variance_evenly_on_average():
    g = generator()
    drawn = [haar(4, g) for _ in range(3000)]
    torch.testing.assert_close(drawn[0].T @ drawn[0], torch.eye(4, dtype=torch.float64))
    squares = torch.stack(drawn).square().mean(dim=0)  # E Q^2 = 1 / S, with deviation 0.006
    assert float((squares - 0.25).abs().max()) < 0.025
    assert float(torch.stack(drawn).mean(dim=0).abs().max()) < 0.05  # no sign is preferred


def test_a_random_frame_has_orthonormal_columns():
    frame = haar_frame(9, 3, generator())
    torch.testing.assert_close(frame.T @ frame, torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("centered", [False, True])
def test_what_is_left_out_is_what_the_explicit_projector_leaves_out(centered):
    weight, x = normal(3, 7), normal(7, 5, seed=1)
    given_ = weight - weight.mean(0) if centered else weight
    projector = torch.eye(7, dtype=torch.float64) - torch.linalg.pinv(given_) @ given_
    rows = row_space(weight, centered=centered)
    assert len(rows) == 3 - centered
    torch.testing.assert_close(without(rows, x), projector @ x)


def test_a_repeated_row_does_not_count_twice_and_a_zero_layer_has_no_rows():
    weight = normal(2, 6)
    assert len(row_space(torch.cat([weight, weight]))) == 2
    assert row_space(torch.zeros(2, 6)).shape == (0, 6)


def test_signs_are_fixed_by_the_largest_entry():
    columns = normal(6, 4)
    fixed = fix_signs(columns)
    assert bool((fixed.gather(0, fixed.abs().argmax(0, keepdim=True)) > 0).all())
    assert torch.equal(fix_signs(-columns), fixed)


def test_subspace_iteration_finds_what_the_full_decomposition_finds():
    spectrum = torch.diag(0.7 ** torch.arange(40, dtype=torch.float64))
    turn = haar(40, generator(1))
    covariances = [turn @ spectrum @ turn.T, 2 * spectrum]
    starts = [normal(40, 14, seed=s) for s in (2, 3)]
    found = subspace_iteration(
        lambda columns: [a @ b for a, b in zip(covariances, columns, strict=True)], starts, [4, 4]
    )
    for covariance, (values, vectors) in zip(covariances, found, strict=True):
        wanted_values, wanted = top_directions(covariance, 4)
        torch.testing.assert_close(values, wanted_values, rtol=1e-6, atol=0)
        cosines = torch.linalg.svdvals(wanted.T @ vectors)
        assert float((1 - cosines.square()).clamp_min(0).sqrt().max()) < 1e-4
