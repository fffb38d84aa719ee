"""The `limbeck` command: one file a command, no logic, and nothing imports it.

`main` turns every refusal into one sentence on stderr and the exit code that goes with it: 0 done,
1 failed, 2 wrong usage, 3 budget spent, 130 stopped.
"""

import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from limbeck import __version__
from limbeck.cli.console import NO_RUN_FILE, complain, show_traceback, show_warning
from limbeck.errors import LimbeckError, one_line

if TYPE_CHECKING:
    from cyclopts import App

HELP = {"--help", "-h"}
_TAKE_RUN_FILES = (["plan"], ["label"], ["distill"], ["compare"], ["search"])
_TWO_WORDS = (["search", "cost-fit"],)


def main() -> None:
    """Run the command line of this process and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run one command.

    Args:
        words: The command line after `limbeck`.

    Returns:
        The exit code.
    """
    debug = "--debug" in words or os.environ.get("LIMBECK_DEBUG") == "1"
    warnings.showwarning = show_warning
    try:
        return _dispatch([word for word in words if word != "--debug"])
    except LimbeckError as error:
        show_traceback(debug)
        complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        complain(f"stopped; nothing is lost. To go on: limbeck {shlex.join(words)}")
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        show_traceback(debug)
        said = f"{type(error).__name__}: {one_line(error)}"
        complain(f"{said}. Run it again with --debug for the traceback.")
        return 1


def build_app() -> "App":
    """The commands and their help."""
    from cyclopts import App

    from limbeck.cli.compare import compare
    from limbeck.cli.demo import demo
    from limbeck.cli.distill import distill, plan
    from limbeck.cli.doctor import doctor
    from limbeck.cli.label import label
    from limbeck.cli.ledger import build_ledger_app
    from limbeck.cli.people import ask, tell
    from limbeck.cli.predict import predict
    from limbeck.cli.search import build_search_app
    from limbeck.cli.select import select

    app = App(
        name="limbeck",
        version=__version__,
        help="Make small models good and good models small when something is scarce.",
        help_epilogue="Any command: --json for results as JSON, --debug for a traceback.",
        result_action="return_value",
        help_format="plaintext",
    )
    for command in (demo, plan, label, ask, tell, distill, compare, predict, select, doctor):
        app.command(command)
    app.command(build_search_app())
    app.command(build_ledger_app())
    return app


def _dispatch(words: list[str]) -> int:
    from cyclopts import CycloptsError

    app = build_app()
    try:
        command, bound, unused, _ = app.parse_known_args(_with_run_file(words))
        takes_settings = getattr(command, "takes_settings", False)
        if unused and not takes_settings:
            app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        complain(f"{_plain(str(error))} See: limbeck --help")
        return 2
    extra = {"settings": unused} if takes_settings else {}
    code = command(*bound.args, **bound.kwargs, **extra)
    return code if isinstance(code, int) else 0


def _with_run_file(words: list[str]) -> list[str]:
    """Say that there is no run file, where options alone are given.

    Otherwise the parser takes the first setting that it does not know, such as `--train.steps`, for
    the run file.
    """
    named = 2 if words[:2] in _TWO_WORDS else 1
    if words[:1] in _TAKE_RUN_FILES and (len(words) == named or words[named].startswith("--")):
        return words if HELP & set(words) else [*words[:named], NO_RUN_FILE, *words[named:]]
    return words


def _plain(message: str) -> str:
    """What the parser says to a person, without what it says to a programmer."""
    lines = message.splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith("Root Input Tokens")]
    first = heads[-1] + 1 if heads else int(lines[0].isidentifier())
    return " ".join(" ".join(lines[first:]).split())
