"""Pictures of a search: cost against reward, and the path of the incumbent.

Trials differ by mark and colour for the part of the search that asked for them, and are filled
where they are in range.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from limbeck.report import svg
from limbeck.report.binary import MARKS, SHAPES
from limbeck.report.plots import percent_axis, whole_ticks
from limbeck.report.search import SearchTrial, SearchView
from limbeck.report.search_axes import cost_axis, padded, span
from limbeck.report.search_diagram import diagram, plain
from limbeck.report.search_words import changes, cost_label, cost_text, reward_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 400
MOST_EDGES = 120
_CLOSEST = 0.008
"""Least mean distance of lines between groups, as a share of the axis."""
_HOWS = 6
"""Parts of a search with a mark of their own."""
_FAR = 4
"""Rewards this many times as far below the best as the median are drawn at the floor."""


@dataclass(frozen=True, slots=True)
class How:
    """A part of the search in the legend: its name, its trials, and its mark."""

    name: str
    trials: int
    shape: str
    color: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """The section's pictures, an empty text where there is nothing to show, and their legend.

    Args:
        scatter, path, diagram: SVG.
        hows: Marks.
        below: Trials drawn at the floor of the pictures, below which they lie.
        drawn: Trials with a reward that are drawn.
        edges: Whether groups are drawn.
    """

    scatter: Markup | str
    path: Markup | str
    diagram: Markup | str
    hows: tuple[How, ...]
    below: int
    drawn: int
    edges: bool


def draw(view: SearchView) -> Pictures:
    """Everything that is drawn of a search."""
    shown, floor = _thin(view), _floor(view)
    any_reward = bool(view.rewarded)
    return Pictures(
        scatter=scatter(view) if any_reward else "",
        path=path(view) if any_reward else "",
        diagram="" if view.answer is None else diagram(view, view.answer.options),
        hows=_legend(view),
        below=sum(_reward(each) < floor for each in shown),
        drawn=len(shown),
        edges=any_reward and _edges_fit(view),
    )


def scatter(view: SearchView) -> Markup:
    """Reward against cost: trials, limit, groups, the front, the best and the base student."""
    figure, (axes,) = svg.subplots(height=4.1)
    low, high, logarithmic = span(view)
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xlim(low, high)
    _shade_limit(axes, view)
    if _edges_fit(view):
        for edge in view.edges:
            axes.axvline(edge, color=svg.LINE, linewidth=0.6)
    floor = _floor(view)
    hover = _points(axes, view, floor)
    _front(axes, view, high)
    axes.axvline(view.base_cost, color=svg.INK, linewidth=0.8, linestyle=(0, (1, 2)))
    best = view.answer
    ends = [] if best is None else [(best.cost, _reward(best), "o")]
    if view.reached_by_base is not None:
        ends.append((view.base_cost, view.reached_by_base, "x"))
    for cost, reward, mark in ends:
        at = cost, max(reward, floor)
        axes.plot(*at, mark, color=svg.INK, mfc="none", markersize=11, mew=1.6, zorder=6)
    _without_reward(axes, [each.cost for each in view.trials if each.reward is None])
    cost_axis(axes, low, high, logarithmic=logarithmic)
    _reward_axis(axes, view)
    axes.set_xlabel(plain(cost_label(view), 60), parse_math=False)
    axes.grid(visible=False, axis="x")
    return svg.inline(
        figure,
        "search-scatter",
        title="Reward against cost of every trial",
        description=_spoken(view),
        hover=hover,
    )


def path(view: SearchView) -> Markup:
    """The best reward in range so far, over the trials themselves."""
    figure, (axes,) = svg.subplots(height=3.6)
    shown, floor = _thin(view), _floor(view)
    for inside in (True, False):
        some = [each for each in shown if each.in_range == inside]
        xy = [each.number for each in some], [max(_reward(each), floor) for each in some]
        face = svg.MUTED if inside else "none"
        axes.plot(*xy, "o", color=svg.MUTED, mfc=face, markersize=3, mew=0.7, clip_on=False)
    steps, hover = _incumbents(view), {}
    if steps:
        last = max(each.number for each in view.trials)
        line = [(each.number, _reward(each)) for each in steps]
        ends = [*line, (last, line[-1][1])]
        axes.plot(*zip(*ends, strict=True), drawstyle="steps-post", color=svg.STUDENT)
        seen = [(x, max(y, floor)) for x, y in line]
        axes.plot(*zip(*seen, strict=True), "o", color=svg.STUDENT, markersize=5, gid="steps",
                  clip_on=False)  # fmt: skip
        hover["steps"] = [_title(view, each) for each in steps]
    if view.reached_by_base is not None:
        axes.axhline(view.reached_by_base, color=svg.INK, linewidth=0.8, linestyle=(0, (1, 2)))
    _without_reward(axes, [each.number for each in view.trials if each.reward is None])
    _reward_axis(axes, view)
    whole_ticks(axes)
    numbers = [each.number for each in view.trials]
    axes.set(xlabel="trial", xlim=padded(numbers))
    if len(numbers) == 1:
        axes.set_xticks(numbers)
    return svg.inline(
        figure,
        "search-path",
        title="Best reward in range so far",
        description=f"{len(steps)} incumbents in {len(view.trials):,} trials: "
        + "; ".join(_title(view, each) for each in steps[-5:]),
        hover=hover,
    )


def _legend(view: SearchView) -> tuple[How, ...]:
    names = _hows(view)
    return tuple(
        How(name, sum(_how(names, each) == i for each in view.trials), SHAPES[i],
            svg.css_variable(svg.SERIES[i]))
        for i, name in enumerate(names)
    )  # fmt: skip


def _hows(view: SearchView) -> list[str]:
    names = list(dict.fromkeys(each.how for each in view.trials))
    return names if len(names) <= _HOWS else [*names[: _HOWS - 1], "others"]


def _how(names: Sequence[str], trial: SearchTrial) -> int:
    return names.index(trial.how) if trial.how in names else len(names) - 1


def _points(axes: "Axes", view: SearchView, floor: float) -> dict[str, list[str]]:
    names, shown = _hows(view), _thin(view)
    hover = {}
    for i in range(len(names)):
        for inside in (True, False):
            some = [e for e in shown if _how(names, e) == i and e.in_range == inside]
            if not some:
                continue
            gid, color = f"how{i}{'in' if inside else 'out'}", svg.SERIES[i]
            axes.plot(
                [each.cost for each in some],
                [max(_reward(each), floor) for each in some],
                MARKS[i],
                color=color,
                mfc=color if inside else "none",
                markersize=4.6,
                mew=0.9,
                alpha=0.85,
                clip_on=False,
                gid=gid,
            )
            hover[gid] = [_title(view, each) for each in some]
    return hover


def _front(axes: "Axes", view: SearchView, right: float) -> None:
    front = [view.trial(number) for number in view.front]
    if front:
        line = [(each.cost, _reward(each)) for each in front]
        ends = [*line, (right, line[-1][1])]
        axes.plot(
            *zip(*ends, strict=True), drawstyle="steps-post", color=svg.STUDENT, linewidth=1.4
        )


def _shade_limit(axes: "Axes", view: SearchView) -> None:
    left, right = axes.get_xlim()
    ends = [] if view.low is None or view.low <= left else [(left, min(view.low, right), view.low)]
    if view.high is not None and view.high < right:
        ends.append((max(view.high, left), right, view.high))
    for start, stop, limit in ends:
        axes.axvspan(start, stop, color=svg.BAD, alpha=0.09, linewidth=0)
        axes.axvline(limit, color=svg.BAD, linewidth=1.2, linestyle=(0, (5, 2)))


def _without_reward(axes: "Axes", places: Sequence[float]) -> None:
    """Ticks along the bottom, whatever the rewards above."""
    across = axes.get_xaxis_transform()
    axes.plot(places, [0.02] * len(places), "|", color=svg.BAD, markersize=6, transform=across)


def _floor(view: SearchView) -> float:
    """The least reward that is drawn where it is: a few diverged trials must not flatten all."""
    rewards = [_reward(each) for each in view.rewarded]
    if not rewards:
        return -math.inf
    best = max(rewards)
    floor = best - _FAR * (best - statistics.median(rewards))
    always = [] if view.answer is None else [_reward(view.answer)]
    if view.reached_by_base is not None:
        always.append(view.reached_by_base)
    return min([max(min(rewards), floor) if floor < best else min(rewards), *always])


def _reward_axis(axes: "Axes", view: SearchView) -> None:
    rewards = [_reward(each) for each in view.rewarded]
    if view.reached_by_base is not None:
        rewards.append(view.reached_by_base)
    axes.set_ylim(*padded([_floor(view), max(rewards)]))
    if view.in_percent:
        percent_axis(axes, y=True)
    axes.set_ylabel(plain(view.reward, 40), parse_math=False)


def _edges_fit(view: SearchView) -> bool:
    if not 1 < len(view.edges) <= MOST_EDGES:
        return False
    low, high, logarithmic = span(view)
    ends = view.edges[0], view.edges[-1]
    if logarithmic and ends[0] > 0:
        covered = math.log(ends[1] / ends[0]) / math.log(high / low)
    else:
        covered = (ends[1] - ends[0]) / (high - low)
    # Where they stand so close that lines run into each other, they say nothing.
    return covered / (len(view.edges) - 1) >= _CLOSEST


def _incumbents(view: SearchView) -> list[SearchTrial]:
    """Trials in range that were the best so far, in their order."""
    found: list[SearchTrial] = []
    for each in view.rewarded:
        if each.in_range and (not found or _reward(each) > _reward(found[-1])):
            found.append(each)
    return found


def _thin(view: SearchView) -> list[SearchTrial]:
    """Trials to draw: all that matter, and of too many others every so-manieth."""
    trials = list(view.rewarded)
    n = len(trials)
    if n <= MOST_POINTS:
        return trials
    chosen = {trials[i * (n - 1) // (MOST_POINTS - 1)].number for i in range(MOST_POINTS)}
    chosen |= {*view.front, *(each.number for each in _incumbents(view))}
    return [each for each in trials if each.number in chosen]


def _reward(trial: SearchTrial) -> float:
    return -math.inf if trial.reward is None else trial.reward


def _title(view: SearchView, trial: SearchTrial) -> str:
    reward = reward_text(view, _reward(trial))
    return (
        f"trial {trial.number}: {reward}, {cost_text(view, trial.cost)}, {trial.how}"
        f"{'' if trial.in_range else ', out of range'}; {changes(view, trial.options)}"
    )


def _spoken(view: SearchView) -> str:
    best = view.answer
    front = f"{len(view.front)} trials are beaten by nothing as cheap."
    if best is None:
        return f"{len(view.rewarded):,} trials, none of them the answer. {front}"
    return f"{len(view.rewarded):,} trials; the best is {_title(view, best)}. {front}"
