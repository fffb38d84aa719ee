"""Weighted distillation at work: digits with a spoilt teacher, beside its plain rivals."""

import math
import statistics

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck.answers import Answers
from limbeck.objectives import (
    Evidence,
    Snapshot,
    Weighted,
    alpha_weighted_loss,
    hard_kd_loss,
    slam_loss,
    weighted_loss,
)
from limbeck.trust import IsotonicTrust, NeighbourTrust, margin
from tests.objectives.test_slam_end_to_end import Digits

SEEDS = {2.0: 5, 4.0: 3}
"""How many, by the noise on the teacher's logits."""
START = 6
"""Epochs on pool rows that all count alike, before the first estimate."""
RATHER = 0.025
"""A difference that is one whatever its standard error; two arms within it are about equal."""


def weighted(digits: Digits, seed: int, probs: Tensor, estimator: str, *, anew: bool) -> float:
    """Test accuracy with weights estimated once, or anew before every epoch."""
    labelled, pool, test = digits.split(seed, labelled=160)
    validation, labelled = labelled[60:], labelled[:60]
    known, truth = probs[validation], digits.y[validation]
    evidence = Evidence(
        known,
        truth,
        lambda p: p.max(dim=1).values,
        2,
        lambda logs: NeighbourTrust.fit(known, logs, truth),
    )
    objective = Weighted(estimator=estimator).fit([], evidence)
    told = Answers(np.zeros((len(probs), 16), np.uint8), probs)
    weights = torch.ones(len(probs))

    def estimate(epoch: int, net: nn.Module) -> None:
        if epoch == START or (anew and epoch > START):
            with torch.no_grad():
                said = torch.log_softmax(net(digits.x), dim=1)
            objective.refresh(Snapshot(said[validation], [(told, said)]))
            weights.copy_(objective.weights)

    def loss(z: Tensor, rows: Tensor) -> Tensor:
        return weighted_loss(z, probs[rows], weights[rows])

    return digits.accuracy(digits.student(seed, labelled, pool, loss, estimate), test)


def arms(digits: Digits, sigma: float, seed: int) -> dict[str, float]:
    """Test accuracies of all ways of training, one seed."""
    labelled, pool, test = digits.split(seed, labelled=160)
    validation, labelled = labelled[60:], labelled[:60]
    probs = digits.teacher(sigma, seed)
    known, truth = probs[validation], digits.y[validation]
    alpha = IsotonicTrust.fit(margin(known), known.argmax(1) == truth).alpha(margin(probs))
    losses = {
        "hard KD": lambda z, rows: hard_kd_loss(z, probs[rows].argmax(1)),
        "alpha": lambda z, rows: alpha_weighted_loss(z, probs[rows], alpha[rows]),
        "SLaM": lambda z, rows: slam_loss(z, probs[rows], alpha[rows], 2, target="hard"),
    }
    plain = {
        name: digits.accuracy(digits.student(seed, labelled, pool, loss), test)
        for name, loss in losses.items()
    }
    return plain | {
        "plug-in once": weighted(digits, seed, probs, "plug-in", anew=False),
        "plug-in anew": weighted(digits, seed, probs, "plug-in", anew=True),
        "mean once": weighted(digits, seed, probs, "mean", anew=False),
    }


@pytest.fixture(scope="module")
def runs() -> dict[float, list[dict[str, float]]]:
    """By the noise on the teacher's logits."""
    digits = Digits()
    return {
        sigma: [arms(digits, sigma, seed) for seed in range(seeds)]
        for sigma, seeds in SEEDS.items()
    }


def gap(runs: list[dict[str, float]], a: str, b: str) -> tuple[float, float]:
    """Mean difference, paired by seed, and its standard error."""
    differences = [run[a] - run[b] for run in runs]
    return statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(runs))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plug-in once", "plug-in anew", "mean once"])
def test_item_8_weighting_lies_between_hard_distillation_and_slam(runs, name):
    for sigma, some in runs.items():
        for better, worse in ((name, "hard KD"), ("SLaM", name)):
            mean, error = gap(some, better, worse)
            assert mean > 0, (sigma, better, worse)
            assert mean > 3 * error or mean > RATHER, (sigma, better, worse)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plug-in once", "plug-in anew", "mean once"])
def test_item_8_it_gains_more_with_more_noise(runs, name):
    assert gap(runs[4.0], name, "hard KD")[0] > gap(runs[2.0], name, "hard KD")[0]


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), [("mean once", "alpha"), ("plug-in once", "plug-in anew")])
def test_item_8_the_mean_of_weights_is_about_alpha_weighting_and_once_about_anew(runs, a, b):
    mean, error = gap(runs[2.0], a, b)
    assert abs(mean) < max(3 * error, RATHER)
