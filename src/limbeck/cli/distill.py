"""`limbeck plan` and `limbeck distill`: the main job, before and while it runs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.cli.console import Monitor, agree, give, say
from limbeck.cli.options import Settings, load_run, short_options

if TYPE_CHECKING:
    from limbeck.distill.outcome import Outcome
    from limbeck.distill.plan import Plan


def plan(
    run_file: Path | None = None,
    /,
    *,
    labelled: Path | None = None,
    pool: Path | None = None,
    test: Path | None = None,
    teacher: str | None = None,
    budget: int | None = None,
    out: Path | None = None,
    json: bool = False,
    settings: Settings = (),
) -> int:
    """Say what a run would do and cost, and spend nothing.

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
        Kind of teacher, such as fit, table, callable, huggingface or student.
    budget
        Answers that may be bought.
    out
        Folder of the run.
    json
        Write the plan as JSON.
    """
    from limbeck.distill.plan import make_plan

    short = short_options(labelled, pool, test, teacher, budget, out)
    made = make_plan(load_run(run_file, short, settings))
    _show_plan(made, json)
    return 0


def distill(
    run_file: Path | None = None,
    /,
    *,
    labelled: Path | None = None,
    pool: Path | None = None,
    test: Path | None = None,
    teacher: str | None = None,
    budget: int | None = None,
    out: Path | None = None,
    yes: bool = False,
    dry_run: bool = False,
    json: bool = False,
    settings: Settings = (),
) -> int:
    """Make a small student from a teacher, a few labels and a pool, and report on it.

    The same command goes on where a stopped run was. Every setting of the run file can be given
    as an option too, such as --train.steps 500.

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
        Kind of teacher, such as fit, table, callable, huggingface or student.
    budget
        Answers that may be bought.
    out
        Folder of the run.
    yes
        Do not ask before money is spent.
    dry_run
        Show the plan and stop.
    json
        Write the results as JSON.
    """
    from limbeck.distill.plan import make_plan
    from limbeck.distill.run import distill as run_distill

    short = short_options(labelled, pool, test, teacher, budget, out)
    config = load_run(run_file, short, settings)
    if _is_helper():
        run_distill(config)
        return 0
    made = make_plan(config)
    if dry_run:
        _show_plan(made, json)
        return 0
    say(made.text())
    if made.price.micros > 0 and not yes and made.spends:
        agree(made.expected.question())
    with Monitor(quiet=json) as monitor:
        outcome = run_distill(config, monitor)
    _show_outcome(outcome, json)
    return 0


distill.takes_settings = True  # type: ignore[attr-defined]  # read by the dispatcher
plan.takes_settings = True  # type: ignore[attr-defined]  # read by the dispatcher


def _is_helper() -> bool:
    """Whether this is one of several processes of a run and another one talks to the person."""
    return int(os.environ.get("RANK", "0")) > 0


def _show_plan(made: "Plan", json: bool) -> None:
    if json:
        give(made.to_dict())
    else:
        print(made.text())


def _show_outcome(outcome: "Outcome", json: bool) -> None:
    if json:
        give(outcome.to_dict())
    else:
        print(outcome.text())
