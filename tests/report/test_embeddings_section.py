"""The section of a run with an arm that splits classes by embeddings."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from limbeck.report.embeddings import ArmSplit, Direction, Embeddings, Example
from limbeck.report.html import render
from limbeck.report.record import RunRecord
from limbeck.report.thumbnails import thumbnail

from .factory import bare, make_record
from .test_html import HOSTILE, Outline, check_offline_and_safe
from .test_thumbnails import file_of


@cache
def record(classes: tuple[str, ...] = ("a", "b")) -> RunRecord:
    """A run with little else to draw."""
    return bare(make_record(rows=200, classes=classes))


def example(number: int, *, text: str = "", image: str = "") -> Example:
    return Example(1_000 + number, text or f"row text {number}", image, 2.5 - number, 0.875)


def embeddings(**changed: object) -> Embeddings:
    found = Embeddings(
        rows=4_000,
        dim=512,
        ratio=0.0312,
        nc1=0.00123,
        norm_spread=0.21,
        angle_gap=0.134,
        null_share=0.873,
        centered_null_share=0.9,
        null_room=0.996,
        words=("the embeddings hold structure", "whether -1 helps, the arms tell"),
        splits=(
            ArmSplit("LELP", 16, 0.541, 0.0556, 2.079),
            ArmSplit("Random split", 16, 0.541, 2.05, 2.079),
        ),
        directions=(
            Direction("a", 1, (example(0), example(1)), (example(5), example(6))),
            Direction("b", 3, (example(2),), ()),
        ),
        directions_of="LELP",
        all_directions=16,
    )
    return replace(found, **changed)  # type: ignore[arg-type]


def shown(found: Embeddings, classes: tuple[str, ...] = ("a", "b")) -> Outline:
    return check_offline_and_safe(render(replace(record(classes), embeddings=found)))


def test_json_gives_the_same_back_and_an_older_record_is_read() -> None:
    nothing = embeddings(ratio=None, nc1=None, null_share=None, null_room=None, directions=())
    for found in (embeddings(), nothing):
        whole = replace(record(), embeddings=found)
        text = json.dumps(whole.to_dict(), allow_nan=False)
        assert RunRecord.from_dict(json.loads(text)) == whole
    old = record().to_dict()
    assert old.pop("embeddings") is None
    assert RunRecord.from_dict(old) == record()


def test_a_run_without_such_an_arm_has_no_such_section() -> None:
    outline = check_offline_and_safe(render(record()))
    assert "embeddings" not in outline.values("id")
    assert "#embeddings" not in outline.values("href")


def test_the_section_says_the_figures_and_what_they_mean() -> None:
    outline = shown(embeddings())
    assert {"embeddings"} <= set(outline.values("id"))
    assert "#embeddings" in outline.values("href")
    text = outline.text
    assert "The embeddings hold structure. Whether \N{MINUS SIGN}1 helps, the arms tell." in text
    assert "In 4,000 answers Within over between 0.0312 NC1 0.00123" in text
    assert "Outside the last layer 87.3% of what varies within classes, in 99.6% of the" in text
    assert "Outside what softmax sees 90.0%" in text
    assert "LELP 16 0.541 0.056 2.079 Random split 16 0.541 2.050 2.079" in text


def test_norms_and_angles_are_shown_where_they_can_differ() -> None:
    assert "Angles" not in shown(embeddings()).text
    several = shown(embeddings(), ("a", "b", "c")).text
    assert "Norms of class means differ by 21.0% Angles from a simplex 0.13 in cosine" in several


def test_what_is_unknown_is_said() -> None:
    text = shown(embeddings(null_share=None, centered_null_share=None, null_room=None)).text
    assert "The layer behind these embeddings is not known." in text
    assert "Outside the last layer" not in text
    dash = "\N{EN DASH}"
    none = shown(embeddings(ratio=None, nc1=None)).text
    assert f"Within over between {dash} NC1 {dash}" in none


def test_rows_at_the_two_ends_of_a_direction_stand_side_by_side() -> None:
    text = shown(embeddings()).text
    assert "LELP splits classes along 16 directions, 2 of which are shown" in text
    low = "one end row text 0 row 1,000 · +2.5 · teacher 88% row text 1 row 1,001 · +1.5"
    assert f"a direction 1 {low}" in text
    assert "the other row text 5 row 1,005 · \N{MINUS SIGN}2.5" in text
    assert "b direction 3 one end row text 2" in text
    assert "What the directions mean" not in shown(embeddings(directions=())).text


def test_pictures_lie_inside_the_page_and_are_allowed_there_alone() -> None:
    picture = thumbnail(file_of(np.arange(64, dtype=np.uint8).reshape(8, 8)))
    pictured = Direction("a", 1, (example(0, image=picture),), (example(1, image=picture),))
    outline = shown(embeddings(directions=(pictured,)))
    assert outline.values("src") == [picture, picture]
    policies = [value for value in outline.values("content") if "default-src" in value]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    plain = shown(embeddings()).values("content")
    assert "default-src 'none'; style-src 'unsafe-inline'" in plain


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_rows_and_names_stay_text(text: str) -> None:
    odd = Direction(text, 1, (example(0, text=text),), (example(1, image="https://x.y/z.png"),))
    named = replace(embeddings().splits[0], title=text)
    outline = shown(embeddings(directions=(odd,), splits=(named,), directions_of=text))
    assert outline.values("src") == []


def test_the_largest_section_keeps_the_page_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    rows = tuple(example(i, text="word " * 48, image=thumbnail(file_of(noise))) for i in range(3))
    most = tuple(Direction("a", number, rows, rows) for number in range(1, 17))
    page = render(replace(record(), embeddings=embeddings(directions=most)))
    assert len(page.encode()) < 500_000
