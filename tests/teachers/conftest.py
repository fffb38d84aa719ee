"""A task with one text and one numeric column, and three classes."""

import pyarrow as pa
import pytest

from limbeck.data.schema import Schema


@pytest.fixture
def schema():
    return Schema(("text",), ("size",), (), None, ("no", "maybe", "yes"))


@pytest.fixture
def rows():
    return pa.RecordBatch.from_pydict(
        {
            "text": pa.array(["a", "b", "c"], pa.large_string()),
            "size": pa.array([1.0, 2.0, float("nan")]),
        }
    )
