"""`limbeck compare`: is this way of training really better than that one, on these rows?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from limbeck.cli.console import NO_RUN_FILE, Monitor, agree, give, say

Settings = Annotated[Sequence[str], Parameter(parse=False)]


def compare(
    run_file: Path | None = None,
    /,
    *,
    seeds: int = 5,
    arms: str = "",
    baseline: str = "",
    workers: int = 0,
    out: Path | None = None,
    yes: bool = False,
    dry_run: bool = False,
    json: bool = False,
    settings: Settings = (),
) -> int:
    """Run arms over several seeds and say what their differences are worth.

    The same command goes on where a stopped comparison was; with more seeds it adds to it. Every
    setting of the run file can be given as an option too, such as --train.steps 500.

    Parameters
    ----------
    run_file
        A TOML file with the settings; options win over it.
    seeds
        Runs to make, with seeds from the run file's own on; 5 or more let differences count.
    arms
        Ways of training, with commas: labels,soft_kd,slam. Default: those of the run file.
    baseline
        Arm to compare the others with. Default: soft_kd, hard_kd or labels, the first there is.
    workers
        Seeds at once, each in a process of its own. Default 0: one for each core.
    out
        Folder of the comparison. Default: that of the run file with -compare behind it.
    yes
        Do not ask before money is spent.
    dry_run
        Show the plan over all seeds and stop.
    json
        Write the results as JSON.
    """
    from limbeck.distill.compare import compare as run_compare
    from limbeck.distill.compare_config import load_compare_config
    from limbeck.distill.compare_plan import make_compare_plan

    file = None if run_file is None or str(run_file) == NO_RUN_FILE else run_file
    config = load_compare_config(
        file, settings, seeds=seeds, arms=arms, baseline=baseline, workers=workers, out=out
    )
    made = make_compare_plan(config)
    if dry_run:
        give(made.to_dict()) if json else print(made.text())
        return 0
    say(made.text())
    if made.price.micros > 0 and not yes:
        agree(made.expected.question(" over all seeds"))
    with Monitor(quiet=json) as monitor:
        outcome = run_compare(config, made, monitor)
    for failure in outcome.failures:
        say(f"limbeck: seed {failure.seed} failed: {failure.sentence}")
    give(outcome.to_dict()) if json else print(outcome.text())
    return outcome.exit_code


compare.takes_settings = True  # type: ignore[attr-defined]  # read by the dispatcher
