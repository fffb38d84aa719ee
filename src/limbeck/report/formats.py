"""Numbers and hostile text as a reader wants them: the template's filters."""

import re

from limbeck.numerics.intervals import Interval
from limbeck.teachers.base import Money

_NOTHING = "\N{EN DASH}"
_SHORT_NAME = 60
_LONGEST_ROW = 1_200
# Control characters and lone surrogates cannot stand in HTML or in UTF-8. Directional overrides
# could, but they could also turn the rest of a line around.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


def clean(text: str) -> str:
    """Text whose forbidden characters are replaced by the replacement character."""
    return _FORBIDDEN.sub("\ufffd", text)


def shorten(text: str, most: int = _SHORT_NAME) -> str:
    """Text of at most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def row_text(text: str) -> str:
    """What a row says; the page stays small however long it is."""
    return shorten(text, _LONGEST_ROW) or "(empty)"


def prose(text: str) -> str:
    """A sentence whose negative numbers have a real minus sign, which no line break parts."""
    return re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)


def percent(value: float | None, digits: int = 1) -> str:
    """A share: 0.8751 is '87.5%'."""
    return _NOTHING if value is None else f"{100 * value:.{digits}f}%"


def span(interval: Interval) -> str:
    """The ends of an interval of a share: '86.6 to 88.4'."""
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign: '+2.1'."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def points_span(interval: Interval) -> str:
    """The ends of an interval of a difference: '+0.4 to +3.8'."""
    return f"{points(interval.low)} to {points(interval.high)}"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign: '+0.021'."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def short(value: float) -> str:
    """A number of any size in at most four digits: '0.0476', '312.5', '12,340'."""
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def figure(value: float | None) -> str:
    """A positive number in three digits, however small: '0.0123'."""
    return _NOTHING if value is None else f"{value:.3g}"


def sentence(text: str) -> str:
    """A line of a log as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def fixed(value: float | None, digits: int) -> str:
    """A number with this many decimals."""
    return _NOTHING if value is None else f"{value:.{digits}f}"


def number(value: int | None) -> str:
    """A count with thousands apart: '20,000'."""
    return _NOTHING if value is None else f"{value:,}"


def tiny(value: float) -> str:
    """A small number: '6e-08'."""
    return f"{value:.0e}"


def money(micros: float, currency: str) -> str:
    """Millionths as money: '21.40 USD'."""
    return str(Money(round(micros), currency))


def size(count: int | None) -> str:
    """Bytes: '3.1 MB' (millions of bytes)."""
    if count is None:
        return _NOTHING
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= divisor:
            return f"{count / divisor:.1f} {unit}"
    return f"{count} bytes"


def seconds(value: float | None) -> str:
    """A duration: '48 s' or '12.4 min'."""
    if value is None:
        return _NOTHING
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"


def milliseconds(value: float) -> str:
    """A latency: '0.11 ms'."""
    digits = 3 if value < 0.1 else 2 if value < 1 else 1
    return f"{value:.{digits}f} ms"


FILTERS = {
    "shorten": shorten,
    "row_text": row_text,
    "prose": prose,
    "percent": percent,
    "span": span,
    "points": points,
    "points_span": points_span,
    "signed": signed,
    "short": short,
    "figure": figure,
    "sentence": sentence,
    "fixed": fixed,
    "number": number,
    "tiny": tiny,
    "money": money,
    "bytes": size,
    "seconds": seconds,
    "milliseconds": milliseconds,
}
