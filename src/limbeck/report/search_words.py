"""What a search found, in words: for the page, for the report and for the terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.report import formats
from limbeck.report.search import SearchTrial, SearchView

ROWS = 8
"""Rows of the front that a terminal shows."""
_WORDS = 48
_GOOD, _LOW = 0.7, 0.3
"""Validity from which a prefix is called good evidence, and below which it is called poor."""
_TIMES = 2.0
"""Ratio from which on per cent are hard to read."""
_MANY = 6
"""Changes that are too many for a sentence."""
_MUCH = 0.2
"""Share of trials out of range from which on that is called much."""
_STATUS = {
    "searching": "The trials ran out, not the ideas: the search could go on.",
    "waiting": "The search waits for trials in flight.",
    "exhausted": "Nothing is left that this search would try.",
    "infeasible": "No architecture of this space is within the limit.",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A row of the table of diagnostics: what, how much, and what that means."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A row of the table of layers."""

    layer: str
    kept: int | None
    width: str
    validity: float | None
    meaning: str


def reward_text(view: SearchView, value: float) -> str:
    """A reward as people read it."""
    return formats.percent(value) if view.in_percent else formats.short(value)


def gain_text(view: SearchView, value: float) -> str:
    """A difference of rewards: above or below."""
    size = f"{100 * abs(value):.1f} points" if view.in_percent else formats.figure(abs(value))
    if float(size.split()[0]) == 0:
        return "level with it"
    return f"{size} {'above' if value > 0 else 'below'} it"


def cost_text(view: SearchView, value: float) -> str:
    """A cost with its unit."""
    if view.unit == "bytes":
        return formats.size(round(value))
    return f"{formats.short(value)} {view.unit}".rstrip()


def bare_cost(view: SearchView, value: float) -> str:
    """A cost under a heading that has its unit."""
    return cost_text(view, value) if view.unit == "bytes" else formats.short(value)


def cost_label(view: SearchView) -> str:
    """What is limited, with the unit that numbers under it leave out."""
    return view.cost if view.unit in ("", "bytes", view.cost) else f"{view.cost}, {view.unit}"


def changes(view: SearchView, options: Sequence[int]) -> str:
    """The options that differ from the base student's."""
    pairs = zip(view.layers, options, strict=True)
    said = [f"{each.name} {each.options[at]}" for each, at in pairs if at != each.default]
    return ", ".join(said) or "as the base student"


def limit_text(view: SearchView) -> str:
    """The admissible range in words."""
    if view.low is not None and view.high is not None and view.low > 0:
        return f"{cost_text(view, view.low)} to {cost_text(view, view.high)}"
    if view.high is not None:
        return f"at most {cost_text(view, view.high)}"
    return "none" if view.low is None else f"at least {cost_text(view, view.low)}"


def headline(view: SearchView) -> str:
    """What was found, in a few words."""
    best = view.answer
    if best is None or best.reward is None:
        return _nothing(view)
    if best.options == view.defaults:
        return "Nothing better than the base student was found"
    reached = f"{reward_text(view, best.reward)} {view.reward}"
    if view.base_cost <= 0:
        return reached
    return f"{reached} at {_share(best.cost / view.base_cost)} of the base student's cost"


def sentences(view: SearchView) -> list[str]:
    """What was found, against what, and how far to believe it; the first says it all."""
    best = view.answer
    said = [_nothing_why(view) if best is None else _best(view, best)]
    if best is not None:
        said.append(_against_base(view, best))
        said.append(_optimism(view))
    said.append(counts(view))
    return said


def counts(view: SearchView) -> str:
    """Trials, and how many of them gave nothing."""
    failed = sum(each.failed for each in view.trials)
    stopped = sum(each.stopped for each in view.trials)
    outside = sum(not each.in_range for each in view.trials)
    total = len(view.trials)
    return (
        f"{total:,} {'trial' if total == 1 else 'trials'}, of which {outside:,} "
        f"{'was' if outside == 1 else 'were'} out of range, {failed:,} failed and {stopped:,} "
        f"{'was' if stopped == 1 else 'were'} stopped early."
    )


def facts(view: SearchView) -> list[Fact]:
    """The diagnostics in words; empty for a method without."""
    found = view.diagnostics
    if found is None:
        return []
    swept = (
        "Everything that was kept has been tried with every option of the next layer."
        if found.swept
        else "Some of what was kept has untried options: more trials can still find better."
    )
    return [
        Fact("Status", found.status, _STATUS.get(found.status, "")),
        Fact("Sweep", "ended" if found.swept else "not ended", swept),
        Fact("Out of range", formats.percent(found.out_of_range), _away(found.out_of_range)),
        Fact("Grouping can have lost", cost_text(view, found.loss_of_limit), _loss(view)),
    ]


def evidence(view: SearchView) -> list[Evidence]:
    """What each layer's kept prefixes were worth as evidence; empty for a method without."""
    found = view.diagnostics
    if found is None:
        return []
    rows = zip(view.layers, found.kept, found.widths, found.validity, strict=False)
    return [
        Evidence(layer.name, kept, cost_text(view, width), validity, _validity(validity))
        for layer, kept, width, validity in rows
    ]


def search_lines(view: SearchView, *, then: str = "") -> list[str]:
    """The result for a terminal: sentences, the front, and what to do next.

    Args:
        view: The search.
        then: The next command; by default a sentence.
    """
    lines = [headline(view).upper(), *sentences(view)]
    lines += [f"note: {note}" for note in view.notes]
    shown = _few([view.trial(number) for number in view.front], view.best)
    if shown:
        lines += ["", *_table(view, shown)]
        if len(shown) < len(view.front):
            lines.append(f"{len(view.front) - len(shown)} more of the front are in the report.")
    lines += ["", f"next     {then or _next(view)}"]
    return [formats.clean(line) for line in lines]


