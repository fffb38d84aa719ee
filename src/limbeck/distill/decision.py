"""When one mistake costs more than the other: the threshold on the positive class's probability.

Of two classes the positive one is named when its calibrated probability is at least the threshold;
threshold 0 names it always and threshold 1 never. Were the probabilities right, the cheapest
threshold would be known without looking at a row: cost_fp / (cost_fp + cost_fn), the Bayes
threshold. The cheapest one on validation can be better where they are wrong, but on few rows it is
mostly luck. So it must earn its place: it is taken only where, chosen on nine tenths of the
validation rows and paid for on the rest, it is significantly cheaper than the Bayes threshold.

Source of the Bayes threshold: Elkan, "The foundations of cost-sensitive learning", IJCAI 2001,
Section 1.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from limbeck.distill.config import DecisionConfig
from limbeck.distill.views import folds
from limbeck.errors import ConfigError, ShapeError
from limbeck.numerics.intervals import Interval, bootstrap_mean, paired_bootstrap, wilson
from limbeck.report.results import Decision, DecisionCost

__all__ = ["Costs", "Sided", "cheapest", "check_decision", "choose", "curve", "names", "study"]

EXPORTED = "exported threshold"
FOLDS = 10
LEAST_ROWS = 50
"""Validation rows below which the Bayes threshold is taken without a trial."""
_CURVE = 1 / (1 + np.exp(-np.linspace(-7, 7, 141)))
"""Thresholds of the picture, even in log-odds: costs of 1 to 100 lead to thresholds of 1 %."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What each mistake costs, >= 0 and not both 0.

    Args:
        false_positive: Naming the positive class where it is not true.
        false_negative: Not naming it where it is.
    """

    false_positive: float
    false_negative: float

    @property
    def bayes(self) -> float:
        """The cheapest threshold on probabilities that are right, in [0, 1]."""
        return self.false_positive / (self.false_positive + self.false_negative)


@dataclass(frozen=True, slots=True, eq=False)
class Sided:
    """The probability of the positive class on n rows, and which of them are positive.

    Args:
        probs: Calibrated, float, shape (n,), in [0, 1].
        positive: bool, shape (n,).
    """

    probs: NDArray[np.float64]
    positive: NDArray[np.bool_]

    @classmethod
    def of(cls, probs: ArrayLike, labels: ArrayLike, place: int) -> "Sided":
        """From class probabilities (n, 2), labels (n,) and the position of the positive class."""
        values, truth = np.asarray(probs, np.float64), np.asarray(labels)
        if values.ndim != 2 or values.shape[1] != 2 or truth.shape != values.shape[:1]:
            raise ShapeError(
                f"a decision needs probabilities of shape (n, 2) and labels of shape (n,), got "
                f"{values.shape} and {truth.shape}; give one row of two for each label."
            )
        return cls(np.clip(values[:, place], 0.0, 1.0), truth == place)

    def take(self, rows: NDArray[np.bool_]) -> "Sided":
        """Some of the rows."""
        return Sided(self.probs[rows], self.positive[rows])


def check_decision(config: DecisionConfig, classes: Sequence[str]) -> None:
    """Refuse settings of a decision that do not fit the task.

    Raises:
        ConfigError: costs or a positive class in a task of more than two classes, or a positive
            class that is none of the classes.
    """
    if len(classes) != 2 and config != DecisionConfig():
        raise ConfigError(
            f"[decision] is for tasks with two classes but this one has {len(classes)}; leave the "
            f"table out, or merge the classes into two."
        )
    if config.positive and config.positive not in classes:
        near = difflib.get_close_matches(config.positive, classes, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "name one of them, or leave it out."
        raise ConfigError(
            f"decision.positive={config.positive!r} is none of the classes {', '.join(classes)}; "
            f"{hint}"
        )


def names(probs: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Where the positive class is named, bool, shape (n,)."""
    named: NDArray[np.bool_] = (probs >= threshold) & (threshold < 1)
    return named


def price(rows: Sided, threshold: float, costs: Costs) -> NDArray[np.float64]:
    """Cost of each row at a threshold, float64, shape (n,)."""
    named = names(rows.probs, threshold)
    alarms, misses = named & ~rows.positive, ~named & rows.positive
    return costs.false_positive * alarms + costs.false_negative * misses


def cheapest(rows: Sided, costs: Costs) -> float:
    """The threshold of lowest mean cost; of equally cheap ones the nearest to the Bayes threshold.

    All thresholds between two neighbouring probabilities name the same rows. Where the Bayes
    threshold is among the cheapest it is given as it is, otherwise the middle between the two, so
    that a student that rounds differently names the same rows.

    Cost: O(n log n) time, O(n) memory.
    """
    values, place = np.unique(rows.probs, return_inverse=True)
    cells = len(values) + 1
    # In cell j the thresholds lie in (values[j - 1], values[j]]: rows from values[j] on are named.
    missed = np.append(0, np.bincount(place[rows.positive], minlength=len(values)).cumsum())
    spared = np.append(0, np.bincount(place[~rows.positive], minlength=len(values)).cumsum())
    alarms = int((~rows.positive).sum()) - spared
    total = costs.false_positive * alarms + costs.false_negative * missed
    mine = int(np.searchsorted(values, costs.bayes)) if costs.bayes < 1 else cells - 1
    best = np.flatnonzero(total <= total.min() * (1 + 1e-12))
    if mine in best:
        return costs.bayes
    cell = int(best[np.abs(best - mine).argmin()])
    low, high = np.append(0.0, values)[cell], np.append(values, 1.0)[cell]
    return float((low + high) / 2)


