"""Plain bookkeeping of a ledger: what must be granted, and what must have been spent."""

from dataclasses import dataclass, field

HELD = ("reserved", "unknown")
COUNTED = ("reserved", "unknown", "settled", "failed")


@dataclass
class Attempt:
    """One question of one reservation."""

    number: int
    share: int
    state: str = "reserved"
    price: int = 0

    @property
    def money(self) -> int:
        return self.share if self.state in HELD else self.price


@dataclass
class Purchase:
    """One reservation."""

    run: str
    owner: str
    attempts: dict[int, Attempt]
    reservation: object = None

    @property
    def worst(self) -> int:
        return sum(attempt.share for attempt in self.attempts.values())

    def open(self) -> list[int]:
        return [n for n, attempt in self.attempts.items() if attempt.state == "reserved"]

    def unknown(self) -> list[int]:
        return [n for n, attempt in self.attempts.items() if attempt.state == "unknown"]


@dataclass
class Book:
    """Everything that happened, and the caps: (queries, money) of each run and of the ledger."""

    caps: dict[str, tuple[int, int]]
    limit: tuple[int, int]
    alive: set[str] = field(default_factory=set)
    purchases: list[Purchase] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)

    def spent(self, run: str | None = None) -> tuple[int, int]:
        """Queries and money of a run, or of all."""
        own = [
            attempt
            for purchase in self.purchases
            if run in (None, purchase.run)
            for attempt in purchase.attempts.values()
        ]
        return sum(a.state in COUNTED for a in own), sum(a.money for a in own)

    def bury(self) -> None:
        """End what the dead left in flight."""
        for purchase in self.purchases:
            if purchase.owner not in self.alive:
                for number in purchase.open():
                    state = "unknown" if purchase.worst else "released"
                    purchase.attempts[number].state = state

    def grant(
        self, run: str, numbers: list[int], shares: list[int]
    ) -> list[tuple[int, int]] | None:
        """Questions and shares that must be granted now; None where the budget must refuse."""
        flying = {number for purchase in self.purchases for number in purchase.open()}
        free = [
            (number, share)
            for number, share in zip(numbers, shares, strict=True)
            if number not in self.settled and number not in flying
        ]
        rooms = [
            (queries - spent[0], money - spent[1])
            for (queries, money), spent in (
                (self.caps[run], self.spent(run)),
                (self.limit, self.spent()),
            )
        ]
        granted: list[tuple[int, int]] = []
        while len(granted) < len(free):
            more = free[: len(granted) + 1]
            # What all together cannot cost anything is not stopped by the ledger's money.
            paid = sum(share for _, share in free) > 0
            fits = [
                len(more) <= queries and (sum(s for _, s in more) <= money or (i == 1 and not paid))
                for i, (queries, money) in enumerate(rooms)
            ]
            if not all(fits):
                break
            granted = more
        return None if free and not granted else granted

    def record(self, purchase: Purchase, numbers: list[int], prices: list[int], bad: list[int]):
        for number, price in zip(numbers, prices, strict=True):
            attempt = purchase.attempts[number]
            if attempt.state not in ("settled", "failed"):
                attempt.state, attempt.price = "failed" if number in bad else "settled", price
                self.settled |= set() if number in bad else {number}

    def close(self, purchase: Purchase, numbers: list[int], state: str) -> None:
        for number in numbers:
            if purchase.attempts[number].state == "reserved":
                purchase.attempts[number].state = state
