"""The report as a browser gets it: one safe, small, offline, deterministic file."""

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import pytest

from limbeck.numerics.intervals import Interval
from limbeck.report import binary, plots
from limbeck.report.html import render
from limbeck.report.record import RunRecord

from .factory import bare, make_record

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HOSTILE = (
    "<script>alert('x')</script>",
    '"><img src=x onerror=alert(1)> \' " ` {{ 7 * 7 }} {% raw %} </style></title><!--',
    "\u202eright to left\u202c שלום مرحبا",
    "\x00\x08\x1b[31m \ud800 lone surrogate \ufffe",
    "🧪👩‍🔬" * 50,
    "W" * 5_000,
    "",
    "]]> &amp; &lt; $x^2$ \\n",
)


@cache
def record() -> RunRecord:
    return make_record(rows=1_500)


@cache
def page() -> str:
    return render(record())


class Outline(HTMLParser):
    """Collects tags, ids, references and text of a page."""

    void = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.broken: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, key: str) -> list[str]:
        return [value for _, k, value in self.attributes if k == key]


def check_offline_and_safe(text: str) -> Outline:
    outline = Outline(text)
    assert outline.broken == []
    assert outline.open == []
    assert not {"script", "iframe", "object", "embed", "link", "form"} & set(outline.tags)
    assert all(value.startswith("#") for value in outline.values("href"))
    assert not [k for _, k, _ in outline.attributes if k.startswith("on")]
    inside = r"data:image/(jpeg|png);base64,[A-Za-z0-9+/=]+"
    sources = [(tag, value) for tag, key, value in outline.attributes if key == "src"]
    assert all(tag == "img" and re.fullmatch(inside, value) for tag, value in sources)
    assert len(sources) == outline.tags.count("img")
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    return outline


def test_the_page_is_whole_and_asks_for_nothing_from_outside() -> None:
    check_offline_and_safe(page())


def test_ids_are_unique_and_every_reference_has_its_target() -> None:
    outline = Outline(page())
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    targets = {value[1:] for value in outline.values("href")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", page()))
    targets |= {word for value in outline.values("aria-labelledby") for word in value.split()}
    assert targets <= set(ids)


def test_the_verdict_comes_first_with_its_numbers() -> None:
    text = Outline(page()).text
    found = record().verdict
    places = [text.index(found.title, 100), text.index("Arms on the same")]
    assert places == sorted(places)
    assert found.sentences[0] in text
    assert f"{found.evidence['candidate_accuracy']:.1%}" in text


def test_every_arm_and_the_teacher_stand_in_the_table_with_their_accuracy() -> None:
    text = Outline(page()).text
    evaluation = record().evaluation
    assert evaluation.teacher is not None
    for arm in (*evaluation.arms, evaluation.teacher):
        assert arm.title in text
        assert f"{100 * arm.accuracy.estimate:.1f}%" in text


def test_sections_follow_in_the_promised_order() -> None:
    order = [
        "verdict",
        "arms",
        "calibration",
        "trust",
        "confusion",
        "deferral",
        "ranking",
        "decision",
        "training",
        "cost",
        "size",
        "rows",
        "data",
        "config",
    ]
    places = [page().index(f'id="{name}"') for name in order]
    assert places == sorted(places)


def test_every_picture_has_a_title_and_a_description() -> None:
    pictures = re.findall(r"<svg[^>]*role=\"img\".*?</svg>", page(), re.S)
    assert len(pictures) == 8
    for picture in pictures:
        assert re.search(r"<title id=[^>]+>[^<]+</title><desc id=[^>]+>[^<]+</desc>", picture)


def test_pictures_use_only_colours_of_the_style_sheet() -> None:
    css, body = page().split("</style>", 1)
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", body))
    assert used
    assert all(f"{name}:" in css for name in used)
    assert not re.search(r"(?:fill|stroke): ?#", body)


@pytest.mark.parametrize("classes", [("negative", "positive"), DIGITS])
def test_25000_test_rows_stay_under_500_kilobytes(classes: tuple[str, ...]) -> None:
    assert len(render(make_record(rows=25_000, classes=classes)).encode()) < 500_000


def test_150_classes_show_frequent_mistakes_instead_of_a_table_and_stay_small() -> None:
    names = tuple(f"intent {i}" for i in range(150))
    text = render(make_record(rows=1_000, classes=names))
    assert len(text.encode()) < 500_000
    assert "too many for a table" in text


def test_the_same_record_gives_the_same_bytes() -> None:
    assert render(make_record(rows=1_500)) == page()


def test_hostile_rows_names_and_settings_are_shown_as_text() -> None:
    record = make_record(rows=400, classes=(HOSTILE[0], HOSTILE[1]), texts=HOSTILE)
    arms = tuple(replace(a, title=HOSTILE[1]) for a in record.evaluation.arms)
    hostile = replace(
        record,
        title=HOSTILE[0],
        evaluation=replace(record.evaluation, arms=arms),
        config_toml="\n".join(HOSTILE),
        environment={HOSTILE[0]: HOSTILE[1]},
        warnings=HOSTILE,
        data=replace(record.data, guesses=HOSTILE, removed=((HOSTILE[1], 3),)),
    )
    text = render(hostile)
    outline = check_offline_and_safe(text)
    assert HOSTILE[0] in outline.text
    assert "{{ 7 * 7 }}" in outline.text
    assert "49 {%" not in outline.text
    text.encode()  # no lone surrogate is left
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e]", text)
    assert len(text.encode()) < 500_000