def choose(
    validation: Sided, costs: Costs, *, seed: int, generator: np.random.Generator
) -> tuple[float, str]:
    """Choose between the Bayes threshold and the cheapest one on validation.

    Args:
        validation: Rows that the student was not trained on.
        costs: Of the two mistakes.
        seed: Of the folds.
        generator: Draws the bootstrap resamples.

    Returns:
        The threshold, in [0, 1], and the rule as a sentence.
    """
    bayes = costs.bayes
    if costs.false_positive == costs.false_negative:
        return 0.5, "both mistakes cost the same, so the more probable class is named"
    plain = f"the Bayes threshold of these costs, {bayes:.4g}"
    if len(validation.probs) < LEAST_ROWS:
        return bayes, f"{plain}: fewer than {LEAST_ROWS} validation rows cannot improve on it"
    saved = paired_bootstrap(
        price(validation, bayes, costs),
        _cross_priced(validation, costs, seed),
        generator=generator,
    )
    if saved.low > 0:
        return cheapest(validation, costs), (
            f"the cheapest on validation: cross-validated, 1,000 rows cost {_thousand(saved)} less "
            f"than at the Bayes threshold, {bayes:.4g}"
        )
    gap = f"{_thousand(saved)} less" if saved.estimate > 0 else f"{_thousand(-saved)} more"
    return bayes, (
        f"{plain}: the cheapest one on validation does not beat it significantly (cross-validated, "
        f"1,000 rows cost {gap})"
    )


def curve(rows: Sided, costs: Costs) -> tuple[tuple[float, float], ...]:
    """(threshold, cost of 1,000 rows) at thresholds even in log-odds, from always to never."""
    thresholds = np.concatenate([[0.0], _CURVE, [1.0]])
    return tuple((float(t), float(1000 * price(rows, float(t), costs).mean())) for t in thresholds)


def study(
    validation: Sided,
    test: Sided,
    config: DecisionConfig,
    *,
    positive: str,
    seed: int,
) -> Decision:
    """Choose the threshold on validation and measure it on test.

    Args:
        validation, test: The shipped student's probabilities.
        config: The costs; they differ.
        positive: Name of the positive class.
        seed: Of folds and resamples.
    """
    costs = Costs(config.cost_false_positive, config.cost_false_negative)
    generator = np.random.default_rng(seed)
    threshold, rule = choose(validation, costs, seed=seed, generator=generator)
    ways = {EXPORTED: threshold, "more probable class": 0.5}
    ways |= {f"always {positive}": 0.0, f"never {positive}": 1.0}
    mine = price(test, threshold, costs)
    measured = tuple(_measure(test, costs, title, t, mine, generator) for title, t in ways.items())
    return Decision(
        positive=positive,
        cost_false_positive=costs.false_positive,
        cost_false_negative=costs.false_negative,
        threshold=threshold,
        bayes=costs.bayes,
        cheapest=cheapest(validation, costs),
        rule=rule,
        validation_rows=len(validation.probs),
        test_rows=len(test.probs),
        ways=measured,
        validation_curve=curve(validation, costs),
        test_curve=curve(test, costs),
    )


def _cross_priced(rows: Sided, costs: Costs, seed: int) -> NDArray[np.float64]:
    """Cost of each row at the cheapest threshold of the other folds."""
    fold = folds(rows.positive.astype(np.int64), FOLDS, seed)
    paid = np.empty(len(fold))
    for i in range(FOLDS):
        mine = fold == i
        paid[mine] = price(rows.take(mine), cheapest(rows.take(~mine), costs), costs)
    return paid


def _measure(
    rows: Sided,
    costs: Costs,
    title: str,
    threshold: float,
    exported: NDArray[np.float64],
    generator: np.random.Generator,
) -> DecisionCost:
    paid, named = price(rows, threshold, costs), names(rows.probs, threshold)
    n = len(paid)
    # Resampling rows without a mistake gives an interval of no width, which n rows cannot carry.
    most = max(costs.false_positive, costs.false_negative)
    cost = bootstrap_mean(paid, generator=generator) if paid.any() else _scaled(wilson(0, n), most)
    saved = None
    if title != EXPORTED:
        saved = _scaled(paired_bootstrap(paid, exported, generator=generator), 1000)
    return DecisionCost(
        title=title,
        threshold=threshold,
        cost=_scaled(cost, 1000),
        saved=saved,
        false_positives=int((named & ~rows.positive).sum()),
        false_negatives=int((~named & rows.positive).sum()),
        accuracy=float((named == rows.positive).mean()),
    )


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(factor * interval.estimate, factor * interval.low, factor * interval.high)


def _thousand(interval: Interval) -> str:
    """An interval for one row as that of 1,000."""
    found = _scaled(interval, 1000)
    return f"{found.estimate:.4g} ({found.low:.4g} to {found.high:.4g})"
