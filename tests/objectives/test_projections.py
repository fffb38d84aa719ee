"""LELP's projections: a brute-force oracle, the theorems of the method, planted components."""

import warnings

import pytest
import torch

from limbeck.errors import ConfigError, DataError, LimbeckWarning, ShapeError
from limbeck.objectives import spectra
from limbeck.objectives.moments import Group
from limbeck.objectives.projections import LinearProjections, regress_head

N, D, C, S = 40, 6, 2, 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def pool(count=N, dim=D, classes=C, seed=0):
    """Embeddings, classes, the teacher's layer and its probabilities."""
    h = normal(count, dim, seed=seed) @ normal(dim, dim, seed=seed + 1) + normal(dim, seed=seed + 2)
    weight = normal(classes, dim, seed=seed + 3)
    y = torch.arange(count) % classes
    return h, y, weight, torch.softmax(h @ weight.T / 5, dim=1)


def fit(h, y, size=S, weight=None, seed=0, **settings):
    if weight is None:
        settings.setdefault("null_space", "none")
    return LinearProjections.fit(
        h, y, size, classifier_weight=weight, generator=generator(seed), **settings
    )


def brute_force(h, y, weight, p, beta, null_space):
    """The targets in loops, with the explicit projector and no rotation."""
    kept = weight - weight.mean(0) if null_space == "centered" else weight
    projector = torch.eye(D, dtype=torch.float64) - torch.linalg.pinv(kept) @ kept
    q = torch.zeros(N, C, S, dtype=torch.float64)
    for c in range(C):
        own = h[y == c] @ projector
        mean = own.mean(0)
        _, vectors = torch.linalg.eigh((own - mean).T @ (own - mean) / len(own))
        found = [vectors[:, -1 - s] for s in range(S)]
        found = [v if v[v.abs().argmax()] > 0 else -v for v in found]
        sigma = (
            sum(float(v @ (row - mean)) ** 2 for row in own for v in found) / (S * len(own))
        ) ** 0.5
        for i in range(N):
            g = [float(v @ (h[i] @ projector - mean)) / sigma / beta for v in found]
            total = sum(torch.tensor(g, dtype=torch.float64).exp())
            for s in range(S):
                q[i, c, s] = p[i, c] * torch.tensor(g[s], dtype=torch.float64).exp() / total
    return q


