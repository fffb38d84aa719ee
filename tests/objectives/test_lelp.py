"""LELP's loss and objective: identities, limits, gradients, and where predictions are read."""

import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.errors import ConfigError, LimbeckWarning, ShapeError
from limbeck.numerics.logspace import retemper
from limbeck.objectives import (
    Evidence,
    Lelp,
    LinearProjections,
    SoftKD,
    StudentOut,
    TeacherHead,
    kd_loss,
    lelp_loss,
    slam_loss,
    trusted_lelp_loss,
)
from limbeck.objectives.answer_projections import project_answers
from limbeck.objectives.subclasses import default_subclasses, subclass_map

B, C, S = 9, 3, 4


def normal(*shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=g).to(dtype)


@pytest.fixture
def split():
    """Class probabilities p, splits w, targets q and outputs a."""
    p = torch.softmax(normal(B, C, seed=1), 1)
    w = torch.softmax(normal(B, C, S, seed=2), 2)
    return p, w, p[:, :, None] * w, normal(B, C * S, seed=3)


def parts(a, tau=1.0):
    """The student's class probabilities rho and splits omega."""
    r = torch.softmax(a / tau, 1).view(B, C, S)
    return r.sum(2), r / r.sum(2, keepdim=True)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_the_loss_is_that_of_a_slow_loop(split, tau):
    _, _, q, a = split
    found = lelp_loss(a, q, temperature=tau)
    for i in range(B):
        z = (a[i] / tau).exp()
        total = 0.0
        for c in range(C):
            for s in range(S):
                r = float(z[c * S + s] / z.sum())
                total += float(q[i, c, s]) * float(np.log(float(q[i, c, s]) / r))
        assert float(found[i]) == pytest.approx(tau**2 * total, rel=1e-10)


def test_the_loss_is_the_classes_divergence_and_the_splits_divergences_weighted(split):
    p, w, q, a = split
    rho, omega = parts(a)
    wanted = (p * (p / rho).log()).sum(1)
    wanted = wanted + (p * (w * (w / omega).log()).sum(2)).sum(1)
    torch.testing.assert_close(lelp_loss(a, q), wanted, rtol=1e-12, atol=1e-14)


