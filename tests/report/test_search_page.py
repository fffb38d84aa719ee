"""The page of a search, its section of a report, and its lines: whole, safe and honest."""

import json
import re
from dataclasses import replace
from functools import cache

import pytest

from limbeck.report.html import render
from limbeck.report.record import RunRecord
from limbeck.report.search import SearchLayer, SearchTrial, SearchView
from limbeck.report.search_diagram import diagram
from limbeck.report.search_page import render_search
from limbeck.report.search_plots import draw
from limbeck.report.search_words import ROWS, evidence, facts, headline, search_lines, sentences

from .factory import bare, make_record
from .search_factory import cnn_search, mobile_search
from .test_html import HOSTILE, Outline, check_offline_and_safe
from .test_search_view import VIEW

MINUS = "\N{MINUS SIGN}"


@cache
def cnn() -> SearchView:
    return cnn_search()


def trials(*rewards: float | None, in_range: bool = True) -> tuple[SearchTrial, ...]:
    """Trials of `VIEW`'s space, each a little dearer than the one before."""
    return tuple(
        SearchTrial(n, (n % 3, n // 3 % 2), 50.0 + n, in_range, reward, "sweep")
        for n, reward in enumerate(rewards)
    )


def with_trials(found: tuple[SearchTrial, ...], best: int | None) -> SearchView:
    front, top = [], float("-inf")
    for each in found:
        if each.reward is not None and each.reward > top:
            top = each.reward
            front.append(each.number)
    return replace(VIEW, trials=found, best=best, front=tuple(front), measured=())


def wide(layers: int, options: int = 4) -> SearchView:
    """A view over so many layers."""
    found = tuple(
        SearchLayer(f"block_{i}_width", tuple(str(8 * (j + 1)) for j in range(options)), i % 2)
        for i in range(layers)
    )
    trial = SearchTrial(0, tuple(i % options for i in range(layers)), 9.0, True, 0.5, "random")
    return replace(VIEW, layers=found, trials=(trial,), best=0, front=(0,), measured=(),
                   diagnostics=None)  # fmt: skip


DEGENERATE = {
    "nothing tried": with_trials((), None),
    "one trial": with_trials(trials(0.5), 0),
    "all failed": with_trials(trials(None, None, None), None),
    "none in range": with_trials(trials(0.5, 0.6, in_range=False), None),
    "equal rewards": with_trials(trials(0.5, 0.5, 0.5), 0),
    "reward of zero": replace(with_trials(trials(0.0, None), 0), reward="skill"),
    "negative rewards": replace(with_trials(trials(-3.0, -2.5), 1), reward="log likelihood"),
    "no limit": replace(VIEW, low=None, high=None),
    "lower limit": replace(VIEW, low=70.0, high=None),
    "limits far away": replace(VIEW, low=1e-9, high=1e12),
    "limit of zero": replace(VIEW, low=None, high=0.0),
    "cost of zero": replace(VIEW, trials=tuple(replace(t, cost=0.0) for t in VIEW.trials),
                            base_cost=0.0, high=None, edges=()),
    "decades": replace(VIEW, trials=tuple(replace(t, cost=10.0 ** (3 * t.number)) for t in
                                          VIEW.trials), base_cost=1e5, high=1e6),
    "no front": replace(VIEW, front=()),
    "one layer": wide(1),
    "one option": wide(3, 1),
    "22 layers": wide(22),
    "70 layers, 40 options": wide(70, 40),
    "many parts": replace(VIEW, trials=tuple(replace(t, how=f"part{t.number}") for t in
                                             trials(*(0.5 + n / 99 for n in range(9))))),
}  # fmt: skip


@pytest.mark.parametrize("name", DEGENERATE)
def test_any_search_gives_a_whole_page_and_lines(name: str) -> None:
    view = DEGENERATE[name]
    page = render_search(view)
    outline = check_offline_and_safe(page)
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    assert not re.search(r"\b(nan|inf|None)\b", outline.text)
    assert headline(view) in outline.text
    lines = search_lines(view)
    assert lines[0] == headline(view).upper()
    assert lines[-1].startswith("next     ")


def test_the_page_names_the_answer_its_cost_and_its_share_of_the_limit() -> None:
    view = cnn()
    best = view.answer
    assert best is not None
    assert best.reward is not None
    assert view.high is not None
    text = Outline(render_search(view)).text
    inside = [each for each in view.rewarded if each.in_range]
    assert best.reward == max(each.reward or 0 for each in inside)
    assert f"The best of {len(inside)} architectures in range" in text
    assert f"validation accuracy {best.reward:.1%} with {best.cost:,.0f} multiply-adds" in text
    assert f"{best.cost / view.high:.0%} of the limit (trial {best.number})" in text
    assert f"at {best.cost / view.base_cost:.0%} of the base student's cost" in text
    for layer, at in zip(view.layers, best.options, strict=True):
        changed = f"{layer.name} {layer.options[at]}"
        assert (changed in sentences(view)[0]) == (at != layer.default)


@pytest.mark.parametrize(
    ("reward", "said"), [(0.70, "4.0 points above it"), (0.78, "4.0 points below it"),
                         (0.74, "level with it")]
)  # fmt: skip
def test_the_best_is_compared_with_the_base_student_that_was_evaluated(
    reward: float, said: str
) -> None:
    base = replace(VIEW.trials[0], reward=reward)
    view = replace(VIEW, trials=(base, *VIEW.trials[1:]))
    assert f"reached {reward:.1%}: the best is {said}, by one training of each." in "".join(
        sentences(view)
    )


def test_a_base_student_that_was_trained_beside_the_trials_is_in_pictures_and_words() -> None:
    beside = replace(VIEW, trials=VIEW.trials[1:], front=(1,), base_reward=0.81)
    assert "reached 81.0%: the best is 7.0 points below it" in " ".join(sentences(beside))
    legends = [re.findall("<li>[^\n]*?base student</li>", render_search(each)) for each in
               (beside, replace(beside, base_reward=None))]  # fmt: skip
    assert len(legends[0]) == len(legends[1]) + 2


def test_a_base_student_that_was_not_evaluated_is_not_compared_with() -> None:
    text = " ".join(sentences(replace(VIEW, trials=VIEW.trials[1:])))
    assert "costs 120 multiply-adds, which is out of range; it was not evaluated" in text
    assert "above it" not in text


def test_the_base_student_as_the_answer_is_said_to_be_it() -> None:
    view = replace(VIEW, best=0, high=None)
    assert headline(view) == "Nothing better than the base student was found"
    assert "is the base student itself" in sentences(view)[0]


def test_the_best_of_many_is_called_optimistic_and_the_final_test_is_named() -> None:
    many = with_trials(trials(0.5, 0.6, None, 0.7), 3)
    text = Outline(render_search(many)).text
    assert "chosen as the best of 3 in range by this very number" in text
    assert "optimistic; what it is worth is the test accuracy of its final training" in text
    assert "optimistic" not in " ".join(sentences(with_trials(trials(0.5), 0)))


def test_failed_stopped_and_out_of_range_trials_are_counted() -> None:
    said = "4 trials, of which 2 were out of range, 1 failed and 1 was stopped early."
    assert said in sentences(VIEW)
    assert said in Outline(render_search(VIEW)).text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing tried", "Nothing was tried"),
        ("all failed", "No trial gave a reward"),
        ("none in range", "Nothing within the limit has a reward"),
    ],
)
def test_a_search_without_an_answer_says_why(name: str, said: str) -> None:
    view = DEGENERATE[name]
    assert headline(view) == said
    assert "optimistic" not in Outline(render_search(view)).text
    assert "search-diagram-title" not in render_search(view)


