"""The deferral curve against a slow loop and its two known ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.distill.deferral import Split, choose, curve, defers, study
from limbeck.errors import ConfigError, ShapeError


def random_split(seed: int, n: int, *, ties: bool = False, help_from_teacher: float = 0.9) -> Split:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    student = rng.dirichlet(np.ones(3), n)
    if ties:
        student = np.round(student * 4) + 0.01
        student /= student.sum(axis=1, keepdims=True)
    says = np.where(rng.random(n) < help_from_teacher, labels, (labels + 1) % 3)
    return Split(student, np.eye(3)[says] * 0.9 + 0.1 / 3, labels)


def slow_accuracy(split: Split, threshold: float) -> tuple[float, float]:
    """Share and accuracy at a threshold, row by row."""
    sent, right = 0, 0
    student, teacher = np.asarray(split.student_probs), np.asarray(split.teacher_probs)
    for s, t, y in zip(student, teacher, np.asarray(split.labels), strict=True):
        ask = min(float(s.max()), 1.0) <= threshold
        sent += ask
        right += int((t if ask else s).argmax()) == y
    return sent / len(student), right / len(student)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 90), ties=st.booleans())
def test_every_point_equals_the_row_by_row_count(seed: int, n: int, ties: bool) -> None:
    split = random_split(seed, n, ties=ties)
    for point in curve(split, price=7.0):
        share, accuracy = slow_accuracy(split, point.threshold)
        assert point.share == pytest.approx(share)
        assert point.accuracy == pytest.approx(accuracy)
        assert point.price == pytest.approx(7_000.0 * share)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 400), ties=st.booleans())
def test_share_rises_with_the_threshold_from_student_to_teacher(
    seed: int, n: int, ties: bool
) -> None:
    split = random_split(seed, n, ties=ties)
    points = curve(split, price=0.0)
    shares, thresholds = [p.share for p in points], [p.threshold for p in points]
    assert shares == sorted(set(shares))
    assert thresholds == sorted(set(thresholds))
    labels = np.asarray(split.labels)
    student = (np.asarray(split.student_probs).argmax(axis=1) == labels).mean()
    teacher = (np.asarray(split.teacher_probs).argmax(axis=1) == labels).mean()
    assert (shares[0], points[0].accuracy) == (0.0, pytest.approx(student))
    assert (shares[-1], points[-1].accuracy) == (1.0, pytest.approx(teacher))


def test_a_long_curve_is_thinned_to_about_a_hundred_points() -> None:
    points = curve(random_split(0, 25_000), price=1.0)
    assert 90 <= len(points) <= 101
    assert points[0].share == 0.0
    assert points[-1].share == 1.0
    assert max(np.diff([p.share for p in points])) < 0.02


def test_rows_of_equal_confidence_go_together() -> None:
    half = np.full((10, 2), 0.5)
    points = curve(Split(half, half, np.zeros(10, dtype=int)), price=0.0)
    assert [p.share for p in points] == [0.0, 1.0]


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
def test_a_target_share_is_never_passed_and_is_nearly_used(share: float) -> None:
    split = random_split(1, 1_000)
    point, rule = choose(split, share=share)
    assert share - 0.002 <= point.share <= share
    assert defers(split.student_probs, point.threshold).mean() == pytest.approx(point.share)
    assert f"{share:.0%}" in rule


@given(seed=st.integers(0, 2**32 - 1), tolerance=st.sampled_from([0.0, 0.01, 0.1, 1.0]))
def test_the_default_rule_takes_the_smallest_share_near_the_best(
    seed: int, tolerance: float
) -> None:
    split = random_split(seed, 80)
    point, _ = choose(split, tolerance=tolerance)
    points = curve(split, price=0.0)
    enough = max(p.accuracy for p in points) - tolerance
    assert point.accuracy >= enough
    assert all(p.accuracy < enough for p in points if p.share < point.share)


def test_a_useless_teacher_gets_no_rows() -> None:
    split = random_split(2, 500, help_from_teacher=0.0)
    point, _ = choose(split)
    assert point.share <= 0.02
    assert point.accuracy >= curve(split, price=0.0)[0].accuracy


def test_the_threshold_comes_from_validation_and_is_measured_on_test() -> None:
    validation, test = random_split(3, 400), random_split(4, 600)
    result = study(validation, test, price=200.0, currency="EUR")
    threshold = result.validation.threshold
    assert result.validation == choose(validation)[0]
    assert result.chosen.threshold == threshold
    assert (result.chosen.share, result.chosen.accuracy) == pytest.approx(
        slow_accuracy(test, threshold)
    )
    assert result.chosen.price == pytest.approx(result.chosen.share * 200_000)
    assert result.curve == curve(test, price=200.0)
    assert result.currency == "EUR"


def test_threshold_one_defers_everything_even_if_softmax_rounds_above_one() -> None:
    above = np.array([[np.nextafter(1.0, 2.0), 0.0]])
    assert defers(above, 1.0).all()
    assert not defers(above, 0.999).any()
    assert not defers(np.full((3, 2), 0.5), 0.0).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"share": 1.5}, "share=1.5"), ({"share": -0.1}, "share"), ({"tolerance": -1}, "tolerance")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(random_split(0, 10), **settings)


def test_rows_that_do_not_match_are_refused() -> None:
    with pytest.raises(ShapeError, match="same rows"):
        curve(Split(np.ones((3, 2)), np.ones((4, 2)), np.zeros(3, dtype=int)), price=0.0)
