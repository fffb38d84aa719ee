"""Pictures of tasks with two classes: ROC, precision-recall, and cost against the threshold.

Arms are told apart by colour, dash and mark together, the same as in the legend beside them.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from limbeck.report import svg
from limbeck.report.plots import DASHES, percent_axis
from limbeck.report.results import ArmResult, Decision, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = ("o", "s", "^", "D", "v", "P", "X")
SHAPES = (
    "M11 5a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M11.5 1.5h7v7h-7z",
    "M15 .5l4.5 8.5h-9z",
    "M15 0l5 5-5 5-5-5z",
    "M15 9.5l4.5-8.5h-9z",
    "M13.5 1h3v2.5H19v3h-2.5V9h-3V6.5H11v-3h2.5z",
    "M12.5 .5L15 3l2.5-2.5 2 2L17 5l2.5 2.5-2 2L15 7l-2.5 2.5-2-2L13 5l-2.5-2.5z",
)
"""The marks in the legend, in a box of 30 by 10."""
_TEACHER_MARK, _TEACHER_SHAPE = "*", "M15 0l1.3 3.3 3.7 .2-2.9 2.2 1 3.8L15 7.4z"
_ENDS = 1e-3
_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


def legend_shapes(evaluation: Evaluation) -> dict[str, str]:
    """SVG path of each arm's mark, the teacher's included."""
    shapes = {arm.name: SHAPES[i % len(SHAPES)] for i, arm in enumerate(evaluation.arms)}
    if evaluation.teacher is not None:
        shapes[evaluation.teacher.name] = _TEACHER_SHAPE
    return shapes


def roc(evaluation: Evaluation) -> Markup:
    """True positive rate against false positive rate, one line an arm."""
    figure, (axes,) = svg.subplots(height=4.4)
    axes.plot([0, 1], [0, 1], color=svg.MUTED, linewidth=1, linestyle=(0, (3, 3)))
    _lines(axes, evaluation, [arm.roc for arm in evaluation.arms], "roc")
    percent_axis(axes, x=True, y=True)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    return svg.inline(
        figure, "roc", title="ROC curves", description=_spoken(evaluation, "Area under the curve")
    )


def precision_recall(evaluation: Evaluation) -> Markup:
    """Precision against recall, one line an arm."""
    figure, (axes,) = svg.subplots(height=4.4)
    share = evaluation.positive_share or 0.0
    axes.axhline(share, color=svg.MUTED, linewidth=1, linestyle=(0, (3, 3)))
    _lines(axes, evaluation, [a.precision_recall for a in evaluation.arms], "precision_recall")
    percent_axis(axes, x=True, y=True)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    return svg.inline(
        figure,
        "precision-recall",
        title="Precision-recall curves",
        description=f"A random ranking has precision {share:.1%}. "
        + _spoken(evaluation, "Average precision"),
    )


def cost(found: Decision) -> Markup:
    """Cost of 1,000 rows against the threshold, on validation and on test."""
    figure, (axes,) = svg.subplots(height=3.6)
    for points, color, dash in (
        (found.validation_curve, svg.MUTED, (0, (5, 2))),
        (found.test_curve, svg.STUDENT, "-"),
    ):
        # The ends are always and never: flat, and infinitely far away in log-odds.
        inner = points[1:-1]
        axes.plot([_odds(t) for t, _ in inner], [c for _, c in inner], color=color, linestyle=dash)
    exported, plain = found.ways[0], found.ways[1]
    axes.axvline(_odds(found.bayes), color=svg.MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    for way, color, mark in ((plain, svg.INK, "s"), (exported, svg.TEACHER, "o")):
        here = _odds(way.threshold), way.cost.estimate
        axes.plot(*here, mark, color=color, markersize=7, clip_on=False, zorder=5)
    axes.set_xticks([_odds(t) for t in _TICKS], [f"{100 * t:.4g}%" for t in _TICKS])
    axes.set(xlim=(_odds(0), _odds(1)), ylim=(0, None))
    axes.set(xlabel="threshold on the probability", ylabel="cost of 1,000 rows")
    return svg.inline(
        figure,
        "cost-curve",
        title="Cost against the threshold",
        description=f"At the exported threshold, {found.threshold:.3g}, 1,000 test rows cost "
        f"{exported.cost.estimate:.4g}; at one half {plain.cost.estimate:.4g}.",
    )


def _lines(
    axes: "Axes", evaluation: Evaluation, curves: Sequence[Sequence[tuple[float, float]]], what: str
) -> None:
    for i, (arm, points) in enumerate(zip(evaluation.arms, curves, strict=True)):
        axes.plot(
            *zip(*points, strict=True),
            color=svg.SERIES[i % len(svg.SERIES)],
            linestyle=DASHES[i % len(DASHES)],
            linewidth=2.4 if arm.chosen else 1.2,
            marker=MARKS[i % len(MARKS)],
            markersize=5,
            # Each arm's marks begin elsewhere, so that they do not hide each other.
            markevery=(0.02 + 0.025 * i, 0.2),
        )
    teacher = evaluation.teacher
    if teacher is not None:
        points = teacher.roc if what == "roc" else teacher.precision_recall
        axes.plot(
            *zip(*points, strict=True),
            color=svg.TEACHER,
            linewidth=1.2,
            marker=_TEACHER_MARK,
            markersize=7,
            markevery=(0.1, 0.2),
        )


def _spoken(evaluation: Evaluation, what: str) -> str:
    """The numbers of a picture in words; arms by position, since titles are the user's."""
    shipped = evaluation.arm(evaluation.shipped)
    beat = evaluation.arm(evaluation.labels_arm)
    parts = [("the shipped student", shipped), ("the labels-only student to beat", beat)]
    if evaluation.teacher is not None:
        parts.append(("the teacher", evaluation.teacher))
    said = ", ".join(f"{_value(arm, what):.3f} for {name}" for name, arm in parts)
    return f"{what}: {said}."


def _value(arm: ArmResult, what: str) -> float:
    area = 0.0 if arm.roc_auc is None else arm.roc_auc.estimate
    return area if what.startswith("Area") else arm.average_precision or 0.0


def _odds(threshold: float) -> float:
    inside = min(max(threshold, _ENDS), 1 - _ENDS)
    return math.log(inside / (1 - inside))
