"""The isotonic fit against brute force, scikit-learn and cases known by hand."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from limbeck.errors import ConfigError, DataError, LimbeckWarning, ShapeError
from limbeck.objectives import slam_loss
from limbeck.trust import IsotonicTrust, choose_lower, margin

few_rows = pytest.mark.filterwarnings("ignore:trust is fitted on:limbeck.errors.LimbeckWarning")
low_bound = pytest.mark.filterwarnings("ignore:lower=:limbeck.errors.LimbeckWarning")


def noisy(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Margins, and answers that are right with probability (1 + margin) / 2."""
    g = torch.Generator().manual_seed(seed)
    margins = torch.rand(n, generator=g)
    return margins, torch.rand(n, generator=g) < 0.5 + margins / 2


def test_margin_is_the_largest_less_the_second_largest():
    probs = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(margin(probs), torch.tensor([0.3, 0.0, 1.0]))


@few_rows
@low_bound
@given(seed=st.integers(0, 100_000), n=st.integers(1, 8), lower=st.sampled_from([0.2, 0.5, 0.8]))
@settings(max_examples=25, deadline=None)
def test_pav_is_the_bounded_monotone_least_squares_fit_found_by_a_quadratic_programme(
    seed, n, lower
):
    g = np.random.default_rng(seed)
    x = np.sort(g.choice(np.arange(50), size=n, replace=False)) / 50
    y = (g.random(n) < 0.6).astype(float)
    trust = IsotonicTrust.fit(torch.tensor(x), torch.tensor(y), lower=lower)
    fitted = trust.alpha(torch.tensor(x)).numpy()
    # v_1 >= lower and steps >= 0: a least-squares problem with bounds. Labels are at most 1, so the
    # upper bound of alpha never binds.
    steps = lsq_linear(
        np.tril(np.ones((n, n))), y, bounds=([lower] + [0.0] * (n - 1), np.inf), method="bvls"
    )
    best = np.cumsum(steps.x)
    np.testing.assert_allclose(fitted, best, atol=1e-8)


@few_rows
@low_bound
def test_pav_equals_scikit_learn_on_three_hundred_random_cases_with_ties():
    from sklearn.isotonic import IsotonicRegression

    g = np.random.default_rng(0)
    asked = torch.linspace(-0.1, 1.1, 301, dtype=torch.float64)
    for _ in range(300):
        n = int(g.integers(1, 60))
        lower = float(g.choice([0.1, 0.5, 0.7, 0.9]))
        x = g.integers(0, int(g.integers(2, 40)), n) / 39
        y = (g.random(n) < 0.3 + 0.7 * x).astype(float)
        y[0] = 0.0  # all-right rows warn, which another test looks at
        theirs = IsotonicRegression(y_min=lower, y_max=1.0, out_of_bounds="clip").fit(x, y)
        ours = IsotonicTrust.fit(torch.tensor(x), torch.tensor(y), lower=lower)
        np.testing.assert_allclose(
            ours.alpha(asked).numpy(), theirs.predict(asked.numpy()), atol=1e-9
        )


@few_rows
def test_rows_with_one_margin_count_as_one_point_with_their_mean():
    margins = torch.tensor([0.5, 0.5, 0.5, 0.5])
    trust = IsotonicTrust.fit(margins, torch.tensor([1, 1, 1, 0]))
    assert trust.alpha(torch.tensor([0.0, 0.5, 1.0])).tolist() == [0.75, 0.75, 0.75]


@few_rows
def test_a_teacher_always_right_gets_alpha_one_and_slam_is_plain_distillation():
    margins = torch.rand(20, generator=torch.Generator().manual_seed(0))
    trust = IsotonicTrust.fit(margins, torch.ones(20))
    alpha = trust.alpha(torch.linspace(0, 1, 50))
    assert torch.equal(alpha, torch.ones(50))
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(50, 4, generator=g)
    teacher = torch.softmax(torch.randn(50, 4, generator=g), 1)
    plain = torch.nn.functional.cross_entropy(logits, teacher, reduction="none")
    torch.testing.assert_close(slam_loss(logits, teacher, alpha, 3), plain, atol=1e-6, rtol=1e-6)


