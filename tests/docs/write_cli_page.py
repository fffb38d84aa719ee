"""Write the page of all commands from their own help: `python -m tests.docs.write_cli_page`."""

import io
from pathlib import Path

from rich.console import Console

from limbeck.cli import build_app

PAGE = Path(__file__).parents[2] / "docs/reference/cli.md"
COMMANDS = ("distill", "plan", "label", "ask", "tell", "compare", "search", "predict", "select",
            "demo", "doctor")  # fmt: skip
LEDGER = ("show", "stats", "limit", "export", "verify", "reparse", "merge", "purge", "vacuum")
WIDTH = 72
"""What fits on the page without scrolling."""
_HEAD = """\
# Commands

What `--help` says. Results go to stdout, talk goes to stderr; `--json` gives results as JSON. Every
setting of a [run file](settings.md) is an option of `plan`, `label`, `ask`, `distill`, `compare`
and `search` too, such as `--train.steps 500`. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 budget
spent, 130 stopped.
"""


def help_of(*command: str) -> str:
    """The help text of a command, as wide as the page."""
    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, force_terminal=False)
    build_app().help_print(list(command), console=console)
    return "\n".join(line.rstrip() for line in stream.getvalue().strip().splitlines())


def page() -> str:
    """The whole page."""
    parts = [_HEAD, f"```text\n{help_of()}\n```\n"]
    parts += [f"## limbeck {name}\n\n```text\n{help_of(name)}\n```\n" for name in COMMANDS]
    parts += [f"## limbeck search cost-fit\n\n```text\n{help_of('search', 'cost-fit')}\n```\n"]
    parts += [
        f"## limbeck ledger {name}\n\n```text\n{help_of('ledger', name)}\n```\n" for name in LEDGER
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
