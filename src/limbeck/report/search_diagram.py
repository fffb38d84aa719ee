"""An architecture as a picture: a column a layer, its options as boxes from small to large."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from markupsafe import Markup

from limbeck.report import svg
from limbeck.report.search import SearchLayer, SearchView
from limbeck.report.search_words import changes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 8
"""Layers side by side; more are wrapped."""
_WIDTH, _STEP, _BOX, _HEAD, _GAP = 345.6, 16.0, 13.0, 23.0, 14.0
"""Points: the figure, from box to box, a box, a layer's name, between two rows of layers."""
_MOST_BOXES = 9
_LARGE, _MIDDLE, _SMALL = 7.5, 6.5, 5.5
"""Sizes of letters."""
_LETTER = 0.62
"""Width of a letter, in its size."""
_AROUND, _FEWEST = 11, 3
"""Points of a column beside the name of an option; columns in a row, at least."""


def diagram(view: SearchView, options: Sequence[int]) -> Markup:
    """The chosen option of every layer among all, the base student's outlined."""
    layers = view.layers
    across = _columns(layers)
    bands = [range(at, min(at + across, len(layers))) for at in range(0, len(layers), across)]
    heights = [max(_rows(layers[i], options[i]) for i in band) * _STEP + _HEAD for band in bands]
    total = sum(heights) + _GAP * (len(bands) - 1)
    figure, (axes,) = svg.subplots(height=(total + 12) / 72)
    axes.set_axis_off()
    axes.set(xlim=(0, _WIDTH), ylim=(0, total))
    top, width = total, _WIDTH / max(across, 4)
    for band, height in zip(bands, heights, strict=True):
        for place, i in enumerate(band):
            _column(axes, layers[i], options[i], left=place * width, bottom=top - height,
                    top=top, width=width)  # fmt: skip
        top -= height + _GAP
    said = ", ".join(f"{e.name} {e.options[at]}" for e, at in zip(layers, options, strict=True))
    return svg.inline(
        figure,
        "search-diagram",
        title="The chosen architecture",
        description=f"{said}. Against the base student: {changes(view, options)}.",
    )


def plain(text: str, most: int) -> str:
    """A name in letters that any font of a picture has, of at most `most`."""
    said = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return said if len(said) <= most else said[: max(1, most - 2)] + ".."


def _columns(layers: Sequence[SearchLayer]) -> int:
    """Columns of a row: as many as names of options leave room for, and rows alike."""
    longest = max(len(option) for layer in layers for option in layer.options)
    fit = int(_WIDTH / (longest * _LETTER * _MIDDLE + _AROUND))
    most = min(COLUMNS, max(_FEWEST, fit))
    return math.ceil(len(layers) / math.ceil(len(layers) / most))


def _column(
    axes: "Axes", layer: SearchLayer, chosen: int, *, left: float, bottom: float, top: float,
    width: float,
) -> None:  # fmt: skip
    middle, room = left + width / 2, width - 7
    _write(axes, middle, top - _HEAD / 2, _two_lines(layer.name), room, svg.INK)
    for row, at in enumerate(_shown(layer, chosen)):
        y = bottom + row * _STEP + _STEP / 2
        if at is None:
            _write(axes, middle, y, ". . .", room, svg.MUTED)
            continue
        is_chosen, is_default = at == chosen, at == layer.default
        _box(axes, left + 3.5, y - _BOX / 2, room, chosen=is_chosen, default=is_default)
        _write(axes, middle, y, layer.options[at], room - 4, svg.FILL if is_chosen else svg.INK)


def _box(
    axes: "Axes", left: float, bottom: float, width: float, *, chosen: bool, default: bool
) -> None:
    from matplotlib.patches import Rectangle

    inside = Rectangle(
        (left, bottom),
        width,
        _BOX,
        facecolor=svg.STUDENT if chosen else "none",
        edgecolor="none" if chosen else svg.LINE,
        linewidth=0.8,
    )
    axes.add_patch(inside)
    if default:
        axes.add_patch(
            Rectangle(
                (left - 1.4, bottom - 1.4),
                width + 2.8,
                _BOX + 2.8,
                facecolor="none",
                edgecolor=svg.INK,
                linewidth=1.2,
            )
        )


def _write(axes: "Axes", x: float, y: float, text: str, room: float, color: str) -> None:
    lines = text.split("\n")
    longest = max(len(line) for line in lines)
    size = min(_LARGE, max(_SMALL, room / (_LETTER * max(1, longest))))
    fits = max(3, int(room / (_LETTER * size)))
    said = "\n".join(plain(line, fits) for line in lines)
    axes.text(x, y, said, ha="center", va="center", fontsize=size, color=color, linespacing=1.05,
              parse_math=False)  # fmt: skip


def _two_lines(name: str) -> str:
    """A long name broken at the mark nearest to its middle."""
    marks = [i for i, c in enumerate(name) if c in "_ .-/" and 0 < i < len(name) - 1]
    flat = name.replace("\n", " ")
    if len(name) <= COLUMNS or not marks:
        return flat
    at = min(marks, key=lambda i: abs(i - len(name) / 2))
    return f"{flat[:at]}\n{flat[at + 1 :]}"


def _rows(layer: SearchLayer, chosen: int) -> int:
    return len(_shown(layer, chosen))


def _shown(layer: SearchLayer, chosen: int) -> list[int | None]:
    """Positions from small to large; of too many those that matter, None for what is left out."""
    order = _sorted(layer)
    last = len(order) - 1
    if last < _MOST_BOXES:
        return [*order]
    near = {order.index(at) + step for at in (chosen, layer.default) for step in (-1, 0, 1)}
    kept = sorted({0, last} | {place for place in near if 0 <= place <= last})
    shown: list[int | None] = [order[0]]
    for before, place in pairwise(kept):
        shown += [order[place]] if place == before + 1 else [None, order[place]]
    return shown


def _sorted(layer: SearchLayer) -> list[int]:
    positions = range(len(layer.options))
    try:
        return sorted(positions, key=lambda at: float(layer.options[at]))
    except ValueError:
        return list(positions)
