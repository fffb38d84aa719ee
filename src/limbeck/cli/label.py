"""`limbeck label`: buy a teacher's answers, and train nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from limbeck.cli.console import NO_RUN_FILE, Monitor, agree, give, say

Settings = Annotated[Sequence[str], Parameter(parse=False)]


def label(
    run_file: Path | None = None,
    /,
    *,
    budget: int | None = None,
    out: Path | None = None,
    answers: Path | None = None,
    yes: bool = False,
    dry_run: bool = False,
    json: bool = False,
    settings: Settings = (),
) -> int:
    """Fill the ledger with answers on validation, test and pool rows, and train nothing.

    The same command goes on where a stopped one was, or where the budget or the money ended (exit
    code 3), and `limbeck distill` with the same run file
    goes on from there without buying anything. Every setting of the run file can be given as an
    option too, such as --teacher.kind student.

    Parameters
    ----------
    run_file
        A TOML file with the settings; options win over it.
    budget
        Answers that may be bought.
    out
        Folder of the run.
    answers
        Parquet file to write the answered pool rows to, with a column for each class.
    yes
        Do not ask before money is spent.
    dry_run
        Show the plan and stop.
    json
        Write the results as JSON.
    """
    from limbeck.distill.config import load_config
    from limbeck.distill.label import label as run_label
    from limbeck.distill.plan import make_plan
    from limbeck.errors import BudgetError, ConfigError

    given = {"--budget": budget, "--out": out}
    words = [word for name, value in given.items() if value is not None
             for word in (name, str(value))]  # fmt: skip
    file = None if run_file is None or str(run_file) == NO_RUN_FILE else run_file
    config = load_config(file, [*words, *settings])
    if answers is not None and answers.suffix != ".parquet":
        raise ConfigError(f"--answers={answers}: is written as Parquet; give a file .parquet.")
    made = make_plan(config, trains=False)
    if dry_run:
        give(made.to_dict()) if json else print(made.text())
        return 0
    say(made.text())
    if made.price.micros > 0 and not yes and made.spends:
        agree(made.expected.question())
    with Monitor(quiet=json) as monitor:
        found = run_label(config, monitor, answers=answers)
    give(found.to_dict()) if json else print(found.text())
    return BudgetError.exit_code if found.open else 0


label.takes_settings = True  # type: ignore[attr-defined]  # read by the dispatcher
