"""`limbeck demo`: the main job on data that ships with scikit-learn."""

from pathlib import Path

from limbeck.cli.console import Monitor, give, say


def demo(*, out: Path = Path("runs/demo"), json: bool = False) -> int:
    """Run the main job on handwritten digits, with a teacher that is wrong on a quarter of them.

    Parameters
    ----------
    out
        Folder for the files, the run file and the run.
    json
        Write the results as JSON.
    """
    from limbeck.distill.demo import write_demo
    from limbeck.distill.run import distill
    from limbeck.distill.run_file import load_config

    run_file = out / "run.toml"
    if not run_file.exists():
        run_file = write_demo(out)
    say(f"the files are in {out}; the settings are in {run_file}")
    with Monitor(quiet=json) as monitor:
        outcome = distill(load_config(run_file), monitor)
    if json:
        give(outcome.to_dict())
    else:
        print(outcome.text())
    return 0
