"""The controls of LELP: hashes, clusters, random and true splits, against direct computations."""

import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.errors import ConfigError, LimbeckWarning, ShapeError
from limbeck.numerics.logspace import retemper
from limbeck.objectives import (
    AgglomerativeSplit,
    KMeansSplit,
    LinearProjections,
    OracleSplit,
    PcaSplit,
    RandomProjections,
    RandomSplit,
    random_subclasses,
)
from limbeck.objectives.centroids import Centroids, sample_classes
from limbeck.objectives.hashing import drawn, hashed


def ids_of(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


def clustered(rows=300, parts=3, seed=0):
    """Answers whose embeddings lie in tight clusters, `parts` for each of two classes."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % 2
    part = torch.randint(0, parts, (rows,), generator=g)
    centres = 5 * torch.randn(2, parts, 6, generator=g)
    h = centres[y, part] + 0.1 * torch.randn(rows, 6, generator=g) + 100
    probs = torch.full((rows, 2), 0.2)
    probs[torch.arange(rows), y] = 0.8
    return Answers(ids_of(rows), probs, h), y, part, centres + 100


@pytest.mark.parametrize("kind", [KMeansSplit, AgglomerativeSplit])
def test_clusters_are_found_and_other_classes_go_to_their_nearest_centroid(kind):
    answers, y, part, centres = clustered()
    split = kind(subclasses=3).fit([answers], None)
    q = split.pseudo_probs(answers)
    p = retemper(answers.probs, 2.0)
    torch.testing.assert_close(q.sum(2), p)
    assert bool(((q == 0) | (q == p[:, :, None])).all())  # one subclass has all of its class
    place = q.argmax(2)
    for c in range(2):
        own = y == c
        pairs = {(int(a), int(b)) for a, b in zip(part[own], place[own, c], strict=True)}
        assert len(pairs) == 3  # clusters and subclasses correspond
        of_part = dict(pairs)
        nearest = torch.cdist(answers.embeddings, centres[c]).argmin(1)
        wanted = torch.tensor([of_part[int(n)] for n in nearest])
        assert torch.equal(place[:, c], wanted)


@pytest.mark.parametrize("kind", [KMeansSplit, AgglomerativeSplit])
def test_the_fit_depends_on_the_seed_and_not_on_the_batches(kind):
    answers, *_ = clustered()
    parts = [
        Answers(answers.ids[r], answers.probs[r], answers.embeddings[r])
        for r in torch.arange(300).split(47)
    ]
    whole, batched = (kind(subclasses=3, seed=4).fit(x, None) for x in ([answers], iter(parts)))
    assert torch.equal(whole.pseudo_probs(answers), batched.pseudo_probs(answers))


def test_a_sample_holds_the_rows_with_the_smallest_hashes_of_each_class():
    answers, y, _, _ = clustered()
    keys = hashed(answers.ids, 9)
    for c, rows in enumerate(sample_classes([answers], 20, name="any", seed=9)):
        own = np.flatnonzero(y.numpy() == c)
        wanted = own[np.argsort(keys[own])[:20]]
        assert torch.equal(rows, answers.embeddings[torch.from_numpy(wanted)])


def test_fewer_distinct_rows_than_subclasses_give_fewer_subclasses():
    answers, y, _, _ = clustered()
    twice = answers.embeddings[torch.where(y == 0, 0, 1 + 2 * (torch.arange(300) % 4 > 1))]
    answers = Answers(answers.ids, answers.probs, twice)
    with (
        pytest.warns(LimbeckWarning, match="class 0 has 150 rows in 1 clusters"),
        pytest.warns(LimbeckWarning, match="class 1 has 150 rows in 2 clusters"),
    ):
        split = KMeansSplit(subclasses=3).fit([answers], None)
    assert split.centroids.num_subclasses == (1, 2)
    q = split.pseudo_probs(answers)
    assert bool((q[:, 0, 1:] == 0).all())
    assert bool((q[:, 1, 2] == 0).all())


def test_a_class_without_rows_stays_whole():
    samples = [torch.randn(9, 4), torch.empty(0, 4)]
    with pytest.warns(LimbeckWarning, match="class 1 has 0 rows"):
        found = Centroids.fit(samples, 2, lambda rows, size: np.arange(len(rows)) % size, name="x")
    assert found.num_subclasses == (2, 1)
    assert bool((found.log_split(torch.randn(5, 4))[:, 1, 0] == 0).all())


def test_a_random_subclass_belongs_to_the_question():
    ids = ids_of(500)
    places = random_subclasses(ids, 3, 4, seed=1)
    order = np.random.default_rng(2).permutation(500)
    assert torch.equal(random_subclasses(ids[order], 3, 4, seed=1), places[order])
    assert torch.equal(random_subclasses(ids[:7], 3, 4, seed=1), places[:7])
    assert not torch.equal(random_subclasses(ids, 3, 4, seed=2), places)
    answers = Answers(ids, torch.full((500, 3), 1 / 3))
    q = RandomSplit(subclasses=4, seed=1).fit([], None).pseudo_probs(answers)
    assert torch.equal(q.argmax(2), places)


def test_random_subclasses_are_uniform_and_independent_also_for_ids_that_count_up():
    ids = np.zeros((40_000, 16), np.uint8)
    ids[:, 0], ids[:, 1] = np.arange(40_000) % 256, np.arange(40_000) // 256
    places = random_subclasses(ids, 2, 4, seed=0)
    other = random_subclasses(ids, 2, 4, seed=1)
    neighbours = torch.stack([places[:-1, 0], places[1:, 0]], 1)
    for pair in (places, torch.stack([places[:, 0], other[:, 0]], 1), neighbours):
        counts = torch.bincount(pair[:, 0] * 4 + pair[:, 1], minlength=16).double()
        mean = len(pair) / 16
        chi = float(((counts - mean) ** 2 / mean).sum())
        assert chi < 45  # 15 degrees of freedom: once in 10,000 times


def test_draws_of_one_key_differ_and_hashes_use_all_of_an_id():
    ids = ids_of(1)
    keys = hashed(ids, 0)
    assert len({int(drawn(keys, d)[0]) for d in range(50)}) == 50
    for place in range(16):
        other = ids.copy()
        other[0, place] ^= 1
        assert int(hashed(other, 0)[0]) != int(keys[0])
    assert hashed(np.zeros((0, 16), np.uint8), 0).shape == (0,)


def lookup(classes, places):
    return lambda ids: (torch.tensor(classes), torch.tensor(places))


def test_the_oracle_gives_the_own_class_to_the_true_subclass_and_the_others_evenly():
    probs = torch.tensor([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]])
    answers = Answers(ids_of(3), probs)
    oracle = OracleSplit(lookup([0, 1, -1], [2, 0, -1]), (3, 2), temperature=1.0)
    wanted = torch.tensor(
        [
            [[0.0, 0.0, 0.7], [0.15, 0.15, 0.0]],
            [[0.4 / 3] * 3, [0.6, 0.0, 0.0]],
            [[0.5 / 3] * 3, [0.25, 0.25, 0.0]],
        ]
    )
    torch.testing.assert_close(oracle.pseudo_probs(answers), wanted)
    assert oracle.width(2) == 6
    warmer = OracleSplit(lookup([0, 1, -1], [2, 0, -1]), (3, 2), temperature=2.0)
    torch.testing.assert_close(warmer.pseudo_probs(answers).sum(2), retemper(probs, 2.0))


def test_what_the_oracle_cannot_use_is_refused():
    answers = Answers(ids_of(1), torch.tensor([[0.7, 0.3]]))
    with pytest.raises(ConfigError, match="subclass 2 of class 1"):
        OracleSplit(lookup([1], [2]), (3, 2)).pseudo_probs(answers)
    with pytest.raises(ConfigError, match="subclass 0 of class 5"):
        OracleSplit(lookup([5], [0]), (3, 2)).pseudo_probs(answers)
    with pytest.raises(ConfigError, match="3 classes"):
        OracleSplit(lookup([1], [0]), (3, 2, 2)).pseudo_probs(answers)
    with pytest.raises(ConfigError, match="sizes"):
        OracleSplit(lookup([1], [0]), (3, 0))


@pytest.mark.parametrize(("kind", "directions"), [(PcaSplit, "pca"), (RandomProjections, "random")])
def test_linear_splits_are_projections_of_the_whole_space_without_a_rotation(kind, directions):
    answers, y, _, _ = clustered()
    split = kind(subclasses=3, beta=2.0, seed=3).fit([answers], None)
    found = LinearProjections.fit(
        answers.embeddings,
        y,
        3,
        null_space="none",
        rotation="none",
        directions=directions,
        generator=torch.Generator().manual_seed(3),
    )
    wanted = found.pseudo_probs(answers.embeddings, retemper(answers.probs, 2.0), 2.0)
    assert torch.equal(split.pseudo_probs(answers), wanted)


@pytest.mark.parametrize("kind", [KMeansSplit, AgglomerativeSplit, PcaSplit, RandomProjections])
def test_answers_that_cannot_be_split_are_refused(kind):
    answers, *_ = clustered()
    bare = Answers(answers.ids, answers.probs)
    with pytest.raises(ConfigError, match="hold none"):
        kind().fit([bare], None)
    with pytest.raises(ShapeError):
        kind().fit([], None)
    with pytest.raises(ConfigError, match="not fitted yet"):
        kind().targets(answers)
    split = kind(subclasses=2).fit([answers], None)
    with pytest.raises(ConfigError, match="hold none"):
        split.targets(bare)
    with pytest.raises(ShapeError, match="6 numbers"):
        split.targets(Answers(answers.ids, answers.probs, answers.embeddings[:, :2]))
