"""When buying stops: McNemar's test by hand, and patience."""

from math import comb

import numpy as np
import pytest

from limbeck.distill.buy_config import BuyConfig
from limbeck.distill.stopping import has_flattened, reason_to_stop, teacher_is_worse


@pytest.mark.parametrize(("wins", "losses"), [(5, 0), (4, 0), (9, 2), (8, 2), (3, 3), (0, 7)])
def test_the_student_beats_the_teacher_when_chance_would_do_so_in_under_5_percent(wins, losses):
    student = np.array([True] * wins + [False] * losses + [True] * 50)
    teacher = np.array([False] * wins + [True] * losses + [True] * 50)
    n = wins + losses
    by_chance = sum(comb(n, i) for i in range(wins, n + 1)) / 2**n
    assert teacher_is_worse(teacher, student) == (by_chance < 0.05)


def test_a_curve_is_flat_when_none_of_the_last_rounds_beats_the_best_before():
    assert not has_flattened([0.5, 0.6, 0.7], patience=3, min_gain=0.0)
    assert not has_flattened([0.5, 0.6, 0.7, 0.7], patience=2, min_gain=0.05)
    assert has_flattened([0.5, 0.7, 0.6, 0.69], patience=2, min_gain=0.0)
    assert has_flattened([0.5, 0.7, 0.72, 0.74], patience=2, min_gain=0.05)
    assert not has_flattened([0.5, 0.7, 0.72, 0.76], patience=2, min_gain=0.05)


def test_nothing_is_decided_by_the_student_of_labels_alone_nor_when_told_not_to():
    right = [np.ones(20, bool)] * 5
    teacher, rows = np.zeros(20, bool), np.arange(20)
    assert reason_to_stop(right[:1], teacher, rows, BuyConfig(rule="rad")) == ""
    assert "teacher is right on 0.0%" in reason_to_stop(right, teacher, rows, BuyConfig())
    assert reason_to_stop(right, teacher, rows, BuyConfig(stop=False)) == ""


def test_the_teacher_is_compared_on_the_rows_that_it_has_answered():
    student = np.array([True] * 10 + [False] * 10)
    teacher = np.zeros(10, bool)
    told = reason_to_stop([student, student], teacher, np.arange(10), BuyConfig())
    assert "student on 100.0%" in told
    assert reason_to_stop([student, student], teacher, np.arange(10, 20), BuyConfig()) == ""


def test_patience_counts_rounds():
    right = [np.arange(20) < n for n in (10, 12, 12, 11, 12)]
    teacher, rows = np.ones(20, bool), np.arange(20)
    told = reason_to_stop(right, teacher, rows, BuyConfig(patience=3))
    assert "last 3 rounds have brought no student that is better than 60.0%" in told
    assert reason_to_stop(right, teacher, rows, BuyConfig(patience=4)) == ""
