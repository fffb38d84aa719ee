import numpy as np
import pytest
import torch

from limbeck.answers import Answers
from limbeck.errors import AnswerError


def ids(n):
    return np.zeros((n, 16), np.uint8)


def test_rows_that_sum_to_one_within_the_tolerance_are_taken():
    answers = Answers(ids(2), torch.tensor([[0.5, 0.50005], [1.0, 0.0]]), torch.zeros(2, 3))
    assert (len(answers), answers.num_classes) == (2, 2)


@pytest.mark.parametrize(
    ("probs", "message"),
    [
        ([[0.5, 0.5], [float("nan"), 1.0]], "row 1 holds NaN"),
        ([[float("inf"), 0.0]], "row 0 holds NaN or infinity"),
        ([[1.5, -0.5]], r"negative value \(-0.5\).*softmax"),
        ([[0.5, 0.5], [0.6, 0.6]], "row 1 sums to 1.2"),
    ],
)
def test_what_is_no_probability_is_refused_with_its_row(probs, message):
    with pytest.raises(AnswerError, match=message):
        Answers(ids(len(probs)), torch.tensor(probs))


def test_shapes_that_do_not_fit_are_refused():
    probs = torch.full((2, 2), 0.5)
    with pytest.raises(AnswerError, match=r"shape \(2, 16\)"):
        Answers(ids(3), probs)
    with pytest.raises(AnswerError, match=r"floating-point \(2, D\)"):
        Answers(ids(2), probs, torch.zeros(3, 4))
    with pytest.raises(AnswerError, match="infinite embeddings"):
        Answers(ids(2), probs, torch.full((2, 1), float("inf")))
    with pytest.raises(AnswerError, match=r"\(n, C\)"):
        Answers(ids(2), torch.tensor([0.5, 0.5]))


def test_a_spread_is_one_deviation_a_probability():
    ids, probs = np.zeros((2, 16), np.uint8), torch.full((2, 2), 0.5)
    assert Answers(ids, probs, spread=torch.zeros(2, 2)).spread is not None
    with pytest.raises(AnswerError, match="one deviation a probability"):
        Answers(ids, probs, spread=torch.zeros(2, 3))
    with pytest.raises(AnswerError, match="deviation is >= 0"):
        Answers(ids, probs, spread=torch.full((2, 2), -0.1))
