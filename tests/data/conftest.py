"""Writers of small files in every format."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Columns = dict[str, list[object]]


def write(path: Path, columns: Columns) -> Path:
    """Write columns in the format that the path's ending names."""
    table = pa.table(columns) if path.suffix not in (".csv", ".tsv", ".jsonl", ".npz") else None
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix in (".arrow", ".feather"):
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(columns)
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        np.savez(path, **{name: np.array(values) for name, values in columns.items()})
    return path


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """`make("a.csv", text=[...], label=[...])` writes a file and gives its path."""

    def made(name: str, **columns: list[object]) -> Path:
        return write(tmp_path / name, columns)

    return made


def reviews(start: int, stop: int) -> Columns:
    """Distinct sentences, two classes in turn."""
    return {
        "text": [
            f"the dish number {i} was {'good' if i % 2 else 'bad'}" for i in range(start, stop)
        ],
        "label": ["pos" if i % 2 else "neg" for i in range(start, stop)],
    }
