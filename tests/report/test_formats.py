"""Numbers as people read them."""

import pytest

from limbeck.numerics.intervals import Interval
from limbeck.report import formats


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (formats.percent(0.8751), "87.5%"),
        (formats.percent(None), "\N{EN DASH}"),
        (formats.points(0.021), "+2.1"),
        (formats.points(-0.021), "\N{MINUS SIGN}2.1"),
        (formats.points(-0.0001), "0.0"),
        (formats.span(Interval(0.5, 0.412, 0.588)), "41.2 to 58.8"),
        (formats.points_span(Interval(0, -0.01, 0.02)), "\N{MINUS SIGN}1.0 to +2.0"),
        (formats.number(20_000), "20,000"),
        (formats.number(None), "\N{EN DASH}"),
        (formats.money(21_346_080, "USD"), "21.35 USD"),
        (formats.size(999), "999 bytes"),
        (formats.size(4_730_112), "4.7 MB"),
        (formats.size(1_310_000_000), "1.3 GB"),
        (formats.seconds(48.2), "48 s"),
        (formats.seconds(564.0), "9.4 min"),
        (formats.milliseconds(0.0812), "0.081 ms"),
        (formats.milliseconds(0.101), "0.10 ms"),
        (formats.milliseconds(12.34), "12.3 ms"),
        (formats.tiny(6.1e-8), "6e-08"),
        (formats.fixed(0.12345, 3), "0.123"),
        (formats.signed(0.0214), "+0.021"),
        (formats.signed(-0.0214), "\N{MINUS SIGN}0.021"),
        (formats.signed(-0.0001), "0.000"),
        (formats.short(1 / 21), "0.04762"),
        (formats.short(312.5), "312.5"),
        (formats.short(-12_340.4), "\N{MINUS SIGN}12,340"),
        (formats.shorten("abcdef", 4), "abc…"),
        (formats.row_text(""), "(empty)"),
        (formats.prose("-2.7 points (-3.3 to -2.1) of well-known x-3"), None),
    ],
)
def test_a_number_reads_well(shown: str, wanted: str | None) -> None:
    minus = "\N{MINUS SIGN}"
    prose = f"{minus}2.7 points ({minus}3.3 to {minus}2.1) of well-known x-3"
    assert shown == (prose if wanted is None else wanted)


def test_cleaning_keeps_ordinary_text_of_any_script() -> None:
    text = "naïve café שלום 你好 👩‍🔬 tab\tline\n"
    assert formats.clean(text) == text
