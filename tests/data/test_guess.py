"""What columns are taken to be, and that every guess is told."""

import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from limbeck.data import DataConfig, guess_schema
from limbeck.errors import DataError

N = 200
SENTENCES = [f"the waiter brought dish number {i} and smiled" for i in range(N)]
COLUMNS = {
    "id": [3 * i for i in range(N)],
    "row number": list(range(N)),
    "uuid": [str(uuid.UUID(int=i * 10**30)) for i in range(N)],
    "review": SENTENCES,
    "note": [s.upper() for s in SENTENCES],
    "stars": [float(i % 5) for i in range(N)],
    "city": ["Rome" if i % 3 else "Oslo" for i in range(N)],
    "author": [f"user{i % 90}" for i in range(N)],
    "open": [bool(i % 2) for i in range(N)],
    "when": pa.array([i * 86_400 for i in range(N)], pa.timestamp("s")),
    "vector": [[1.0, 2.0]] * N,
    "nothing": pa.nulls(N),
    "target": [i % 2 for i in range(N)],
    "label": [i % 2 for i in range(N)],
}


def guess(columns, **named):
    return guess_schema(
        pa.table(columns), DataConfig(labelled=Path("a.csv"), **named), where="a.csv"
    )


def test_with_text_only_text_is_read_and_everything_else_is_told():
    found = guess(COLUMNS)
    assert found.schema.text == ("review", "note")
    assert (found.schema.numeric, found.schema.category) == ((), ())
    assert found.schema.label == "label"
    told = {name: note for note in found.notes for name in note.split("'")[1::2]}
    assert set(told) == set(COLUMNS)
    assert "ignored because there is text" in told["stars"]
    assert "ignored because there is text" in told["city"]
    assert "numbers the rows" in told["id"]
    assert "numbers the rows" in told["row number"]
    assert "identifies the rows" in told["uuid"]
    assert "dates and times" in told["when"]
    assert "could give the answer away" in told["target"]
    assert "because of its name" in told["label"]
    assert "neither text nor categories" in told["author"]
    assert "empty" in told["nothing"]


def test_many_columns_of_one_kind_are_told_in_one_sentence():
    found = guess({"label": ["a", "b"] * 5} | {f"pixel_{i}": [0.5] * 10 for i in range(64)})
    (note,) = [n for n in found.notes if "pixel" in n]
    assert note == (
        "64 columns ('pixel_0', 'pixel_1', ... 'pixel_63') are taken as numeric: numbers."
    )


def test_without_text_numbers_and_categories_are_read():
    columns = {n: v for n, v in COLUMNS.items() if n not in ("review", "note", "author")}
    found = guess(columns)
    assert found.schema.numeric == ("stars",)
    assert found.schema.category == ("city", "open")


def test_named_columns_are_taken_as_they_are_and_nothing_is_guessed():
    found = guess(COLUMNS, text=("author",), numeric=("id",), label="city")
    assert found.schema.inputs == ("author", "id")
    assert found.schema.label == "city"
    assert found.notes == ()


def test_short_strings_are_the_text_when_there_is_nothing_else():
    found = guess({"word": [f"w{i}" for i in range(N)], "class": ["a", "b"] * (N // 2)})
    assert found.schema.text == ("word",)
    assert found.schema.label == "class"


def test_the_label_is_found_by_name_in_any_case_and_in_order_of_likelihood():
    assert guess({"text": SENTENCES, "y": [0] * N, "Label": [1] * N}).schema.label == "Label"
    assert guess({"text": SENTENCES, "Sentiment": [1] * N}).schema.label == "Sentiment"


def test_no_label_column_is_refused_with_the_columns():
    with pytest.raises(DataError, match=r"no column that is called like a label.*\['text'\]"):
        guess({"text": SENTENCES})


def test_no_input_column_is_refused_with_the_reasons():
    with pytest.raises(DataError, match=r"no column that looks like an input.*numbers the rows"):
        guess({"id": list(range(N)), "label": [0] * N})


@pytest.mark.parametrize("named", [{"text": ("reviews",)}, {"label": "labl"}])
def test_a_named_column_that_is_missing_is_refused_with_the_nearest(named):
    with pytest.raises(DataError, match=r"did you mean '(review|label)'"):
        guess(COLUMNS, **named)
