"""Every rule that is registered or installed passes the suite that users run on their own."""

import pytest
import torch

from limbeck.errors import ConfigError, ShapeError
from limbeck.registry import names
from limbeck.select import SELECTORS, Arrays, ExpectedGain, Rad, Selector, selector_class
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


def test_expected_gain_without_an_estimate_for_each_row_is_refused():
    suite = TestSelectors()
    candidates = suite.candidates(torch.arange(40))
    for error in (None, 0.2):
        object.__setattr__(candidates, "teacher_error", error)
        with pytest.raises(ConfigError, match="at each row"):
            ExpectedGain().select(candidates, 3, torch.Generator())
    with pytest.raises(ShapeError, match="40 rows but errors"):
        Arrays(candidates.rows, candidates.probabilities, teacher_error=torch.zeros(39))


def test_expected_gain_avoids_rows_that_the_teacher_does_not_know():
    probs = torch.tensor([[0.5, 0.5], [0.6, 0.4], [0.9, 0.1], [0.8, 0.2]])  # gains 1, .8, .2, .4
    errors = torch.tensor([0.9, 0.5, 0.0, 0.1])  # expected 0.1, 0.4, 0.2, 0.36
    candidates = Arrays(torch.arange(4), probs, teacher_error=errors)
    assert ExpectedGain().select(candidates, 2, torch.Generator()).rows.tolist() == [1, 3]


def test_rad_takes_the_mean_of_errors_that_are_given_for_each_row():
    suite = TestSelectors()
    each, one = (suite.candidates(torch.arange(40)) for _ in range(2))
    object.__setattr__(one, "teacher_error", float(each.teacher_error.double().mean()))
    found = [Rad().select(c, 6, torch.Generator().manual_seed(0)) for c in (each, one)]
    assert torch.equal(found[0].rows, found[1].rows)
    assert torch.equal(found[0].inclusion_probs, found[1].inclusion_probs)


@pytest.mark.parametrize("name", ["greedy", "averaged_greedy", "rad", "adaprod", "expected_gain"])
def test_gains_of_ones_own_serve_as_an_array_or_a_function(name):
    suite = TestSelectors()
    candidates = suite.candidates(torch.arange(0, 40, 2))
    own = torch.rand(40, generator=torch.Generator().manual_seed(9))
    batches = []
    for measure in (own, lambda block: own[::2]):
        rule = selector_class(name)(measure=measure)
        batches.append(rule.select(candidates, 5, torch.Generator().manual_seed(0)).rows)
    assert torch.equal(*batches)
    if name in ("greedy", "averaged_greedy"):
        best = own[::2].topk(5).indices * 2
        assert sorted(best.tolist()) == batches[0].tolist()


@pytest.mark.parametrize(
    ("own", "error", "words"),
    [
        (torch.zeros(20), ShapeError, "pool has 40"),
        (torch.full((40,), 1.5), ConfigError, "ranks"),
        (torch.full((40,), torch.nan), ConfigError, "NaN"),
    ],
)
def test_an_array_that_holds_no_gains_of_the_pool_is_refused(own, error, words):
    candidates = TestSelectors().candidates(torch.arange(0, 40, 2))
    with pytest.raises(error, match=words):
        selector_class("greedy")(measure=own).select(candidates, 5, torch.Generator())


@pytest.mark.parametrize("name", ["averaged_greedy", "adaprod"])
def test_gains_that_are_no_numbers_are_not_remembered(name):
    suite, rule = TestSelectors(), selector_class(name)()
    suite.batch(3, rule=rule)
    with pytest.raises(ConfigError, match="NaN"):
        rule.observe(torch.arange(40), torch.full((40,), torch.nan))


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
