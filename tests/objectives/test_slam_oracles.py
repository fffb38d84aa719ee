"""What SLaM's mathematics promises, against closed forms, slow loops and theorems."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import kd_loss, mix, slam_loss, top_mask

FORMS = [(t, n) for t in ("soft", "hard") for n in (False, True)]


def draw(seed: int, rows: int, classes: int, dtype: torch.dtype = torch.float64):
    """Logits, teacher probabilities, alpha in (0.5, 1) and a generator."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, dtype=dtype, generator=g)
    teacher = torch.softmax(2 * torch.randn(rows, classes, dtype=dtype, generator=g), dim=1)
    alpha = 0.5 + 0.5 * torch.rand(rows, dtype=dtype, generator=g)
    return logits, teacher, alpha, g


def loop_loss(logits, teacher, alpha, k, *, target, normalized, eps=1e-7) -> Tensor:
    """The definition, entry by entry, with Python's own sorting for the top set."""
    out = []
    for z, p, a in zip(logits, teacher, alpha.tolist(), strict=True):
        f = torch.softmax(z, dim=0).tolist()
        order = sorted(range(len(f)), key=lambda c: (-p[c].item(), c))
        top = set(order[:k])
        nu = k - 1 if normalized else 1
        wanted = p if target == "soft" else functional.one_hot(torch.tensor(order[0]), len(f))
        total = 0.0
        for c, f_c in enumerate(f):
            mixed = a * f_c + (1 - a) * (1 - f_c) * (c in top) / nu
            total -= float(wanted[c]) * float(torch.tensor(max(mixed, eps)).double().log())
        out.append(total)
    return torch.tensor(out, dtype=logits.dtype)


def grad_of(loss_of, logits: Tensor) -> Tensor:
    z = logits.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss_of(z).sum(), z)
    return grad


