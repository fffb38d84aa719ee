"""The section of a run that bought its answers in rounds."""

import json
import re
from dataclasses import replace
from functools import cache

import pytest

from limbeck.errors import DataError
from limbeck.numerics.intervals import Interval
from limbeck.report import purchase_plots
from limbeck.report.html import render
from limbeck.report.purchase import PoolEstimate, Purchase
from limbeck.report.record import RunRecord

from .factory import STOPPED, bare, make_purchase, make_record
from .test_html import HOSTILE, Outline, check_offline_and_safe


@cache
def record() -> RunRecord:
    """A run with little else to draw."""
    whole = make_record(rows=200, classes=("a", "b", "c"))
    return replace(bare(whole), cost=whole.cost)


@cache
def shown(purchase: Purchase) -> Outline:
    return check_offline_and_safe(render(replace(record(), purchase=purchase)))


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_json_gives_the_same_purchase_back(beside: bool, stopped: bool) -> None:
    whole = replace(record(), purchase=make_purchase(beside=beside, stopped=stopped))
    text = json.dumps(whole.to_dict(), allow_nan=False)
    assert RunRecord.from_dict(json.loads(text)) == whole


def test_a_record_from_before_there_were_rounds_is_read() -> None:
    old = record().to_dict()
    assert old.pop("purchase") is None
    assert RunRecord.from_dict(old) == record()


def test_what_is_no_round_is_refused_with_its_place() -> None:
    written = replace(record(), purchase=make_purchase()).to_dict()
    written["purchase"]["rounds"][1]["chosen"] = "many"  # type: ignore[index]
    with pytest.raises(DataError, match=r"purchase\.rounds\[1\]\.chosen"):
        RunRecord.from_dict(written)


def test_a_run_that_bought_at_once_has_no_such_section() -> None:
    outline = check_offline_and_safe(render(record()))
    assert "purchase" not in outline.values("id")
    assert "#purchase" not in outline.values("href")
    assert "What was bought" not in outline.text


def test_the_section_says_who_chose_how_much() -> None:
    outline = shown(make_purchase())
    assert "purchase" in outline.values("id")
    assert "#purchase" in outline.values("href")
    assert (
        "The rule rad , looking at the margin , chose 2,000 pool rows in 5 rounds, each with the "
        "student trained on the answers before it; 200 of them were drawn uniformly, as an audit."
    ) in outline.text


def test_one_round_without_a_measure_and_without_an_audit_is_told_as_such() -> None:
    plain = make_purchase(rule="uniform", rounds=1, beside=False)
    rounds = tuple(replace(each, audit=0) for each in plain.rounds)
    text = shown(replace(plain, measure="", rounds=rounds)).text
    assert "The rule uniform chose 400 pool rows in 1 round, each" in text
    assert "audit ." not in text
    assert "beside" not in text  # uniform needs no uniform arm beside it


def test_a_purchase_that_stopped_early_says_why_and_what_it_saved() -> None:
    text = shown(make_purchase(stopped=True)).text
    assert f"Stopped early. {STOPPED.replace('-', chr(0x2212))}" in text
    assert "3,000 answers were not bought, which saved 2.52 USD ." in text
    free = replace(make_purchase(stopped=True), saved=0)
    assert "3,000 answers were not bought." in shown(free).text
    assert "Stopped early" not in shown(make_purchase()).text


def test_without_a_cost_no_money_is_named() -> None:
    text = Outline(render(replace(record(), cost=None, purchase=make_purchase(stopped=True)))).text
    assert "3,000 answers were not bought." in text


def test_every_round_stands_in_the_table() -> None:
    found = make_purchase()
    text = shown(found).text
    for each in found.batches:
        accuracy = f"{each.accuracy.estimate:.1%} {100 * each.accuracy.low:.1f} to"
        assert f"{each.number} {each.answers:,} {accuracy}" in text
        share = each.support / each.candidates if each.support else 0
        row = f"{each.chosen} {each.audit} {each.candidates:,} {each.support:,} {share:.0%}"
        assert f"{row} {each.wrong:.1%}" in text
    assert f"end 2,000 {found.rounds[-1].accuracy.estimate:.1%}" in text


