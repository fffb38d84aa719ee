"""Accuracy by predicted class, counted by hand."""

import json

import pytest
import torch

from limbeck.errors import ConfigError, ShapeError
from limbeck.trust import ClassTrust


def test_alpha_of_each_predicted_class_is_drawn_towards_the_accuracy_over_all():
    predicted = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    labels = torch.tensor([0, 0, 0, 1, 1, 0, 0])
    trust = ClassTrust.fit(predicted, labels, num_classes=4, lower=0.1)
    a = (4 + 1) / (7 + 2)
    wanted = torch.tensor([(3 + 2 * a) / 6, (1 + 2 * a) / 4, 2 * a / 3, a])
    torch.testing.assert_close(trust.alpha(torch.arange(4)), wanted)


def test_with_many_rare_classes_the_mean_is_still_the_accuracy():
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 77, (500,), generator=g)
    predicted = torch.where(torch.rand(500, generator=g) < 0.1, (labels + 1) % 77, labels)
    trust = ClassTrust.fit(predicted, labels, num_classes=77, lower=1e-9)
    accuracy = float((predicted == labels).float().mean())
    assert float(trust.alpha(predicted).mean()) == pytest.approx(accuracy, abs=0.005)


def test_alpha_is_never_under_the_lower_bound():
    trust = ClassTrust.fit(torch.zeros(50, dtype=torch.long), torch.ones(50).long(), num_classes=2)
    assert trust.alpha(torch.tensor([0, 1])).tolist() == [0.5, 0.5]


def test_with_many_rows_it_is_the_accuracy():
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (20_000,), generator=g)
    wrong = torch.rand(20_000, generator=g) < torch.tensor([0.1, 0.2, 0.3])[labels]
    predicted = torch.where(wrong, (labels + 1) % 3, labels)
    trust = ClassTrust.fit(predicted, labels, num_classes=3)
    for c in range(3):
        share = float((labels[predicted == c] == c).float().mean())
        assert float(trust.alpha(torch.tensor(c))) == pytest.approx(share, abs=1e-3)


def test_a_fit_survives_json():
    trust = ClassTrust.fit(torch.tensor([0, 1]), torch.tensor([0, 0]), num_classes=2)
    assert ClassTrust.from_dict(json.loads(json.dumps(trust.to_dict()))) == trust


@pytest.mark.parametrize(
    ("predicted", "labels", "settings", "error"),
    [
        (torch.tensor([0, 3]), torch.tensor([0, 0]), {"num_classes": 3}, ConfigError),
        (torch.tensor([0, 1]), torch.tensor([0, -1]), {"num_classes": 3}, ConfigError),
        (torch.tensor([0, 1]), torch.tensor([0]), {"num_classes": 3}, ShapeError),
        (torch.tensor([0.0]), torch.tensor([0]), {"num_classes": 3}, ShapeError),
        (torch.tensor([0]), torch.tensor([0]), {"num_classes": 1}, ConfigError),
        (torch.tensor([0]), torch.tensor([0]), {"num_classes": 2, "lower": 0.0}, ConfigError),
    ],
)
def test_bad_input_is_refused(predicted, labels, settings, error):
    with pytest.raises(error):
        ClassTrust.fit(predicted, labels, **settings)
