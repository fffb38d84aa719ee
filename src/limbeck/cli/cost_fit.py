"""`limbeck search cost-fit`: what a student's architectures cost on this machine."""

from pathlib import Path
from typing import Literal

from limbeck.cli.console import Monitor, give, say
from limbeck.cli.options import Settings, load_run


def cost_fit(
    run_file: Path | None = None,
    /,
    *,
    runtime: Literal["torch", "onnxruntime"] = "torch",
    threads: int = 1,
    samples: int = 24,
    rounds: int = 12,
    quantity: Literal["latency", "energy"] = "latency",
    out: Path | None = None,
    dry_run: bool = False,
    json: bool = False,
    settings: Settings = (),
) -> int:
    """Measure what the architectures of a run's student cost here, for a search under a limit.

    Blocks are measured and summed; networks that the sums were not fitted to tell whether a search
    may prune with them. The same command goes on where a stopped one was. Exit code 1: it may not.

    Parameters
    ----------
    run_file
        A TOML file with the settings of the run.
    runtime
        What computes: torch or onnxruntime.
    threads
        That it computes with.
    samples
        Whole networks that the table is corrected with; as many others judge it.
    rounds
        Times that everything is built anew and measured.
    quantity
        latency, or energy where the processor's counter can be read.
    out
        File to write. Default: cost.json in the run's folder.
    dry_run
        Say what would be measured, and for how long, and stop.
    json
        Write the result as JSON.
    """
    from limbeck.distill.cost_fit import fit_student_cost, plan_student_cost
    from limbeck.distill.cost_task import CostFitConfig

    config = load_run(run_file, {}, settings)
    how = CostFitConfig(
        runtime=runtime, threads=threads, samples=samples, rounds=rounds, quantity=quantity
    )
    planned = plan_student_cost(config, how, path=out)
    if dry_run:
        give(planned.to_dict()) if json else print(planned.text())
        return 0
    say(planned.text())
    with Monitor(quiet=json) as monitor:
        fitted = fit_student_cost(config, how, path=out, listener=monitor)
    give(fitted.to_dict()) if json else print(fitted.text())
    return 0 if fitted.table.good else 1


cost_fit.takes_settings = True  # type: ignore[attr-defined]  # read by the dispatcher
