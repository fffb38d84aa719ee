"""A run's record as one offline HTML file: no script, no link to anywhere, under 500 kB.

Everything of the user's (rows, class names, column names, settings) is escaped by the template
engine and cleaned of characters that could break the page; only figures built here are trusted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

from limbeck.report import binary, formats, plots, purchase_plots
from limbeck.report.record import RunRecord
from limbeck.report.results import ArmResult, VerdictKind
from limbeck.report.search_section import section

if TYPE_CHECKING:
    from jinja2 import Template

_ICONS: dict[VerdictKind, str] = {
    "ship": '<circle cx="12" cy="12" r="10"/><path d="M7 12.5l3.4 3.5L17 8.5"/>',
    "labels_suffice": '<circle cx="12" cy="12" r="10"/><path d="M7 9.7h10M7 14.3h10"/>',
    "stop_buying": '<path d="M8 2h8l6 6v8l-6 6H8l-6-6V8z"/><path d="M7 12h10"/>',
    "trust_mismatch": '<path d="M12 2.5L23 21.5H1z"/><path d="M12 9v6M12 18v.4"/>',
}
_TABLE_CLASSES = 12
"""Classes up to which the table of splits shows each."""
_PAIR_CLASSES = 5
"""Classes up to which a confusion table fits into half the page."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A number of the first screen."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Where accuracies lie on the small axis of the table of arms, in its 190 units."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        return round(6 + 178 * (value - self.low) / (self.high - self.low), 1)


def render(record: RunRecord) -> str:
    """Write the report.

    Args:
        record: Everything it shows.

    Returns:
        A whole HTML document; write it as UTF-8. The same record gives the same text.
    """
    evaluation = record.evaluation
    shipped = evaluation.arm(evaluation.shipped)
    everyone = [*evaluation.arms, *([evaluation.teacher] if evaluation.teacher else [])]
    return template("report.html.j2").render(
        record=record,
        verdict=record.verdict,
        evaluation=evaluation,
        shipped=shipped,
        beat=evaluation.arm(evaluation.labels_arm),
        everyone=everyone,
        scale=_scale(everyone),
        tiles=_tiles(record, shipped),
        icon=_icon(record.verdict.kind),
        marks=plots.legend_marks(evaluation),
        few_classes=len(evaluation.classes) <= _TABLE_CLASSES,
        few_enough=len(evaluation.classes) <= _PAIR_CLASSES,
        wide=Markup(' class="wide"') if len(evaluation.classes) > _PAIR_CLASSES else "",
        shapes=binary.legend_shapes(evaluation),
        bought=purchase_plots.draw(record.purchase),
        search=None if record.search is None else section(record.search),
        plots={
            "roc": binary.roc(evaluation) if evaluation.positive else "",
            "precision_recall": (
                binary.precision_recall(evaluation) if evaluation.positive else ""
            ),
            "cost": binary.cost(record.decision) if record.decision else "",
            "reliability": plots.reliability(shipped),
            "trust": plots.trust(record.trust) if record.trust else "",
            "curves": plots.validation_curves(evaluation),
            "losses": plots.losses(shipped),
            "deferral": plots.deferral(record.deferral) if record.deferral else "",
        },
    )


def _icon(kind: VerdictKind) -> Markup:
    return Markup(
        '<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" '
        'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">'
        f"{_ICONS[kind]}</svg>"
    )


def _scale(arms: Sequence[ArmResult]) -> Scale:
    low = math.floor(20 * min(a.accuracy.low for a in arms)) / 20
    high = math.ceil(20 * max(a.accuracy.high for a in arms)) / 20
    return Scale(low, max(high, low + 0.05))


def _tiles(record: RunRecord, shipped: ArmResult) -> list[Tile]:
    evaluation = record.evaluation
    beat = evaluation.arm(evaluation.labels_arm)
    tiles = [
        Tile(
            "Shipped student",
            formats.percent(shipped.accuracy.estimate),
            f"{formats.span(shipped.accuracy)}, test accuracy",
        ),
        Tile(
            "Labels only",
            formats.percent(beat.accuracy.estimate),
            f"{formats.span(beat.accuracy)}",
        ),
    ]
    if shipped.name != beat.name:
        gain = evaluation.difference(shipped.name, beat.name)
        note = f"points, {formats.points_span(gain)}"
        tiles.append(Tile("Gain from answers", formats.points(gain.estimate), note))
    if evaluation.teacher is not None:
        taught = evaluation.teacher.accuracy
        kept = evaluation.gain_kept
        note = formats.span(taught) if kept is None else f"its gain kept: {kept:.0%}"
        tiles.append(Tile("Teacher", formats.percent(taught.estimate), note))
    return tiles + _price_tiles(record)


def _price_tiles(record: RunRecord) -> list[Tile]:
    tiles = []
    if record.size is not None:
        note = f"{record.size.parameters:,} parameters"
        if record.size.latencies:
            first = record.size.latencies[0]
            note = f"{formats.milliseconds(first.p50)} a row, {first.what}"
        largest = max((count for _, count in record.size.files), default=0)
        tiles.append(Tile("Model size", formats.size(largest), note))
    if record.cost is not None:
        cost = record.cost
        note = f"{cost.bought:,} answers, {formats.seconds(60 * cost.minutes)}"
        tiles.append(Tile("Spent", formats.money(cost.money, cost.currency), note))
    return tiles


@cache
def template(name: str) -> "Template":
    """A page of this package: escapes all it is given, knows the filters and the style sheet."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("limbeck.report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(formats.FILTERS)
    # Safe: the style sheet is a file of this package.
    environment.globals["css"] = Markup(loader.get_source(environment, "report.css")[0])
    return environment.get_template(name)


def _finalize(value: object) -> object:
    """Clean every text that the template writes, except for figures that were built here."""
    return formats.clean(value) if type(value) is str else value