@pytest.mark.parametrize(("target", "normalized"), FORMS)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 7), data=st.data())
@settings(max_examples=30, deadline=None)
def test_the_loss_is_its_definition_computed_entry_by_entry(
    target, normalized, seed, classes, data
):
    k = data.draw(st.integers(2, classes))
    logits, teacher, alpha, _ = draw(seed, 4, classes)
    fast = slam_loss(logits, teacher, alpha, k, target=target, normalized=normalized)
    slow = loop_loss(logits, teacher, alpha, k, target=target, normalized=normalized)
    torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_alpha_one_is_cross_entropy_with_the_same_target_in_value_and_gradient(target):
    logits, teacher, alpha, _ = draw(1, 64, 6, torch.float32)
    logits = 20 * logits  # far past where a floor on the mix would show
    wanted = teacher if target == "soft" else teacher.argmax(dim=1)

    def slam(z):
        return slam_loss(z, teacher, torch.ones_like(alpha), 3, target=target)

    def plain(z):
        return functional.cross_entropy(z, wanted, reduction="none")

    torch.testing.assert_close(slam(logits), plain(logits), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(grad_of(slam, logits), grad_of(plain, logits), atol=1e-6, rtol=1e-6)


def test_alpha_one_with_a_soft_target_has_the_gradient_of_plain_distillation():
    logits, teacher, alpha, _ = draw(2, 32, 5)
    ones = torch.ones_like(alpha)
    slam = grad_of(lambda z: slam_loss(z, teacher, ones, 2), logits)
    torch.testing.assert_close(slam, grad_of(lambda z: kd_loss(z, teacher), logits))


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_with_k_two_the_normalised_form_equals_the_unnormalised(target):
    logits, teacher, alpha, _ = draw(3, 32, 5)
    both = [
        slam_loss(logits, teacher, alpha, 2, target=target, normalized=n) for n in (False, True)
    ]
    torch.testing.assert_close(both[0], both[1], atol=1e-6, rtol=0)
    f = torch.softmax(logits, dim=1)
    torch.testing.assert_close(
        mix(f, alpha, teacher, 2), mix(f, alpha, teacher, 2, normalized=True), atol=1e-6, rtol=0
    )


def test_a_hard_target_unnormalised_does_not_depend_on_k_in_value_or_gradient():
    logits, teacher, alpha, _ = draw(4, 32, 6)
    values, grads = [], []
    for k in range(2, 7):
        values.append(slam_loss(logits, teacher, alpha, k, target="hard"))
        grads.append(grad_of(lambda z, k=k: slam_loss(z, teacher, alpha, k, target="hard"), logits))
    for value, grad in zip(values[1:], grads[1:], strict=True):
        torch.testing.assert_close(value, values[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(grad, grads[0], atol=1e-6, rtol=0)


def test_with_all_classes_in_the_set_the_normalised_mix_is_forward_correction():
    logits, teacher, alpha, _ = draw(5, 16, 5)
    f = torch.softmax(logits, dim=1)
    mixed = mix(f, alpha, teacher, 5, normalized=True)
    for i in range(16):
        noise = torch.full((5, 5), float(1 - alpha[i]) / 4, dtype=torch.float64)
        noise.fill_diagonal_(float(alpha[i]))
        torch.testing.assert_close(mixed[i], f[i] @ noise, atol=1e-6, rtol=0)


def test_the_mix_sums_to_what_the_mass_inside_the_set_says():
    logits, teacher, alpha, _ = draw(6, 40, 6)
    f = torch.softmax(logits, dim=1)
    for k in range(2, 7):
        mass = (f * top_mask(teacher, k)).sum(dim=1)
        for normalized, nu in ((True, k - 1), (False, 1)):
            total = mix(f, alpha, teacher, k, normalized=normalized).sum(dim=1)
            wanted = alpha + (1 - alpha) * (k - mass) / nu
            torch.testing.assert_close(total, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("normalized", [False, True])
def test_a_hard_target_bounds_the_loss_where_cross_entropy_is_unbounded(normalized):
    k, alpha = 4, torch.tensor([0.8])
    teacher = torch.tensor([[0.7, 0.1, 0.1, 0.05, 0.05]])
    logits = torch.tensor([[-1000.0, 0.0, 0.0, 0.0, 0.0]])
    bound = -torch.tensor(0.2 / (k - 1 if normalized else 1)).log()
    loss = slam_loss(logits, teacher, alpha, k, target="hard", normalized=normalized)
    assert float(loss) == pytest.approx(float(bound), abs=1e-5)


@pytest.mark.parametrize(("z", "slam", "plain"), [(-2.0, -0.232, -0.881), (-5.0, -0.0196, -0.993)])
def test_confident_disagreement_is_ignored_at_the_known_rate(z, slam, plain):
    # A binary logit z is the pair (0, z); alpha 0.8, the teacher says class 1.
    teacher = torch.tensor([[0.1, 0.9]], dtype=torch.float64)
    logits = torch.tensor([[0.0, z]], dtype=torch.float64)
    for alpha, wanted in ((0.8, slam), (1.0, plain)):
        a = torch.tensor([alpha], dtype=torch.float64)
        grad = grad_of(lambda x, a=a: slam_loss(x, teacher, a, 2, target="hard"), logits)
        assert float(grad[0, 1]) == pytest.approx(wanted, abs=6e-4)


@pytest.mark.parametrize(("k", "target"), [(2, "hard"), (2, "soft"), (5, "hard")])
def test_alpha_one_half_gives_a_zero_gradient(k, target):
    logits, teacher, alpha, _ = draw(7, 16, 2 if target == "soft" else 5)
    half = torch.full_like(alpha, 0.5)
    grad = grad_of(lambda z: slam_loss(z, teacher, half, k, target=target), logits)
    assert float(grad.abs().max()) < 1e-6


@pytest.mark.parametrize(("normalized", "bound"), [(False, 1 / 2), (True, 1 / 4)])
def test_the_label_attracts_above_the_sign_bound_and_repels_below_it(normalized, bound):
    logits, teacher, _, _ = draw(8, 16, 5)
    label = teacher.argmax(dim=1, keepdim=True)
    for step in (0.05, -0.05):
        alpha = torch.full((16,), bound + step, dtype=torch.float64)
        grad = grad_of(
            lambda z, a=alpha: slam_loss(z, teacher, a, 4, target="hard", normalized=normalized),
            logits,
        )
        # The gradient on the label's logit: negative when a step downhill raises it.
        assert ((grad.gather(1, label) < 0) == (step > 0)).all()


@pytest.mark.parametrize(("target", "normalized"), FORMS)
def test_the_gradient_is_that_of_finite_differences(target, normalized):
    for k, classes in ((2, 2), (2, 5), (3, 5), (5, 5)):
        logits, teacher, alpha, _ = draw(9, 4, classes)
        alpha[0], alpha[1] = 1.0, 0.5
        logits.requires_grad_()
        assert torch.autograd.gradcheck(
            lambda z, p=teacher, a=alpha, k=k: slam_loss(
                z, p, a, k, target=target, normalized=normalized
            ),
            logits,
        )


@pytest.mark.parametrize(("target", "normalized"), FORMS)
def test_the_gradient_is_the_closed_form(target, normalized):
    k = 3
    logits, teacher, alpha, _ = draw(10, 8, 6)
    f = torch.softmax(logits, dim=1)
    top = top_mask(teacher, k).double()
    a, nu = alpha[:, None], (k - 1 if normalized else 1)
    wanted = teacher if target == "soft" else functional.one_hot(teacher.argmax(1), 6).double()
    v = -wanted * (a - (1 - a) * top / nu) / mix(f, alpha, teacher, k, normalized=normalized)
    closed = f * (v - (v * f).sum(dim=1, keepdim=True))
    grad = grad_of(
        lambda z: slam_loss(z, teacher, alpha, k, target=target, normalized=normalized), logits
    )
    torch.testing.assert_close(grad, closed, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("eps", [1e-7, 1e-3, 0.2])
@pytest.mark.parametrize(("target", "normalized"), FORMS)
def test_value_and_gradient_are_those_of_the_definition_where_the_floor_binds(
    target, normalized, eps
):
    logits, teacher, alpha, _ = draw(15, 64, 6)
    logits = 12 * logits
    wanted = teacher if target == "soft" else functional.one_hot(teacher.argmax(1), 6).double()

    def definition(z):
        mixed = mix(torch.softmax(z, 1), alpha, teacher, 3, normalized=normalized)
        return -(wanted * mixed.clamp_min(eps).log()).sum(dim=1)

    def fast(z):
        return slam_loss(z, teacher, alpha, 3, target=target, normalized=normalized, eps=eps)

    mixed = mix(torch.softmax(logits, 1), alpha, teacher, 3, normalized=normalized)
    assert (mixed < eps).any()
    torch.testing.assert_close(fast(logits), definition(logits), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(
        grad_of(fast, logits), grad_of(definition, logits), atol=1e-9, rtol=1e-9
    )


def many(alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, teacher and alpha of so many classes that only the top set is mixed."""
    logits, teacher, _, _ = draw(16, len(alpha), 140)
    return logits, teacher, alpha.double()


@pytest.mark.parametrize("eps", [1e-7, 1e-3])
@pytest.mark.parametrize("spread", [1, 12])
@pytest.mark.parametrize("normalized", [False, True])
def test_of_many_classes_too_value_and_gradient_are_those_of_the_definition(
    normalized, spread, eps
):
    # Rows at the sign bound, between, and sure; the sure ones have no floor.
    logits, teacher, alpha = many(torch.tensor([0.5, 0.6, 0.99, 1.0]).repeat(4))
    logits = spread * logits

    def definition(z):
        mixed = mix(torch.softmax(z, 1), alpha, teacher, 3, normalized=normalized)
        floor = torch.full_like(alpha, eps).masked_fill(alpha == 1, 1e-300)[:, None]
        return -(teacher * mixed.maximum(floor).log()).sum(dim=1)

    def fast(z):
        return slam_loss(z, teacher, alpha, 3, normalized=normalized, eps=eps)

    if spread > 1:
        assert (mix(torch.softmax(logits, 1), alpha, teacher, 3) < eps).any()
    torch.testing.assert_close(fast(logits), definition(logits), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(
        grad_of(fast, logits), grad_of(definition, logits), atol=1e-9, rtol=1e-9
    )


@pytest.mark.parametrize("normalized", [False, True])
def test_of_many_classes_too_the_gradient_is_that_of_finite_differences(normalized):
    logits, teacher, alpha = many(torch.tensor([0.5, 0.8, 1.0]))
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: slam_loss(z, teacher, alpha, 4, normalized=normalized), logits
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_of_many_classes_too_a_certain_student_gives_no_nan(dtype):
    teacher = torch.eye(140)[:4]
    for alpha, k in itertools.product((0.5, 1.0), (2, 140)):
        z = (1000 * torch.eye(140)[[0, 5, 2, 139]]).to(dtype).requires_grad_()
        loss = slam_loss(z, teacher, torch.full((4,), alpha), k)
        loss.sum().backward()
        assert loss.isfinite().all()
        assert z.grad.isfinite().all()


def test_of_many_classes_too_alpha_one_is_cross_entropy_far_past_any_floor():
    logits, teacher, alpha = many(torch.ones(8))

    def plain(z):
        return functional.cross_entropy(z, teacher, reduction="none")

    def slam(z):
        return slam_loss(z, teacher, alpha, 3)

    torch.testing.assert_close(slam(200 * logits), plain(200 * logits))
    torch.testing.assert_close(grad_of(slam, 200 * logits), grad_of(plain, 200 * logits))


def test_of_many_classes_too_the_gradient_may_be_asked_for_twice():
    for classes in (5, 140):
        logits, teacher, alpha, _ = draw(17, 4, classes)
        logits.requires_grad_()
        loss = slam_loss(logits, teacher, alpha, 3).sum()
        first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
        assert torch.equal(first, torch.autograd.grad(loss, logits)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("target", "normalized"), FORMS)
def test_no_nan_where_the_student_is_certain_and_alpha_or_k_are_at_their_ends(
    target, normalized, dtype
):
    certain = torch.tensor([[0.0, -1000.0, -1000.0], [-1000.0, 0.0, -1000.0], [0.0, 0.0, 0.0]])
    one_hot = torch.eye(3)[torch.tensor([0, 1, 2])]
    flat = torch.full((3, 3), 1 / 3)
    for teacher, alpha, k in itertools.product((one_hot, flat), (0.5, 1.0), (2, 3)):
        for logits in (certain, certain.roll(1, 0)):
            z = logits.clone().to(dtype).detach().requires_grad_()
            loss = slam_loss(
                z, teacher, torch.full((3,), alpha), k, target=target, normalized=normalized
            )
            loss.sum().backward()
            assert loss.isfinite().all()
            assert z.grad.isfinite().all()


@pytest.mark.parametrize(("target", "normalized"), FORMS)
def test_autocast_does_not_change_the_precision(target, normalized):
    logits, teacher, alpha, _ = draw(11, 16, 5, torch.float32)
    plain = slam_loss(logits, teacher, alpha, 3, target=target, normalized=normalized)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = slam_loss(logits, teacher, alpha, 3, target=target, normalized=normalized)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, atol=0, rtol=0)


def test_a_k_for_each_row_equals_one_call_for_each_row():
    logits, teacher, alpha, _ = draw(12, 5, 6)
    k = torch.tensor([2, 3, 4, 5, 6])
    for target, normalized in FORMS:
        together = slam_loss(logits, teacher, alpha, k, target=target, normalized=normalized)
        for i in range(5):
            one = slice(i, i + 1)
            alone = slam_loss(
                logits[one], teacher[one], alpha[one], int(k[i]), target=target,
                normalized=normalized,
            )  # fmt: skip
            torch.testing.assert_close(together[one], alone)


def test_shifting_logits_or_permuting_rows_changes_nothing():
    logits, teacher, alpha, g = draw(13, 12, 5)
    order = torch.randperm(12, generator=g)
    loss = slam_loss(logits, teacher, alpha, 3)
    torch.testing.assert_close(slam_loss(logits + 7, teacher, alpha, 3), loss)
    torch.testing.assert_close(
        slam_loss(logits[order], teacher[order], alpha[order], 3), loss[order]
    )


def test_ties_go_to_the_lower_class_and_the_set_has_exactly_k_members():
    probs = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, -0.0, 1.0, 0.0], [0.1, 0.4, 0.1, 0.4]])
    wanted = {2: [[0, 1], [0, 2], [1, 3]], 3: [[0, 1, 2], [0, 1, 2], [0, 1, 3]]}
    for k, rows in wanted.items():
        mask = top_mask(probs, k)
        assert [row.nonzero().ravel().tolist() for row in mask] == rows


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 14))
@settings(max_examples=40, deadline=None)
def test_the_top_set_is_that_of_a_stable_sort_even_with_many_ties(seed, classes):
    g = torch.Generator().manual_seed(seed)
    probs = torch.randint(0, 4, (6, classes), generator=g).float() / 8
    order = torch.sort(probs, dim=1, descending=True, stable=True).indices
    for k in range(2, classes + 1):
        wanted = torch.zeros_like(probs, dtype=torch.bool).scatter_(1, order[:, :k], True)
        assert torch.equal(top_mask(probs, k), wanted)


def test_the_truth_minimises_the_expected_loss_under_the_noise_that_is_mixed_in():
    # One parameter: the student t g + (1 - t) uniform. Labels drawn from mix_norm(g) exactly, by
    # their expectation as a soft target; the mix uses the top set of the teacher's own answer.
    g = torch.Generator().manual_seed(14)
    ts = torch.linspace(0, 1, 101, dtype=torch.float64)
    for _ in range(50):
        truth = int(torch.randint(0, 5, (1,), generator=g))
        k = int(torch.randint(2, 6, (1,), generator=g))
        others = [c for c in torch.randperm(5, generator=g).tolist() if c != truth][: k - 1]
        floor = 1 / k + 0.02
        alpha = floor + (1 - floor) * float(torch.rand(1, generator=g))
        label = torch.zeros(1, 5, dtype=torch.float64)
        label[0, truth], label[0, others] = alpha, (1 - alpha) / (k - 1)
        hot = functional.one_hot(torch.tensor(truth), 5).double()
        f = ts[:, None] * hot + (1 - ts)[:, None] / 5
        # Any teacher with this top set will do for the mask; a tie at the edge is kept outside.
        top = torch.zeros(1, 5, dtype=torch.float64)
        top[0, [truth, *others]] = 1.0
        loss = slam_loss_of_probs(f, label, top, alpha, k)
        assert int(loss.argmin()) == 100


def slam_loss_of_probs(f: Tensor, label: Tensor, top: Tensor, alpha: float, k: int) -> Tensor:
    """Expected CE(label, mix_norm(f)) with the library's mix."""
    n = f.shape[0]
    a = torch.full((n,), alpha, dtype=f.dtype)
    mixed = mix(f, a, top.expand(n, -1) / top.sum(), k, normalized=True)
    return -(label * mixed.clamp_min(1e-12).log()).sum(dim=1)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"k": 1}, ConfigError, "k=1"),
        ({"k": 6}, ConfigError, r"\[2, 5\]"),
        ({"k": torch.tensor([2, 2])}, ShapeError, "k must be"),
        ({"target": "mild"}, ConfigError, "'soft' or 'hard'"),
        ({"eps": 0.0}, ConfigError, "eps"),
        ({"alpha": torch.full((4,), 1.2)}, ConfigError, "probability"),
        ({"alpha": torch.full((4,), torch.nan)}, ConfigError, "probability"),
        ({"alpha": torch.zeros(4)}, ConfigError, "probability"),
        ({"alpha": torch.tensor(0.7)}, ShapeError, r"\(4,\)"),
        ({"teacher_probs": torch.full((4, 6), 1 / 6)}, ShapeError, "same rows"),
        ({"logits": torch.zeros(4)}, ShapeError, "logits"),
    ],
)
def test_bad_arguments_are_refused_with_a_sentence_that_names_them(change, error, words):
    given_ = {
        "logits": torch.zeros(4, 5),
        "teacher_probs": torch.full((4, 5), 0.2),
        "alpha": torch.full((4,), 0.8),
        "k": 3,
    }
    with pytest.raises(error, match=words):
        slam_loss(**{**given_, **change})