def _table(view: SearchView, shown: Sequence[SearchTrial]) -> list[str]:
    head = ("trial", cost_label(view), view.reward, "of the limit", "differs from the base student")
    rows = [head]
    for each in shown:
        share = "-" if not view.high else f"{each.cost / view.high:.0%}"
        mark = "  <- best" if each.number == view.best else ""
        mark = mark if each.in_range else "  (out of range)"
        words = formats.shorten(changes(view, each.options), _WORDS) + mark
        reward = "-" if each.reward is None else reward_text(view, each.reward)
        rows.append((str(each.number), bare_cost(view, each.cost), reward, share, words))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [
        "  ".join([*(row[i].rjust(widths[i]) for i in range(4)), row[4]]).rstrip() for row in rows
    ]


def _few(front: Sequence[SearchTrial], best: int | None) -> list[SearchTrial]:
    """At most `ROWS`, spread over the front, the answer and both ends among them."""
    last = len(front) - 1
    if last < ROWS:
        return list(front)
    chosen = {i * last // (ROWS - 1) for i in range(ROWS)}
    answer = next((i for i, each in enumerate(front) if each.number == best), None)
    if answer is not None and answer not in chosen:
        chosen.remove(min(chosen - {0, last}, key=lambda i: abs(i - answer)))
        chosen.add(answer)
    return [front[i] for i in sorted(chosen)]


def _best(view: SearchView, best: SearchTrial) -> str:
    reached = "-" if best.reward is None else reward_text(view, best.reward)
    tried = sum(each.in_range for each in view.rewarded)
    of = f"The best of {tried:,} architectures in range" if tried > 1 else "The only one in range"
    count = sum(at != each for at, each in zip(best.options, view.defaults, strict=True))
    what = "is the base student itself"
    if count > _MANY:
        what = f"differs from the base student in {count} of {len(view.layers)} layers"
    elif count:
        what = f"has {changes(view, best.options)} (else as the base student)"
    share = f", {best.cost / view.high:.0%} of the limit" if view.high else ""
    return (
        f"{of} {what}: {view.reward} {reached} with {cost_text(view, best.cost)}{share} "
        f"(trial {best.number})."
    )


def _against_base(view: SearchView, best: SearchTrial) -> str:
    if best.options == view.defaults:
        return "No other trial within the limit has a higher reward."
    base, where = view.reached_by_base, "within the limit" if view.base_in_range else "out of range"
    said = f"The base student costs {cost_text(view, view.base_cost)}"
    if view.low is not None or view.high is not None:
        said += f", which is {where}"
    if base is None or best.reward is None:
        return f"{said}; it was not evaluated in this search, so its reward is not known here."
    gain = gain_text(view, best.reward - base)
    return (
        f"{said}, and reached {reward_text(view, base)}: the best is {gain}, by one "
        f"training of each."
    )


def _optimism(view: SearchView) -> str:
    tried = sum(each.in_range for each in view.rewarded)
    final = "the test accuracy of its final training, on rows that no trial has seen"
    if tried <= 1:
        return f"That is one training with one seed; what it is worth is {final}."
    return (
        f"It was chosen as the best of {tried:,} in range by this very number, so its "
        f"{view.reward} is optimistic; what it is worth is {final}."
    )


def _nothing(view: SearchView) -> str:
    if view.diagnostics is not None and view.diagnostics.status == "infeasible":
        return "No architecture is within the limit"
    if not view.trials:
        return "Nothing was tried"
    if not view.rewarded:
        return "No trial gave a reward"
    return "Nothing within the limit has a reward"


def _nothing_why(view: SearchView) -> str:
    limit = f"The limit is {limit_text(view)}"
    if not view.trials:
        return f"{limit}; no architecture was trained."
    if not view.rewarded:
        return f"{limit}; of {len(view.trials):,} trials, none has a reward."
    cheapest = min(each.cost for each in view.rewarded)
    return (
        f"{limit}; {len(view.rewarded):,} of {len(view.trials):,} trials have a reward, none of "
        f"them in range; the cheapest of these costs {cost_text(view, cheapest)}."
    )


def _loss(view: SearchView) -> str:
    found = view.diagnostics
    lost = 0.0 if found is None else found.loss_of_limit
    if lost <= 0:
        return "The groups were narrow enough to lose nothing."
    share = f" ({lost / view.high:.0%} of it)" if view.high else ""
    if view.high and lost >= view.high:
        return f"As much as the limit itself{share}, so this promises nothing; use more groups."
    return (
        f"Where costs and rewards add up over layers and the sweep has ended, the answer is at "
        f"least as good as the best under a limit that is lower by this{share}. More groups lose "
        f"less and need more trials."
    )


def _away(share: float) -> str:
    if share <= 0:
        return "Every trial could have been the answer."
    if share < _MUCH:
        return "These could not be the answer; they still told what their options are worth."
    return "These could not be the answer: much of the effort went to what the limit forbids."


def _validity(value: float | None) -> str:
    if value is None:
        return "too few prefixes, or equal rewards: tells nothing"
    if value >= _GOOD:
        return "a good start stays good"
    if value >= _LOW:
        return "a good start often stays good"
    return "low: how a start scored says little of what became of it"


def _share(ratio: float) -> str:
    return f"{ratio:.0%}" if ratio < _TIMES else f"{ratio:.1f} times"


def _next(view: SearchView) -> str:
    if view.answer is not None:
        return "judge it by the test accuracy of its final training"
    if view.trials and not view.rewarded:
        return "look at why the trials failed; then search again"
    return "raise the limit, or add smaller options"
