"""Rows in memory: every container gives the same table."""

import numpy as np
import pyarrow as pa
import pytest

from limbeck.data import Schema, as_batch, as_table
from limbeck.errors import DataError

MIXED = Schema(("text",), ("x",), ("colour",), None, ("a", "b"))
TEXT = Schema(("body",), (), (), None, ("a", "b"))
NUMBERS = Schema((), ("u", "v"), (), None, ("a", "b"))
COLUMNS = {"colour": ["red", None], "x": [1, None], "text": ["one", "two"], "more": [[1], [2]]}
WANT = [
    {"text": "one", "x": "1.0", "colour": "red"},
    {"text": "two", "x": "nan", "colour": ""},
]


class Stream:
    """A frame that speaks only the Arrow stream protocol, as polars and pandas do."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return pa.table(COLUMNS).__arrow_c_stream__(requested_schema)


class Convertible:
    """A frame with `to_arrow` alone."""

    def to_arrow(self) -> pa.Table:
        return pa.table(COLUMNS)


class Formatted:
    """A dataset whose rows come in their order only through `with_format("arrow")`."""

    def with_format(self, name: str) -> "Formatted":
        assert name == "arrow"
        return self

    def __getitem__(self, rows: slice) -> pa.Table:
        return pa.table(COLUMNS)[rows]


@pytest.mark.parametrize(
    "rows",
    [
        COLUMNS,
        [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)],
        pa.table(COLUMNS),
        pa.record_batch(COLUMNS),
        pa.table(COLUMNS | {"colour": pa.array(["red", None]).dictionary_encode()}),
        COLUMNS | {"x": np.array([1.0, np.nan])},
        COLUMNS | {"x": np.array([1, None], dtype=object)},
        COLUMNS | {"x": ["1", " "]},
        Stream(),
        Convertible(),
        Formatted(),
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_every_container_gives_the_inputs_in_their_types(rows):
    table = as_table(rows, MIXED)
    assert table.schema == pa.schema(
        [("text", pa.large_string()), ("x", pa.float64()), ("colour", pa.large_string())]
    )
    assert [row | {"x": str(row["x"])} for row in table.to_pylist()] == WANT
    assert as_batch(rows, MIXED).num_rows == 2


def test_strings_are_the_one_text_column():
    assert as_table(["a", "b"], TEXT).to_pydict() == {"body": ["a", "b"]}
    assert as_table(np.array(["a", "b"]), TEXT).to_pydict() == {"body": ["a", "b"]}
    assert as_table(["a"]).to_pydict() == {"text": ["a"]}
    with pytest.raises(DataError, match="strings but the task reads"):
        as_table(["a"], MIXED)


def test_a_matrix_holds_the_numeric_columns_in_order():
    rows = np.array([[1, 2], [3, 4]], np.int32)
    assert as_table(rows, NUMBERS).to_pydict() == {"u": [1.0, 3.0], "v": [2.0, 4.0]}
    assert as_table(rows).schema.names == ["x0", "x1"]
    with pytest.raises(DataError, match=r"array with 3 columns but the task reads \['u', 'v'\]"):
        as_table(np.zeros((2, 3)), NUMBERS)
    with pytest.raises(DataError, match=r"array of shape \(2,\)"):
        as_table(np.zeros(2), NUMBERS)


@pytest.mark.parametrize("rows", [[], {"body": []}, pa.table({"body": pa.array([], pa.string())})])
def test_no_rows_are_an_empty_batch_of_the_right_types(rows):
    batch = as_batch(rows, TEXT)
    assert (batch.num_rows, batch.schema) == (0, pa.schema([("body", pa.large_string())]))


def test_values_of_other_types_are_read_as_text_in_a_text_column():
    for values, want in (
        ([1, 2], ["1", "2"]),
        ([1.0, 2.0], ["1", "2"]),
        ([1.5, 2.0], ["1.5", "2"]),
        ([True, None], ["true", ""]),
        ([7, "seven"], ["7", "seven"]),
    ):
        assert as_table({"body": values}, TEXT).to_pydict() == {"body": want}


@pytest.mark.parametrize(
    ("rows", "schema", "message"),
    [
        ("one text", TEXT, r"rows are a str, expected a table.*\[text\]"),
        (5, TEXT, "rows are a int, expected a table"),
        ([1, 2], TEXT, "a list of int, expected"),
        ({"bdy": ["a"]}, TEXT, r"rows has no column 'body' \(did you mean 'bdy'\?\)"),
        ({"body": "a"}, TEXT, "column 'body' is 'a', expected a list"),
        ({"body": ["a"], "x": [1, 2]}, TEXT, "different numbers of rows"),
        ({"body": [["a"], ["b"]]}, TEXT, "column 'body' holds list"),
        ({"u": [1.0], "v": ["two"]}, NUMBERS, "numeric column 'v' holds text"),
        ({"u": [1.0], "v": [float("inf")]}, NUMBERS, "column 'v' holds 1 infinite"),
        ({"u": [1.0], "v": [[1.0]]}, NUMBERS, "column 'v' holds list.*expected numbers"),
    ],
)
def test_rows_that_cannot_be_read_are_refused(rows, schema, message):
    with pytest.raises(DataError, match=message):
        as_table(rows, schema)


def test_inputs_are_left_as_they_were():
    table = pa.table({"body": ["a", None]})
    as_table(table, TEXT)
    assert table.to_pydict() == {"body": ["a", None]}
