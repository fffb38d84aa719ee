"""A search as one offline HTML page.

The page has no script and asks for nothing from outside. Everything of the user's is escaped by
the template engine or, where it is drawn, by the XML writer.
"""

from limbeck.report import formats, search_words
from limbeck.report.html import Tile, template
from limbeck.report.search import SearchView
from limbeck.report.search_section import section


def render_search(view: SearchView) -> str:
    """Write the page.

    Args:
        view: Everything it shows.

    Returns:
        A whole HTML document; write it as UTF-8. The same view gives the same text.
    """
    return template("search.html.j2").render(search=section(view), tiles=_tiles(view))


def _tiles(view: SearchView) -> list[Tile]:
    best, tiles = view.answer, []
    if best is not None and best.reward is not None:
        reward = search_words.reward_text(view, best.reward)
        tiles.append(Tile("Best in range", reward, view.reward))
        share = f", {best.cost / view.high:.0%} of the limit" if view.high else ""
        cost = search_words.bare_cost(view, best.cost)
        tiles.append(Tile("Its cost", cost, f"{search_words.cost_label(view)}{share}"))
    known, reached = "not evaluated", view.reached_by_base
    if reached is not None:
        known = f"{search_words.reward_text(view, reached)} {view.reward}"
    tiles.append(Tile("Base student's cost", search_words.bare_cost(view, view.base_cost), known))
    failed, stopped = sum(e.failed for e in view.trials), sum(e.stopped for e in view.trials)
    tiles.append(Tile("Trials", f"{len(view.trials):,}", f"{failed} failed, {stopped} stopped"))
    times = [each.seconds for each in view.trials if each.seconds is not None]
    if times:
        steps = sum(each.steps or 0 for each in view.trials)
        note = f"{steps:,} gradient steps" if steps else "all trials together"
        tiles.append(Tile("Training of trials", formats.seconds(sum(times)), note))
    return tiles