def test_rankings_and_costs_are_told_in_numbers() -> None:
    text = Outline(page()).text
    found, decision = record().evaluation, record().decision
    assert found.teacher is not None
    assert decision is not None
    for arm in (*found.arms, found.teacher):
        assert arm.roc_auc is not None
        assert f"{arm.roc_auc.estimate:.3f} {arm.roc_auc.low:.3f} to" in text
    assert f"from probability {decision.threshold:.4g} on: the Bayes threshold" in text
    for way in decision.ways:
        assert f"{way.title} {way.threshold:.4g}" in text
        assert f"{way.false_positives:,} {way.false_negatives:,} {way.accuracy:.1%}" in text


def test_arms_that_rank_alike_are_said_to_and_have_no_interval() -> None:
    found = record().evaluation
    gaps = tuple(
        replace(gap, interval=Interval(0.0, 0.0, 0.0))
        if found.labels_arm in (gap.first, gap.second)
        else gap
        for gap in found.roc_differences
    )
    text = Outline(render(replace(record(), evaluation=replace(found, roc_differences=gaps)))).text
    assert text.count("the same ranking") == len(found.arms)  # the teacher, but not itself
    assert "the same ranking" not in Outline(page()).text


def test_equal_costs_and_more_classes_leave_their_sections_out() -> None:
    plain = Outline(render(replace(record(), decision=None)))
    assert "ranking" in plain.values("id")
    assert "decision" not in plain.values("id")
    assert "Both mistakes cost the same" in plain.text
    many = Outline(render(make_record(rows=300, classes=DIGITS)))
    assert not {"ranking", "decision"} & set(many.values("id"))
    assert "ROC" not in many.text


def test_arms_differ_by_dash_or_mark_without_colour() -> None:
    found = record().evaluation
    dashes, shapes = plots.legend_marks(found), binary.legend_shapes(found)
    told = [(dashes.get(name, ("", ""))[1], shape) for name, shape in shapes.items()]
    assert len(set(told)) == len(found.arms) + 1


def test_missing_parts_say_why() -> None:
    text = Outline(render(bare(record()))).text
    assert "No arm of this run uses trust." in text
    assert text.count("Not measured in this run.") == 4


def test_a_teacher_that_was_not_asked_about_test_leaves_no_gap() -> None:
    alone = replace(record().evaluation, teacher=None, gain_kept=None)
    check_offline_and_safe(render(replace(bare(record()), evaluation=alone)))


@pytest.mark.parametrize("chosen", ["labels", "labels_and_validation", "hard_kd"])
def test_any_arm_can_ship(chosen: str) -> None:
    check_offline_and_safe(render(make_record(rows=300, chosen=chosen)))


def test_a_run_without_a_wrong_answer_says_so() -> None:
    text = Outline(render(replace(record(), disagreements=()))).text
    assert "Nobody is wrong on any test row." in text


@pytest.mark.parametrize("needle", ["prefers-color-scheme: dark", "@media print", "max-width: 560"])
def test_the_style_sheet_serves_dark_paper_and_narrow_screens(needle: str) -> None:
    assert needle in page()


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio of two #rrggbb colours."""

    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_text_and_lines_stand_out_from_their_background(theme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", page(), re.S)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[theme]))
    for name in ("ink", "muted", "student", "labels", "teacher", "good", "bad", "warn"):
        assert contrast(colours[name], colours["card"]) >= 4.5, name
        assert contrast(colours[name], colours["paper"]) >= 4.0, name
    for name in [f"c{n}" for n in range(21, 29)]:
        assert contrast(colours[name], colours["card"]) >= 3.0, name
