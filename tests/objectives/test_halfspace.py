"""Halfspaces under label noise: closed forms, invariances and the shape of the error curve."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError, DataError, ShapeError
from limbeck.objectives.halfspace import learn_halfspace, matching_loss, ramp

D, MARGIN = 20, 0.1


def sphere(n: int, seed: int, d: int = D) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the unit sphere at least MARGIN away from x_1 = 0, and their true labels."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(8 * n, d, dtype=torch.float64, generator=g)
    rows = rows / rows.norm(dim=1, keepdim=True)
    rows = rows[rows[:, 0].abs() >= MARGIN][:n]
    assert len(rows) == n
    return rows, (rows[:, 0] > 0).long()


def flipped(truth: torch.Tensor, alpha: torch.Tensor | float, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed + 10_000)
    wrong = torch.rand(len(truth), dtype=torch.float64, generator=g) >= alpha
    return torch.where(wrong, 1 - truth, truth)


def instance_alpha(rows: torch.Tensor) -> torch.Tensor:
    """From 0.55 at the border to 1 far from it: depends on |x_1|."""
    far = ((rows[:, 0].abs() - MARGIN) / 0.3).clamp(0, 1)
    return 0.55 + 0.45 * far


def error(weight: torch.Tensor, seed: int) -> float:
    rows, truth = sphere(4000, seed + 50_000)
    return float(((rows @ weight > 0).long() != truth).double().mean())


def test_separable_rows_without_noise_are_all_classified_right():
    rows, truth = sphere(300, 0)
    found = learn_halfspace(rows, truth, 1.0, margin=MARGIN)
    assert torch.equal(found.predict(rows), truth)
    assert float(found.weight.norm()) <= 1 + 1e-12


def test_the_truth_minimises_the_expected_loss():
    rows, truth = sphere(500, 1)
    alpha = instance_alpha(rows)
    mean = torch.where(truth == 1, alpha, 1 - alpha)
    best = torch.zeros(D, dtype=torch.float64)
    best[0] = 1
    least = matching_loss(best, rows, mean, alpha, margin=MARGIN)
    g = torch.Generator().manual_seed(0)
    for _ in range(200):
        other = torch.randn(D, dtype=torch.float64, generator=g)
        other = other / other.norm() * torch.rand(1, dtype=torch.float64, generator=g) ** (1 / D)
        assert matching_loss(other, rows, mean, alpha, margin=MARGIN) >= least - 1e-12


def test_at_the_truth_the_mixed_ramp_is_the_mean_of_the_label():
    rows, truth = sphere(100, 2)
    assert torch.equal(ramp(rows[:, 0], MARGIN), truth.double())


@given(seed=st.integers(0, 1000))
def test_the_gradient_is_the_mean_of_mix_less_label_times_row(seed):
    g = torch.Generator().manual_seed(seed)
    rows, _ = sphere(30, seed, d=4)
    y = torch.randint(0, 2, (30,), generator=g).double()
    alpha = 0.5 + 0.5 * torch.rand(30, dtype=torch.float64, generator=g).clamp_min(0.01)
    weight = (0.3 * torch.randn(4, dtype=torch.float64, generator=g)).requires_grad_()
    matching_loss(weight, rows, y, alpha, margin=0.2).backward()
    f = (0.5 + rows @ weight / 0.4).clamp(0, 1)
    mixed = alpha * f + (1 - alpha) * (1 - f)
    torch.testing.assert_close(weight.grad, ((mixed - y)[:, None] * rows).mean(0).detach())


@given(seed=st.integers(0, 1000))
def test_the_loss_is_convex(seed):
    g = torch.Generator().manual_seed(seed)
    rows, truth = sphere(40, seed, d=3)
    y = flipped(truth, 0.7, seed).double()
    alpha = torch.full((40,), 0.7, dtype=torch.float64)
    a, b = torch.randn(2, 3, dtype=torch.float64, generator=g)
    ends = [matching_loss(w, rows, y, alpha, margin=MARGIN) for w in (a, b, (a + b) / 2)]
    assert ends[2] <= (ends[0] + ends[1]) / 2 + 1e-12


def test_no_point_of_a_grid_of_the_disc_fits_better_than_what_is_found():
    rows, truth = sphere(200, 3, d=2)
    y, alpha = flipped(truth, 0.7, 3), torch.full((200,), 0.7, dtype=torch.float64)
    found = learn_halfspace(rows, y, 0.7, margin=MARGIN).weight
    least = matching_loss(found, rows, y.double(), alpha, margin=MARGIN)
    for angle in torch.linspace(0, 2 * math.pi, 73, dtype=torch.float64):
        for length in torch.linspace(0, 1, 21, dtype=torch.float64):
            point = length * torch.stack([angle.cos(), angle.sin()])
            assert matching_loss(point, rows, y.double(), alpha, margin=MARGIN) >= least - 1e-9


def test_rotated_rows_give_the_rotated_halfspace_and_flipped_labels_the_opposite_one():
    rows, truth = sphere(400, 4)
    y = flipped(truth, 0.8, 4)
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64, generator=g)).Q
    found = learn_halfspace(rows, y, 0.8, margin=MARGIN, tolerance=1e-10).weight
    turned = learn_halfspace(rows @ turn.T, y, 0.8, margin=MARGIN, tolerance=1e-10).weight
    opposite = learn_halfspace(rows, 1 - y, 0.8, margin=MARGIN, tolerance=1e-10).weight
    torch.testing.assert_close(turned, turn @ found, atol=1e-6, rtol=0)
    torch.testing.assert_close(opposite, -found, atol=1e-6, rtol=0)


def test_with_random_classification_noise_the_error_falls_with_more_rows():
    means = []
    for n in (500, 2000, 8000):
        errors = []
        for seed in range(5):
            rows, truth = sphere(n, seed)
            found = learn_halfspace(rows, flipped(truth, 0.7, seed), 0.7, margin=MARGIN)
            errors.append(error(found.weight, seed))
        means.append(sum(errors) / len(errors))
    assert means[0] > means[1] > means[2]
    assert means[2] < 0.02


def pullers(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The three kinds of rows of Long and Servedio (2010), whom noisy labels pull apart."""
    g = torch.Generator().manual_seed(seed)
    kinds = torch.tensor([[1, 0], [0.1, 0.5], [0.1, -0.1], [0.1, -0.1]], dtype=torch.float64)
    rows = kinds[torch.randint(0, 4, (n,), generator=g)]
    sign = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    return rows * sign[:, None], (sign > 0).long()