def test_a_limit_that_nothing_meets_is_called_that() -> None:
    assert VIEW.diagnostics is not None
    shut = replace(VIEW, best=None, diagnostics=replace(VIEW.diagnostics, status="infeasible"))
    assert headline(shut) == "No architecture is within the limit"


def test_every_row_of_the_front_is_in_the_table_with_what_differs() -> None:
    text = Outline(render_search(VIEW)).text
    assert "1 best 60 60% 74.0% 4 s width 16" in text
    assert "0 out of range 120 120% 81.0% 4 s as the base student" in text


def test_a_long_front_keeps_its_best_end_and_says_what_is_left_out() -> None:
    many = with_trials(trials(*(n / 100 for n in range(60))), 59)
    text = Outline(render_search(many)).text
    assert "20 cheaper ones are left out." in text
    lines = search_lines(many)
    rows = [line for line in lines if re.match(r" *\d+ +\d+ +\d+\.\d%", line)]
    assert len(rows) == ROWS
    assert rows[-1].endswith("<- best")
    assert "52 more of the front are in the report." in lines


def test_lines_keep_the_answer_wherever_on_the_front_it_is() -> None:
    for best in (0, 1, 7, 30, 58, 59):
        many = with_trials(trials(*(n / 100 for n in range(60))), best)
        assert sum("<- best" in line for line in search_lines(many)) == 1


