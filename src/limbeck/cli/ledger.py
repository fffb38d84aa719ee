"""`limbeck ledger`: look at answers that were paid for, take them along, or remove them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from limbeck.cli.console import agree, give, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from limbeck.ledger import SqliteLedger

LEDGER = Path("ledger.sqlite")


def build_ledger_app() -> App:
    """The commands about a ledger."""
    app = App(name="ledger", help="Look at answers that were paid for, export or remove them.")
    for command in (show, stats, limit, export, verify, reparse, merge, purge, vacuum):
        app.command(command)
    return app


def show(ledger: Path = LEDGER, /, *, events: int = 10, json: bool = False) -> int:
    """Show teachers, runs and what they have spent, and what was done last.

    Parameters
    ----------
    ledger
        File of the ledger.
    events
        How many of the last events to show.
    json
        Write it as JSON.
    """
    from limbeck.ledger.show import summarize

    with _open(ledger) as opened:
        found = summarize(opened, events=events)
    give(found.to_dict()) if json else print(found.text())
    return 0


def stats(ledger: Path = LEDGER, /, *, json: bool = False) -> int:
    """Show what each teacher has cost, how it failed, which versions answered, and how fast.

    Parameters
    ----------
    ledger
        File of the ledger.
    json
        Write it as JSON.
    """
    from limbeck.ledger.stats import stats as stats_of

    with _open(ledger) as opened:
        found = stats_of(opened)
    if json:
        give([teacher.to_dict() for teacher in found])
    else:
        print("\n\n".join(teacher.text() for teacher in found) or "nobody has been asked")
    return 0


def limit(
    ledger: Path = LEDGER,
    /,
    *,
    queries: int | None = None,
    money: float | None = None,
    currency: str = "USD",
    none: Annotated[bool, Parameter(negative=())] = False,
    json: bool = False,
) -> int:
    """Limit what all runs of a ledger may spend together, beside the budget of each run.

    Without an option it shows the limit. What is not given stays as it was.

    Parameters
    ----------
    ledger
        File of the ledger; it is made where there is none.
    queries
        Answers that may be bought.
    money
        Most that they may cost.
    currency
        Currency of the money.
    none
        Take the limit away first.
    json
        Write the limit and what has been spent as JSON.
    """
    from limbeck.ledger.show import keep_limit, summarize

    with _open(ledger, make=queries is not None or money is not None) as opened:
        keep_limit(opened, queries=queries, money=money, currency=currency, fresh=none)
        found = summarize(opened, events=0)
    if json:
        give({name: found.to_dict()[name] for name in ("limit", "total")})
    else:
        print(found.limit_line())
    return 0


def export(ledger: Path, out: Path, /, *, teacher: str = "", json: bool = False) -> int:
    """Write a teacher's answers to a file: CSV, JSONL or Parquet.

    Parameters
    ----------
    ledger
        File of the ledger.
    out
        File to write: .csv, .jsonl or .parquet.
    teacher
        Beginning of the teacher's fingerprint. Default: the only one that has answers.
    json
        Write a summary as JSON.
    """
    from limbeck.ledger.export import export as export_to

    with _open(ledger) as opened:
        written = export_to(opened, out, teacher=teacher)
    if json:
        give({"out": str(out), "answers": written})
    else:
        say(f"{written:,} answers written to {out}")
    return 0


def verify(ledger: Path = LEDGER, /, *, json: bool = False) -> int:
    """Check that a ledger is whole; the exit code is 1 when it is not.

    Parameters
    ----------
    ledger
        File of the ledger.
    json
        Write the findings as JSON.
    """
    from limbeck.ledger.verify import verify as findings_of

    found = findings_of(ledger)
    if json:
        give({"whole": not found, "findings": found})
    else:
        print("\n".join(found) or f"{ledger} is whole")
    return 1 if found else 0


def reparse(run_file: Path, /, *, dry_run: bool = False, json: bool = False) -> int:
    """Read raw replies again with the present parser of a run file's teacher, at no cost.

    Answers that change are replaced; failures that can be read now become answers.

    Parameters
    ----------
    run_file
        The TOML file of a run; its ledger and its teacher are meant.
    dry_run
        Count what would change, and change nothing.
    json
        Write the counts as JSON.
    """
    from limbeck.distill.ledger_jobs import reparse_run
    from limbeck.distill.run_file import load_config

    done = reparse_run(load_config(run_file, []), dry_run=dry_run)
    if json:
        give(done.to_dict())
    else:
        would = "would be" if dry_run else "were"
        print(
            f"{done.read:,} raw replies read: {done.changed:,} answers {would} changed, "
            f"{done.recovered:,} failures {would} made answers, {done.unreadable:,} answers could "
            f"not be read again and stay"
        )
    return 0


def merge(ledger: Path, other: Path, /, *, json: bool = False) -> int:
    """Take another ledger's answers and spending into a ledger; doing so twice changes nothing.

    Where both have an answer, the one recorded first stays. The other ledger is only read.

    Parameters
    ----------
    ledger
        File of the ledger that grows; it is made where there is none.
    other
        File of the other one.
    json
        Write the counts as JSON.
    """
    from limbeck.ledger.merge import merge as merge_in

    with _open(ledger, make=other.is_file()) as opened:
        done = merge_in(opened, other)
    if json:
        give(done.to_dict())
    else:
        print(
            f"{done.answers:,} answers of {other} are new in {ledger}, {done.replaced:,} older "
            f"ones took the place of newer; {done.reservations:,} purchases are new, "
            f"{done.updated:,} have news"
        )
    return 0


def purge(
    ledger: Path | None = None,
    /,
    *,
    ids: Path | None = None,
    rows: Path | None = None,
    run: Path | None = None,
    yes: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Remove answers, raw replies and ids of given rows for good; what was spent stays counted.

    Parameters
    ----------
    ledger
        File of the ledger. Default: that of the run file, or ledger.sqlite.
    ids
        Text file with question ids, 32 hexadecimal digits a line.
    rows
        File with the rows, with the columns of a pool (with --run).
    run
        The TOML file of a run, which says what the columns are.
    yes
        Do not ask.
    dry_run
        Count what would be removed, and remove nothing.
    json
        Write the counts as JSON.
    """
    from limbeck.ledger.purge import purge as purge_from

    with _open(_ledger_of(ledger, run)) as opened:
        questions = _questions(opened, ids, rows, run)
        found = purge_from(opened, questions, dry_run=True)
        what = f"{found.answers:,} answers and {found.attempts:,} attempts"
        if not dry_run:
            if not yes:
                agree(f"Remove {what} from {opened.path} for good?", refused="nothing was removed.")
            found = purge_from(opened, questions)
    if json:
        give(found.to_dict())
    else:
        print(f"{what} {'would be' if dry_run else 'were'} removed from {opened.path}")
    return 0


