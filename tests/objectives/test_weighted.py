"""Weighted distillation: unbiasedness, limits, bounds, and the risk on a known noise model."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from limbeck.answers import Answers
from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import (
    Evidence,
    HardKD,
    Snapshot,
    StudentOut,
    Targets,
    Weighted,
    debiasing_weights,
    weighted_loss,
)
from limbeck.trust import NeighbourTrust

B, C = 8, 4


def generator(seed):
    return torch.Generator().manual_seed(seed)


def some(n=B, seed=0):
    g = generator(seed)
    logits = torch.randn(n, C, generator=g)
    probs = torch.softmax(2 * torch.randn(n, C, generator=g), dim=1)
    return logits, probs


def answers(probs):
    return Answers(np.zeros((len(probs), 16), np.uint8), probs)


def test_item_1_the_weighted_risk_of_a_row_is_its_clean_risk():
    g = generator(1)
    p, true, adverse = torch.rand(3, 1000, dtype=torch.float64, generator=g) + 1e-3
    p = p.clamp_max(1)
    w = debiasing_weights(p, adverse / true, clip_max=math.inf)
    torch.testing.assert_close(w * ((1 - p) * true + p * adverse), true, atol=1e-12, rtol=0)


def test_item_2_a_teacher_right_on_all_validation_rows_gives_plain_distillation():
    logits, probs = some(30, 2)
    objective = fitted(probs, probs.argmax(1))
    objective.refresh(
        Snapshot(torch.log_softmax(logits, 1), [(answers(probs), logits.log_softmax(1))])
    )
    assert torch.equal(objective.weights, torch.ones(30))
    out = StudentOut(logits, logits)
    targets = Targets({"teacher_probs": probs, "row": torch.arange(30)})
    plain = HardKD().loss(out, HardKD().targets(answers(probs)), None)
    assert torch.equal(objective.loss(out, targets, None), plain)


def test_item_2_a_teacher_wrong_everywhere_in_one_way_gives_the_ratio_of_losses():
    probs = torch.tensor([[0.9, 0.1]] * 10)
    logs = torch.tensor([[0.3, 0.7]] * 10).log()
    for estimator in ("mean", "plug-in", "ratio"):
        objective = fitted(probs, torch.ones(10, dtype=torch.long), estimator=estimator)
        objective.refresh(Snapshot(logs, [(answers(probs), logs)]))
        wanted = math.log(0.7) / math.log(0.3)
        torch.testing.assert_close(objective.weights, torch.full((10,), wanted))


@given(
    p=st.floats(0, 1), low=st.floats(0.01, 0.99), high=st.floats(1.01, 100), more=st.floats(0, 1)
)
def test_item_4_bounds_and_direction(p, low, high, more):
    def w(p, distortion, clip_max=math.inf):
        pair = (torch.tensor(p, dtype=torch.float64), torch.tensor(distortion, dtype=torch.float64))
        return float(debiasing_weights(*pair, clip_max=clip_max))

    further = p + more * (1 - p)
    assert 0 < w(p, high) <= 1 <= w(p, low) + 1e-12
    if p < 1:
        assert w(p, low) <= 1 / (1 - p) + 1e-9
    assert w(further, high) <= w(p, high) + 1e-12
    assert w(further, low) >= w(p, low) - 1e-12
    assert 0 < w(p, low, 1.0) <= 1
    assert w(0.0, high) == w(p, 1.0) == 1


def test_item_5_the_mean_weighted_risk_is_the_clean_risk_and_the_unweighted_is_not():
    g = generator(5)
    n, draws = 400, 200
    logits = torch.randn(n, C, dtype=torch.float64, generator=g)
    truth = torch.randint(0, C, (n,), generator=g)
    adverse = (truth + 1 + torch.randint(0, C - 1, (n,), generator=g)) % C
    p = 0.6 * torch.rand(n, dtype=torch.float64, generator=g)
    own = functional.cross_entropy(logits, truth, reduction="none")
    distortion = functional.cross_entropy(logits, adverse, reduction="none") / own
    w = debiasing_weights(p, distortion, clip_max=math.inf)
    weighted, plain = [], []
    for _ in range(draws):
        wrong = torch.rand(n, dtype=torch.float64, generator=g) < p
        told = functional.one_hot(torch.where(wrong, adverse, truth), C).double()
        weighted.append(float(weighted_loss(logits, told, w).mean()))
        plain.append(float(weighted_loss(logits, told, torch.ones(n)).mean()))
    clean = float(own.mean())

    def errors(values):
        return abs(np.mean(values) - clean) / (np.std(values, ddof=1) / draws**0.5)

    assert errors(weighted) < 3 < errors(plain)


def test_item_6_in_a_homogeneous_cell_the_ratio_is_the_formula():
    teacher = torch.tensor([[0.9, 0.1]] * 10)
    student = torch.tensor([[0.3, 0.7]] * 10).log()
    labels = torch.tensor([1] * 4 + [0] * 6)  # p = 0.4, the truth of wrong rows is class 1
    near = NeighbourTrust.fit(teacher, student, labels)
    p = near.wrong_share(teacher[:1], student[:1])
    d = near.distortion(teacher[:1], student[:1])
    # Losses differ between right and wrong rows here, so the cell is homogeneous in the noise only:
    # the mean loss on the truth over the mean loss on the label, by hand.
    right, wrong = -math.log(0.3), -math.log(0.7)
    assert float(p) == pytest.approx(0.4)
    assert float(d) == pytest.approx(right / wrong)
    by_hand = (0.6 * right + 0.4 * wrong) / right
    assert float(near.ratio_weight(teacher[:1], student[:1])) == pytest.approx(by_hand)
    # With one loss for the truth everywhere, w l(label) averages to l(truth) exactly.
    own, taught = 0.5, 1.5
    formula = float(debiasing_weights(p, torch.tensor([taught / own])))
    assert formula == pytest.approx(own / ((1 - 0.4) * own + 0.4 * taught))


def test_item_7_no_gradient_flows_through_the_weights():
    logits, probs = some()
    w = torch.rand(B).requires_grad_()
    z = logits.clone().requires_grad_()
    weighted_loss(z, probs, w).sum().backward()
    assert w.grad is None
    f = torch.softmax(logits, 1)
    expected = w.detach()[:, None] * (f - functional.one_hot(probs.argmax(1), C))
    torch.testing.assert_close(z.grad, expected)


@pytest.mark.parametrize("target", ["hard", "soft"])
def test_the_gradient_is_right_in_float64(target):
    logits, probs = some()
    w = torch.rand(B, dtype=torch.float64, generator=generator(3))
    assert torch.autograd.gradcheck(
        lambda z: weighted_loss(z, probs.double(), w, target=target),
        logits.double().requires_grad_(),
    )


def test_a_soft_target_is_weighted_cross_entropy_with_all_probabilities():
    logits, probs = some()
    w = torch.rand(B)
    by_hand = -(w[:, None] * probs * torch.log_softmax(logits, 1)).sum(1)
    torch.testing.assert_close(weighted_loss(logits, probs, w, target="soft"), by_hand)


def test_normalising_divides_by_the_mean_weight():
    logits, probs = some()
    w = torch.rand(B)
    plain = weighted_loss(logits, probs, w) / w.mean()
    torch.testing.assert_close(weighted_loss(logits, probs, w, normalize=True), plain)
    double = weighted_loss(logits, probs, 2 * w, normalize=True)
    torch.testing.assert_close(double, plain)


def fitted(probs, labels, **settings):
    known = Evidence(
        probs,
        labels,
        lambda p: p.max(1).values,
        2,
        lambda logs: NeighbourTrust.fit(probs, logs, labels),
    )
    return Weighted(**settings).fit([], known)


def test_before_the_first_estimate_every_weight_is_one():
    logits, probs = some()
    objective = fitted(probs, probs.argmax(1))
    out = StudentOut(logits, logits)
    loss = objective.loss(out, objective.targets(answers(probs)), None)
    torch.testing.assert_close(
        loss, functional.cross_entropy(logits, probs.argmax(1), reduction="none")
    )


def test_estimates_are_the_same_each_time_and_come_back_from_the_saved_state():
    logits, probs = some(40, 7)
    labels = torch.randint(0, C, (40,), generator=generator(8))
    logs = logits.log_softmax(1)
    objective, other = fitted(probs, labels), fitted(probs, labels)
    parts = [(answers(probs[:25]), logs[:25]), (answers(probs[25:]), logs[25:])]
    objective.refresh(Snapshot(logs, parts))
    first = objective.weights
    objective.refresh(Snapshot(logs, [(answers(probs), logs)]))
    assert torch.equal(first, objective.weights)
    assert first.dtype == torch.float32
    other.load_state_dict(objective.state_dict())
    out = StudentOut(logits, logits)
    targets = Targets({"teacher_probs": probs, "row": torch.arange(40)})
    assert torch.equal(objective.loss(out, targets, None), other.loss(out, targets, None))


def test_each_row_gets_the_weight_of_its_place_in_the_pool():
    logits, probs = some(40, 9)
    labels = torch.randint(0, C, (40,), generator=generator(10))
    objective = fitted(probs, labels)
    logs = logits.log_softmax(1)
    objective.refresh(Snapshot(logs, [(answers(probs), logs)]))
    rows = torch.tensor([3, 30, 3])
    targets = Targets({"teacher_probs": probs[rows], "row": rows})
    loss = objective.loss(StudentOut(logits[rows], logits[rows]), targets, None)
    by_hand = weighted_loss(logits[rows], probs[rows], objective.weights[rows])
    assert torch.equal(loss, by_hand)


def test_weights_stay_between_the_least_one_and_the_largest():
    probs = torch.tensor([[0.9, 0.1]] * 10)
    sure = torch.tensor([[30.0, 0.0]] * 10).log_softmax(1)  # certain of the truth, class 0
    low = fitted(1 - probs, torch.zeros(10, dtype=torch.long))
    low.refresh(Snapshot(sure, [(answers(1 - probs), sure)]))
    assert torch.equal(low.weights, torch.full((10,), 1e-3))
    high = fitted(probs, torch.ones(10, dtype=torch.long), clip_max=5.0)
    high.refresh(Snapshot(sure, [(answers(probs), sure)]))
    assert torch.equal(high.weights, torch.full((10,), 5.0))


def test_bad_use_is_refused():
    logits, probs = some()
    with pytest.raises(ShapeError, match="for the same rows"):
        debiasing_weights(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ShapeError, match="one a row"):
        weighted_loss(logits, probs, torch.ones(3))
    with pytest.raises(ConfigError, match="neighbours"):
        Weighted().fit([], None)
    with pytest.raises(ConfigError, match="not fitted"):
        Weighted().refresh(Snapshot(probs, []))
    objective = fitted(probs, probs.argmax(1))
    objective.refresh(Snapshot(probs.log(), [(answers(probs), probs.log())]))
    with pytest.raises(ConfigError, match="'row'"):
        objective.loss(StudentOut(logits, logits), objective.targets(answers(probs)), None)


@pytest.mark.parametrize(
    "bad",
    [
        {"target": "mild"},
        {"estimator": "guess"},
        {"refresh_every": -1.0},
        {"pretrain": 1.0},
        {"clip_max": 0.0},
    ],
)
def test_a_bad_setting_is_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Weighted(**bad)