def test_lines_end_with_the_next_command_where_there_is_one() -> None:
    assert search_lines(VIEW, then="limbeck predict x")[-1] == "next     limbeck predict x"


def test_diagnostics_are_told_in_words() -> None:
    assert VIEW.diagnostics is not None
    said = {fact.name: fact for fact in facts(VIEW)}
    assert said["Out of range"].value == "50.0%"
    assert "much of the effort" in said["Out of range"].meaning
    assert "10% of it" in said["Grouping can have lost"].meaning
    assert said["Sweep"].value == "ended"
    unswept = replace(VIEW, diagnostics=replace(VIEW.diagnostics, swept=False))
    assert "more trials can still find better" in facts(unswept)[1].meaning
    useless = replace(VIEW, diagnostics=replace(VIEW.diagnostics, loss_of_limit=150.0))
    assert "promises nothing" in facts(useless)[3].meaning
    text = Outline(render_search(VIEW)).text
    assert all(fact.meaning in text for fact in facts(VIEW))


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "tells nothing"), (-0.3, "low: "), (0.5, "often stays good"), (0.9, "start stays")],
)
def test_validity_is_told_in_words(value: float | None, said: str) -> None:
    assert VIEW.diagnostics is not None
    view = replace(VIEW, diagnostics=replace(VIEW.diagnostics, validity=(value,)))
    assert said in evidence(view)[0].meaning
    shown = "\N{EN DASH}" if value is None else f"{value:.2f}".replace("-", MINUS)
    assert f"width 2 10 multiply-adds {shown} " in Outline(render_search(view)).text


def test_a_method_without_diagnostics_has_no_such_tables() -> None:
    text = Outline(render_search(replace(VIEW, diagnostics=None))).text
    assert "How far to trust" not in text
    assert "Validity" not in text


def test_measured_costs_stand_beside_predicted_ones_and_betray_what_is_over_the_limit() -> None:
    view = replace(VIEW, measured=((1, 60.0, 66.0), (3, 80.0, 104.0)))
    text = Outline(render_search(view)).text
    assert "1 best 60 66 +10.0%" in text
    assert "3 measured out of range 80 104 +30.0%" in text
    assert "Predicted and measured" not in Outline(render_search(cnn_without_measured())).text


def cnn_without_measured() -> SearchView:
    return replace(cnn(), measured=())


def test_every_mark_of_the_scatter_says_which_trial_it_is() -> None:
    view = cnn()
    titles = re.findall(r"<title>(trial \d+):[^<]*</title>", str(draw(view).scatter))
    assert sorted(titles) == sorted(f"trial {each.number}" for each in view.rewarded)


def test_groups_are_drawn_where_their_lines_stand_apart() -> None:
    assert draw(VIEW).edges
    assert not draw(replace(VIEW, edges=())).edges
    assert not draw(replace(VIEW, edges=tuple(60 + n / 99 for n in range(99)))).edges


def test_incumbents_rise_and_are_in_range() -> None:
    path = str(draw(cnn()).path)
    shown = [int(n) for n in re.findall(r"<title>trial (\d+):", path)]
    rewards = [cnn().trial(n).reward or 0.0 for n in shown]
    assert rewards == sorted(set(rewards))
    assert shown == sorted(shown)
    assert shown[-1] == cnn().best
    away = replace(VIEW, trials=trials(0.9, 0.95, in_range=False) + VIEW.trials[1:2])
    assert re.findall(r"<title>trial (\d+):", str(draw(away).path)) == ["1"]


