"""k from hand-made validation rows."""

import pytest
import torch

from limbeck.errors import ConfigError, ShapeError
from limbeck.objectives import top_mask
from limbeck.trust import top_k

PROBS = torch.tensor([[0.4, 0.3, 0.2, 0.1]])


def ranked(counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows whose truth is the teacher's first, second, ... class, so many times each."""
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    return PROBS.expand(len(labels), -1), labels


def test_top_k_accuracies_of_60_80_and_92_percent_give_three():
    assert top_k(*ranked([60, 20, 12, 8]), threshold=0.9) == 3


def test_k_is_two_even_if_the_top_class_is_always_right():
    assert top_k(*ranked([50, 0, 0, 0])) == 2


def test_k_is_the_number_of_classes_when_nothing_less_is_enough():
    assert top_k(*ranked([10, 10, 10, 70])) == 4


def test_an_accuracy_equal_to_the_threshold_is_enough():
    assert top_k(*ranked([20, 7, 0, 3]), threshold=0.9) == 2
    assert top_k(*ranked([20, 6, 0, 4]), threshold=0.9) == 4


def test_two_classes_always_give_two():
    assert top_k(torch.tensor([[0.9, 0.1]]), torch.tensor([1])) == 2


def test_the_threshold_decides():
    rows = ranked([60, 20, 12, 8])
    assert [top_k(*rows, threshold=t) for t in (0.5, 0.8, 0.81, 0.92, 0.93)] == [2, 2, 3, 3, 4]


@pytest.mark.parametrize("seed", range(5))
def test_ties_rank_as_in_the_top_set_of_the_loss(seed):
    g = torch.Generator().manual_seed(seed)
    probs = torch.randint(0, 3, (200, 6), generator=g).float() / 4
    labels = torch.randint(0, 6, (200,), generator=g)
    for threshold in (0.4, 0.6, 0.8):
        found = [
            k
            for k in range(2, 7)
            if top_mask(probs, k).gather(1, labels[:, None]).float().mean() >= threshold - 1e-6
        ]
        assert top_k(probs, labels, threshold=threshold) == found[0]


@pytest.mark.parametrize(
    ("probs", "labels", "threshold", "error", "words"),
    [
        (PROBS, torch.tensor([0]), 0.0, ConfigError, "threshold"),
        (PROBS, torch.tensor([0]), 1.1, ConfigError, "threshold"),
        (PROBS, torch.tensor([4]), 0.9, ConfigError, "4 classes"),
        (PROBS, torch.tensor([-1]), 0.9, ConfigError, "4 classes"),
        (PROBS, torch.tensor([0, 1]), 0.9, ShapeError, "labels"),
        (PROBS[:0], torch.zeros(0, dtype=torch.long), 0.9, ShapeError, "at least one row"),
        (PROBS[:, :1], torch.tensor([0]), 0.9, ShapeError, "C >= 2"),
    ],
)
def test_bad_input_is_refused(probs, labels, threshold, error, words):
    with pytest.raises(error, match=words):
        top_k(probs, labels, threshold=threshold)
