"""Temperature scaling against known temperatures and a scan of the likelihood."""

import json

import pytest
import torch
from torch.nn import functional

from limbeck.errors import ConfigError, DataError, ShapeError
from limbeck.trust import Temperature


def calibrated(n: int = 4000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn from their softmax: the true temperature is 1."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 5, generator=g)
    return logits, torch.multinomial(torch.softmax(logits, 1), 1, generator=g).ravel()


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_a_known_temperature_is_found_again(scale):
    logits, labels = calibrated()
    assert Temperature.fit(scale * logits, labels).value == pytest.approx(scale, rel=0.05)


def test_it_is_the_best_of_a_fine_scan():
    logits, labels = calibrated(200, seed=1)
    nll = {
        t: float(functional.cross_entropy(logits.double() / t, labels))
        for t in torch.linspace(0.3, 3, 271, dtype=torch.float64).tolist()
    }
    assert Temperature.fit(logits, labels).value == pytest.approx(min(nll, key=nll.get), abs=0.011)


def test_log_probabilities_do_as_well_as_logits():
    logits, labels = calibrated(300, seed=2)
    by_logits = Temperature.fit(logits, labels).value
    assert Temperature.fit(torch.log_softmax(logits, 1), labels).value == pytest.approx(by_logits)


def test_when_all_are_right_it_is_the_coldest_and_finite():
    labels = torch.arange(5).repeat(4)
    scaled = Temperature.fit(functional.one_hot(labels, 5).float(), labels)
    assert scaled.value == pytest.approx(0.05)
    assert scaled.apply(torch.eye(5)).isfinite().all()


def test_when_all_are_wrong_it_is_the_hottest():
    labels = torch.arange(5).repeat(4)
    assert Temperature.fit(-functional.one_hot(labels, 5).float(), labels).value == pytest.approx(
        20
    )


def test_logits_without_information_give_some_finite_temperature():
    assert 0.05 <= Temperature.fit(torch.zeros(8, 3), torch.zeros(8, dtype=torch.long)).value <= 20


def test_zero_probabilities_are_allowed():
    probs = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    assert 0.05 <= Temperature.fit(probs.log(), torch.tensor([0, 1, 1])).value <= 20


def test_applying_gives_log_probabilities_with_the_same_winner():
    logits, labels = calibrated(50)
    scaled = Temperature.fit(logits, labels).apply(logits)
    torch.testing.assert_close(scaled.exp().sum(1), torch.ones(50))
    assert torch.equal(scaled.argmax(1), logits.argmax(1))
    assert torch.equal(Temperature(1.0).apply(logits), torch.log_softmax(logits, 1))


def test_a_fit_survives_json():
    assert Temperature.from_dict(json.loads(json.dumps(Temperature(1.7).to_dict()))).value == 1.7


@pytest.mark.parametrize(
    ("logits", "labels", "error", "words"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), ConfigError, "3 classes"),
        (torch.zeros(2, 3), torch.tensor([0]), ShapeError, "labels"),
        (torch.full((2, 3), torch.nan), torch.tensor([0, 1]), DataError, "NaN"),
        (torch.full((2, 3), -torch.inf), torch.tensor([0, 1]), DataError, "NaN"),
    ],
)
def test_bad_input_is_refused(logits, labels, error, words):
    with pytest.raises(error, match=words):
        Temperature.fit(logits, labels)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_no_positive_number_is_refused(value):
    with pytest.raises(ConfigError, match="temperature"):
        Temperature(value)