@pytest.mark.parametrize("seed", range(3))
def test_with_noise_far_from_the_border_only_the_alpha_of_each_row_finds_the_halfspace(seed):
    from sklearn.linear_model import LogisticRegression

    rows, truth = pullers(4000, seed)
    alpha = torch.where(rows[:, 0].abs() > 0.5, 0.6, 1.0).double()
    y = flipped(truth, alpha, seed)
    known = learn_halfspace(rows, y, alpha, margin=0.1)
    mean = learn_halfspace(rows, y, float(alpha.mean()), margin=0.1)
    plain = LogisticRegression(C=1e4, fit_intercept=False).fit(rows, y)
    assert torch.equal(known.predict(rows), truth)
    for other in (mean.predict(rows), torch.from_numpy(plain.predict(rows))):
        assert float((other != truth).double().mean()) > 0.4  # half of the rows are penalisers


def test_the_inputs_dtype_is_kept_and_the_same_inputs_give_the_same_halfspace():
    rows, truth = sphere(100, 5)
    single = learn_halfspace(rows.float(), truth, 0.9, margin=MARGIN)
    assert single.weight.dtype == torch.float32
    again = learn_halfspace(rows.float(), truth, 0.9, margin=MARGIN)
    assert torch.equal(single.weight, again.weight)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"x": torch.zeros(3)}, ShapeError, "floating-point"),
        ({"x": torch.zeros(0, 2)}, ShapeError, "n, d >= 1"),
        ({"x": torch.full((3, 2), 5.0)}, DataError, "longest row has length 7.071"),
        ({"x": torch.full((3, 2), math.nan)}, DataError, "finite rows"),
        ({"y": torch.tensor([0, 1])}, ShapeError, r"int64 of shape \(3,\)"),
        ({"y": torch.tensor([-1, 1, 1])}, DataError, "map -1 to 0"),
        ({"alpha": 0.5}, ConfigError, "must lie in"),
        ({"alpha": 1.1}, ConfigError, "must lie in"),
        ({"alpha": torch.ones(2)}, ShapeError, "or one number"),
        ({"margin": 0.0}, ConfigError, "margin=0.0"),
        ({"margin": 1.5}, ConfigError, "margin=1.5"),
        ({"max_steps": 0}, ConfigError, "max_steps=0"),
        ({"tolerance": 0.0}, ConfigError, "tolerance=0.0"),
    ],
)
def test_bad_input_is_refused(change, kind, words):
    good = {
        "x": torch.tensor([[0.5, 0.5], [-0.5, 0.1], [0.9, 0.0]]),
        "y": torch.tensor([1, 0, 1]),
        "alpha": 0.9,
        "margin": 0.1,
    }
    with pytest.raises(kind, match=words):
        learn_halfspace(**{**good, **change})
