"""UPS: the selection by hand, the loss against a slow loop, and its ends."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import StudentOut, Ups, select_pseudo_labels, ups_loss

PROBS = torch.tensor(
    [
        [0.97, 0.02, 0.01],  # one positive, two negatives
        [0.70, 0.25, 0.05],  # at both thresholds
        [0.50, 0.47, 0.03],  # a negative alone
        [0.40, 0.35, 0.25],  # nothing
    ]
)
SPREAD = torch.tensor([[0.05, 0.005, 0.006], [0.06, 0.0, 0.0], [0.0, 0.0, 0.005], [0.0, 0.0, 0.0]])
YES = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]).bool()
NO = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 0, 1], [0, 0, 0]]).bool()


def answers(spread=None):
    return Answers(np.zeros((4, 16), np.uint8), PROBS, spread=spread)


def test_confidence_selects_by_both_thresholds_inclusively():
    positive, negative = select_pseudo_labels(PROBS)
    assert torch.equal(positive, YES)
    assert torch.equal(negative, NO)


def test_the_ensemble_rule_also_wants_little_spread():
    positive, negative = select_pseudo_labels(PROBS, SPREAD)
    assert positive.tolist() == [[True, False, False], *[[False] * 3] * 3]
    assert negative.tolist() == [
        [False, True, False],
        *[[False, False, True]] * 2,
        [False, False, False],
    ]


def test_each_threshold_moves_its_own_mask():
    def counts(**changed):
        return [int(m.sum()) for m in select_pseudo_labels(PROBS, SPREAD, **changed)]

    assert counts() == [1, 3]
    assert counts(positive=0.98) == [0, 3]
    assert counts(positive_spread=0.1) == [2, 3]
    assert counts(negative=0.02) == [1, 1]
    assert counts(negative_spread=0.01) == [1, 4]


def test_the_loss_is_that_of_a_loop_over_rows_and_classes():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, dtype=torch.float64, generator=g)
    f = torch.softmax(logits, 1).tolist()
    wanted = []
    for row in range(4):
        yes = [c for c in range(3) if YES[row, c]]
        no = [c for c in range(3) if NO[row, c]]
        if yes:
            wanted.append(-math.log(f[row][yes[0]]))
        elif no:
            wanted.append(sum(-math.log(1 - f[row][c]) for c in no) / len(no))
        else:
            wanted.append(0.0)
    torch.testing.assert_close(ups_loss(logits, YES, NO), torch.tensor(wanted).double())
    assert torch.autograd.gradcheck(lambda z: ups_loss(z, YES, NO), logits.requires_grad_())


def test_a_positive_in_every_row_is_cross_entropy_and_no_mark_at_all_is_nothing():
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    none = torch.zeros(4, 3, dtype=torch.bool)
    labels = torch.tensor([0, 2, 1, 1])
    one_each = functional.one_hot(labels, 3).bool()
    torch.testing.assert_close(
        ups_loss(z, one_each, ~one_each), functional.cross_entropy(z, labels, reduction="none")
    )
    nothing = ups_loss(z, none, none)
    (slope,) = torch.autograd.grad(nothing.sum(), z)
    assert not nothing.any()
    assert not slope.any()


def test_a_row_without_marks_counts_in_the_mean():
    z = torch.zeros(4, 3)
    assert float(ups_loss(z, YES, NO).mean()) == pytest.approx(
        (2 * math.log(3) - math.log(2 / 3)) / 4
    )


def test_with_two_classes_a_negative_is_the_other_class_as_positive():
    z = torch.tensor([[40.0, 0.0], [0.0, 40.0], [0.3, 0.1]])
    none = torch.zeros(3, 2, dtype=torch.bool)
    first = torch.tensor([[True, False]] * 3)
    torch.testing.assert_close(ups_loss(z, none, first), ups_loss(z, ~first, none))


def test_a_ruled_out_class_that_the_student_is_sure_of_costs_its_gap_and_pulls_with_one():
    # float32 says f = 1 here, and log(1 - 1) would be -inf.
    z = torch.tensor([[40.0, 0.0, -90.0], [300.0, 0.0, 0.0], [0.0, 300.0, 0.0]], requires_grad=True)
    first = torch.tensor([[True, False, False]] * 3)
    loss = ups_loss(z, torch.zeros(3, 3, dtype=torch.bool), first)
    (slope,) = torch.autograd.grad(loss.sum(), z)
    torch.testing.assert_close(loss, torch.tensor([40.0, 300 - math.log(2), 0.0]))
    torch.testing.assert_close(slope[0], torch.tensor([1.0, -1.0, 0.0]))
    assert slope.isfinite().all()


def test_the_objective_selects_by_its_rule():
    z = torch.zeros(4, 3)
    out = StudentOut(z, z)
    for rule, wanted in (
        ("confidence", select_pseudo_labels(PROBS)),
        ("ensemble", select_pseudo_labels(PROBS, SPREAD)),
    ):
        ups = Ups(rule=rule).fit([answers(SPREAD)], None)
        targets = ups.targets(answers(SPREAD))
        assert torch.equal(targets["positive"], wanted[0])
        assert torch.equal(targets["negative"], wanted[1])
        torch.testing.assert_close(ups.loss(out, targets, None), ups_loss(z, *wanted))


@pytest.mark.parametrize(
    "changed",
    [{"positive": 0.98}, {"negative": 0.02}, {"positive_spread": 0.1}, {"negative_spread": 0.01}],
)
def test_the_objective_passes_its_thresholds_on(changed):
    targets = Ups(rule="ensemble", **changed).targets(answers(SPREAD))
    positive, negative = select_pseudo_labels(PROBS, SPREAD, **changed)
    assert torch.equal(targets["positive"], positive)
    assert torch.equal(targets["negative"], negative)


def test_the_ensemble_rule_refuses_answers_of_one_opinion():
    with pytest.raises(ConfigError, match=r"rule='ensemble' needs answers with a spread"):
        Ups(rule="ensemble").fit(iter([answers()]), None)
    with pytest.raises(ConfigError, match=r"rule='ensemble' needs answers with a spread"):
        Ups(rule="ensemble").targets(answers())


def test_wrong_shapes_are_refused():
    with pytest.raises(ShapeError, match="spread has shape"):
        select_pseudo_labels(PROBS, SPREAD[:2])
    with pytest.raises(ShapeError, match="positive must be bool"):
        ups_loss(torch.zeros(4, 3), YES.float(), NO)
    with pytest.raises(ShapeError, match="negative must be bool"):
        ups_loss(torch.zeros(4, 3), YES, NO[:, :2])