@pytest.mark.parametrize("null_space", ["weights", "centered"])
@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_targets_are_those_of_a_slow_loop_with_the_explicit_projector(beta, null_space):
    h, y, weight, p = pool()
    found = fit(h, y, weight=weight, rotation="none", null_space=null_space)
    wanted = brute_force(h, y, weight, p, beta, null_space)
    torch.testing.assert_close(found.pseudo_probs(h, p, beta), wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rotation", ["random", "balanced", "none"])
@pytest.mark.parametrize("directions", ["pca", "random"])
@pytest.mark.parametrize("scale", ["rms", "none", "whiten"])
def test_subclasses_sum_to_their_class(rotation, directions, scale):
    h, y, weight, p = pool(200, 12, 3)
    found = fit(h, y, 4, weight, rotation=rotation, directions=directions, scale=scale)
    q = found.pseudo_probs(h, p, 1.0)
    assert bool((q >= 0).all())
    torch.testing.assert_close(q.sum(2), p, rtol=1e-13, atol=1e-15)


def test_the_rms_of_a_classes_scores_is_one_and_whitened_scores_have_variance_one_each():
    h, y, weight, _ = pool(200, 12, 3)
    for c in range(3):
        own = fit(h, y, 4, weight).scores(h[y == c])[:, c]
        assert float(own.square().mean()) == pytest.approx(1, abs=1e-10)
        own = fit(h, y, 4, weight, scale="whiten").scores(h[y == c])[:, c]
        torch.testing.assert_close(own.square().mean(0), torch.ones(4, dtype=torch.float64))
        own = fit(h, y, 4, weight, rotation="balanced").scores(h[y == c])[:, c]
        torch.testing.assert_close(own.square().mean(0), torch.ones(4, dtype=torch.float64))


def test_null_directions_leave_the_logits_and_row_directions_leave_the_split():
    h, y, weight, _ = pool(200, 12, 3)
    found = fit(h, y, 4, weight)
    along = torch.einsum("cds,cs->d", found.directions, normal(3, 4, seed=8))
    torch.testing.assert_close((h + 10 * along) @ weight.T, h @ weight.T)
    moved = h + normal(200, 3, seed=9) @ weight
    torch.testing.assert_close(
        found.log_split(moved, 1.0), found.log_split(h, 1.0), rtol=1e-9, atol=1e-10
    )
    assert found.null_rank == 9


def test_centered_leaves_one_direction_more_than_weights():
    h, y, weight, _ = pool(200, 12, 3)
    assert fit(h, y, 4, weight, null_space="centered").null_rank == 10
    assert fit(h, y, 4, null_space="none").null_rank == 12


@pytest.mark.parametrize("rotation", ["random", "balanced"])
def test_a_rotation_keeps_the_span_and_the_length_of_every_projection(rotation):
    h, y, weight, _ = pool(200, 12, 3)
    plain, turned = (fit(h, y, 4, weight, rotation=r) for r in ("none", rotation))
    for v, w in zip(plain.directions, turned.directions, strict=True):
        torch.testing.assert_close(v @ v.T, w @ w.T)
        torch.testing.assert_close(w.T @ w, torch.eye(4, dtype=torch.float64))
        assert not torch.allclose(v, w)
    torch.testing.assert_close(plain.scores(h).norm(dim=2), turned.scores(h).norm(dim=2))


def test_the_rotation_of_one_direction_is_a_sign_at_most():
    h, y, weight, _ = pool(200, 12, 3)
    plain, turned = (fit(h, y, 1, weight, rotation=r) for r in ("none", "random"))
    torch.testing.assert_close(plain.directions.abs(), turned.directions.abs())


def test_one_seed_gives_one_result_and_another_turns_it_only():
    h, y, weight, _ = pool(200, 12, 3)
    first, again, other = (fit(h, y, 4, weight, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.directions, again.directions)
    assert not torch.allclose(first.directions, other.directions)
    for v, w in zip(first.directions, other.directions, strict=True):
        torch.testing.assert_close(v @ v.T, w @ w.T)


def test_the_order_of_the_rows_changes_nothing_but_rounding():
    h, y, weight, p = pool(200, 12, 3)
    order = torch.randperm(200, generator=generator(5))
    torch.testing.assert_close(
        fit(h, y, 4, weight).pseudo_probs(h, p, 1.0),
        fit(h[order], y[order], 4, weight).pseudo_probs(h, p, 1.0),
    )


def test_another_basis_of_the_embedding_changes_no_target():
    h, y, weight, _ = pool(200, 12, 3)
    turn = torch.linalg.qr(normal(12, 12, seed=9))[0]
    plain = fit(h, y, 4, weight, rotation="none")
    turned = fit(h @ turn, y, 4, weight @ turn, rotation="none")
    # Signs are fixed in each basis by itself, so scores are compared up to a sign.
    torch.testing.assert_close(plain.scores(h).abs(), turned.scores(h @ turn).abs())
    fixed = torch.diagonal(plain.directions.transpose(1, 2) @ turn @ turned.directions, 0, 1, 2)
    signs = torch.sign(fixed)
    split = torch.log_softmax(turned.scores(h @ turn) * signs[None], dim=2)
    torch.testing.assert_close(split, plain.log_split(h, 1.0))


@pytest.mark.parametrize("scale", ["rms", "whiten", "none"])
def test_the_unit_of_the_embedding_matters_only_without_a_scale(scale):
    h, y, weight, p = pool(200, 12, 3)
    plain = fit(h, y, 4, weight, scale=scale).pseudo_probs(h, p, 1.0)
    grown = fit(100 * h, y, 4, weight / 100, scale=scale).pseudo_probs(100 * h, p, 1.0)
    assert torch.allclose(plain, grown) == (scale != "none")


def test_a_large_beta_gives_equal_parts_and_a_small_one_a_hard_split():
    h, y, weight, _ = pool(200, 12, 3)
    found = fit(h, y, 4, weight)
    even = found.log_split(h, 1e9).exp()
    torch.testing.assert_close(even, torch.full_like(even, 0.25))
    hard = found.log_split(h, 1e-6).exp()
    assert torch.equal(hard.argmax(2), found.scores(h).argmax(2))
    torch.testing.assert_close(hard.max(2).values, torch.ones(200, 3, dtype=torch.float64))


@pytest.mark.parametrize("batch", [1, 17, 200])
def test_batches_give_the_directions_of_a_full_decomposition(batch):
    h, y, weight, _ = pool(200, 12, 3)
    rows = [(h[part].float(), y[part]) for part in torch.arange(200).split(batch)]
    found = LinearProjections.fit_batches(
        rows, 3, classifier_weight=weight, rotation="none", generator=generator()
    )
    projector = torch.eye(12, dtype=torch.float64) - torch.linalg.pinv(weight) @ weight
    for c in range(3):
        own = h[y == c] @ projector
        wanted = torch.linalg.svd(own - own.mean(0), full_matrices=False)[2][:3]
        assert angle(wanted.T, found.directions[c]) < 1e-4


def angle(a, b):
    """The largest principal angle of two subspaces with orthonormal columns."""
    return float(torch.linalg.svdvals(b - a @ (a.T @ b)).max())


def test_wide_embeddings_are_sketched_to_the_same_directions(monkeypatch):
    spread = 0.6 ** torch.arange(30, dtype=torch.float64)
    h = normal(400, 30) * spread + normal(30, seed=1)
    y, weight = torch.arange(400) % 2, normal(2, 30, seed=2)
    exact = fit(h, y, 3, weight, rotation="none")
    monkeypatch.setattr(spectra, "EXACT_DIM", 20)
    sketched = fit(h, y, 3, weight, rotation="none")
    assert sketched.null_rank == 28
    for c in range(2):
        assert angle(exact.directions[c], sketched.directions[c]) < 1e-4
    torch.testing.assert_close(sketched.scales, exact.scales, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        sketched.scores(h).abs(), exact.scores(h).abs(), rtol=1e-3, atol=1e-4
    )
    with pytest.raises(ConfigError, match="only once"):
        LinearProjections.fit_batches(
            iter([(h, y)]), 3, classifier_weight=weight, generator=generator()
        )


@pytest.mark.parametrize("rows", [4, 6, 9])
def test_wide_embeddings_of_few_rows_are_sketched_to_the_exact_directions(monkeypatch, rows):
    # A covariance of rank rows - 1 leaves columns of the basis to chance; those must not count.
    h, y = normal(2 * rows, 40), torch.arange(2 * rows) % 2
    weight = normal(10, 40, seed=2)
    exact = fit(h, y, 3, weight, rotation="none")
    monkeypatch.setattr(spectra, "EXACT_DIM", 20)
    sketched = fit(h, y, 3, weight, rotation="none")
    torch.testing.assert_close(sketched.variances, exact.variances, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(sketched.directions, exact.directions, rtol=1e-6, atol=1e-8)


def test_covariances_never_take_more_than_their_share_of_memory(monkeypatch):
    h, y, weight, _ = pool(200, 12, 4)
    monkeypatch.setattr(spectra, "EXACT_BYTES", 3 * 8 * 12 * 12)  # of three classes
    made = []
    empty = Group.empty
    monkeypatch.setattr(Group, "empty", lambda dim: made.append(dim) or empty(dim))
    exact = fit(h[y < 3], y[y < 3], 2, weight, rotation="none")
    assert len(made) == 3
    fit(h, y, 2, weight, rotation="none")  # four classes in the first batch
    assert len(made) == 3
    assert exact.num_subclasses == (2, 2, 2)


def test_a_large_mean_costs_no_digits():
    h, y, weight, _ = pool(200, 12, 3)
    near, far = fit(h, y, 4, weight), fit(h + 1e4, y, 4, weight)
    torch.testing.assert_close(far.scores(h + 1e4), near.scores(h), rtol=1e-6, atol=1e-6)
    single = far.scores((h + 1e4).float())
    assert float((single - near.scores(h)).abs().max()) < 0.02  # h + 1e4 has steps of 1e-3 itself


def test_half_precision_embeddings_give_float32_scores_close_to_exact_ones():
    h, y, weight, p = pool(200, 12, 3)
    exact = fit(h, y, 4, weight)
    half = fit(h.half(), y, 4, weight.half())
    assert half.scores(h.half()).dtype == torch.float32
    wanted = exact.pseudo_probs(h, p, 3.0).float()
    torch.testing.assert_close(
        half.pseudo_probs(h.half(), p.float(), 3.0), wanted, rtol=0.02, atol=0.005
    )


def planted(parts=4, dim=12):
    """Two classes, each a mixture of components whose means differ only in null(W)."""
    weight = torch.zeros(2, dim, dtype=torch.float64)
    weight[0, 0], weight[1, 0] = -4.0, 4.0
    y = torch.arange(2000) % 2
    component = torch.randint(0, parts, (2000,), generator=generator(1))
    centres = torch.zeros(2, parts, dim, dtype=torch.float64)
    centres[:, :, 1:] = torch.linalg.qr(normal(dim - 1, 2 * parts, seed=2))[0].T.reshape(
        2, parts, dim - 1
    )
    h = 3 * centres[y, component] + 0.3 * normal(2000, dim, seed=3)
    h[:, 0] = (2 * y - 1) + 0.3 * normal(2000, seed=4)
    return h, y, component, weight


def centroid_accuracy(features, component, parts):
    """Accuracy of nearest centroids of components, found on one half and counted on the other."""
    half = len(features) // 2
    known = component[:half]
    centroids = torch.stack([features[:half][known == k].mean(0) for k in range(parts)])
    return float(
        (torch.cdist(features[half:], centroids).argmin(1) == component[half:]).double().mean()
    )


@pytest.mark.parametrize("null_space", ["weights", "none"])
def test_planted_components_are_in_the_split_and_not_in_the_class_probabilities(null_space):
    h, y, component, weight = planted()
    p = torch.softmax(h @ weight.T, dim=1)
    for seed in range(5):
        found = fit(h, y, 4, weight, seed=seed, null_space=null_space)
        split = found.log_split(h, 3.0)
        for c in range(2):
            own = y == c
            assert centroid_accuracy(split[own, c], component[own], 4) > 0.95
            assert centroid_accuracy(p[own].log(), component[own], 4) < 0.35  # chance is 0.25


def test_too_few_rows_give_fewer_subclasses_and_a_warning_that_names_the_class():
    h, y, _, p = pool(60, 12, 3)
    y = torch.where(torch.arange(60) < 3, 1, 0)
    with pytest.warns(LimbeckWarning, match="class 1 has 3 rows"):
        found = fit(h, y, 4)
    assert found.num_subclasses == (4, 2)
    q = found.pseudo_probs(h, p[:, :2], 1.0)
    assert bool((q[:, 1, 2:] == 0).all())
    assert bool((q[:, 1, :2] > 0).all())
    torch.testing.assert_close(q.sum(2), p[:, :2])


def test_a_class_of_one_row_stays_whole():
    h, _, _, p = pool(60, 12, 2)
    with pytest.warns(LimbeckWarning, match="class 1 has 1 rows"):
        found = fit(h, (torch.arange(60) < 1).long(), 4)
    assert torch.equal(found.pseudo_probs(h, p, 1.0)[:, 1, 0], p[:, 1])


def test_a_class_without_rows_is_refused_unless_it_may_stay_whole():
    h, y, weight, _ = pool(60, 12, 3)
    with pytest.raises(ConfigError, match="class 3 has no rows"):
        fit(h, y, 4, weight, num_classes=4)
    with pytest.warns(LimbeckWarning, match="class 3 has 0 rows"):
        found = fit(h, y, 4, weight, num_classes=4, absorb_empty=True)
    assert found.num_subclasses == (4, 4, 4, 1)
    assert torch.equal(found.log_split(h, 1.0)[:, 3, 0].exp(), torch.ones(60, dtype=torch.float64))


def test_a_narrow_null_space_gives_fewer_subclasses():
    h, y, weight, _ = pool(60, 5, 3)
    with pytest.warns(LimbeckWarning, match="has 2 dimensions"):
        found = fit(h, y, 4, weight)
    assert found.num_subclasses == (2, 2, 2)


def test_what_bounds_the_subclasses_of_a_class_is_said_once():
    h, y, weight, _ = pool(60, 5, 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fit(h, y, 1000, weight)
    assert found.num_subclasses == (2, 2, 2)
    assert [str(one.message)[:24] for one in caught] == ["1000 subclasses were ask"]


def test_embeddings_of_fewer_numbers_than_subclasses_warn():
    h, y, _, _ = pool(60, 3, 2)
    with pytest.warns(LimbeckWarning, match="space of the embeddings has 3 dimensions"):
        assert fit(h, y, 4).num_subclasses == (3, 3)


def test_without_a_null_space_the_whole_space_is_used():
    h, y, weight, _ = pool(60, 3, 3)
    with pytest.warns(LimbeckWarning, match="null space is empty"):
        found = fit(h, y, 2, weight)
    assert torch.equal(found.directions, fit(h, y, 2).directions)
    assert found.null_rank == 3


def test_equal_embeddings_share_their_class_evenly():
    h, y, _, _ = pool(60, 12, 2)
    h[y == 1] = h[1].clone()
    with pytest.warns(LimbeckWarning, match="class 1 are all equal"):
        found = fit(h, y, 4)
    torch.testing.assert_close(
        found.log_split(h, 1.0)[:, 1].exp(), torch.full((60, 4), 0.25, dtype=torch.float64)
    )


def test_equal_float32_embeddings_far_from_zero_are_seen_to_be_equal():
    h = torch.full((60, 12), 1234.567) + torch.rand(12, generator=generator())
    with pytest.warns(LimbeckWarning, match="all equal"):
        fit(h, torch.arange(60) % 2, 4)


def test_embeddings_of_few_distinct_rows_give_as_many_directions_as_there_are():
    h, _, _, _ = pool(60, 12, 2)
    three = h[torch.arange(60) % 3].float()
    with pytest.warns(LimbeckWarning, match="vary in 2 directions only"):
        found = fit(three, torch.zeros(60, dtype=torch.long), 4)
    assert found.num_subclasses == (2,)


def test_ten_classes_and_a_layer_in_half_precision_work():
    h, y, weight, p = pool(400, 32, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        q = fit(h, y, 2, weight.half()).pseudo_probs(h, p, 3.0)
    assert q.shape == (400, 10, 2)


@pytest.mark.parametrize("null_space", ["weights", "centered"])
def test_a_layer_recovered_from_the_answers_gives_the_same_split_as_its_centered_rows(null_space):
    h, y, weight, _ = pool(300, 12, 3)
    probs = torch.softmax(h @ weight.T / 5 + normal(3, seed=7), dim=1)
    regressed = regress_head([(h[:100], probs[:100]), (h[100:], probs[100:])])
    torch.testing.assert_close(regressed, (weight - weight.mean(0)) / 5, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        fit(h, y, 4, regressed, null_space=null_space).scores(h),
        fit(h, y, 4, weight, null_space="centered").scores(h),
        rtol=1e-5,
        atol=1e-6,
    )


def test_what_cannot_be_fitted_is_refused():
    h, y, weight, p = pool()
    with pytest.raises(ConfigError, match="regress_head"):
        fit(h, y, null_space="weights")
    with pytest.raises(ShapeError, match="classifier_weight"):
        fit(h, y, weight=weight[:, :3])
    with pytest.raises(ConfigError, match="num_subclasses"):
        fit(h, y, 0)
    with pytest.raises(ConfigError, match="must lie in"):
        fit(h, y, num_classes=1)
    with pytest.raises(ShapeError, match="no embeddings"):
        LinearProjections.fit_batches([], 2, null_space="none", generator=generator())
    with pytest.raises(ShapeError, match="no embeddings"):
        regress_head([])
    found = fit(h, y, weight=weight)
    with pytest.raises(ConfigError, match="beta"):
        found.log_split(h, 0.0)
    with pytest.raises(ShapeError, match="6 numbers"):
        found.scores(h[:, :3])
    with pytest.raises(ShapeError, match="rows and classes"):
        found.pseudo_probs(h, p[:5], 1.0)


def test_wide_embeddings_that_cannot_be_fitted_are_refused_alike(monkeypatch):
    h, y, _, _ = pool()
    monkeypatch.setattr(spectra, "EXACT_DIM", 5)
    with pytest.raises(ShapeError, match="no embeddings"):
        fit(h[:0], y[:0])
    late = [(h, y), (h, y + 1)]
    with pytest.raises(ConfigError, match=r"classes hold 2 .* must lie in \[0, 2\)"):
        LinearProjections.fit_batches(
            late, 2, num_classes=2, null_space="none", generator=generator()
        )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_embeddings_that_are_no_numbers_are_refused(monkeypatch, bad):
    h, y, weight, p = pool()
    h[7, 2] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        fit(h, y, weight=weight)
    with pytest.raises(DataError, match="NaN or infinite"):
        regress_head([(h, p)])
    monkeypatch.setattr(spectra, "EXACT_DIM", 5)
    with pytest.raises(DataError, match="NaN or infinite"):
        fit(h, y, weight=weight)


@pytest.mark.parametrize("name", ["null_space", "rotation", "scale", "directions"])
def test_an_unknown_choice_is_refused_by_name(name):
    h, y, weight, _ = pool()
    with pytest.raises(ConfigError, match=f"{name}='odd'"):
        fit(h, y, weight=weight, **{name: "odd"})


def test_covariances_of_many_classes_that_would_not_fit_are_sketched(monkeypatch):
    h, y, weight, _ = pool(200, 12, 3)
    exact = fit(h, y, 2, weight, rotation="none")
    monkeypatch.setattr(spectra, "EXACT_BYTES", 3 * 12 * 12 * 8 - 1)
    with pytest.raises(ConfigError, match="only once"):
        LinearProjections.fit_batches(
            iter([(h[:2], y[:2]), (h, y)]), 2, classifier_weight=weight, generator=generator()
        )
    sketched = fit(h, y, 2, weight, rotation="none")
    for c in range(3):
        # With all 9 dimensions of the null space in the sketch there is no error.
        assert angle(exact.directions[c], sketched.directions[c]) < 1e-7
