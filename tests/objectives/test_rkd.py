"""Distances and angles against slow loops, their invariances, and rows that are the same."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import Rkd, StudentOut, Targets, rkd_angle_loss, rkd_distance_loss

both = pytest.mark.parametrize("loss", [rkd_distance_loss, rkd_angle_loss])


def case(seed=0, rows=6, narrow=3, wide=5):
    g = torch.Generator().manual_seed(seed)
    student = torch.randn(rows, narrow, dtype=torch.float64, generator=g)
    return student, 3 * torch.randn(rows, wide, dtype=torch.float64, generator=g)


def huber(x):
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def slow_distance(student, teacher):
    """One pair after the other."""
    found = []
    for e in (student.tolist(), teacher.tolist()):
        all_pairs = [[math.dist(a, b) for b in e] for a in e]
        nonzero = [x for row in all_pairs for x in row if x > 0]
        mean = sum(nonzero) / len(nonzero)
        found.append([[x / mean for x in row] for row in all_pairs])
    n = len(student)
    return [sum(huber(found[0][i][j] - found[1][i][j]) for j in range(n)) / n for i in range(n)]


def angle(e, i, j, k):
    a = [x - y for x, y in zip(e[i], e[j], strict=True)]
    b = [x - y for x, y in zip(e[k], e[j], strict=True)]
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def slow_angle(student, teacher):
    """One triple after the other; the vertex is j."""
    s, t, n = student.tolist(), teacher.tolist(), len(student)
    return [
        sum(huber(angle(s, i, j, k) - angle(t, i, j, k)) for i in range(n) for k in range(n)) / n**2
        for j in range(n)
    ]


@pytest.mark.parametrize(
    ("loss", "slow"), [(rkd_distance_loss, slow_distance), (rkd_angle_loss, slow_angle)]
)
@pytest.mark.parametrize("rows", [2, 6])
def test_it_is_the_mean_over_pairs_or_triples(loss, slow, rows):
    student, teacher = case(rows=rows)
    wanted = torch.tensor(slow(student, teacher), dtype=torch.float64)
    torch.testing.assert_close(loss(student, teacher), wanted, atol=1e-12, rtol=1e-10)


@both
def test_rows_of_the_same_embedding_have_no_distance_and_no_angle(loss):
    student, teacher = case()
    student[3] = student[1]
    teacher[2] = teacher[0]
    slow = slow_distance if loss is rkd_distance_loss else slow_angle
    wanted = torch.tensor(slow(student, teacher), dtype=torch.float64)
    torch.testing.assert_close(loss(student, teacher), wanted, atol=1e-10, rtol=1e-8)


@both
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1e-30, 1e-3, 1.0, 1e3]))
def test_shifting_turning_and_scaling_either_side_changes_nothing(loss, seed, size):
    student, teacher = case(seed)
    g = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=g)).Q
    before = loss(student, teacher)
    torch.testing.assert_close(loss(student, size * (teacher @ turn + 7)), before)
    torch.testing.assert_close(loss(-size * (student - 3), teacher), before)
    single = loss((size * student).float(), teacher.float())
    torch.testing.assert_close(single, before.float(), atol=1e-5, rtol=1e-4)


@both
def test_it_is_zero_where_the_student_keeps_all_relations(loss):
    student = case()[0]
    assert loss(student, 2 * student + 1).abs().max() < 1e-12


@both
def test_gradients_are_those_of_finite_differences(loss):
    student, teacher = case(rows=4)
    e = student.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), e)


@both
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_rows_that_are_all_the_same_are_finite_with_finite_gradients(loss, rows):
    e = torch.full((rows, 3), 0.1).requires_grad_()
    found = loss(e, torch.randn(rows, 5, generator=torch.Generator().manual_seed(1)))
    found.sum().backward()
    assert found.shape == (rows,)
    assert found.isfinite().all()
    assert torch.equal(e.grad, torch.zeros(rows, 3))


@both
def test_close_rows_far_from_the_origin_keep_their_digits_in_single_precision(loss):
    student, teacher = case()
    near = (100 + 1e-3 * student).float()
    torch.testing.assert_close(loss(near, teacher), loss(near.double(), teacher).float())


def test_angles_computed_in_pieces_are_those_computed_at_once(monkeypatch):
    student, teacher = case(rows=9)
    found = []
    for triples in (2**20, 2 * 9**2, 1):
        monkeypatch.setattr("limbeck.objectives.rkd.TRIPLES", triples)
        e = student.clone().requires_grad_()
        loss = rkd_angle_loss(e, teacher)
        found.append((loss.detach(), torch.autograd.grad(loss.sum(), e)[0]))
    for loss, slope in found[1:]:
        torch.testing.assert_close(loss, found[0][0])
        torch.testing.assert_close(slope, found[0][1])


@both
def test_half_precision_is_computed_in_single(loss):
    student, teacher = case()
    half = student.bfloat16()
    found = loss(half, teacher.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(half.float(), teacher.float()))


@both
def test_wrong_inputs_are_refused(loss):
    student, teacher = case()
    with pytest.raises(ShapeError, match="same number of rows"):
        loss(student, teacher[:3])
    with pytest.raises(ShapeError, match=r"student's embeddings must be .* flatten"):
        loss(student[:, :, None], teacher)


@pytest.mark.parametrize(("distance", "angle"), [(25.0, 50.0), (1.0, 0.0), (0.0, 2.0)])
def test_the_objective_is_the_weighted_sum(distance, angle):
    student, teacher = case()
    objective = Rkd(distance_weight=distance, angle_weight=angle)
    found = objective.loss(StudentOut(student, student), Targets({"embeddings": teacher}), None)
    wanted = distance * rkd_distance_loss(student, teacher) + angle * rkd_angle_loss(
        student, teacher
    )
    torch.testing.assert_close(found, wanted)


def test_a_large_minibatch_compares_angles_within_groups_that_do_not_depend_on_its_order():
    student, teacher = case(rows=10)
    rows = torch.tensor([40, 3, 7, 22, 5, 31, 8, 19, 2, 11])
    objective = Rkd(distance_weight=0.0, angle_weight=1.0, angle_rows=4)

    def loss(order, places=rows):
        targets = Targets({"embeddings": teacher[order], "row": places[order]})
        return objective.loss(StudentOut(student[order], student[order]), targets, None)

    found, order = (
        loss(torch.arange(10)),
        torch.randperm(10, generator=torch.Generator().manual_seed(1)),
    )
    torch.testing.assert_close(loss(order), found[order])
    # Three groups, of 4, 3 and 3 rows: some way of choosing them gives every row's loss.
    groups = {}
    for size in (3, 4):
        for group in itertools.combinations(range(10), size):
            alone = rkd_angle_loss(student[list(group)], teacher[list(group)])
            if torch.allclose(alone, found[list(group)], atol=1e-12):
                groups[group] = size
    assert sorted(groups.values()) == [3, 3, 4]
    assert sorted(i for group in groups for i in group) == list(range(10))
    # Other rows, other groups.
    assert not torch.allclose(loss(torch.arange(10), rows + 1), found)


def test_without_the_rows_places_groups_are_cut_in_order():
    student, teacher = case(rows=8)
    objective = Rkd(distance_weight=0.0, angle_weight=1.0, angle_rows=4)
    found = objective.loss(StudentOut(student, student), Targets({"embeddings": teacher}), None)
    halves = [rkd_angle_loss(student[half], teacher[half]) for half in (slice(4), slice(4, 8))]
    torch.testing.assert_close(found, torch.cat(halves))


def test_two_weights_of_zero_are_refused():
    with pytest.raises(ConfigError, match=r"distance_weight and angle_weight are both 0"):
        Rkd(distance_weight=0.0, angle_weight=0.0)
