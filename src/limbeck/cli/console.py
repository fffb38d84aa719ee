"""Talk goes to stderr, results go to stdout."""

import json
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from limbeck.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from limbeck.distill.folder import Event

PULSE_SECONDS = 10.0
Clock = Callable[[], float]
NO_RUN_FILE = "."
"""Stands for the run file where there is none: a folder is never one."""


def say(text: str) -> None:
    """Write a line of talk."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Write why something was refused or stopped."""
    say(f"limbeck: {text}")


def show_traceback(wanted: bool) -> None:
    """Show where the error that is being handled came from, if that is wanted."""
    if wanted:
        traceback.print_exc()


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write a warning of ours as one line; those of other libraries are left to `--debug`."""
    from limbeck.errors import LimbeckWarning

    if issubclass(category, LimbeckWarning) or "--debug" in sys.argv:
        say(f"note: {message}")


def give(value: object) -> None:
    """Write a result as JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def agree(question: str, *, refused: str = "nothing was spent.") -> None:
    """Ask before money is spent, or anything else happens that cannot be undone.

    Raises:
        ConfigError: nobody is there to ask, or the answer was no.
    """
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Nobody is here to answer: add --yes to agree.")
    say(f"{question} [y/N] ")
    if input().strip().lower() not in {"y", "yes"}:
        raise ConfigError(refused)


class Monitor:
    """Shows events as they come: a live bar on a terminal, plain lines elsewhere.

    Args:
        quiet: Show nothing (results are wanted as JSON and nobody watches).
    """

    def __init__(self, *, quiet: bool = False, clock: Clock = time.monotonic) -> None:
        self._quiet = quiet
        self._clock = clock
        self._began = clock()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._pulses: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._bars = _progress(_console())
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, event: "Event") -> None:
        """Show an event."""
        if self._quiet:
            return
        if event.total == 0:
            self._line(event.message)
        elif self._bars is not None:
            self._advance(event)
        else:
            self._pulse(event)

    def _line(self, text: str) -> None:
        line = f"{self._clock() - self._began:7.1f} s  {text}"
        if self._bars is None:
            say(line)
        else:
            self._bars.console.print(line, markup=False, highlight=False)

    def _pulse(self, event: "Event") -> None:
        """A plain line of progress every few seconds."""
        now = self._clock()
        since, done = self._pulses.setdefault(event.stage, (now, event.done))
        if now - since < PULSE_SECONDS:
            return
        rate = (event.done - done) / (now - since)
        left = (event.total - event.done) / rate if rate > 0 else 0.0
        self._pulses[event.stage] = (now, event.done)
        self._line(
            f"{event.stage}: {event.done:,} of {event.total:,}, {rate:,.0f} a second, "
            f"about {left:,.0f} s left{_note(event)}"
        )

    def _advance(self, event: "Event") -> None:
        assert self._bars is not None
        if event.stage not in self._tasks:
            for finished in self._tasks.values():
                self._bars.update(finished, visible=False)
            self._tasks[event.stage] = self._bars.add_task(event.stage, total=event.total, note="")
        # Where several runs are under way, one that was hidden may come back.
        self._bars.update(self._tasks[event.stage], completed=event.done, visible=True)
        if note := _note(event):
            self._bars.update(self._tasks[event.stage], note=note)


def _note(event: "Event") -> str:
    """Scores, what is left of the budget, and what is expected of the rest."""
    shown = (
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.3g}"
        for name, value in event.detail.items()
        if not isinstance(value, str)
    )
    return "".join(f", {text}" for text in (*shown, event.note) if text)


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def _progress(console: "Console") -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
    )
