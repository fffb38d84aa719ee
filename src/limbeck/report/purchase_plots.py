"""Pictures of a purchase in rounds: the learning curve, who was chosen, what was expected wrong."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from limbeck.report import svg
from limbeck.report.plots import percent_axis, whole_ticks
from limbeck.report.purchase import Drawn, Purchase, RoundView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 300
_PALE = 0.25
"""How strong the marks of the first round are; those of the last have full strength."""
_LOG_FROM = 20
"""Probabilities that differ by this factor or more are drawn on a logarithmic axis."""
_BAND = 0.16
_FEW_ROUNDS = 7
"""Up to so many students each has its own number on the axis."""


def draw(found: Purchase | None) -> dict[str, Markup | str]:
    """The section's pictures by name; an empty text where there is nothing to show."""
    if found is None:
        return {}
    any_wrong = any(each.wrong is not None for each in found.batches)
    return {
        "curve": curve(found) if found.rounds else "",
        "gains": gains(found) if found.points else "",
        "wrong": wrong(found) if any_wrong else "",
    }


def curve(found: Purchase) -> Markup:
    """Validation accuracy against answers bought, with its interval and the teacher's line."""
    figure, (axes,) = svg.subplots(height=3.6)
    if found.beside:
        answers, middle, low, high = zip(*found.beside, strict=True)
        axes.fill_between(answers, low, high, color=svg.LABELS, alpha=_BAND, linewidth=0)
        axes.plot(answers, middle, color=svg.LABELS, linestyle=(0, (5, 2)), linewidth=1.5)
        axes.plot(answers, middle, "s", color=svg.LABELS, mfc="none", markersize=4.5)
    bought = [each.answers for each in found.rounds]
    seen = [each.accuracy for each in found.rounds]
    ends = [a.low for a in seen], [a.high for a in seen]
    axes.fill_between(bought, *ends, color=svg.STUDENT, alpha=_BAND, linewidth=0)
    axes.plot(bought, [a.estimate for a in seen], "-o", color=svg.STUDENT, markersize=4.5)
    axes.axhline(found.teacher_accuracy, color=svg.TEACHER, linewidth=1.3, linestyle=(0, (1, 2)))
    percent_axis(axes, y=True)
    if len(bought) <= _FEW_ROUNDS:
        axes.set_xticks(bought)
    else:
        whole_ticks(axes)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set(xlabel="pool answers bought", ylabel="validation accuracy")
    return svg.inline(
        figure,
        "purchase-curve",
        title="Validation accuracy against answers bought",
        description=f"From {seen[0].estimate:.1%} with {bought[0]:,} answers to "
        f"{seen[-1].estimate:.1%} with {bought[-1]:,}; the teacher has "
        f"{found.teacher_accuracy:.1%}.{_beside(found)}",
    )


def gains(found: Purchase) -> Markup:
    """Inclusion probabilities of chosen rows against their gains, later rounds stronger."""
    figure, (axes,) = svg.subplots(height=3.6)
    points = _thin(found.points)
    numbers = sorted({number for _, _, number in points})
    for place, number in enumerate(numbers, start=1):
        here = [(gain, p) for gain, p, n in points if n == number]
        strength = _PALE + (1 - _PALE) * place / len(numbers)
        axes.plot(
            *zip(*here, strict=True),
            "o",
            color=svg.STUDENT,
            alpha=strength,
            markersize=3.4,
            markeredgewidth=0,
            clip_on=False,
        )
    least, most = min(p for _, p, _ in points), max(p for _, p, _ in points)
    if most >= _LOG_FROM * least > 0:
        _log_axis(axes, least, most)
    else:
        axes.set_ylim(0, 1.06 * most)
    percent_axis(axes, y=True)
    axes.set(xlim=(0, 1), xlabel="gain of the row", ylabel="chance of being chosen")
    return svg.inline(
        figure,
        "purchase-gains",
        title="Chances of being chosen against gains",
        description=f"{len(points):,} chosen rows of {len(numbers)} "
        f"round{'' if len(numbers) == 1 else 's'}; their chances were {least:.2%} to {most:.2%}.",
    )


def wrong(found: Purchase) -> Markup:
    """Expected share of wrong answers of each round, and below the rule's support."""
    batches = found.batches
    supported = [each for each in batches if each.support is not None]
    figure, (above, *rest) = svg.subplots(2 if supported else 1, height=3.9 if supported else 3.6)
    known = [each for each in batches if each.wrong is not None]
    above.bar(
        [each.number for each in known],
        [each.wrong or 0.0 for each in known],
        0.62,
        color=svg.BAD,
        alpha=0.9,
    )
    if found.wrong_uniform is not None:
        above.axhline(found.wrong_uniform, color=svg.INK, linewidth=1.2, linestyle=(0, (3, 3)))
    above.set(ylabel="expected wrong", ylim=(0, None))
    for axes in rest:
        shares = [_support_share(each) for each in supported]
        axes.bar([each.number for each in supported], shares, 0.62, color=svg.STUDENT, alpha=0.9)
        axes.set(ylabel="support", ylim=(0, 1))
    last = [above, *rest][-1]
    for axes in (above, *rest):
        percent_axis(axes, y=True)
        axes.grid(visible=False, axis="x")
    whole_ticks(last)
    last.set(xlabel="round", xlim=(batches[0].number - 0.6, batches[-1].number + 0.6))
    said = ", ".join(f"{each.wrong or 0.0:.1%}" for each in known)
    usual = "" if found.wrong_uniform is None else f"; uniform rows have {found.wrong_uniform:.1%}"
    return svg.inline(
        figure,
        "purchase-wrong",
        title="Answers of each round that were expected to be wrong",
        description=f"By round: {said}{usual}.",
    )


def _beside(found: Purchase) -> str:
    if not found.beside:
        return ""
    answers, accuracy, _, _ = found.beside[-1]
    return f" Rows chosen uniformly give {accuracy:.1%} with {answers:,}."


def _support_share(each: RoundView) -> float:
    return (each.support or 0) / max(1, each.candidates)


def _log_axis(axes: "Axes", least: float, most: float) -> None:
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.set_ylim(least / 1.3, 1.3 * most)
    # Below two decades the powers of ten alone would leave an axis with one number.
    between = (1.0, 2.0, 5.0) if most < 100 * least else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=between))
    axes.minorticks_off()


def _thin(points: Sequence[Drawn]) -> Sequence[Drawn]:
    n = len(points)
    if n <= MOST_POINTS:
        return points
    return [points[i * (n - 1) // (MOST_POINTS - 1)] for i in range(MOST_POINTS)]
