"""What the report shows of a purchase in rounds: curves, batches, and estimates of the pool."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from limbeck.data import Splits
from limbeck.distill.acquire import Acquired
from limbeck.distill.config import DistillConfig
from limbeck.distill.round_files import Batch, Look, RoundHistory
from limbeck.distill.trust import Trust
from limbeck.numerics.horvitz_thompson import Sampled, horvitz_thompson
from limbeck.numerics.intervals import Interval, wilson
from limbeck.report.purchase import PoolEstimate, Purchase, RoundView
from limbeck.select import selector_class

_POINTS = 400
_CLASSES = 12
_READ_ROWS = 4096
Shares = NDArray[np.float64]
Value = TypeVar("Value")


def purchase_view(
    config: DistillConfig, splits: Splits, acquired: Acquired, trust: Trust
) -> Purchase | None:
    """Everything that the report tells of the rounds; None for one purchase of rows at random."""
    history = acquired.history
    if history is None:
        return None
    assert splits.validation.labels is not None
    labels = splits.validation.labels
    views = tuple(
        _round(number, look, _at(history.batches, number), _at(history.alphas, number), labels)
        for number, look in enumerate(history.looks, start=1)
    )
    unbought = _unbought(config, acquired, history)
    return Purchase(
        rule=config.buy.rule,
        measure=config.buy.measure if _looks_at_gains(config) else "",
        rounds=views,
        beside=tuple(_beside(look, labels) for look in history.beside),
        points=_points(config, history.batches),
        estimates=_estimates(config, splits, acquired, history),
        teacher_accuracy=trust.accuracy,
        wrong_uniform=1 - trust.accuracy,
        stopped=history.stopped,
        unbought=unbought,
        saved=_price(acquired, unbought),
    )


def _round(
    number: int,
    look: Look,
    batch: Batch | None,
    alpha: NDArray[np.float32] | None,
    labels: NDArray[np.int64],
) -> RoundView:
    answered = None if alpha is None else alpha[~np.isnan(alpha)]
    return RoundView(
        number=number,
        answers=look.answers,
        accuracy=_accuracy(look, labels),
        chosen=0 if batch is None else len(batch.rows),
        audit=0 if batch is None else int(batch.audit.sum()),
        candidates=0 if batch is None else batch.candidates,
        support=None if batch is None else batch.support,
        wrong=None if answered is None or not len(answered) else float(1 - answered.mean()),
    )


def _accuracy(look: Look, labels: NDArray[np.int64]) -> Interval:
    return wilson(int((look.classes == labels).sum()), len(labels))


def _beside(look: Look, labels: NDArray[np.int64]) -> tuple[int, float, float, float]:
    found = _accuracy(look, labels)
    return look.answers, found.estimate, found.low, found.high


def _points(
    config: DistillConfig, batches: Sequence[Batch]
) -> tuple[tuple[float, float, float], ...]:
    """Gains and probabilities of some chosen rows, where both are known."""
    found = [
        (float(gain), float(prob), float(number))
        for number, batch in enumerate(batches, start=1)
        for gain, prob in zip(batch.gains, batch.probs, strict=True)
        if not (np.isnan(gain) or np.isnan(prob))
    ]
    if len(found) <= _POINTS:
        return tuple(found)
    some = np.random.default_rng(config.seed).choice(len(found), _POINTS, replace=False)
    return tuple(found[i] for i in np.sort(some))


def _estimates(
    config: DistillConfig, splits: Splits, acquired: Acquired, history: RoundHistory
) -> tuple[PoolEstimate, ...]:
    """Shares of the whole pool by what was bought of it; none where some row had no chance."""
    batches = history.batches
    if acquired.short:
        # The budget ended within the last one, and which of its rows were reached is no chance.
        batches = batches[:-1]
    told = [_told(acquired, batch) for batch in batches]
    if not told or not all(map(_speaks, batches, told)):
        return ()
    rounds = list(zip(batches, told, history.alphas, strict=False))
    seen = batches[0].candidates
    where = f", of {seen:,} rows looked at" if 0 < config.buy.candidates <= seen else ""
    right = [(b, one, alpha.astype(np.float64)) for b, one, alpha in rounds]
    found = [PoolEstimate(f"the teacher is right, by its trust{where}", _mean(right))]
    classes = splits.schema.classes
    if len(classes) <= _CLASSES:
        for place, name in enumerate(classes):
            share = [(b, one, (one == place).astype(np.float64)) for b, one, _ in rounds]
            found.append(PoolEstimate(f"the teacher says {name}{where}", _mean(share)))
    batch, one, _ = rounds[-1]
    agree = _mean([(batch, one, (one == batch.classes).astype(np.float64))])
    name = f"teacher and the student of round {len(rounds)} agree, on rows not bought before"
    return (*found, PoolEstimate(name, agree))


def _told(acquired: Acquired, batch: Batch) -> NDArray[np.int64]:
    """The teacher's class of each row of a batch; -1 where it has no answer."""
    there = np.isin(batch.rows, acquired.pool_rows)
    found = np.full(len(batch.rows), -1, np.int64)
    places = np.flatnonzero(there)
    ids = acquired.pool_ids[np.searchsorted(acquired.pool_rows, batch.rows[places])]
    for start in range(0, len(places), _READ_ROWS):
        part = slice(start, start + _READ_ROWS)
        found[places[part]] = acquired.book.read(ids[part]).probs.argmax(dim=1).numpy()
    return found


def _speaks(batch: Batch, told: NDArray[np.int64]) -> bool:
    """Whether every candidate of a round had a chance, and some that had got an answer."""
    if batch.audit.any():
        return bool((told[batch.audit] >= 0).any())
    whole = batch.candidates in (len(batch.rows), batch.support)
    return whole and bool((told >= 0).any()) and not np.isnan(batch.probs).any()


def _mean(rounds: Sequence[tuple[Batch, NDArray[np.int64], Shares]]) -> Interval:
    """Mean of values in [0, 1] over the candidates of the first round."""
    sampled = [_sampled(batch, told >= 0, values) for batch, told, values in rounds]
    return horvitz_thompson(sampled, ratio=True, bounds=(0.0, 1.0))


def _sampled(batch: Batch, there: NDArray[np.bool_], values: Shares) -> Sampled:
    unknown = np.isnan(batch.probs)
    if not unknown.any():
        return Sampled(values[there], batch.probs[there], batch.candidates, int((~there).sum()))
    return Sampled.audited(
        values[unknown & there],
        values[~unknown & there],
        candidates=batch.candidates,
        failed_known=int((unknown & ~there).sum()),
        failed_audit=int((~unknown & ~there).sum()),
    )


def _unbought(config: DistillConfig, acquired: Acquired, history: RoundHistory) -> int:
    """Answers that were to be bought and were not, because buying stopped."""
    if not history.stopped:
        return 0
    rows = sum(history.sizes) - sum(len(batch.rows) for batch in history.batches)
    return rows * acquired.book.members * (2 if config.buy.beside else 1)


def _price(acquired: Acquired, answers: int) -> int:
    """What answers would have cost at the mean price of those bought."""
    spent = acquired.spending
    return round(spent.money.micros * answers / spent.answered) if spent.answered else 0


def _looks_at_gains(config: DistillConfig) -> bool:
    rule = config.buy.rule
    return ":" in rule or hasattr(selector_class(rule)(), "measure")


def _at(values: Sequence[Value], number: int) -> Value | None:
    return values[number - 1] if number <= len(values) else None
