"""`limbeck label`: buy a teacher's answers, and train nothing."""

from pathlib import Path

from limbeck.cli.console import Monitor, agree, give, say
from limbeck.cli.options import Settings, load_run, short_options


def label(
    run_file: Path | None = None,
    /,
    *,
    labelled: Path | None = None,
    pool: Path | None = None,
    test: Path | None = None,
    teacher: str | None = None,
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
    code 3), and `limbeck distill` with the same run file goes on from there without buying
    anything. Every setting of the run file can be given as an
    option too, such as --teacher.kind student.

    Parameters
    ----------
    run_file
        A TOML file with the settings; options win over it.
    labelled
        File of labelled rows (CSV, Parquet, JSONL, Arrow or npz).
    pool
        File of unlabelled rows.
    test
        File of labelled rows that are looked at once, at the end. Default: cut from the labelled.
    teacher
        Kind of teacher, such as table, callable, huggingface, endpoint or student.
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
    from limbeck.distill.label import label as run_label
    from limbeck.distill.plan import make_plan
    from limbeck.errors import BudgetError, ConfigError

    short = short_options(labelled, pool, test, teacher, budget, out)
    config = load_run(run_file, short, settings)
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
