"""The pictures of the report, each a pure function from results to inline SVG.

No text of the user's is drawn: names stand in HTML legends beside the pictures. Points are binned
before they come here, so a picture's size does not depend on the number of rows.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from limbeck.numerics.intervals import wilson
from limbeck.numerics.metrics import ReliabilityBin
from limbeck.report import svg
from limbeck.report.record import TrustView
from limbeck.report.results import ArmResult, CurvePoint, Deferral, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 150
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


def reliability(arm: ArmResult) -> Markup:
    """Accuracy against confidence before and after temperature scaling, with the rows below."""
    figure, (above, below) = svg.subplots(2, height=3.9)
    above.plot([0, 1], [0, 1], color=svg.MUTED, linewidth=1, linestyle=(0, (3, 3)))
    # A hollow mark and a full one: told apart without colour, and visible where they coincide.
    _reliability_marks(above, arm.reliability, svg.MUTED, hollow=True)
    _reliability_marks(above, arm.reliability_calibrated, svg.STUDENT, hollow=False)
    _counts(below, arm.reliability, svg.MUTED, filled=False)
    _counts(below, arm.reliability_calibrated, svg.STUDENT, filled=True)
    percent_axis(above, y=True)
    percent_axis(below, x=True)
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share right")
    below.set(xlabel="how sure the student says it is", ylabel="rows")
    after = "" if arm.ece_calibrated is None else f", {arm.ece_calibrated:.3f} after scaling"
    return svg.inline(
        figure,
        "reliability",
        title="Reliability diagram",
        description=f"Calibration error {arm.ece:.3f} as trained{after}. "
        f"On the diagonal, rows said to be 80% sure are right 80% of the time.",
    )


def trust(view: TrustView) -> Markup:
    """Trust alpha against the teacher's margin, over what was seen on validation."""
    figure, (above, below) = svg.subplots(2, height=3.9)
    for group in view.bins:
        n = group.right + group.wrong
        if n > 0:
            share, x = wilson(group.right, n), (group.low + group.high) / 2
            above.plot([x, x], [share.low, share.high], color=svg.MUTED, linewidth=0.8, alpha=0.6)
            above.plot([x], [share.estimate], "o", color=svg.MUTED, markersize=3)
    margins = (0.0, *view.margins, 1.0)
    alpha = (view.alpha[0], *view.alpha, view.alpha[-1])
    above.plot(margins, alpha, color=svg.TEACHER, linewidth=2.2)
    above.axhline(view.lower, color=svg.MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    width = [g.high - g.low for g in view.bins]
    low = [g.low for g in view.bins]
    below.bar(low, [g.right for g in view.bins], width, align="edge", color=svg.TEACHER, alpha=0.55)
    below.bar(low, [-g.wrong for g in view.bins], width, align="edge", color=svg.BAD, alpha=0.75)
    below.axhline(0, color=svg.MUTED, linewidth=0.8)
    below.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
    percent_axis(above, y=True)
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="teacher is right")
    below.set(xlabel="teacher's margin: first minus second probability", ylabel="wrong | right")
    rows = sum(g.right + g.wrong for g in view.bins)
    return svg.inline(
        figure,
        "trust",
        title="Trust in the teacher by its margin",
        description=f"Trust rises from {view.alpha[0]:.2f} to {view.alpha[-1]:.2f}; fitted on "
        f"{rows:,} validation rows, shown below as right and wrong.",
    )


def legend_marks(evaluation: Evaluation) -> dict[str, tuple[str, str]]:
    """CSS colour and dash pattern of each arm, the same in every picture and legend."""
    marks = {}
    for i, arm in enumerate(evaluation.arms):
        dash = DASHES[i % len(DASHES)]
        pattern = "" if isinstance(dash, str) else " ".join(f"{2 * d:g}" for d in dash[1])
        marks[arm.name] = (svg.css_variable(svg.SERIES[i % len(svg.SERIES)]), pattern)
    return marks


def validation_curves(evaluation: Evaluation) -> Markup:
    """Validation accuracy by step, one line an arm; the shipped one is thicker."""
    figure, (axes,) = svg.subplots()
    for i, arm in enumerate(evaluation.arms):
        seen = [p for p in arm.curve if p.validation_accuracy is not None]
        points = _thin(seen)
        axes.plot(
            [p.step for p in points],
            [p.validation_accuracy or 0.0 for p in points],
            color=svg.SERIES[i % len(svg.SERIES)],
            linestyle=DASHES[i % len(DASHES)],
            linewidth=2.6 if arm.chosen else 1.3,
        )
    percent_axis(axes, y=True)
    axes.set(xlabel="gradient steps", ylabel="validation accuracy")
    return svg.inline(
        figure,
        "curves",
        title="Validation accuracy during training",
        description="One line for each arm; the last values stand in the table of arms.",
    )


