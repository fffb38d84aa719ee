"""How many rows each round may have under the budget of a run."""

import numpy as np
from numpy.typing import NDArray

from limbeck.data.ids import GatheredIds
from limbeck.distill.config import DistillConfig
from limbeck.distill.questions import Questions, count_distinct
from limbeck.errors import ConfigError


def round_sizes(config: DistillConfig, asked: Questions, candidates: int) -> tuple[int, ...]:
    """Pool rows of each round, the same whatever the ledger holds already.

    So that runs of several seeds, of which one buys what another needs, learn from as many rows.
    Answers that the ledger holds are free and make a run cheaper, not longer.

    Args:
        config: The budget and `buy`.
        asked: Questions of all splits.
        candidates: Pool rows among which the rule chooses.

    Raises:
        ConfigError: the budget does not hold them.
    """
    buy = config.buy
    each = (len(asked.members) or 1) * (2 if buy.beside else 1)
    before = _before(config, asked)
    left = max(0, config.budget - before)
    if not buy.per_round:
        return _divided(left // each, candidates, config, before, each)
    needed = buy.per_round * buy.rounds * each
    if needed > left:
        raise ConfigError(
            f"budget={config.budget:,} leaves {left:,} answers for the pool beside {before:,} for "
            f"validation and test, but buy.rounds={buy.rounds} of buy.per_round={buy.per_round:,} "
            f"rows take {needed:,}; raise the budget to {before + needed:,}, or buy less."
        )
    sizes = [min(buy.per_round, candidates - n * buy.per_round) for n in range(buy.rounds)]
    return tuple(size for size in sizes if size > 0)


def check_no_rounds(config: DistillConfig) -> None:
    """Refuse a purchase alone in which a student would choose.

    Raises:
        ConfigError: the run buys in rounds.
    """
    if config.buy.in_rounds:
        raise ConfigError(
            f"limbeck label draws pool rows at random, but buy.rule={config.buy.rule!r} in "
            f"buy.rounds={config.buy.rounds} lets a student choose them; run limbeck distill, or "
            f"leave [buy] out of the run file."
        )


def forecast_rows(
    config: DistillConfig,
    asked: Questions,
    sizes: tuple[int, ...] | None = None,
    chosen: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """As many pool rows as rounds would buy, drawn at random: who chooses is not known before.

    Args:
        config, asked: As for `round_sizes`.
        sizes: Of the rounds, where they are decided.
        chosen: Rows of the rounds that are decided, which are among them.

    Returns:
        Positions in the pool, int64, ascending.
    """
    every = np.flatnonzero(GatheredIds(asked.pool).leads())
    if sizes is None:
        candidates = config.buy.candidates or len(every)
        sizes = round_sizes(config, asked, min(candidates, len(every)))
    known = np.zeros(0, np.int64) if chosen is None else chosen
    rest = np.setdiff1d(every, known)
    wanted = (2 if config.buy.beside else 1) * sum(sizes) - len(known)
    more = np.random.default_rng(config.seed).choice(
        rest, min(max(wanted, 0), len(rest)), replace=False
    )
    return np.sort(np.concatenate([known, more]))


def _divided(
    rows: int, candidates: int, config: DistillConfig, before: int, each: int
) -> tuple[int, ...]:
    rounds, rows = config.buy.rounds, min(rows, candidates)
    if candidates < rounds:
        raise ConfigError(
            f"buy.rounds={rounds} but the pool has {candidates:,} rows to choose from; make fewer "
            f"rounds, or give a larger pool."
        )
    if rows < rounds:
        raise ConfigError(
            f"budget={config.budget:,} leaves {rows:,} pool rows for buy.rounds={rounds}, beside "
            f"{before:,} answers for validation and test; raise it to {before + rounds * each:,} "
            f"at least (some hundred more make rounds worth having)."
        )
    least, more = divmod(rows, rounds)
    return tuple(least + (number < more) for number in range(rounds))


def _before(config: DistillConfig, asked: Questions) -> int:
    """Answers that validation and test take."""
    total = 0
    for one in asked.members or (asked,):
        parts = [one.validation, *([one.test] if config.ask_test else [])]
        total += count_distinct(np.concatenate(parts))
    return total
