"""The axes of a search's pictures."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from limbeck.report.search import SearchView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOG_FROM = 20
"""Costs that differ by this factor or more are drawn on a logarithmic axis."""
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def span(view: SearchView) -> tuple[float, float, bool]:
    """Ends of the axis of costs, and whether it is logarithmic; limits far away do not count."""
    costs = [each.cost for each in view.trials] + [view.base_cost]
    least, most = min(costs), max(costs)
    logarithmic = most >= _LOG_FROM * least > 0
    reach = 3.0 if logarithmic else 1.5
    if view.high is not None and 0 < view.high <= reach * most:
        least, most = min(least, view.high), max(most, view.high)
    if view.low is not None and view.low >= least / reach:
        least, most = min(least, view.low), max(most, view.low)
    if logarithmic:
        margin = (most / least) ** 0.05
        return least / margin, most * margin, True
    return *padded([least, most]), False


def padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def cost_axis(axes: "Axes", low: float, high: float, *, logarithmic: bool) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    if logarithmic:
        between = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=between))
        axes.minorticks_off()
    else:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    scale, letter = next(((s, name) for s, name in _SCALES if high >= s), (1.0, ""))
    # As many digits as neighbouring ticks need to differ.
    digits = 4 + max(0, math.floor(math.log10(max(abs(low), abs(high)) / (high - low))))
    axes.xaxis.set_major_formatter(lambda cost, _: f"{cost / scale:,.{digits}g}{letter}")
