import json
import re
from dataclasses import replace

import pytest

from limbeck.report.search import SearchDiagnostics, SearchLayer, SearchTrial, SearchView
from limbeck.report.search_page import render_search
from limbeck.report.search_words import ROWS, facts, headline, search_lines, sentences

from .search_factory import cnn_search, mobile_search


def trial(number, options, cost, reward, **more):
    return SearchTrial(number, options, cost, cost <= 10, reward, "sweep", 1.0, 5, **more)


def small(*trials, best=None, front=(), **more):
    layers = (SearchLayer("width", ("8", "16", "32"), 1),)
    given = {
        "kind": "image_cnn", "method": "layernas", "arm": "Soft distillation",
        "reward": "validation accuracy", "cost": "macs", "unit": "multiply-adds", "low": None,
        "high": 10.0, "base_cost": 12.0, "seed": 0,
    }  # fmt: skip
    return SearchView(**{**given, **more}, layers=layers, trials=trials, best=best, front=front)


@pytest.fixture(scope="module")
def view():
    return cnn_search()


def text_of(page):
    return re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))


def test_a_search_survives_json(view):
    assert SearchView.from_dict(json.loads(json.dumps(view.to_dict(), allow_nan=False))) == view


DEGENERATE = {
    "none": small(),
    "one": small(trial(0, (0,), 5.0, 0.5), best=0, front=(0,)),
    "failed": small(trial(0, (0,), 5.0, None)),
    "stopped": small(trial(0, (0,), 5.0, None, stopped=True)),
    "outside": small(trial(0, (2,), 50.0, 0.5), front=(0,)),
    "endless": small(
        trial(0, (0,), 5.0, 0.5), trial(1, (1,), 12.0, 0.5), best=0, front=(0,), high=None
    ),
    "likelihood": small(
        trial(0, (0,), 5.0, -3.2), best=0, front=(0,), reward="validation log-likelihood a row"
    ),
    "base": small(trial(0, (0,), 5.0, 0.5), best=0, front=(0,), base_reward=0.1),
    "zeros": small(trial(0, (0,), 0.0, 0.0), best=0, front=(0,), base_cost=0.0, high=0.0),
}


@pytest.mark.parametrize("view", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_whatever_came_of_it_has_a_page_and_lines(view):
    page = render_search(view)
    assert page.startswith("<!doctype html>")
    assert "nan" not in text_of(page).lower().replace("layernas", "")
    assert search_lines(view)[-1].startswith("next")


@pytest.mark.slow
def test_layers_of_many_options_are_drawn_with_all_their_names():
    view = mobile_search(trials=20)
    page = render_search(view)
    assert max(len(layer.options) for layer in view.layers) > 15
    assert all(layer.name in page for layer in view.layers)


def test_the_best_is_said_with_its_cost_and_against_the_base_student():
    view = small(
        trial(0, (0,), 5.0, 0.9), trial(1, (0,), 6.0, 0.8), best=0, front=(0,), base_reward=0.95
    )
    said = " ".join(sentences(view))
    assert "width 8" in said
    assert "50% of the limit" in said
    assert "reached 95.0%" in said
    assert "the best is 5.0 points below it" in said
    assert "optimistic" in said
    assert "90.0%" in headline(view)


def test_a_base_student_that_was_a_trial_needs_no_training_beside():
    view = small(trial(0, (0,), 5.0, 0.9), trial(1, (1,), 12.0, 0.7), best=0, front=(0,))
    assert view.reached_by_base == 0.7
    assert replace(view, base_reward=0.6).reached_by_base == 0.6
    assert small(trial(0, (0,), 5.0, 0.9), best=0).reached_by_base is None


def test_failed_and_stopped_trials_are_counted():
    view = small(
        trial(0, (0,), 5.0, 0.9),
        trial(1, (1,), 6.0, None),
        trial(2, (2,), 7.0, None, stopped=True),
        trial(3, (2,), 17.0, 0.99),
        best=0,
        front=(0, 3),
    )
    said = sentences(view)[-1]
    assert said == ("4 trials, of which 1 was out of range, 1 failed and 1 was stopped early.")


def test_the_terminal_shows_a_few_of_a_long_front_and_always_the_best(view):
    trials = tuple(trial(i, (0,), 0.1 * i, i / 100) for i in range(60))
    long = small(*trials, best=50, front=tuple(range(60)))
    lines = search_lines(long)
    rows = [line for line in lines if "width 8" in line and "%" in line][1:]
    assert len(rows) == ROWS
    assert any("<- best" in line for line in rows)
    assert any(line.startswith("52 more") for line in lines)


def test_diagnostics_are_said_in_words():
    found = SearchDiagnostics("searching", False, 0.4, (None,), (3,), (1.0,), 20.0)
    said = facts(small(trial(0, (0,), 5.0, 0.9), best=0, diagnostics=found))
    assert any("what the limit forbids" in fact.meaning for fact in said)
    assert any("promises nothing" in fact.meaning for fact in said)
    assert facts(small()) == []


def test_what_the_user_wrote_is_escaped():
    layers = (SearchLayer("<script>alert(1)</script>", ("<b>", "&"), 0),)
    view = replace(small(trial(0, (1,), 5.0, 0.9), best=0, front=(0,)), layers=layers)
    page = render_search(replace(view, notes=("<i>note</i>",)))
    assert "<script>" not in page
    assert "<i>note" not in page


def test_measured_costs_stand_beside_predicted_ones():
    view = small(trial(0, (0,), 5.0, 0.9), best=0, front=(0,), measured=((0, 5.0, 5.5),))
    assert "10" in text_of(render_search(view))
    assert "measured" in text_of(render_search(view)).lower()


def test_the_same_search_gives_the_same_page(view):
    assert render_search(view) == render_search(view)
