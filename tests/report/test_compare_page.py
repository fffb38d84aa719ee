"""The page and the table of a comparison: safe, offline, and with every number in its place."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from limbeck.numerics.intervals import Interval, paired_t
from limbeck.report.compare_page import as_markdown, headline, render_comparison
from limbeck.report.comparison import ArmOverSeeds, Comparison, PairOverSeeds, SeedRun

from .test_html import HOSTILE, Outline, check_offline_and_safe

TITLES = {
    "labels": ("Labels only", "labels"),
    "soft_kd": ("Soft distillation", "distilled"),
    "slam_hard": ("SLaM, hard target", "distilled"),
    "teacher": ("Teacher", "teacher"),
}
TABLE = {
    "labels": (0.80, 0.79, 0.81, 0.80, 0.78),
    "soft_kd": (0.85, 0.84, 0.85, 0.86, 0.83),
    "slam_hard": (0.87, 0.86, 0.88, 0.87, 0.86),
    "teacher": (0.91, 0.91, 0.91, 0.91, 0.91),
}


def arm(name: str) -> ArmOverSeeds:
    title, kind = TITLES[name]
    values = np.array(TABLE[name])
    minutes = None if kind == "teacher" else Interval(1.5, 1.4, 1.6)
    return ArmOverSeeds(
        name, title, kind, paired_t(values), paired_t(values - 0.01), paired_t(1 - values),
        minutes, 0.8, tuple(values.tolist()),
    )  # fmt: skip


def pair(first: str, second: str, *, significant: bool = True) -> PairOverSeeds:
    gap = np.array(TABLE[first]) - np.array(TABLE[second])
    return PairOverSeeds(
        first, second, paired_t(gap), paired_t(gap), paired_t(-gap), float(gap.std(ddof=1)),
        tuple(gap.tolist()), 0.0001, 0.012, significant, f"{first} and {second}: a sentence.",
    )  # fmt: skip


@cache
def comparison() -> Comparison:
    return Comparison(
        title="Comparison: reviews.csv, 5 seeds",
        created="2026-11-21T14:02:00+00:00",
        baseline="soft_kd",
        labels_arm="labels",
        runs=tuple(
            SeedRun(seed, 500, 1147, 300, 20 + seed, 5, 1_000_000, 0.5, "slam_hard", "Ship")
            for seed in range(5)
        ),
        failed={"5": "the teacher <b>fell</b> silent."},
        arms=tuple(arm(name) for name in ("labels", "soft_kd", "slam_hard")),
        teacher=arm("teacher"),
        pairs=(
            pair("labels", "soft_kd"),
            pair("slam_hard", "soft_kd"),
            pair("slam_hard", "labels"),
        ),
        needed="About 9 seeds are needed.",
        notes=("A note.",),
        currency="EUR",
        config_toml="[data]\nlabelled = 'reviews.csv'\n",
        environment={"torch": "2.13.0"},
    )


def test_the_page_is_whole_and_asks_for_nothing_from_outside() -> None:
    page = render_comparison(comparison())
    outline = check_offline_and_safe(page)
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in outline.values("href")} <= set(ids)
    assert page == render_comparison(comparison())
    assert len(page) < 100_000


def test_every_number_stands_on_the_page() -> None:
    found = comparison()
    text = Outline(render_comparison(found)).text
    for each in found.everyone:
        assert each.title in text
        assert f"{100 * each.accuracy.estimate:.1f}%" in text
        for value in each.by_seed:
            assert f"{100 * value:.1f}%" in text
    for each in found.pairs:
        assert each.sentence in text
        assert f"{100 * each.accuracy.estimate:+.1f}".replace("-", "\N{MINUS SIGN}") in text
    for said in (found.needed, *found.notes, "110 answers bought", "5.00 EUR", "reviews.csv"):
        assert said in text
    assert "Seed 5 failed: the teacher <b>fell</b> silent." in text  # as text, not as markup


def test_the_picture_marks_every_seed_and_every_arm() -> None:
    page = render_comparison(comparison())
    assert "SLaM, hard target: 86.8%" in page  # read aloud
    for name, _ in TITLES.values():
        assert f">{name}</text>" in page
    # One mark a seed in the axis of each pair.
    assert page.count('class="seed ') == 3 * 5


@pytest.mark.parametrize("bad", HOSTILE)
def test_hostile_names_break_neither_page_nor_table(bad: str) -> None:
    found = comparison()
    arms = tuple(replace(each, title=bad) for each in found.arms)
    pairs = tuple(replace(each, sentence=bad) for each in found.pairs)
    hostile = replace(
        found, title=bad, arms=arms, pairs=pairs, notes=(bad,), failed={"5": bad}, config_toml=bad
    )
    check_offline_and_safe(render_comparison(hostile))
    table = as_markdown(hostile)
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == 5  # the head and four arms: no name begins a line of its own
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 7 for row in rows)
    assert "<script" not in table.replace("\\<script", "")


def test_the_table_has_a_row_an_arm_and_stars_what_is_significant() -> None:
    table = as_markdown(comparison())
    assert "| Labels only | 79.6% (78.2 to 81.0) | \N{MINUS SIGN}5.0 " in table
    assert re.search(r"\| SLaM, hard target \| .* \+2\.2 \(.*\) \* \|", table)
    assert re.search(r"\| Teacher \| 91\.0% .* \| - \|", table)


def test_two_seeds_draw_a_picture_although_their_intervals_are_wider_than_all_accuracies() -> None:
    found = comparison()
    few = tuple(
        replace(
            each,
            by_seed=each.by_seed[:2],
            accuracy=Interval(each.accuracy.estimate, -3.0, 4.0),
        )
        for each in found.arms
    )
    page = render_comparison(replace(found, arms=few, teacher=None, runs=found.runs[:2]))
    check_offline_and_safe(page)
    ticks = [float(n) for n in re.findall(r">(-?[\d.]+)%</text>", page)]
    assert ticks
    assert all(60 < n < 100 for n in ticks)


@pytest.mark.parametrize(
    ("significant", "flip", "said"),
    [
        (True, False, "Better than Soft distillation: SLaM, hard target"),
        (False, False, "Nothing can be told apart from Soft distillation"),
        (True, True, "Soft distillation is the best of these arms"),
    ],
)
def test_the_headline_says_what_was_found(significant: bool, flip: bool, said: str) -> None:
    found = comparison()
    slam = pair("slam_hard", "soft_kd", significant=significant)
    if flip:
        slam = replace(slam, accuracy=-slam.accuracy)
    labels = pair("labels", "soft_kd", significant=significant)
    assert headline(replace(found, pairs=(labels, slam))) == said


def test_what_holm_takes_back_is_no_headline() -> None:
    found = comparison()
    slam = replace(pair("slam_hard", "soft_kd"), p=0.03, p_holm=0.2)
    alone = replace(found, pairs=(slam,))
    assert headline(alone) == "Nothing differs from Soft distillation once all pairs are counted"
    assert "better, alone" in render_comparison(alone)


def test_with_few_seeds_the_headline_claims_nothing() -> None:
    found = comparison()
    assert headline(replace(found, runs=found.runs[:4])) == "4 seeds are too few to say"