def test_the_gradient_is_r_less_q_and_over_a_class_that_of_plain_distillation(split):
    p, _, q, a = split
    z = a.clone().requires_grad_()
    lelp_loss(z, q).sum().backward()
    r = torch.softmax(a, 1).view(B, C, S)
    torch.testing.assert_close(z.grad.view(B, C, S), r - q, rtol=1e-12, atol=1e-14)
    logits = a.view(B, C, S).logsumexp(2).requires_grad_()
    kd_loss(logits, p).sum().backward()
    torch.testing.assert_close(z.grad.view(B, C, S).sum(2), logits.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_one_subclass_is_plain_distillation_bit_for_bit(dtype, tau):
    p = torch.softmax(normal(B, C, seed=1), 1)
    p = p if dtype == torch.float64 else p.float()
    a = normal(B, C, seed=3, dtype=dtype)
    mine, plain = (a.clone().requires_grad_() for _ in range(2))
    loss = lelp_loss(mine, retemper(p, tau)[:, :, None], temperature=tau)
    wanted = kd_loss(plain, p, temperature=tau)
    assert torch.equal(loss, wanted)
    loss.sum().backward()
    wanted.sum().backward()
    assert torch.equal(mine.grad, plain.grad)


def test_an_even_split_and_equal_outputs_give_the_gradients_of_plain_distillation():
    p, logits = torch.softmax(normal(B, C, seed=1), 1), normal(B, C, seed=3)
    even = p[:, :, None].expand(B, C, S) / S
    a = logits.repeat_interleave(S, 1).requires_grad_()
    plain = logits.clone().requires_grad_()
    lelp_loss(a, even, temperature=2.0).sum().backward()
    kd_loss(plain, p**2 / (p**2).sum(1, keepdim=True), temperature=2.0).sum().backward()
    torch.testing.assert_close(a.grad.view(B, C, S).sum(2), plain.grad)


def test_the_minimum_is_zero_at_the_targets_and_the_split_adds_log_s_nats_at_most(split):
    p, w, q, _ = split
    a = q.log().flatten(1).requires_grad_()
    loss = lelp_loss(a, q)
    loss.sum().backward()
    assert float(loss.detach().abs().max()) < 1e-12
    assert float(a.grad.abs().max()) < 1e-12
    crossed = -(q * q.log()).sum((1, 2))  # cross-entropy at its minimum
    entropy = -(p * p.log()).sum(1)
    inner = -(p * (w * w.log()).sum(2)).sum(1)
    torch.testing.assert_close(crossed, entropy + inner)
    assert bool((inner <= np.log(S)).all())


def test_permuting_subclasses_of_a_class_changes_neither_loss_nor_classes(split):
    _, _, q, a = split
    order = [2, 0, 3, 1]
    mixed = a.view(B, C, S)[:, :, order].flatten(1)
    torch.testing.assert_close(lelp_loss(mixed, q[:, :, order]), lelp_loss(a, q))
    known = subclass_map(C, S, 2.0)
    torch.testing.assert_close(known.log_probs(mixed), known.log_probs(a))


def test_masked_subclasses_cost_nothing_but_their_share_and_give_no_nan(split):
    p, _, q, a = split
    q[:, 1] = 0
    q[:, 1, 0] = p[:, 1]
    z = a.clone().requires_grad_()
    loss = lelp_loss(z, q)
    loss.sum().backward()
    r = torch.softmax(a, 1).view(B, C, S)
    torch.testing.assert_close(z.grad.view(B, C, S), r - q)
    assert bool(loss.isfinite().all())


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_gradients_are_those_of_finite_differences(split, tau):
    _, _, q, a = split
    z = a.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: lelp_loss(x, q, temperature=tau), z)
    alpha = torch.linspace(0.55, 1, B, dtype=torch.float64)
    for k in (2, 3):
        assert torch.autograd.gradcheck(
            lambda x, k=k: trusted_lelp_loss(x, q, alpha, k, temperature=tau), z
        )


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_full_trust_is_lelp_up_to_the_teachers_entropy(split, tau):
    p, _, q, a = split
    mine, plain = (a.clone().requires_grad_() for _ in range(2))
    trusted = trusted_lelp_loss(mine, q, torch.ones(B), 2, temperature=tau)
    wanted = lelp_loss(plain, q, temperature=tau)
    entropy = -(p * p.log()).sum(1)
    torch.testing.assert_close(trusted, wanted + tau**2 * entropy)
    trusted.sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(mine.grad, plain.grad)


@pytest.mark.parametrize("k", [2, 3])
def test_trust_with_one_subclass_is_slam(k):
    p, a = torch.softmax(normal(B, C, seed=1), 1), normal(B, C, seed=3)
    alpha = torch.linspace(0.3, 1, B, dtype=torch.float64)
    mine, plain = (a.clone().requires_grad_() for _ in range(2))
    trusted = trusted_lelp_loss(mine, p[:, :, None], alpha, k)
    wanted = slam_loss(plain, p, alpha, k)
    torch.testing.assert_close(trusted, wanted)
    trusted.sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(mine.grad, plain.grad)


def test_trust_is_the_cross_entropy_with_the_divided_mix_less_the_splits_entropy(split):
    _, w, q, a = split
    rho, omega = parts(a)
    alpha = torch.linspace(0.55, 0.95, B, dtype=torch.float64)[:, None]
    mix = alpha * rho + (1 - alpha) * (1 - rho)  # k = C: all classes are in the top set
    wanted = -(q * (mix[:, :, None] * omega).log()).sum((1, 2)) + (q * w.log()).sum((1, 2))
    torch.testing.assert_close(trusted_lelp_loss(a, q, alpha[:, 0], C), wanted)


