"""`limbeck select`: choose rows from a file of scores."""

import sys
from pathlib import Path

from limbeck.cli.console import give, say


def select(
    scores: Path,
    /,
    *,
    k: int,
    rule: str = "rad",
    measure: str = "",
    teacher_error: float | None = None,
    memory: Path | None = None,
    seed: int = 0,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Choose the rows of a file of scores that are worth an answer.

    Parameters
    ----------
    scores
        One row for each row of the pool, always in one order (CSV, Parquet, JSONL, Arrow or npz):
        columns prob_<class> or probs of the student, or gains in a column gain; for some rules a
        column embedding or teacher_error; bought where a row is out; id is copied.
    k
        Rows to choose.
    rule
        rad, expected_gain, adaprod, uniform, greedy, averaged_greedy, power, coreset,
        cluster_margin, badge or contextual_diversity.
    measure
        What is informative: margin, entropy, least_confidence, gradient_norm or rank. Default: the
        column gain where there is one, else margin.
    teacher_error
        Share of rows that the teacher gets wrong, by its answers on validation rows (rad). Default:
        the mean of the column teacher_error.
    memory
        File in which the rule remembers one round for the next, the batch among it (.safetensors).
    seed
        Seeds what is drawn.
    out
        File to write: .csv, .jsonl or .parquet. Default: CSV on stdout.
    json
        Write a summary as JSON (with --out).
    """
    from limbeck.data.results import check_ending, write_csv, write_rows
    from limbeck.select.run import SelectConfig, choose

    if out is not None:
        check_ending(out, what="chosen rows")
    config = SelectConfig(
        scores=scores,
        k=k,
        rule=rule,
        measure=measure,
        teacher_error=teacher_error,
        memory=memory,
        seed=seed,
    )
    chosen = choose(config)
    if out is None:
        write_csv(iter([chosen.table()]), sys.stdout.buffer)
        return 0
    write_rows(iter([chosen.table()]), out, what="chosen rows")
    count = len(chosen.selection.rows)
    if json:
        give({"out": str(out), "rows": count, "candidates": chosen.candidates, "rule": rule})
    else:
        say(f"{count:,} of {chosen.candidates:,} rows written to {out}")
    return 0
