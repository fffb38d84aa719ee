"""Trust in two margins: against the one-margin fit, a known population, and cases by hand."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import ConfigError, DataError, LimbeckWarning, ShapeError
from limbeck.trust import IsotonicTrust, MarginsTrust

few_rows = pytest.mark.filterwarnings("ignore:trust is fitted on:limbeck.errors.LimbeckWarning")
GRID = torch.linspace(0, 1, 41, dtype=torch.float64)


def population(n: int, seed: int, *, student: float = 4.0):
    """Margins of both, the truth P(right), and answers; the teacher errs where the student does."""
    g = torch.Generator().manual_seed(seed)
    shared = torch.rand(n, generator=g, dtype=torch.float64)
    teacher = (0.5 + 0.5 * torch.rand(n, generator=g, dtype=torch.float64)) * (0.6 + 0.4 * shared)
    margins = shared.sqrt()
    truth = torch.sigmoid(0.5 + 3 * teacher + student * (margins - 0.5))
    return teacher, margins, truth, torch.rand(n, generator=g, dtype=torch.float64) < truth


@few_rows
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 80))
def test_alpha_never_falls_in_either_margin_and_stays_in_its_bounds(seed, n):
    g = torch.Generator().manual_seed(seed)
    teacher, student = torch.rand(2, n, generator=g, dtype=torch.float64)
    trust = MarginsTrust.fit(teacher, student, torch.rand(n, generator=g) < 0.7, lower=0.4 + 0.2)
    alpha = trust.alpha(*torch.meshgrid(GRID, GRID, indexing="ij"))
    assert (alpha.diff(dim=0) >= -1e-12).all()
    assert (alpha.diff(dim=1) >= -1e-12).all()
    assert float(alpha.min()) >= 0.6
    assert float(alpha.max()) <= 1


def test_a_constant_student_margin_leaves_the_trust_in_the_teachers_margin():
    teacher, _, _, right = population(400, 0, student=0)
    trust = MarginsTrust.fit(teacher, torch.full((400,), 0.3, dtype=torch.float64), right)
    alone = IsotonicTrust.fit(teacher, right)
    assert trust.share == 1.0
    assert torch.equal(trust.alpha(GRID, GRID.flip(0)), alone.alpha(GRID))


def test_a_student_margin_that_says_nothing_changes_little():
    g = torch.Generator().manual_seed(5)
    teacher, _, _, right = population(5_000, 1, student=0)
    noise = torch.rand(5_000, generator=g, dtype=torch.float64)
    trust, alone = MarginsTrust.fit(teacher, noise, right), IsotonicTrust.fit(teacher, right)
    difference = trust.alpha(teacher, noise) - alone.alpha(teacher)
    assert float(difference.abs().mean()) < 0.02
    assert trust.share > 0.9


def test_a_student_margin_that_points_the_wrong_way_is_left_out():
    teacher, student, _, right = population(2_000, 2)
    assert MarginsTrust.fit(teacher, 1 - student, right).share == 1.0


def test_the_mixture_is_that_of_scikit_learns_ridge_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    teacher, student, _, right = population(500, 3)
    x = torch.stack([teacher, student], dim=1).numpy()
    fit = LogisticRegression(C=1.0, tol=1e-10, max_iter=1_000)
    slopes = fit.fit((x - x.mean(0)) / x.std(0), right.numpy()).coef_[0] / x.std(0)
    assert (slopes > 0).all()
    assert MarginsTrust.fit(teacher, student, right).share == pytest.approx(
        slopes[0] / slopes.sum(), abs=1e-5
    )


@pytest.mark.parametrize("seed", range(5))
def test_on_rows_chosen_where_the_student_is_unsure_it_is_right_where_one_margin_is_too_high(seed):
    teacher, student, _, right = population(1_000, seed)
    both = MarginsTrust.fit(teacher, student, right)
    alone = IsotonicTrust.fit(teacher, right)
    teacher, student, truth, _ = population(20_000, seed + 100)
    chosen = student.argsort()[:2_000]
    mean = truth[chosen].clamp_min(0.5).mean()
    one = float(alone.alpha(teacher[chosen]).mean() - mean)
    two = float(both.alpha(teacher[chosen], student[chosen]).mean() - mean)
    assert one > 0.05
    assert abs(two) < one / 2
    error = (both.alpha(teacher, student) - truth.clamp_min(0.5)).abs().mean()
    assert error < (alone.alpha(teacher) - truth.clamp_min(0.5)).abs().mean()


def test_with_many_rows_alpha_is_near_the_truth():
    teacher, student, truth, right = population(20_000, 7)
    alpha = MarginsTrust.fit(teacher, student, right, lower=0.5).alpha(teacher, student)
    assert float((alpha - truth.clamp_min(0.5)).abs().mean()) < 0.03


@few_rows
def test_perfectly_separated_rows_get_a_step_and_finite_numbers():
    student = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.8, 0.9], dtype=torch.float64)
    teacher = torch.tensor([0.5, 0.9, 0.7, 0.6, 0.8, 0.4], dtype=torch.float64)
    trust = MarginsTrust.fit(teacher, student, student > 0.5)
    assert trust.alpha(teacher, student).tolist() == [0.5, 0.5, 0.5, 1.0, 1.0, 1.0]
    assert 0 <= trust.share < 0.5


@few_rows
@pytest.mark.parametrize(("answer", "alpha"), [(1.0, 1.0), (0.0, 0.6)])
def test_a_teacher_always_right_or_always_wrong_has_one_alpha(answer, alpha):
    g = torch.Generator().manual_seed(0)
    teacher, student = torch.rand(2, 25, generator=g)
    trust = MarginsTrust.fit(teacher, student, torch.full((25,), answer), lower=0.6)
    found = trust.alpha(torch.rand(9, generator=g), torch.rand(9, generator=g))
    assert torch.equal(found, torch.full((9,), alpha))


@few_rows
def test_constant_margins_give_the_share_of_right_answers():
    both = torch.full((10,), 0.5)
    trust = MarginsTrust.fit(both, both, torch.tensor([1, 1, 1, 1, 1, 1, 1, 0, 0, 0]))
    assert trust.alpha(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.2])).tolist() == (
        pytest.approx([0.7, 0.7])
    )


@few_rows
def test_one_row_is_enough_for_a_fit():
    trust = MarginsTrust.fit(torch.tensor([0.4]), torch.tensor([0.1]), torch.tensor([True]))
    assert trust.alpha(torch.tensor([0.0]), torch.tensor([0.9])).tolist() == [1.0]


def test_the_order_of_rows_does_not_matter_and_inputs_stay():
    teacher, student, _, right = population(300, 4)
    before = teacher.clone(), student.clone(), right.clone()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    one = MarginsTrust.fit(teacher, student, right)
    other = MarginsTrust.fit(teacher[order], student[order], right[order])
    torch.testing.assert_close(one.alpha(GRID, GRID), other.alpha(GRID, GRID))
    assert MarginsTrust.fit(teacher, student, right) == one
    assert all(torch.equal(a, b) for a, b in zip(before, (teacher, student, right), strict=True))


def test_alpha_keeps_shape_and_dtype():
    teacher, student, _, right = population(300, 4)
    trust = MarginsTrust.fit(teacher, student, right)
    asked = trust.alpha(teacher.float().view(3, 100), student.view(3, 100))
    assert asked.shape == (3, 100)
    assert asked.dtype == torch.float32


def test_a_fit_survives_json():
    teacher, student, _, right = population(300, 4)
    trust = MarginsTrust.fit(teacher, student, right)
    assert MarginsTrust.from_dict(json.loads(json.dumps(trust.to_dict()))) == trust


def test_few_rows_and_a_teacher_that_is_never_wrong_warn_as_the_one_margin_does():
    half = torch.full((12,), 0.5)
    with pytest.warns(LimbeckWarning, match="12 validation rows"):
        MarginsTrust.fit(half, half, torch.tensor([True, False] * 6))
    margins = torch.rand(100, generator=torch.Generator().manual_seed(0))
    with pytest.warns(LimbeckWarning, match="trained on these rows"):
        MarginsTrust.fit(margins, margins, torch.ones(100))


@pytest.mark.parametrize(
    ("teacher", "student", "correct", "error", "words"),
    [
        ([0.5, 0.5], [0.5], [1, 0], ShapeError, "one shape"),
        ([0.5], [0.5], [1, 0], ShapeError, "one shape"),
        ([], [], [], ShapeError, "n >= 1"),
        ([0.5], [float("nan")], [1], DataError, "NaN"),
        ([float("nan")], [0.5], [1], DataError, "NaN"),
        ([1.2], [0.5], [1], DataError, "teacher's margin is 1.2"),
        ([0.5], [-0.1], [1], DataError, "student's margin is -0.1"),
        ([0.5], [0.5], [2], DataError, "only 0 and 1"),
    ],
)
def test_what_are_no_margins_of_the_same_rows_is_refused(teacher, student, correct, error, words):
    with pytest.raises(error, match=words):
        MarginsTrust.fit(torch.tensor(teacher), torch.tensor(student), torch.tensor(correct))


@pytest.mark.parametrize("lower", [0.0, 1.5])
def test_a_lower_bound_out_of_range_is_refused(lower):
    with pytest.raises(ConfigError, match="lower="):
        MarginsTrust.fit(*torch.rand(2, 40), torch.ones(40), lower=lower)


@pytest.mark.parametrize(
    ("teacher", "student", "error", "words"),
    [
        ([0.5, 0.5], [0.5], ShapeError, "both of the same rows"),
        ([0.5], [float("nan")], DataError, "student's margin is nan"),
        ([1.5], [0.5], DataError, "teacher's margin is 1.5"),
    ],
)
def test_rows_to_judge_need_two_margins_each(teacher, student, error, words):
    fitted = population(300, 4)
    trust = MarginsTrust.fit(fitted[0], fitted[1], fitted[3])
    with pytest.raises(error, match=words):
        trust.alpha(torch.tensor(teacher), torch.tensor(student))
