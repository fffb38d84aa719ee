"""Questions to people: which go out next, and what comes back.

A file of questions is an order: its questions are reserved in the ledger, inside the budget, before
the file is there, and stay so, whatever becomes of the process, until they are answered or
withdrawn. A file that comes back is checked as a whole before the first answer is recorded.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from limbeck.distill.config import DistillConfig
from limbeck.distill.desk import Asked, Desk, Told, check_kind
from limbeck.distill.folder import Listener, ignore
from limbeck.distill.run import choose_next
from limbeck.distill.votes import Votes
from limbeck.errors import ConfigError, DataError
from limbeck.teachers import Money
from limbeck.teachers.sheets import check_sheet, read_sheet

_SHOWN = 5


def ask(
    config: DistillConfig,
    *,
    rows: int,
    path: Path | None = None,
    again: bool = False,
    agree: Callable[[Money], None] = lambda _: None,
    listener: Listener = ignore,
) -> Asked:
    """Write the next questions for people into a file, and reserve their answers.

    Validation comes first, then test, then the pool in random order, so that a pool which is
    answered in part is a fair sample of it. Equal questions go out once. In a run that buys in
    rounds a student is trained when a round is answered, and chooses the next one.

    Args:
        config: The run; `config.out` is its folder.
        rows: Most questions to write, >= 1.
        path: The file, .csv, .tsv or .jsonl. Default: `orders/<number>.csv` in the run's folder.
        again: Write those that are out already, as many of them as asked for, and reserve nothing:
            for a file that was lost.
        agree: Told of the price before anything is reserved; it raises to refuse.
        listener: Told what happens.

    Raises:
        ConfigError: the teacher is no human, or the budget cannot hold what comes before the pool.
        BudgetError: not one more question fits into the budget.
    """
    if rows < 1:
        raise ConfigError(f"rows={rows}: must be at least 1 question.")
    if path is not None:
        check_sheet(path)
    with Desk(config, listener) as desk:
        if again:
            out = [order.reservation.ids for order in desk.orders()]
            if not out:
                raise ConfigError("no question is out with people; leave --again out.")
            return desk.write(np.concatenate(out)[:rows], path, "again", Money(0))
        asked = desk.order(rows, path, agree)
    if asked.path is not None or asked.out or not config.buy.in_rounds:
        return asked
    # All that was chosen is answered: a student chooses the next rows.
    if not choose_next(config, listener):
        return asked
    with Desk(config, listener) as desk:
        return desk.order(rows, path, agree)


def tell(
    config: DistillConfig,
    files: Sequence[Path],
    *,
    keep_valid: bool = False,
    listener: Listener = ignore,
) -> Told:
    """Read labels that people have given, and record them as answers.

    One file is one person's: a question that several files answer gets the share of their votes.
    Either every line can be used, or nothing is recorded.

    Args:
        config: The run.
        files: What came back.
        keep_valid: Record the lines that can be used, and tell of the others.
        listener: Told what happens.

    Raises:
        ConfigError: the teacher is no human.
        DataError: a line cannot be used: an unknown id or class, two labels for one question. The
            message names the lines.
    """
    if not files:
        raise ConfigError("no file to read; give those that came back.")
    check_kind(config)
    read = [(file, read_sheet(file)) for file in files]
    with Desk(config, listener) as desk:
        votes = Votes(desk)
        for file, lines in read:
            votes.add(file, lines)
        if votes.problems and not keep_valid:
            raise DataError(_refusal(votes.problems))
        return desk.record(votes)


def withdraw(config: DistillConfig, listener: Listener = ignore) -> int:
    """Give back everything that is out with people; what comes back later is refused.

    Returns:
        Questions that were out.
    """
    with Desk(config, listener) as desk:
        orders = desk.orders()
        for order in orders:
            desk.ledger.release(order.reservation, unknown=False)
        return sum(len(order.reservation.ids) for order in orders)


def _refusal(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    lines = "1 line" if len(problems) == 1 else f"{len(problems)} lines"
    return (
        f"{lines} cannot be used, so nothing was recorded: {'; '.join(problems[:_SHOWN])}{more}. "
        f"Correct the file, or record the rest of it with --keep-valid."
    )