def vacuum(ledger: Path = LEDGER, /, *, json: bool = False) -> int:
    """Write the file anew without its free room, and empty its write-ahead log.

    Parameters
    ----------
    ledger
        File of the ledger.
    json
        Write the sizes as JSON.
    """
    from limbeck.ledger.purge import vacuum as vacuum_file

    with _open(ledger) as opened:
        done = vacuum_file(opened)
    if json:
        give(done.to_dict())
    else:
        print(f"{ledger}: {done.before / 1e6:,.1f} MB before, {done.after / 1e6:,.1f} MB now")
    return 0


def _open(path: Path, *, make: bool = False) -> "SqliteLedger":
    from limbeck.ledger import SqliteLedger

    return SqliteLedger(path) if make else SqliteLedger.existing(path)


def _ledger_of(ledger: Path | None, run: Path | None) -> Path:
    if ledger is not None or run is None:
        return ledger or LEDGER
    from limbeck.distill.run_file import load_config

    return load_config(run, []).ledger


def _questions(
    ledger: "SqliteLedger", ids: Path | None, rows: Path | None, run: Path | None
) -> "NDArray[np.uint8] | Mapping[str, NDArray[np.uint8]]":
    from limbeck.distill.ledger_jobs import questions_in
    from limbeck.distill.run_file import load_config
    from limbeck.errors import ConfigError
    from limbeck.ledger.facts import teachers_of
    from limbeck.ledger.purge import read_ids

    if (ids is None) == (rows is None) or (rows is None) != (run is None):
        raise ConfigError("purge needs --ids, or --rows with --run; give one of the two.")
    if ids is not None:
        return read_ids(ids)
    assert rows is not None  # checked above
    with ledger.reading() as connection:
        teachers = teachers_of(connection)
    return questions_in(load_config(run, []), rows, teachers)