def losses(arm: ArmResult) -> Markup:
    """Training loss and validation NLL of one arm, with the step whose weights were kept."""
    figure, (axes,) = svg.subplots()
    trained = _thin([p for p in arm.curve if p.train_loss is not None])
    seen = _thin([p for p in arm.curve if p.validation_nll is not None])
    axes.plot([p.step for p in trained], [p.train_loss or 0.0 for p in trained], color=svg.MUTED)
    axes.plot(
        [p.step for p in seen],
        [p.validation_nll or 0.0 for p in seen],
        color=svg.STUDENT,
        linestyle=(0, (5, 2)),
    )
    if arm.best_step is not None:
        axes.axvline(arm.best_step, color=svg.MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.set(xlabel="gradient steps", ylabel="loss, nats", ylim=(0, None))
    kept = "" if arm.best_step is None else f" Weights were kept from step {arm.best_step:,}."
    return svg.inline(
        figure,
        "losses",
        title="Training loss and validation loss of the shipped student",
        description=f"The training loss is the arm's own objective.{kept}",
    )


def deferral(found: Deferral) -> Markup:
    """Accuracy against the share of rows sent to the teacher, with the price above."""
    figure, (axes,) = svg.subplots()
    shares = [p.share for p in found.curve]
    ends = [found.curve[0].accuracy, found.curve[-1].accuracy]
    axes.plot([0, 1], ends, color=svg.MUTED, linewidth=1, linestyle=(0, (3, 3)))
    axes.plot(shares, [p.accuracy for p in found.curve], color=svg.STUDENT)
    here = found.chosen.share, found.chosen.accuracy
    axes.plot(*here, "o", color=svg.TEACHER, markersize=7, clip_on=False, zorder=5)
    percent_axis(axes, x=True, y=True)
    axes.set(xlim=(0, 1), xlabel="rows sent to the teacher", ylabel="test accuracy")
    full = found.curve[-1].price / 1e6
    if full > 0:
        price = axes.secondary_xaxis(
            "top", functions=(partial(np.multiply, full), partial(np.multiply, 1 / full))
        )
        price.set_xlabel(f"price of 1,000 rows, {found.currency}", color=svg.MUTED)
        price.tick_params(length=0, labelcolor=svg.MUTED)
        price.spines["top"].set_visible(False)
        price.patch.set_visible(False)
    return svg.inline(
        figure,
        "deferral",
        title="Deferral curve",
        description=f"Accuracy goes from {ends[0]:.1%} with the student alone to {ends[1]:.1%} "
        f"with the teacher alone; at the exported threshold {found.chosen.share:.1%} of the rows "
        f"go to the teacher and accuracy is {found.chosen.accuracy:.1%}.",
    )


def percent_axis(axes: "Axes", *, x: bool = False, y: bool = False) -> None:
    """Label an axis of shares in percent."""
    # Not PercentFormatter, which writes 97.50%.
    if x:
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
    if y:
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")


def whole_ticks(axes: "Axes") -> None:
    """Label an axis of counts, x, at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _reliability_marks(
    axes: "Axes", bins: Sequence[ReliabilityBin], color: str, *, hollow: bool
) -> None:
    rows = sum(b.count for b in bins)
    filled = [b for b in bins if b.count > 0]
    axes.plot(
        [b.confidence for b in filled], [b.accuracy for b in filled], color=color, linewidth=1.1
    )
    for b in filled:
        # Area by rows: a bin of three rows must not look as weighty as one of a thousand.
        size = 3 + 7 * (b.count / rows) ** 0.5
        face = "none" if hollow else color
        axes.plot([b.confidence], [b.accuracy], "o", color=color, mfc=face, markersize=size)


def _counts(axes: "Axes", bins: Sequence[ReliabilityBin], color: str, *, filled: bool) -> None:
    if bins:
        edges = [*(b.low for b in bins), bins[-1].high]
        axes.stairs([b.count for b in bins], edges, color=color, fill=filled, alpha=0.7)


def _thin(points: Sequence[CurvePoint]) -> Sequence[CurvePoint]:
    n = len(points)
    if n <= _MOST_POINTS:
        return points
    return [points[i * (n - 1) // (_MOST_POINTS - 1)] for i in range(_MOST_POINTS)]
