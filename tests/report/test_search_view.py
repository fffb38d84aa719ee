"""The view of a search: what goes into JSON comes back, and what it says of itself."""

import json
import math
from dataclasses import replace

import pytest

from limbeck.errors import DataError
from limbeck.report.search import SearchDiagnostics, SearchLayer, SearchTrial, SearchView

LAYERS = (
    SearchLayer("width", ("16", "32", "64"), 1),
    SearchLayer("kernel", ("3", "5"), 0),
)
TRIALS = (
    SearchTrial(0, (1, 0), 120.0, False, 0.81, "sweep", 4.2, 300),
    SearchTrial(1, (0, 0), 60.0, True, 0.74, "sweep", 3.9, 300),
    SearchTrial(2, (2, 1), 200.0, False, None, "explore"),
    SearchTrial(3, (0, 1), 80.0, True, None, "polish", 1.2, 100, stopped=True),
)
VIEW = SearchView(
    kind="image_cnn",
    method="layernas",
    arm="Soft distillation",
    reward="validation accuracy",
    cost="macs",
    unit="multiply-adds",
    low=None,
    high=100.0,
    base_cost=120.0,
    seed=3,
    layers=LAYERS,
    trials=TRIALS,
    best=1,
    front=(1, 0),
    diagnostics=SearchDiagnostics("exhausted", True, 0.5, (None,), (2,), (10.0,), 10.0),
    edges=(50.0, 75.0, 100.0),
    notes=("A note.",),
    measured=((1, 60.0, 66.0),),
)


@pytest.mark.parametrize(
    "view",
    [
        VIEW,
        replace(VIEW, low=0.0, high=None, diagnostics=None, edges=(), measured=(), notes=()),
        replace(VIEW, trials=(), best=None, front=()),
    ],
)
def test_json_gives_the_same_view_back(view: SearchView) -> None:
    assert SearchView.from_dict(json.loads(json.dumps(view.to_dict(), allow_nan=False))) == view


def test_an_infinite_limit_is_refused_and_told_to_be_none() -> None:
    with pytest.raises(DataError, match=r"\.high is inf.*give None"):
        replace(VIEW, high=math.inf).to_dict()


def test_what_is_no_trial_is_refused_with_its_place() -> None:
    written = VIEW.to_dict()
    written["trials"][2]["cost"] = "dear"  # type: ignore[index]
    with pytest.raises(DataError, match=r"trials\[2\]\.cost"):
        SearchView.from_dict(written)


def test_the_base_is_the_trial_of_the_defaults_and_has_a_reward() -> None:
    assert VIEW.base == TRIALS[0]
    assert not VIEW.base_in_range
    unrewarded = (replace(TRIALS[0], reward=None), *TRIALS[1:])
    assert replace(VIEW, trials=unrewarded).base is None
    assert replace(VIEW, high=None).base_in_range
    assert not replace(VIEW, low=121.0, high=None).base_in_range


def test_a_stopped_trial_has_not_failed() -> None:
    assert [each.number for each in VIEW.trials if each.failed] == [2]
    assert [each.number for each in VIEW.rewarded] == [0, 1]
