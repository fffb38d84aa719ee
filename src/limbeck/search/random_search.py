"""Random search: the baseline that every search has to beat.

Source: Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search"
(UAI 2019). Costs are free to ask, so what is out of range is drawn again and not evaluated.
"""

import random
from typing import ClassVar

from limbeck.search.base import Note, Searcher, pick
from limbeck.search.space import Architecture

_DRAWS = 1_000
_WALKS = 100


class RandomSearch(Searcher):
    """Uniform over the architectures in range, none twice.

    Where fewer than one of 1,000 uniform draws is in range and not known, layers are drawn one by
    one among the options from which the range can be reached, which is no longer uniform.
    """

    name: ClassVar[str] = "random"

    def _propose(self, rng: random.Random) -> tuple[Architecture, Note] | None:
        found = draw_feasible(self, rng)
        return None if found is None else (found, Note("random"))


def draw_feasible(search: Searcher, rng: random.Random, draws: int = _DRAWS) -> Architecture | None:
    """An architecture in range that is not known yet; None if none was found.

    Args:
        search: Knows the range and what is known.
        rng: Source of all randomness.
        draws: Uniform ones; then layer by layer.
    """
    for _ in range(draws):
        drawn = tuple(pick(rng, k) for k in search.space.sizes)
        if search.known(drawn) is None and search.feasible(drawn):
            return drawn
    for _ in range(_WALKS):
        walked = _walk(search, rng)
        if walked is not None and search.known(walked) is None and search.feasible(walked):
            return walked
    return None


def _walk(search: Searcher, rng: random.Random) -> Architecture | None:
    """Layer by layer, uniformly among the options that leave the range in reach."""
    prefix: Architecture = ()
    for k in search.space.sizes:
        options = [s for s in range(k) if search.space.allows(prefix, s)]
        options = [s for s in options if search.reachable((*prefix, s))]
        if not options:
            return None
        prefix = (*prefix, options[pick(rng, len(options))])
    return prefix
