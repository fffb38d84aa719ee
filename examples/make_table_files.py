"""Make the files that run_table.toml names: wines, some with a label, all with a teacher's answer.

    python examples/make_table_files.py
    limbeck distill examples/run_table.toml

The data ship with scikit-learn; the rows are repeated with noise, to have a pool. The teacher is a
logistic regression on four of the thirteen measurements.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

CLASSES = ("barolo", "barbera", "grignolino")
ROWS = {"labelled": 60, "validation": 150, "test": 500, "pool": 1500}


def main(folder: Path) -> None:
    """Write labelled, validation, test, pool and the teacher's answers."""
    rng = np.random.default_rng(0)
    wines = load_wine()
    names = [name.replace("/", "_per_") for name in wines.feature_names]
    picked = rng.integers(len(wines.target), size=sum(ROWS.values()))
    noise = 0.7 * wines.data.std(axis=0) * rng.standard_normal((len(picked), 13))
    x, y = wines.data[picked] + noise, wines.target[picked]
    seen = x[:, :4]
    teacher = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        wines.data[:, :4], wines.target
    )
    probs = teacher.predict_proba(seen)

    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for name, count in ROWS.items():
        rows = slice(start, start + count)
        columns = {column: x[rows, i] for i, column in enumerate(names)}
        if name != "pool":
            columns["wine"] = np.array(CLASSES)[y[rows]]
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        start += count
    answers = {column: x[:, i] for i, column in enumerate(names)}
    answers |= {f"prob_{wine}": probs[:, i] for i, wine in enumerate(CLASSES)}
    pq.write_table(pa.table(answers), folder / "answers.parquet")


if __name__ == "__main__":
    here = Path(__file__).parent / "runs/table"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else here)
