"""Random access and batches against plain Python lists."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data import DataConfig, Dataset, Schema, content_ids, prepare
from limbeck.errors import DataError

from .conftest import reviews, write

SCHEMA = Schema(("t",), ("x",), (), "y", ("a", "b"))


def chunked(sizes: list[int]) -> Dataset:
    """Rows in chunks of the given sizes; row i holds "row i" and i."""
    start, batches = 0, []
    for size in sizes:
        numbers = range(start, start + size)
        batches.append(
            pa.record_batch(
                {
                    "t": pa.array([f"row {i}" for i in numbers], pa.large_string()),
                    "x": pa.array([float(i) for i in numbers]),
                }
            )
        )
        start += size
    table = pa.Table.from_batches(batches)
    return Dataset(SCHEMA, table, np.zeros((start, 16), np.uint8))


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6), data=st.data())
def test_take_gives_the_rows_in_the_order_asked_for(sizes, data):
    rows = data.draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=20))
    got = chunked(sizes).take(np.array(rows, np.int64))
    assert got.to_pylist() == [{"t": f"row {i}", "x": float(i)} for i in rows]


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), size=st.integers(1, 7))
def test_batches_give_all_rows_in_order_and_none_is_too_large(sizes, size):
    batches = list(chunked(sizes).batches(size))
    assert all(1 <= batch.num_rows <= size for batch in batches)
    rows = [row["x"] for batch in batches for row in batch.to_pylist()]
    assert rows == list(range(sum(sizes)))


def test_rows_outside_the_dataset_are_refused():
    data = chunked([3, 2])
    for row in (-1, 5):
        with pytest.raises(DataError, match=f"row {row} was asked for .* has 5 rows"):
            data.take(np.array([0, row]))
    with pytest.raises(DataError, match="size 0"):
        list(data.batches(0))


def test_a_dataset_made_in_memory_equals_the_one_that_was_staged(tmp_path):
    rows = reviews(0, 60)
    config = DataConfig(
        labelled=write(tmp_path / "a.csv", reviews(100, 160)), test=write(tmp_path / "t.csv", rows)
    )
    staged = prepare(config, tmp_path / "run", 0).test
    made = Dataset.from_table(rows, staged.schema)
    assert made.table.equals(staged.table.combine_chunks())
    assert (made.content_ids == staged.content_ids).all()
    assert (made.labels == staged.labels).all()


def test_labels_are_read_by_class_name_or_given_as_positions():
    rows = [{"t": "u", "x": 1, "y": "b"}, {"t": "v", "x": None, "y": "a"}]
    assert Dataset.from_table(rows, SCHEMA).labels.tolist() == [1, 0]
    given_ = Dataset.from_table(rows, SCHEMA, np.array([0, 0]))
    assert given_.labels.tolist() == [0, 0]
    unlabelled = Dataset.from_table([{"t": "u", "x": 1}], SCHEMA)
    assert unlabelled.labels is None
    with pytest.raises(DataError, match=r"row 0 has label 'c', expected one of \['a', 'b'\]"):
        Dataset.from_table([{"t": "u", "x": 1, "y": "c"}], SCHEMA)


def test_ids_and_labels_that_do_not_fit_the_rows_are_refused():
    table = pa.table({"t": ["u"], "x": [1.0]})
    ids = content_ids(table.to_batches()[0], SCHEMA)
    with pytest.raises(DataError, match=r"ids of shape \(1, 16\)"):
        Dataset(SCHEMA, table, ids[:0])
    with pytest.raises(DataError, match=r"labels of shape \(1,\)"):
        Dataset(SCHEMA, table, ids, np.array([0, 1]))
    with pytest.raises(DataError, match="no column 'x'"):
        Dataset(SCHEMA, table.select(["t"]), ids)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"pool\.arrow is missing or damaged"):
        Dataset.open(tmp_path / "pool.arrow", SCHEMA)
