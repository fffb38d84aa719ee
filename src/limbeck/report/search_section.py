"""What the section of a search shows, as the template writes it."""

from dataclasses import dataclass

from limbeck.report import search_words
from limbeck.report.search import SearchTrial, SearchView
from limbeck.report.search_plots import Pictures, draw

MOST_ROWS = 40
"""Rows of the front and of what was measured that are shown."""


@dataclass(frozen=True, slots=True)
class FrontRow:
    """An architecture of the front, in words."""

    trial: SearchTrial
    cost: str
    share: float | None
    reward: str
    changes: str
    best: bool


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """An architecture whose cost was also measured."""

    number: int
    predicted: str
    measured: str
    ratio: float | None
    outside: bool
    best: bool


@dataclass(frozen=True, slots=True)
class SearchSection:
    """Everything that the templates write of a search."""

    view: SearchView
    headline: str
    sentences: tuple[str, ...]
    limit: str
    cost_label: str
    pictures: Pictures
    front: tuple[FrontRow, ...]
    left_out: int
    facts: tuple[search_words.Fact, ...]
    evidence: tuple[search_words.Evidence, ...]
    measured: tuple[MeasuredRow, ...]


def section(view: SearchView) -> SearchSection:
    """What the page and the section of a report show."""
    front = _front(view)
    return SearchSection(
        view=view,
        headline=search_words.headline(view),
        sentences=tuple(search_words.sentences(view)),
        limit=search_words.limit_text(view),
        cost_label=search_words.cost_label(view),
        pictures=draw(view),
        front=front,
        left_out=len(view.front) - len(front),
        facts=tuple(search_words.facts(view)),
        evidence=tuple(search_words.evidence(view)),
        measured=_measured(view),
    )


def _front(view: SearchView) -> tuple[FrontRow, ...]:
    numbers = list(view.front)
    if len(numbers) > MOST_ROWS:
        # The dearest are the best; the cheap end is what a front has too much of.
        numbers = numbers[-MOST_ROWS:]
    rows = []
    for trial in map(view.trial, numbers):
        rows.append(
            FrontRow(
                trial=trial,
                cost=search_words.bare_cost(view, trial.cost),
                share=trial.cost / view.high if view.high else None,
                reward="" if trial.reward is None else search_words.reward_text(view, trial.reward),
                changes=search_words.changes(view, trial.options),
                best=trial.number == view.best,
            )
        )
    return tuple(rows)


def _measured(view: SearchView) -> tuple[MeasuredRow, ...]:
    def outside(cost: float) -> bool:
        above = view.high is not None and cost > view.high
        return above or (view.low is not None and cost < view.low)

    return tuple(
        MeasuredRow(
            number=number,
            predicted=search_words.bare_cost(view, predicted),
            measured=search_words.bare_cost(view, measured),
            ratio=measured / predicted - 1 if predicted > 0 else None,
            outside=outside(measured),
            best=number == view.best,
        )
        for number, predicted, measured in view.measured[:MOST_ROWS]
    )
