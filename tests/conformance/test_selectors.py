"""Every rule that is registered or installed passes the suite that users run on their own."""

import pytest
import torch

from limbeck.errors import ConfigError
from limbeck.registry import names
from limbeck.select import SELECTORS, Rad, Selector, selector_class
from limbeck.testing import SelectorSuite

NAMES = names("selectors", SELECTORS)
DRAWN = ("uniform", "rad", "adaprod")


class TestSelectors(SelectorSuite):
    @pytest.fixture(autouse=True, params=NAMES)
    def subject(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param

    def make(self) -> Selector:
        return selector_class(self.name)()

    def test_it_is_registered_under_its_own_name(self) -> None:
        assert selector_class(self.name).name == self.name

    def test_rows_come_out_as_often_as_their_inclusion_probabilities_say(self) -> None:
        if self.name not in DRAWN:
            return
        draws, counts, told = 800, torch.zeros(40), torch.zeros(40)
        for seed in range(draws):
            found = self.batch(6, seed)
            counts[found.rows] += 1
            told[found.rows] = found.inclusion_probs.float()
        error = (told * (1 - told) / draws).sqrt()
        assert bool(((counts / draws - told).abs() <= 4.5 * error + 2e-3).all())
        assert float(told.sum()) == pytest.approx(6, abs=1e-3)


def test_rad_without_the_teachers_error_is_refused():
    suite = TestSelectors()
    candidates = suite.candidates(torch.arange(40))
    object.__setattr__(candidates, "teacher_error", None)
    with pytest.raises(ConfigError, match="teacher's error"):
        Rad().select(candidates, 3, torch.Generator())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("power", {"beta": -1.0}),
        ("power", {"beta": float("inf")}),
        ("cluster_margin", {"factor": 0.5}),
        ("cluster_margin", {"clusters": -1}),
    ],
)
def test_bad_settings_are_refused(name, settings):
    (setting,) = settings
    with pytest.raises(ConfigError, match=setting):
        selector_class(name)(**settings)