@few_rows
@pytest.mark.parametrize("lower", [0.5, 0.75, 1.0])
def test_a_teacher_always_wrong_gets_the_lower_bound_everywhere(lower):
    margins = torch.rand(20, generator=torch.Generator().manual_seed(0))
    trust = IsotonicTrust.fit(margins, torch.zeros(20), lower=lower)
    assert torch.equal(trust.alpha(torch.linspace(0, 1, 9)), torch.full((9,), lower))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_alpha_never_falls_stays_in_bounds_and_ignores_the_order_of_rows(seed):
    margins, correct = noisy(60, seed)
    trust = IsotonicTrust.fit(margins, correct, lower=0.6)
    alpha = trust.alpha(torch.linspace(-1, 2, 500))
    assert (alpha.diff() >= -1e-6).all()
    assert 0.6 - 1e-6 <= float(alpha.min()) <= float(alpha.max()) <= 1
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    assert IsotonicTrust.fit(margins[order], correct[order], lower=0.6) == trust


def test_with_many_rows_alpha_is_near_the_truth():
    trust = IsotonicTrust.fit(*noisy(20_000, 3))
    asked = torch.linspace(0.05, 0.95, 19)
    assert float((trust.alpha(asked) - (0.5 + asked / 2)).abs().max()) < 0.06


def test_alpha_keeps_shape_and_dtype_and_leaves_its_input_alone():
    trust = IsotonicTrust.fit(*noisy(50, 0))
    asked = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    before = asked.clone()
    assert trust.alpha(asked).shape == (3, 4)
    assert trust.alpha(asked.double()).dtype == torch.float64
    assert torch.equal(asked, before)


def test_a_fit_survives_json():
    trust = IsotonicTrust.fit(*noisy(50, 0))
    assert IsotonicTrust.from_dict(json.loads(json.dumps(trust.to_dict()))) == trust


def test_a_lower_bound_under_one_half_warns():
    with pytest.warns(LimbeckWarning, match="pushes the student away"):
        IsotonicTrust.fit(*noisy(50, 0), lower=0.4)


def test_too_few_rows_warn():
    with pytest.warns(LimbeckWarning, match="12 validation rows"):
        IsotonicTrust.fit(*noisy(12, 0))


def test_a_teacher_right_on_many_rows_warns_that_it_may_have_seen_them():
    with pytest.warns(LimbeckWarning, match="trained on these rows"):
        IsotonicTrust.fit(noisy(100, 0)[0], torch.ones(100))


@pytest.mark.parametrize(
    ("margins", "correct", "lower", "error", "words"),
    [
        (torch.rand(3), torch.ones(4), 0.5, ShapeError, "one shape"),
        (torch.rand(0), torch.ones(0), 0.5, ShapeError, "n >= 1"),
        (torch.tensor([0.1, torch.nan]), torch.ones(2), 0.5, DataError, "margin 1 is NaN"),
        (torch.rand(2), torch.tensor([0.5, 1.0]), 0.5, DataError, "only 0 and 1"),
        (torch.rand(2), torch.ones(2), 0.0, ConfigError, "lower=0.0"),
        (torch.rand(2), torch.ones(2), 1.1, ConfigError, "lower=1.1"),
    ],
)
def test_bad_rows_and_bounds_are_refused(margins, correct, lower, error, words):
    with pytest.raises(error, match=words):
        IsotonicTrust.fit(margins, correct, lower=lower)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("share", [0.6, 0.8])
def test_the_chosen_lower_bound_is_the_true_rate_of_a_teacher_without_margin_information(share):
    margins, _ = noisy(2000, 0)
    correct = torch.rand(2000, generator=seeded()) < share
    assert choose_lower(margins, correct, generator=seeded()) <= share + 0.01
    # A bound above the truth predicts worse, so it is never taken over the truth.
    assert choose_lower(margins, correct, grid=(share, 0.95), generator=seeded()) == share


def test_a_bound_that_stabilises_a_small_sample_is_chosen():
    # 40 rows, right nine times in ten whatever the margin: the free fit follows the noise.
    margins, _ = noisy(40, 1)
    correct = torch.ones(40)
    correct[margins.argsort()[[3, 15, 22, 34]]] = 0
    assert choose_lower(margins, correct, generator=seeded()) >= 0.6


def test_choosing_is_repeatable_and_warns_of_nothing():
    margins, correct = noisy(20, 0)
    first, second = (choose_lower(margins, correct, generator=seeded()) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("change", [{"folds": 1}, {"folds": 21}, {"grid": ()}, {"grid": (0.0,)}])
def test_bad_folds_and_grids_are_refused(change):
    with pytest.raises(ConfigError):
        choose_lower(*noisy(20, 0), generator=seeded(), **change)
