"""`limbeck search`: the best student under a limit, and `limbeck search cost-fit`."""

from pathlib import Path

from cyclopts import App

from limbeck.cli.console import Monitor, agree, give, say
from limbeck.cli.cost_fit import cost_fit
from limbeck.cli.options import Settings, load_run


def build_search_app() -> App:
    """The commands about a search."""
    app = App(name="search", help="Find the best student under a limit: LayerNAS and its rivals.")
    app.default(search)
    app.command(cost_fit)
    return app


def search(
    run_file: Path | None = None,
    /,
    *,
    trials: int | None = None,
    cost: str | None = None,
    limit: float | None = None,
    share: float | None = None,
    method: str | None = None,
    workers: int | None = None,
    engine: str | None = None,
    out: Path | None = None,
    yes: bool = False,
    dry_run: bool = False,
    json: bool = False,
    settings: Settings = (),
) -> int:
    """Search for the best student under a limit, and leave its training to distill.

    The same command goes on where a stopped search was; with more trials it adds to it. Every
    setting of the run file can be given as an option too, such as --search.steps 200.

    Parameters
    ----------
    run_file
        A TOML file with the settings; options win over it.
    trials
        Students to train for a short while.
    cost
        What is limited: macs, parameters, bytes, activation_bytes, or latency with --search.table.
    limit
        Greatest cost, in its own unit.
    share
        Greatest cost as a share of that of the student of the run file. Default: 0.5.
    method
        layernas, paper, evolution, mnasnet, local, random, tpe or nsga2.
    workers
        Trials at once, each in a process of its own.
    engine
        local or ray: where trials are trained.
    out
        Folder of the run.
    yes
        Do not ask before money is spent.
    dry_run
        Show the plan and stop.
    json
        Write the results as JSON.
    """
    from limbeck.distill.plan import Plan
    from limbeck.distill.search.alone import plan_alone, search_alone

    short: dict[str, str | int | Path | None] = {
        "search.trials": trials,
        "search.cost": cost,
        "search.limit": None if limit is None else str(limit),
        "search.share": None if share is None else str(share),
        "search.method": method,
        "search.workers": workers,
        "engine": engine,
        "out": out,
    }
    config = load_run(run_file, short, settings)
    made = plan_alone(config)
    if dry_run:
        give(made.to_dict()) if json else print(made.text())
        return 0
    say(made.text())
    if isinstance(made, Plan) and made.price.micros > 0 and not yes and made.spends:
        agree(made.expected.question())
    with Monitor(quiet=json) as monitor:
        outcome = search_alone(config, monitor)
    give(outcome.to_dict()) if json else print(outcome.text())
    return 0


search.takes_settings = True  # type: ignore[attr-defined]  # read by the dispatcher