def test_predictions_are_read_at_the_temperature_of_training():
    """A student that fits its targets perfectly names another class when it is read at 1."""
    p = torch.tensor([[0.55, 0.45]], dtype=torch.float64)
    w = torch.tensor([[[0.25, 0.25, 0.25, 0.25], [0.97, 0.01, 0.01, 0.01]]], dtype=torch.float64)
    tau = 2.0
    a = tau * (p[:, :, None] * w).log().flatten(1)
    assert float(lelp_loss(a, p[:, :, None] * w, temperature=tau)) < 1e-12
    objective = Lelp(subclasses=4, temperature=tau)
    objective.width(2)
    said = objective.class_log_probs(StudentOut(a, a))
    assert int(said.argmax()) == 0
    torch.testing.assert_close(torch.softmax(said / tau, 1), p)
    assert int(subclass_map(2, 4, 1.0).log_probs(a).argmax()) == 1


@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0])
def test_a_student_that_fits_its_targets_gives_the_teachers_probabilities_at_temperature_one(tau):
    p, w = torch.softmax(normal(B, C, seed=1), 1), torch.softmax(normal(B, C, S, seed=2), 2)
    a = tau * (retemper(p, tau)[:, :, None] * w).log().flatten(1)
    objective = Lelp(subclasses=S, temperature=tau)
    objective.width(C)
    torch.testing.assert_close(objective.class_log_probs(StudentOut(a, a)).exp(), p)


def test_equal_outputs_of_a_class_cost_labelled_rows_what_plain_distillation_costs():
    logits, labels = normal(B, C, seed=3), torch.arange(B) % C
    a, objective = logits.repeat_interleave(S, 1), Lelp(subclasses=S, temperature=4.0)
    objective.width(C)
    plain = SoftKD(temperature=4.0).loss(StudentOut(logits, logits), None, labels)
    torch.testing.assert_close(
        objective.loss(StudentOut(a, a), None, labels).double(), plain.double()
    )


def test_the_number_of_subclasses_follows_from_the_classes():
    assert [default_subclasses(c) for c in (2, 3, 4, 5, 8, 10, 100)] == [8, 5, 4, 3, 2, 2, 2]
    assert Lelp().width(2) == 16
    assert Lelp(subclasses=3).width(5) == 15
    assert Lelp(subclasses=2).class_map(3).class_of == (0, 0, 1, 1, 2, 2)
    assert Lelp(subclasses=2, temperature=4.0).class_map(3).temperature == 4.0
    assert Lelp(subclasses=1, temperature=4.0).class_map(3).is_plain


def told(rows=200, dim=12, classes=3, seed=0):
    """Answers of a teacher with a linear last layer, and this layer."""
    h = normal(rows, dim, seed=seed, dtype=torch.float32)
    head = TeacherHead(
        normal(classes, dim, seed=7, dtype=torch.float32), torch.arange(classes) * 0.1
    )
    probs = torch.softmax(h @ head.weight.T + head.bias, 1)
    return Answers(np.zeros((rows, 16), np.uint8), probs, h), head


def evidence(answers, head, alpha=1.0):
    probs = answers.probs
    return Evidence(probs, probs.argmax(1), lambda p: torch.full((len(p),), alpha), 2, head=head)


def test_the_objective_gives_what_the_functions_give():
    answers, head = told()
    lelp = Lelp(subclasses=4, seed=5).fit([answers], evidence(answers, head))
    found = LinearProjections.fit(
        answers.embeddings,
        answers.probs.argmax(1),
        4,
        classifier_weight=head.weight,
        generator=torch.Generator().manual_seed(5),
    )
    wanted = found.pseudo_probs(answers.embeddings, retemper(answers.probs, 2.0), 3.0)
    targets = lelp.targets(answers)
    assert torch.equal(targets["pseudo_probs"], wanted)
    a = normal(200, 12, dtype=torch.float32)
    loss = lelp.loss(StudentOut(a, a), targets, None)
    assert torch.equal(loss, lelp_loss(a, wanted, temperature=2.0))


def test_the_objective_with_trust_gives_what_the_function_gives():
    answers, head = told()
    known = evidence(answers, head, 0.8)
    lelp = Lelp(subclasses=4, trust=True).fit([answers], known)
    assert lelp.uses_trust
    assert lelp.corrects_noise
    targets, a = lelp.targets(answers), normal(200, 12, dtype=torch.float32)
    wanted = trusted_lelp_loss(
        a, targets["pseudo_probs"], torch.full((200,), 0.8), 2, temperature=2.0
    )
    torch.testing.assert_close(lelp.loss(StudentOut(a, a), targets, None), wanted)
    with pytest.raises(ConfigError, match="trust needs"):
        Lelp(trust=True).fit([answers], None)


