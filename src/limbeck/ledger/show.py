"""What is in a ledger: teachers, runs and what they have spent, the limit, the last events."""

import json
import sqlite3
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from limbeck.errors import ConfigError
from limbeck.ledger.base import Limit, Spending
from limbeck.ledger.budgets import ledger_limit, ledger_spending, spending
from limbeck.ledger.facts import SHORT, TeacherFacts, teachers_of
from limbeck.ledger.sqlite import SqliteLedger
from limbeck.teachers.base import Money
from limbeck.teachers.pricing import MOST_MONEY

EVENTS = 10
"""Events shown, the last ones."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was done to a ledger.

    Args:
        at: When, ISO 8601 in UTC.
        kind: reserve, record, unknown, released, limit, merge, reparse, purge.
        run: Whose doing; empty where it was no run.
        detail: Counts.
    """

    at: str
    kind: str
    run: str
    detail: dict[str, int]


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in a ledger.

    Args:
        path: The file.
        size_bytes: Of the file, without its write-ahead log.
        version: Of its schema.
        limit: What all runs may spend together.
        total: What they have spent, money in the currency of the limit.
        teachers: Whose answers it holds.
        runs: What each run has spent.
        events: The last events, oldest first.
    """

    path: Path
    size_bytes: int
    version: int
    limit: Limit
    total: Spending
    teachers: tuple[TeacherFacts, ...]
    runs: dict[str, Spending]
    events: tuple[Event, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; money in millionths of the currency."""
        return {**asdict(self), "path": str(self.path)}

    def limit_line(self) -> str:
        """The limit and what of it is spent."""
        parts = []
        if self.limit.queries is not None:
            parts.append(f"{self.limit.queries:,} queries ({self.total.queries:,} spent)")
        if self.limit.money is not None:
            parts.append(f"{self.limit.money} ({self.total.money} spent)")
        spent = f"none ({self.total.queries:,} queries and {self.total.money} spent)"
        return f"limit     {', '.join(parts) or spent}"

    def text(self) -> str:
        """Tables for a person."""
        answers = sum(teacher.answers for teacher in self.teachers)
        lines = [
            f"ledger    {self.path}",
            f"holds     {answers:,} answers in {self.size_bytes / 1e6:,.1f} MB, schema "
            f"{self.version}",
            self.limit_line(),
        ]
        if self.teachers:
            lines += ["", f"{'teacher':{SHORT}}  {'answers':>10}  {'embedding':>9}  classes"]
        lines += [
            f"{teacher.fingerprint[:SHORT]}  {teacher.answers:10,}  "
            f"{teacher.embedding_dim or 'none':>9}  {_names(teacher.classes)}"
            for teacher in self.teachers
        ]
        if self.runs:
            lines += ["", _run_row("run", "answered", "failed", "unknown", "in flight", "price")]
        lines += [
            _run_row(
                run,
                f"{s.answered:,}",
                f"{s.failed:,}",
                f"{s.unknown:,}",
                f"{s.reserved:,}",
                s.money,
            )
            for run, s in self.runs.items()
        ]
        if self.events:
            lines += ["", "last events"]
        lines += [
            f"{event.at}  {event.kind:8}  {event.run or '-'}  "
            + ", ".join(f"{name} {value:,}" for name, value in event.detail.items())
            for event in self.events
        ]
        return "\n".join(lines)


def keep_limit(
    ledger: SqliteLedger,
    *,
    queries: int | None = None,
    money: float | None = None,
    currency: str = "USD",
    fresh: bool = False,
) -> None:
    """Change the limit of a ledger; what is None stays as it was.

    Args:
        ledger: Which.
        queries: Answers that all runs may buy together.
        money: Most that they may cost, in units of the currency.
        currency: ISO 4217 code.
        fresh: Take the limit of before away first.

    Raises:
        ConfigError: a number is below 0 or is none.
    """
    if money is not None and not 0 <= money <= MOST_MONEY:
        raise ConfigError(
            f"a limit of {money} {currency}: must lie between 0 and {MOST_MONEY:.0e}."
        )
    before = Limit() if fresh else ledger.limit()
    limit = Limit(
        before.queries if queries is None else queries,
        before.money if money is None else Money(round(money * 1e6), currency),
    )
    if limit != ledger.limit():
        ledger.set_limit(limit)


def summarize(ledger: SqliteLedger, *, events: int = EVENTS) -> Summary:
    """Look at a ledger.

    Args:
        ledger: Which.
        events: How many of the last events to give.

    Cost: one pass over the index of answers, 0.1 s for 2,000,000.
    """
    with ledger.reading() as connection:
        limit = ledger_limit(connection)
        runs = [run for (run,) in connection.execute("SELECT DISTINCT run FROM totals ORDER BY 1")]
        teachers = teachers_of(connection)
        paid = next((teacher.currency for teacher in teachers), "USD")
        currency = paid if limit.money is None else limit.money.currency
        return Summary(
            path=ledger.path,
            size_bytes=ledger.path.stat().st_size,
            version=int(connection.execute("PRAGMA user_version").fetchone()[0]),
            limit=limit,
            total=ledger_spending(connection, currency),
            teachers=tuple(teachers),
            runs={run: spending(connection, run) for run in runs},
            events=tuple(_last_events(connection, events)),
        )


def _last_events(connection: sqlite3.Connection, count: int) -> list[Event]:
    rows = connection.execute(
        "SELECT at, kind, run, detail FROM events ORDER BY id DESC LIMIT ?", (count,)
    ).fetchall()
    return [Event(utc(at), kind, run, json.loads(detail)) for at, kind, run, detail in rows[::-1]]


def utc(milliseconds: int) -> str:
    """A moment as ISO 8601, in UTC, to the second."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _names(classes: tuple[str, ...]) -> str:
    shown = ", ".join(classes[:6])
    return shown if len(classes) <= 6 else f"{shown} and {len(classes) - 6} more"


def _run_row(run: str, *cells: object) -> str:
    return f"{run:36}" + "".join(f"  {cell!s:>10}" for cell in cells)