def test_parts_of_the_search_differ_by_mark_and_their_counts_add_up() -> None:
    hows = draw(cnn()).hows
    assert len({how.shape for how in hows}) == len(hows)
    assert sum(how.trials for how in hows) == len(cnn().trials)
    many = draw(DEGENERATE["many parts"])
    assert [how.name for how in many.hows][-1] == "others"
    assert sum(how.trials for how in many.hows) == 9


def test_a_diverged_trial_does_not_flatten_the_picture_and_is_counted() -> None:
    view = with_trials(trials(0.9, 0.91, 0.92, 0.05, 0.93), 4)
    found = draw(view)
    assert found.below == 1
    shares = [float(n) for n in re.findall(r">([\d.]+)%</text>", str(found.scatter))]
    assert min(shares) > 80
    assert "1 far worse trial lies below" in Outline(render_search(view)).text
    assert draw(cnn()).below == 0


def test_thousands_of_trials_stay_small_and_say_how_many_are_drawn() -> None:
    many = with_trials(trials(*(0.5 + 0.4 * ((n * 37) % 101) / 101 for n in range(3000))), None)
    best = max(many.rewarded, key=lambda each: each.reward or 0.0).number
    page = render_search(replace(many, best=best))
    assert len(page.encode()) < 250_000
    assert re.search(r"4\d\d of 3,000 trials are drawn", Outline(page).text)


@pytest.mark.parametrize("view", [cnn_search(trials=20), mobile_search(trials=20), wide(22)])
def test_the_diagram_names_every_layer_with_its_options(view: SearchView) -> None:
    options = view.trials[-1].options
    text = str(diagram(view, options))
    words = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    for layer, at in zip(view.layers, options, strict=True):
        for part in re.split("_", layer.name)[-1:]:
            assert any(part in word for word in words)
        assert layer.options[at] in words
        assert layer.options[layer.default] in words
    # The reader of the screen hears the whole architecture.
    for layer, at in zip(view.layers, options, strict=True):
        assert f"{layer.name} {layer.options[at]}" in text


def test_options_that_are_numbers_are_drawn_from_small_to_large() -> None:
    layer = SearchLayer("width", ("64", "8", "16"), 0)
    view = replace(wide(1), layers=(layer,), trials=trials(0.5)[:1])
    text = str(diagram(view, (1,)))
    heights = {
        word: float(y) for y, word in re.findall(r'y="([\d.]+)"[^>]*>(8|16|64)</text>', text)
    }
    assert heights["8"] > heights["16"] > heights["64"]  # y grows downwards


def test_the_run_s_report_has_the_section_and_an_old_record_is_read() -> None:
    plain = bare(make_record(rows=200, classes=("a", "b", "c")))
    whole = replace(plain, search=cnn())
    assert RunRecord.from_dict(json.loads(json.dumps(whole.to_dict(), allow_nan=False))) == whole
    old = plain.to_dict()
    assert old.pop("search") is None
    assert RunRecord.from_dict(old) == plain
    outline = check_offline_and_safe(render(whole))
    assert "#search" in outline.values("href")
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    assert all(sentence in outline.text for sentence in sentences(cnn()))
    without = check_offline_and_safe(render(plain))
    assert "search" not in without.values("id")
    assert "#search" not in without.values("href")


def test_pictures_use_only_colours_of_the_style_sheet() -> None:
    css, body = render_search(cnn()).split("</style>", 1)
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", body))
    assert used
    assert all(f"{name}:" in css for name in used)
    assert not re.search(r"(?:fill|stroke): ?#", body)


def test_the_same_view_gives_the_same_bytes() -> None:
    assert render_search(cnn()) == render_search(cnn())


@pytest.mark.parametrize("bad", [*HOSTILE, "$\\frac{$", "a\nb\tc"])
def test_hostile_names_are_shown_as_text(bad: str) -> None:
    layers = tuple(replace(e, name=bad, options=(bad,) * len(e.options)) for e in VIEW.layers)
    found = tuple(replace(each, how=bad) for each in VIEW.trials)
    view = replace(
        VIEW, layers=layers, trials=found, kind=bad, method=bad, arm=bad, reward=bad, cost=bad,
        unit=bad, notes=(bad,),
    )  # fmt: skip
    page = render_search(view)
    check_offline_and_safe(page)
    page.encode()
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e]", page)
    assert not any(re.search("[\x00-\x08\x1b]", line) for line in search_lines(view))
