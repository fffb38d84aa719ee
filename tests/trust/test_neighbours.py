"""Nearest neighbours among validation rows, against a full sort and against closed forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError, ShapeError
from limbeck.trust import NeighbourTrust, margin

C = 3


def rows(n, seed, grid=False):
    """Teacher probabilities and student log-probabilities; on a coarse grid margins tie often."""
    g = torch.Generator().manual_seed(seed)
    both = []
    for _ in range(2):
        scores = torch.randn(n, C, generator=g)
        both.append(torch.softmax(scores.round() if grid else 2 * scores, dim=1))
    labels = torch.randint(0, C, (n,), generator=g)
    return both[0], both[1].log(), labels


def brute_force(near, teacher, student, above, below):
    """Sort all distances of each row; count everything as near as the k-th."""
    out = []
    phi = torch.stack([margin(teacher.double()), margin(student.double().exp())], 1) / near.scale
    for place in phi:
        distance = [float(((place - point) ** 2).sum()) for point in near.points]
        reach = sorted(distance)[near.k - 1]
        mine = [i for i, d in enumerate(distance) if d <= reach]
        bottom = sum(float(below[i]) for i in mine)
        out.append(sum(float(above[i]) for i in mine) / bottom if bottom else 1.0)
    return torch.tensor(out)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), k=st.integers(1, 15), grid=st.booleans())
def test_all_four_numbers_equal_those_of_a_full_sort(seed, n, k, grid):
    teacher, student, labels = rows(n, seed, grid)
    near = NeighbourTrust.fit(teacher, student, labels, k=k)
    asked, said, _ = rows(7, seed + 1, grid)
    named = teacher.argmax(1)
    wrong = (named != labels).double()
    own = (-student.double().gather(1, labels[:, None])[:, 0]).clamp_min(1e-6)
    taught = (-student.double().gather(1, named[:, None])[:, 0]).clamp_min(1e-6)
    ones = torch.ones(n)
    expected = {
        "wrong_share": (wrong, ones),
        "distortion": (wrong * taught / own, wrong),
        "mean_weight": (own / taught, ones),
        "ratio_weight": (own, taught),
    }
    for name, (above, below) in expected.items():
        found = getattr(near, name)(asked, said)
        torch.testing.assert_close(found, brute_force(near, asked, said, above, below))


def test_rows_as_far_as_the_last_neighbour_all_count():
    teacher = torch.tensor([[0.8, 0.2]] * 4)
    student = torch.tensor([[0.6, 0.4]] * 4).log()
    near = NeighbourTrust.fit(teacher, student, torch.tensor([0, 0, 0, 1]), k=1)
    assert near.wrong_share(teacher[:1], student[:1]).tolist() == [0.25]


def test_more_neighbours_than_rows_means_all_rows_and_one_weight_for_everyone():
    teacher, student, labels = rows(9, 0)
    near = NeighbourTrust.fit(teacher, student, labels, k=100)
    asked, said, _ = rows(20, 1)
    for name in ("wrong_share", "distortion", "mean_weight", "ratio_weight"):
        assert len(getattr(near, name)(asked, said).unique()) == 1
    assert float(near.wrong_share(asked, said)[0]) == pytest.approx(float(near.wrong.mean()))


def test_a_teacher_that_is_always_right_gives_weights_of_exactly_one():
    teacher, student, _ = rows(60, 2)
    near = NeighbourTrust.fit(teacher, student, teacher.argmax(1))
    asked, said, _ = rows(30, 3)
    ones = torch.ones(30)
    assert torch.equal(near.mean_weight(asked, said), ones)
    assert torch.equal(near.ratio_weight(asked, said), ones)
    assert torch.equal(near.distortion(asked, said), ones)
    assert torch.equal(near.wrong_share(asked, said), torch.zeros(30))


def test_a_teacher_that_is_always_wrong_in_one_way_gives_the_ratio_of_losses():
    teacher = torch.tensor([[0.9, 0.1]] * 8)
    student = torch.tensor([[0.7, 0.3]] * 8).log()
    near = NeighbourTrust.fit(teacher, student, torch.ones(8, dtype=torch.long))
    wanted = torch.tensor([0.3]).log() / torch.tensor([0.7]).log()
    for weight in (near.mean_weight, near.ratio_weight):
        torch.testing.assert_close(weight(teacher[:1], student[:1]), wanted)
    torch.testing.assert_close(near.distortion(teacher[:1], student[:1]), 1 / wanted)


def test_a_loss_of_zero_never_gives_a_nan():
    teacher = torch.eye(C)
    student = torch.log_softmax(100 * torch.eye(C), dim=1)
    near = NeighbourTrust.fit(teacher, student, torch.tensor([0, 1, 0]))
    for name in ("wrong_share", "distortion", "mean_weight", "ratio_weight"):
        assert getattr(near, name)(teacher, student).isfinite().all()


def test_the_order_of_validation_rows_does_not_matter():
    teacher, student, labels = rows(40, 4, grid=True)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    asked, said, _ = rows(15, 5, grid=True)
    a = NeighbourTrust.fit(teacher, student, labels)
    b = NeighbourTrust.fit(teacher[order], student[order], labels[order])
    torch.testing.assert_close(a.mean_weight(asked, said), b.mean_weight(asked, said))


def test_blocks_do_not_show(monkeypatch):
    teacher, student, labels = rows(30, 6)
    asked, said, _ = rows(50, 7)
    near = NeighbourTrust.fit(teacher, student, labels)
    whole = near.mean_weight(asked, said)
    monkeypatch.setattr("limbeck.trust.neighbours._BLOCK", 60)
    assert torch.equal(near.mean_weight(asked, said), whole)


def test_the_number_of_neighbours_is_the_root_of_the_rows_but_at_least_five():
    for n, k in ((1, 1), (4, 4), (9, 5), (100, 10), (500, 22)):
        teacher, student, labels = rows(n, 8)
        assert NeighbourTrust.fit(teacher, student, labels).k == k


def test_no_row_gives_no_weight():
    teacher, student, labels = rows(5, 9)
    near = NeighbourTrust.fit(teacher, student, labels)
    assert near.mean_weight(teacher[:0], student[:0]).shape == (0,)


def test_bad_input_is_refused():
    teacher, student, labels = rows(5, 10)
    with pytest.raises(ShapeError, match="the same rows"):
        NeighbourTrust.fit(teacher, student[:4], labels)
    with pytest.raises(ShapeError, match="V >= 1"):
        NeighbourTrust.fit(teacher[:0], student[:0], labels[:0])
    with pytest.raises(ConfigError, match="k=-1"):
        NeighbourTrust.fit(teacher, student, labels, k=-1)
    near = NeighbourTrust.fit(teacher, student, labels)
    with pytest.raises(ShapeError, match="the same rows"):
        near.mean_weight(teacher, student[:3])
