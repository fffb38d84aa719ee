"""A comparison as one offline HTML page, and as a Markdown table.

The page has no script and asks for nothing from outside. Everything of the user's is escaped by
the template engine; titles of arms are drawn in the picture, where the XML writer escapes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from limbeck.numerics.intervals import Interval
from limbeck.report import formats, svg
from limbeck.report.comparison import SEEDS_TO_CLAIM, ArmOverSeeds, Comparison, PairOverSeeds
from limbeck.report.html import template
from limbeck.report.results import ArmKind

_COLORS: dict[ArmKind, str] = {
    "labels": svg.LABELS,
    "distilled": svg.STUDENT,
    "teacher": svg.TEACHER,
}
_LONGEST_TITLE = 26
_HALF = 84
"""Half of the small axis of the table of pairs, in its 190 units."""


@dataclass(frozen=True, slots=True)
class Zero:
    """The small axis of the table of pairs, with zero in the middle."""

    reach: float

    def __call__(self, value: float) -> float:
        return round(95 + _HALF * max(-1.0, min(1.0, value / self.reach)), 1)


def render_comparison(comparison: Comparison) -> str:
    """Write the page.

    Args:
        comparison: Everything it shows.

    Returns:
        A whole HTML document; write it as UTF-8. The same comparison gives the same text.
    """
    pairs = comparison.pairs
    ends = [abs(end) for p in pairs for end in (p.accuracy.low, p.accuracy.high, *p.by_seed)]
    return template("compare.html.j2").render(
        found=comparison,
        headline=headline(comparison),
        titles={arm.name: arm.title for arm in comparison.everyone},
        kinds={arm.name: arm.kind for arm in comparison.everyone},
        groups=_groups(comparison),
        zero=Zero(max(*ends, 1e-3)),
        picture=picture(comparison),
        money=sum(run.money for run in comparison.runs),
        bought=sum(run.bought for run in comparison.runs),
        minutes=sum(run.minutes for run in comparison.runs),
    )


def headline(comparison: Comparison) -> str:
    """The comparison in a few words."""
    if len(comparison.runs) < SEEDS_TO_CLAIM:
        return f"{len(comparison.runs)} seeds are too few to say"
    base = comparison.arm(comparison.baseline).title
    pairs = [p for p in comparison.pairs if p.second == comparison.baseline]
    titles = {arm.name: arm.title for arm in comparison.everyone}
    better = [titles[p.first] for p in pairs if p.holds and p.accuracy.estimate > 0]
    worse = [titles[p.first] for p in pairs if p.holds and p.accuracy.estimate < 0]
    if not better and not worse and any(p.significant for p in pairs):
        return f"Nothing differs from {base} once all pairs are counted"
    if better:
        return f"Better than {base}: {'; '.join(better)}"
    if worse and len(worse) == len(pairs):
        return f"{base} is the best of these arms"
    if worse:
        return f"Nothing is better than {base}"
    return f"Nothing can be told apart from {base}"


def picture(comparison: Comparison) -> Markup:
    """Arms from top to bottom with their intervals; a thin line joins what one seed gave."""
    arms = comparison.everyone
    figure, (axes,) = svg.subplots(height=0.9 + 0.42 * len(arms))
    rows = {arm.name: len(arms) - 1 - i for i, arm in enumerate(arms)}
    base = comparison.arm(comparison.baseline).accuracy.estimate
    axes.axvline(base, color=svg.MUTED, linewidth=1, linestyle=(0, (3, 3)))
    for seed in range(len(comparison.runs)):
        for above, below in pairwise(comparison.arms):
            axes.plot(
                [above.by_seed[seed], below.by_seed[seed]],
                [rows[above.name] - 0.2, rows[below.name] - 0.2],
                color=svg.LINE,
                linewidth=0.7,
            )
    for arm in arms:
        y, color = rows[arm.name], _COLORS[arm.kind]
        axes.plot(arm.by_seed, [y - 0.2] * len(arm.by_seed), "|", color=color, markersize=6,
                  markeredgewidth=1.1)  # fmt: skip
        axes.plot([arm.accuracy.low, arm.accuracy.high], [y, y], color=color, linewidth=2.4)
        axes.plot([arm.accuracy.estimate], [y], "o", color=color, markersize=6)
    axes.set_yticks([*rows.values()], [_label(arm) for arm in arms])
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
    axes.locator_params(axis="x", nbins=5)
    axes.set(ylim=(-0.7, len(arms) - 0.5), xlabel="test accuracy", xlim=_limits(arms))
    return svg.inline(
        figure,
        "arms-over-seeds",
        title="Test accuracy of every arm over seeds",
        description="; ".join(
            f"{arm.title}: {arm.accuracy.estimate:.1%}, {formats.span(arm.accuracy)}"
            for arm in arms
        ),
    )


def as_markdown(comparison: Comparison) -> str:
    """The table, the sentences and the notes, to paste where people discuss."""
    base = comparison.arm(comparison.baseline).title
    lines = [
        f"# {_plain(comparison.title)}",
        "",
        f"{len(comparison.runs)} seeds ({', '.join(map(str, comparison.seeds))}); intervals are "
        f"95% t-intervals over seeds, differences are paired by seed.",
        "",
        f"| arm | test accuracy | against {_plain(base)}, points | macro-F1 | NLL, scaled "
        f"| training, minutes |",
        "|---|---|---|---|---|---|",
    ]
    for arm in comparison.everyone:
        pair = comparison.against(arm.name, comparison.baseline)
        lines.append(
            f"| {_plain(arm.title)} | {_percent(arm.accuracy)} | "
            f"{'-' if pair is None else _points(pair)} | {arm.macro_f1.estimate:.3f} | "
            f"{arm.nll.estimate:.3f} | "
            f"{'-' if arm.minutes is None else f'{arm.minutes.estimate:.2f}'} |"
        )
    lines += ["", *(f"- {_plain(pair.sentence)}" for pair in comparison.pairs)]
    lines += ["", _plain(comparison.needed), ""]
    lines += [f"- {_plain(note)}" for note in comparison.notes]
    lines += [f"- Seed {seed} failed: {_plain(why)}" for seed, why in comparison.failed.items()]
    return "\n".join(lines).rstrip() + "\n"


def _groups(comparison: Comparison) -> list[tuple[str, list[PairOverSeeds]]]:
    """Pairs by what they are compared with, the baseline first."""
    names = dict.fromkeys(pair.second for pair in comparison.pairs)
    return [(name, [p for p in comparison.pairs if p.second == name]) for name in names]


def _limits(arms: Sequence[ArmOverSeeds]) -> tuple[float, float]:
    """What the picture shows: all seeds, and intervals as far as they stay near them.

    With two seeds an interval is a dozen times as wide as the seeds' spread and would leave
    nothing else to see; it then runs out of the picture.
    """
    seen = [value for arm in arms for value in arm.by_seed]
    width = max(max(seen) - min(seen), 0.01)
    low = max(min(arm.accuracy.low for arm in arms), min(seen) - width)
    high = min(max(arm.accuracy.high for arm in arms), max(seen) + width)
    low, high = min(low, *seen), max(high, *seen)
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _label(arm: ArmOverSeeds) -> str:
    """A title in letters that the font of the picture has; the tables hold it in full."""
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in arm.title)
    return plain if len(plain) <= _LONGEST_TITLE else plain[: _LONGEST_TITLE - 3] + "..."


def _percent(interval: Interval) -> str:
    return f"{formats.percent(interval.estimate)} ({formats.span(interval)})"


def _points(pair: PairOverSeeds) -> str:
    mark = " *" if pair.significant else ""
    return f"{formats.points(pair.accuracy.estimate)} ({formats.points_span(pair.accuracy)}){mark}"


def _plain(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    one_line = " ".join(formats.clean(text).split())
    for mark in "\\|<>`*_[]":
        one_line = one_line.replace(mark, f"\\{mark}")
    return one_line
