"""What answers will cost and how long they will take, going by the first of them."""

from dataclasses import dataclass
from typing import Self

from limbeck.ledger.history import History
from limbeck.numerics.forecast import LEAST_BLOCKS, forecast_sum, merged
from limbeck.numerics.intervals import Interval
from limbeck.teachers import Money

A_HANDFUL = 5
"""Prices, and moments at which answers were recorded, from which more are estimated."""
MOST_BLOCKS = 32
UNKNOWN = "not known before the first answers"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Answers to buy.

    Args:
        answers: How many.
        worst: Most that they can cost.
        price: What they will probably cost, millionths of the currency, with its 95 % interval;
            None before the first answers.
        seconds: How long asking will take, with its 95 % interval; None before the first answers.
        seen: Earlier questions that this goes by.
    """

    answers: int
    worst: Money
    price: Interval | None
    seconds: Interval | None
    seen: int

    @classmethod
    def of(cls, history: History, answers: int, worst: Money) -> Self:
        """Estimate from what the same teacher's last questions cost and took.

        Prices are taken as drawn at random, and one that is known never exceeds the worst case.
        Times are joined into at most 32 stretches, so that a slow hour counts once.
        """
        price = seconds = None
        if answers and len(history.prices) >= A_HANDFUL:
            price = _at_most(forecast_sum(history.prices, answers), worst.micros)
        if answers and len(history.seconds) >= A_HANDFUL:
            values, sizes = merged(history.seconds, history.counts, MOST_BLOCKS)
            if len(values) >= LEAST_BLOCKS:
                seconds = forecast_sum(values, answers, sizes=sizes)
        return cls(answers, worst, price, seconds, len(history))

    @property
    def lines(self) -> list[str]:
        """Lines of a plan: the price, and the time of asking where there is anything to ask."""
        lines = [f"price     {self._price()}"]
        if self.answers and self.seconds is None:
            lines.append(f"asking    {UNKNOWN}")
        elif self.seconds is not None:
            lines.append(
                f"asking    {_about(self.seconds)}, going by the last {self.seen:,} questions"
            )
        return lines

    @property
    def rest(self) -> str:
        """The same in a few words, while answers come in; nothing where nothing is known."""
        parts = []
        if self.worst.micros and self.price is not None:
            parts.append(self._likely(self.price))
        if self.seconds is not None:
            parts.append(_about(self.seconds))
        return f"the other {self.answers:,}: {', '.join(parts)}" if parts else ""

    def question(self, scope: str = "") -> str:
        """What a person is asked before money is spent, with words for what it is spent on."""
        likely = "" if self.price is None else f", probably {self._range(self.price)}"
        return f"This may cost up to {self.worst}{scope}{likely}. Go on?"

    def _price(self) -> str:
        if not self.worst.micros:
            return "none"
        closer = UNKNOWN if self.price is None else self._likely(self.price)
        return f"at most {self.worst}; {closer}"

    def _likely(self, price: Interval) -> str:
        return f"about {self._money(price.estimate)} (95 % interval {self._range(price)})"

    def _range(self, price: Interval) -> str:
        return f"{self._money(price.low).amount} to {self._money(price.high)}"

    def _money(self, micros: float) -> Money:
        return Money(round(micros), self.worst.currency)


def span(seconds: float) -> str:
    """A duration in seconds, minutes or hours, for a person."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _about(time: Interval) -> str:
    return f"about {span(time.estimate)} (95 % interval {span(time.low)} to {span(time.high)})"


def _at_most(interval: Interval, cap: int) -> Interval:
    return Interval(
        *(min(value, cap) for value in (interval.estimate, interval.low, interval.high))
    )
