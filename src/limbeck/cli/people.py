"""`limbeck ask` and `limbeck tell`: questions out to people, and their labels back."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from limbeck.cli.console import agree, give, say

if TYPE_CHECKING:
    from limbeck.teachers import Money

Settings = Annotated[Sequence[str], Parameter(parse=False)]


def ask(
    run_file: Path,
    /,
    *,
    rows: int = 50,
    file: Path | None = None,
    again: bool = False,
    withdraw: bool = False,
    yes: bool = False,
    json: bool = False,
    settings: Settings = (),
) -> int:
    """Write the next questions of a run with the teacher "human" into a file for people.

    Validation comes first, then test, then the pool in random order. The answers count against the
    budget from now on, until they are told or withdrawn.

    Parameters
    ----------
    run_file
        A TOML file with the settings.
    rows
        Most questions to write.
    file
        File to write: .csv, .tsv or .jsonl. Default: in the folder orders of the run.
    again
        Write questions that are out already, for a file that was lost.
    withdraw
        Give back all questions that are out, and write nothing.
    yes
        Do not ask before people's work is ordered that has a price.
    json
        Write a summary as JSON.
    """
    from limbeck.distill import people
    from limbeck.distill.run_file import load_config

    def allow(price: "Money") -> None:
        if price.micros and not yes:
            agree(f"These answers may cost up to {price}. Go on?")

    config = load_config(run_file, settings)
    if withdraw:
        count = people.withdraw(config)
        give({"withdrawn": count}) if json else say(f"{count:,} questions were withdrawn")
        return 0
    asked = people.ask(config, rows=rows, path=file, again=again, agree=allow)
    give(asked.to_dict()) if json else print(asked.text())
    return 0


def tell(
    run_file: Path,
    /,
    *files: Path,
    keep_valid: bool = False,
    json: bool = False,
) -> int:
    """Read labels that people have filled in, and record them as a run's answers.

    Each file is one person's; where several label the same question, its answer is the share of
    their votes. When a line cannot be used, nothing is recorded.

    Parameters
    ----------
    run_file
        The run file that the questions were written with.
    files
        What came back (.csv, .tsv or .jsonl), all of it or a part.
    keep_valid
        Record the lines that can be used, and leave the others out.
    json
        Write a summary as JSON.
    """
    from limbeck.distill.people import tell as run_tell
    from limbeck.distill.run_file import load_config

    told = run_tell(load_config(run_file), files, keep_valid=keep_valid)
    give(told.to_dict()) if json else print(told.text())
    return 0


ask.takes_settings = True  # type: ignore[attr-defined]  # read by the dispatcher
