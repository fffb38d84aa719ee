"""`limbeck predict`: run a student folder over a file."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.cli.console import give, say

if TYPE_CHECKING:
    import pyarrow as pa

    from limbeck.students import Predictor


def predict(student: Path, rows: Path, /, *, out: Path | None = None, json: bool = False) -> int:
    """Predict the class of every row of a file with a student that a run has made.

    Parameters
    ----------
    student
        The student folder.
    rows
        File with the columns that the student reads (CSV, Parquet, JSONL, Arrow or npz), or folder
        of images.
    out
        File to write: .csv, .jsonl or .parquet. Default: CSV on stdout.
    json
        Write a summary as JSON (with --out).
    """
    from limbeck.data.results import write_csv
    from limbeck.students import load
    from limbeck.students.predict import predict_file

    predictor = load(student)
    if out is None:
        write_csv(predict_file(predictor, rows), sys.stdout.buffer)
        return 0
    counts = _write(predictor, rows, out)
    if json:
        give({"out": str(out), "rows": sum(counts.values()), "predictions": counts})
    else:
        say(f"{sum(counts.values()):,} rows written to {out}")
    return 0


def _write(predictor: "Predictor", rows: Path, out: Path) -> dict[str, int]:
    from limbeck.data.results import write_rows
    from limbeck.students.predict import predict_file

    counts = dict.fromkeys(predictor.classes, 0)

    def counted(batches: Iterator["pa.RecordBatch"]) -> Iterator["pa.RecordBatch"]:
        for batch in batches:
            for name in batch.column("prediction").to_pylist():
                counts[name] += 1
            yield batch

    write_rows(counted(predict_file(predictor, rows)), out, what="predictions")
    return counts
