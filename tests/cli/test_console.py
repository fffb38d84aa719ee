"""What a person sees while a command works, and how it asks before money is spent."""

import io
import sys

import pytest

from limbeck.cli.console import Monitor, agree
from limbeck.distill.folder import Event
from limbeck.errors import ConfigError


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def asked(done, note=""):
    return Event("answers on pool", "asking", done, 1_000, {"left in the budget": 900 - done}, note)


def test_a_plain_line_every_ten_seconds_holds_rate_budget_and_what_is_expected(capsys):
    now = iter([0.0, 0.0, 5.0, 12.0, 12.0])
    with Monitor(clock=lambda: next(now)) as monitor:
        monitor(asked(0))
        monitor(asked(100, "the other 900: about 20 s"))
        monitor(asked(240, "the other 760: about 2 min (95 % interval 90 s to 3 min)"))
    _, err = capsys.readouterr()
    assert err.splitlines() == [
        "   12.0 s  answers on pool: 240 of 1,000, 20 a second, about 38 s left, "
        "left in the budget 660, the other 760: about 2 min (95 % interval 90 s to 3 min)"
    ]


def test_a_terminal_shows_the_note_beside_the_bar(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "200")
    with Monitor() as monitor:
        monitor(asked(100, "the other 900: about 9.00 USD"))
        monitor._bars.refresh()
    assert "left in the budget 800, the other 900: about 9.00 USD" in screen.getvalue()


def test_where_nobody_can_answer_the_option_that_agrees_is_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(ConfigError, match=r"This may cost 1 USD\. Go on\? .* add --yes to agree"):
        agree("This may cost 1 USD. Go on?")


@pytest.mark.parametrize(
    ("answer", "agreed"), [("y", True), ("YES", True), ("", False), ("n", False)]
)
def test_only_a_yes_at_the_terminal_is_a_yes(monkeypatch, capsys, answer, agreed):
    monkeypatch.setattr(sys, "stdin", Terminal(answer + "\n"))
    if agreed:
        agree("Go on?")
    else:
        with pytest.raises(ConfigError, match="nothing was spent"):
            agree("Go on?")
    assert "Go on? [y/N]" in capsys.readouterr().err
