"""A rule's inclusion probabilities beside a uniform audit, against enumeration and counting."""

import itertools

import numpy as np
import pytest
import torch

from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics.inclusion import with_audit
from limbeck.numerics.rounding import dependent_rounding


def design(n, k, seed):
    """Every subset of k of n rows with a probability of its own, and the rows' marginals."""
    subsets = list(itertools.combinations(range(n), k))
    chances = np.random.default_rng(seed).dirichlet(np.full(len(subsets), 0.3))
    p = np.zeros(n)
    for subset, chance in zip(subsets, chances, strict=True):
        p[list(subset)] += chance
    return subsets, chances, torch.from_numpy(p)


@pytest.mark.parametrize(("n", "k", "a"), [(5, 2, 1), (6, 3, 2), (4, 0, 3), (4, 3, 1), (5, 2, 0)])
def test_marginals_are_those_of_all_batches_and_audits_enumerated(n, k, a):
    subsets, chances, p = design(n, k, seed=n)
    truth = np.zeros(n)
    for subset, chance in zip(subsets, chances, strict=True):
        left = [row for row in range(n) if row not in subset]
        audits = list(itertools.combinations(left, a))
        for audit in audits:
            truth[[*subset, *audit]] += chance / len(audits)
    np.testing.assert_allclose(with_audit(p, a, n).numpy(), truth, atol=1e-12)
    assert float(with_audit(p, a, n).sum()) == pytest.approx(k + a)


def test_rounding_and_a_uniform_audit_draw_rows_as_often_as_said():
    p = torch.tensor([1.0, 0.9, 0.6, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    said, draws = with_audit(p, 2, 10), 1_000
    source = torch.Generator().manual_seed(0)
    counts = torch.zeros(10, dtype=torch.float64)
    for _ in range(draws):
        rows = dependent_rounding(p, source)
        left = torch.tensor([i for i in range(10) if i not in rows.tolist()])
        counts[rows] += 1
        counts[left[torch.randperm(len(left), generator=source)[:2]]] += 1
    error = (said * (1 - said) / draws).sqrt()
    assert ((counts / draws - said).abs() <= 4 * error + 1e-12).all()
    assert said.min() == pytest.approx(2 / 7)


def test_probabilities_of_the_chosen_rows_alone_need_the_size_of_the_rule():
    p = torch.tensor([1.0, 0.5, 0.5, 0.0], dtype=torch.float64)
    whole = with_audit(p, 1, 4)
    assert torch.equal(with_audit(p[1:3], 1, 4, chosen=2), whole[1:3])
    with pytest.raises(ConfigError, match="chosen="):
        with_audit(p[1:3], 1, 4)


def test_without_an_audit_nothing_changes_and_the_input_stays():
    p = torch.tensor([0.3, 0.7], dtype=torch.float32)
    before = p.clone()
    assert torch.equal(with_audit(p, 0, 2), p.double())
    assert torch.equal(with_audit(torch.ones(3), 0, 3), torch.ones(3, dtype=torch.float64))
    assert torch.equal(p, before)


@pytest.mark.parametrize(
    ("p", "audit", "candidates", "chosen", "error", "words"),
    [
        ([0.5, 0.6], 0, 2, None, ConfigError, "cannot be counted"),
        ([1.5, 0.5], 0, 2, None, ConfigError, r"lie in \[0, 1\]"),
        ([float("nan"), 1.0], 0, 2, None, ConfigError, r"lie in \[0, 1\]"),
        ([1.0, 0.0, 0.0], 3, 3, None, ConfigError, "leaves 2, so 3 cannot"),
        ([1.0, 0.0], -1, 2, None, ConfigError, "-1 cannot"),
        ([1.0], 1, 4, 5, ConfigError, "chose 5 of 4"),
        ([[1.0]], 0, 2, None, ShapeError, "shape"),
        ([1.0, 0.0], 0, 1, None, ShapeError, "m <= 1"),
    ],
)
def test_what_fits_no_batch_is_refused(p, audit, candidates, chosen, error, words):
    with pytest.raises(error, match=words):
        with_audit(torch.tensor(p), audit, candidates, chosen=chosen)


def test_whole_numbers_are_no_probabilities():
    with pytest.raises(ShapeError, match="floating point"):
        with_audit(torch.tensor([1, 0]), 0, 2)