def test_batches_and_one_iterator_give_the_fit_of_all_rows():
    answers, head = told()
    known = evidence(answers, head)
    parts_ = [
        Answers(answers.ids[r], answers.probs[r], answers.embeddings[r])
        for r in torch.arange(200).split(33)
    ]
    whole, batched = (Lelp().fit(x, known) for x in ([answers], iter(parts_)))
    torch.testing.assert_close(
        whole.targets(answers)["pseudo_probs"], batched.targets(answers)["pseudo_probs"]
    )


def test_a_hidden_last_layer_is_fitted_to_the_answers_or_left_or_refused():
    answers, head = told()
    with pytest.warns(LimbeckWarning, match="fitted to its answers"):
        regressed = Lelp().fit([answers], None)
    centered = Lelp(null_space="centered").fit([answers], evidence(answers, head))
    torch.testing.assert_close(
        regressed.targets(answers)["pseudo_probs"],
        centered.targets(answers)["pseudo_probs"],
        rtol=1e-3,
        atol=1e-5,
    )
    with pytest.warns(LimbeckWarning, match="whole space"):
        free = Lelp(without_weights="none").fit([answers], None)
    plain = Lelp(null_space="none").fit([answers], None)
    assert torch.equal(free.projections.directions, plain.projections.directions)
    with pytest.raises(ConfigError, match="without_weights"):
        Lelp(without_weights="refuse").fit([answers], None)


@pytest.mark.filterwarnings("ignore:lelp. the teacher's last layer")
@pytest.mark.parametrize("known", [True, False])
def test_wide_embeddings_are_read_in_several_passes_to_the_same_split(monkeypatch, known):
    answers, head = told()
    answers = Answers(answers.ids, answers.probs, answers.embeddings * 0.5 ** torch.arange(12.0))

    def fit(batches):
        return project_answers(
            batches,
            head if known else None,
            lambda _: 2,
            name="lelp",
            without_weights="regress",
            generator=torch.Generator().manual_seed(0),
            settings={"rotation": "none"},
        )

    exact = fit([answers])
    monkeypatch.setattr("limbeck.objectives.spectra.EXACT_DIM", 5)
    wide = fit([answers])
    torch.testing.assert_close(wide.directions, exact.directions, rtol=1e-3, atol=1e-3)
    with pytest.raises(ConfigError, match="only once"):
        fit(iter([answers]))
    monkeypatch.undo()
    monkeypatch.setattr("limbeck.objectives.spectra.EXACT_BYTES", 2 * 8 * 12 * 12)  # of 3 classes
    tight = fit([answers])
    assert torch.equal(tight.directions, wide.directions)


def test_a_class_that_the_teacher_never_names_is_left_whole():
    answers, head = told()
    probs = torch.cat([answers.probs * 0.99, torch.full((200, 1), 0.01)], 1)
    answers = Answers(answers.ids, probs, answers.embeddings)
    with pytest.warns(LimbeckWarning, match="class 3 has 0 rows"):
        lelp = Lelp().fit([answers], evidence(answers, head))
    q = lelp.targets(answers)["pseudo_probs"]
    assert q.shape == (200, 4, 4)
    torch.testing.assert_close(q[:, 3, 0], retemper(probs, 2.0)[:, 3])


def test_what_does_not_fit_is_refused():
    answers, head = told()
    bare = Answers(answers.ids, answers.probs)
    with pytest.raises(ConfigError, match="hold none"):
        Lelp().fit([bare], evidence(answers, head))
    with pytest.raises(ConfigError, match="not fitted yet"):
        Lelp().targets(answers)
    with pytest.raises(ShapeError, match="no embeddings"):
        Lelp(null_space="none").fit([], None)
    with pytest.raises(ShapeError, match=r"\(B, C, S\)"):
        lelp_loss(torch.zeros(2, 6), torch.zeros(2, 6))
    with pytest.raises(ShapeError, match="head of 6 outputs"):
        lelp_loss(torch.zeros(2, 5), torch.zeros(2, 3, 2))
