"""A matplotlib figure to an SVG that can stand inside an HTML page.

matplotlib writes a file of its own: with ids that collide when two figures share a page, a style
sheet that would reach the whole page, fixed colours and a date. Here ids get the figure's name,
colours become CSS variables (so that light, dark and print each choose theirs), text stays text,
and the same figure gives the same bytes.
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree

from markupsafe import Markup

from limbeck.report.formats import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins while drawing; `inline` turns #0000nn into var(--cnn), which the style sheet defines.
INK, MUTED, LINE, FILL = "#000001", "#000002", "#000003", "#000004"
STUDENT, LABELS, TEACHER = "#000011", "#000012", "#000013"
GOOD, BAD = "#000014", "#000015"
SERIES = tuple(f"#0000{n}" for n in range(21, 29))

_STAND_IN = re.compile(r"#0000(\d\d)")
_REFERENCE = re.compile(r"#(?=[A-Za-z_])")
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "limbeck",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.use": True,
}


def css_variable(stand_in: str) -> str:
    """The CSS value that a stand-in colour becomes."""
    return _STAND_IN.sub(r"var(--c\1)", stand_in)


def subplots(rows: int = 1, *, height: float = 3.2) -> "tuple[Figure, list[Axes]]":
    """A figure in the report's style with `rows` axes, one below the other, the first the highest.

    Args:
        rows: Axes, sharing x.
        height: Inches of 72 CSS pixels; the width is 4.8.
    """
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(4.8, height))
        heights = [3.0, *[1.0] * (rows - 1)]
        grid = figure.subplots(
            rows, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
        )
    figure.patch.set_visible(False)
    axes: list[Axes] = list(grid[:, 0])
    for each in axes:
        each.patch.set_visible(False)
        each.tick_params(length=0)
    return figure, axes


def inline(
    figure: "Figure",
    name: str,
    *,
    title: str,
    description: str,
    hover: Mapping[str, Sequence[str]] | None = None,
) -> Markup:
    """Draw a figure as SVG text for the middle of a page.

    Args:
        figure: What to draw.
        name: Unique on the page; prefixes every id.
        title, description: Read aloud instead of the picture.
        hover: What each mark of a line says under the pointer, by the line's `gid`; all of its
            marks must lie inside the figure.

    Returns:
        Markup without namespaces, links, scripts or style sheets.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    target = io.BytesIO()
    with _style():
        FigureCanvasSVG(figure).print_figure(target, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(target.getvalue())
    _clean(root, name)
    for gid, texts in (hover or {}).items():
        _hover(root, f"{name}-{gid}", texts)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("class", "plot")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        element.text = clean(text)
        root.insert(position, element)
    # Safe: the tree was built here, and ElementTree escapes every text and attribute in it.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _style() -> AbstractContextManager[None]:
    from matplotlib import rc_context

    # matplotlib's type of the keys is one Literal of 300 names; a plain dict of str does not fit.
    return rc_context(cast(Any, _SETTINGS))


def _clean(element: ElementTree.Element, name: str) -> None:
    element.tag = _local(element.tag)
    for key in list(element.attrib):
        value = _STAND_IN.sub(r"var(--c\1)", element.attrib.pop(key))
        if _local(key) == "id":
            value = f"{name}-{value}"
        elif _local(key) == "href" or "url(#" in value:
            value = _REFERENCE.sub(f"#{name}-", value)
        elif _local(key) == "style":
            # The page's font, so that figures and text match and nothing depends on matplotlib's.
            value = re.sub(r"(font-family|font):[^;]*;?", _size_only, value)
        element.set(_local(key), value)
    for child in list(element):
        if _local(child.tag) in ("metadata", "style"):
            element.remove(child)
        else:
            _clean(child, name)


def _hover(root: ElementTree.Element, name: str, texts: Sequence[str]) -> None:
    group = next(each for each in root.iter() if each.get("id") == name)
    # Else the pointer would fall through marks that are hollow.
    group.set("pointer-events", "all")
    for mark, text in zip(group.iter("use"), texts, strict=True):
        ElementTree.SubElement(mark, "title").text = clean(text)


def _size_only(match: re.Match[str]) -> str:
    size = re.search(r"[\d.]+px", match.group())
    return f"font-size: {size.group()};" if size else ""


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]