def test_estimates_over_the_pool_stand_with_their_intervals() -> None:
    text = shown(make_purchase()).text
    assert "answers that are probably wrong 11.3% 9.4 to 13.4" in text
    assert "Horvitz-Thompson" in text
    none = shown(replace(make_purchase(), estimates=()))
    assert "[buy] audit_share draws a part of each round uniformly" in none.text
    assert "Horvitz-Thompson" not in none.text


def test_a_missing_uniform_arm_is_said_with_what_buys_it() -> None:
    assert '[buy] beside = "uniform" buys one' in shown(make_purchase(beside=False)).text
    assert '[buy] beside = "uniform"' not in shown(make_purchase()).text


def pictures(purchase: Purchase) -> dict[str, str]:
    """Descriptions by title of the section's pictures."""
    drawn = "".join(purchase_plots.draw(purchase).values())
    found = re.findall(r"<title id=[^>]+>([^<]+)</title><desc id=[^>]+>([^<]+)</desc>", drawn)
    assert len(found) == drawn.count('role="img"')
    return dict(found)


def test_every_picture_says_its_numbers_aloud() -> None:
    said = pictures(make_purchase())
    assert said == {
        "Validation accuracy against answers bought": (
            "From 70.0% with 0 answers to 85.8% with 2,000; the teacher has 88.5%. "
            "Rows chosen uniformly give 84.6% with 2,000."
        ),
        "Chances of being chosen against gains": said["Chances of being chosen against gains"],
        "Answers of each round that were expected to be wrong": (
            "By round: 19.8%, 18.6%, 17.4%, 16.2%, 15.0%; uniform rows have 11.5%."
        ),
    }
    assert re.match(
        r"300 chosen rows of 5 rounds; their chances were 0\.21% to",
        said["Chances of being chosen against gains"],
    )


def test_what_was_not_known_leaves_its_picture_out() -> None:
    full = make_purchase(beside=False)
    rounds = tuple(replace(each, support=None, wrong=None) for each in full.rounds)
    less = replace(full, rounds=rounds, points=(), wrong_uniform=None)
    assert list(pictures(less)) == ["Validation accuracy against answers bought"]
    only_wrong = tuple(replace(each, support=None) for each in full.rounds)
    said = pictures(replace(full, rounds=only_wrong, wrong_uniform=None))
    assert "uniform" not in said["Answers of each round that were expected to be wrong"]
    assert "Support:" not in shown(replace(full, rounds=only_wrong)).text
    assert "Support:" in shown(full).text
    nothing = shown(replace(less, rounds=(), estimates=()))
    assert "chose 0 pool rows in 0 rounds" in nothing.text


def test_equal_chances_and_a_single_round_can_be_drawn() -> None:
    one = replace(make_purchase(rounds=1), points=((0.5, 1.0, 1.0), (0.2, 1.0, 1.0)))
    said = pictures(one)["Chances of being chosen against gains"]
    assert said == "2 chosen rows of 1 round; their chances were 100.00% to 100.00%."


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    page = render(replace(record(), purchase=make_purchase()))
    outline = Outline(page)
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    targets = {value[1:] for value in outline.values("href")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", page))
    targets |= {word for value in outline.values("aria-labelledby") for word in value.split()}
    assert targets <= set(ids)


def test_pictures_use_only_colours_of_the_style_sheet() -> None:
    css, body = render(replace(record(), purchase=make_purchase())).split("</style>", 1)
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", body))
    assert all(f"{name}:" in css for name in used)
    assert not re.search(r"(?:fill|stroke): ?#", body)


def test_many_rounds_and_points_stay_small_and_the_same() -> None:
    many = make_purchase(rounds=40, size=100, points=20_000)
    drawn = purchase_plots.draw(many)
    assert sum(len(picture.encode()) for picture in drawn.values()) < 150_000
    assert purchase_plots.draw(many) == drawn
    page = render(replace(make_record(rows=1_500), purchase=many))
    assert len(page.encode()) < 500_000


def test_hostile_names_are_shown_as_text() -> None:
    estimates = tuple(PoolEstimate(name, Interval(0.5, 0.4, 0.6)) for name in HOSTILE)
    bad = replace(
        make_purchase(stopped=True),
        rule=HOSTILE[0],
        measure=HOSTILE[1],
        stopped=" ".join(HOSTILE),
        estimates=estimates,
    )
    outline = shown(bad)
    assert outline.text.count(HOSTILE[0]) >= 3
    assert "49 {%" not in outline.text
