"""Every format gives the same rows, in pieces, and says clearly what is wrong with a file."""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.data import find_source, read_batches, sample_rows
from limbeck.data.readers import BATCH_ROWS
from limbeck.errors import DataError

ROWS = {
    "text": ["plain", 'with "quotes", commas', "two\nlines", "schön 日本", "null"],
    "x": [1.0, 2.5, -3.0, 0.0, 4.0],
    "label": ["001", "1", "01", "true", "x"],
}
KINDS = {"label": "string", "text": "string", "x": "number"}


def rows_of(path: Path, kinds=None) -> list[dict[str, object]]:
    batches = list(read_batches(find_source(path), KINDS if kinds is None else kinds))
    return [row for batch in batches for row in batch.to_pylist()]


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl", "arrow", "feather", "npz"])
def test_every_format_gives_the_same_rows(make, ending):
    path = make(f"rows.{ending}", **ROWS)
    assert rows_of(path) == pa.table(ROWS).to_pylist()
    assert sample_rows(find_source(path)).num_rows == 5


def test_an_arrow_stream_is_read_like_an_arrow_file(tmp_path):
    table = pa.table(ROWS)
    path = tmp_path / "stream.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert rows_of(path) == table.to_pylist()


def test_a_matrix_in_an_npz_file_becomes_numbered_columns(tmp_path):
    path = tmp_path / "digits.npz"
    np.savez(path, x=np.arange(6.0).reshape(3, 2), y=np.array([0, 1, 0]))
    assert sample_rows(find_source(path)).to_pydict() == {
        "x0": [0.0, 2.0, 4.0],
        "x1": [1.0, 3.0, 5.0],
        "y": [0, 1, 0],
    }


def test_parts_are_read_in_the_order_of_their_names(tmp_path, make):
    for i in (2, 0, 1):
        make(f"part-{i}.csv", text=[f"row {i}"])
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "notes.md").write_text("not rows")
    kinds = {"text": "string"}
    want = [{"text": f"row {i}"} for i in range(3)]
    assert rows_of(tmp_path, kinds) == want
    assert rows_of(tmp_path / "part-[0-9].csv", kinds) == want


def test_a_text_column_stays_text_when_later_blocks_stop_looking_like_numbers(tmp_path):
    path = tmp_path / "late.csv"
    lines = [f"{i:07d},{i}" for i in range(600_000)]
    path.write_text("text,label\n" + "\n".join([*lines, "words at last,x"]) + "\n")
    last = None
    for batch in read_batches(find_source(path), {"text": "string", "label": "string"}):
        assert 0 < batch.num_rows <= BATCH_ROWS
        last = batch
    assert last.to_pylist()[-1] == {"text": "words at last", "label": "x"}


def test_whole_numbers_may_turn_into_fractions_in_a_column_of_unknown_kind(tmp_path):
    path = tmp_path / "probs.csv"
    path.write_text("p\n" + "0\n" * 3_000_000 + "0.25\n")
    last = list(read_batches(find_source(path), {"p": "any"}))[-1]
    assert last.column(0)[-1].as_py() == 0.25


def test_jsonl_columns_may_mix_types_and_lack_keys(tmp_path):
    path = tmp_path / "mixed.jsonl"
    path.write_text(
        '\ufeff{"text": 5, "label": 1}\n\n{"text": "a", "label": "1"}\n{"text": true}\n'
    )
    kinds = {"text": "string", "label": "string"}
    assert rows_of(path, kinds) == [
        {"text": "5", "label": "1"},
        {"text": "a", "label": "1"},
        {"text": "true", "label": None},
    ]


def test_one_giant_row_group_is_read_in_small_batches(tmp_path):
    path = tmp_path / "giant.parquet"
    pq.write_table(
        pa.table({"text": [f"row {i}" for i in range(100_000)]}), path, row_group_size=10**6
    )
    sizes = [b.num_rows for b in read_batches(find_source(path), {"text": "string"})]
    assert sum(sizes) == 100_000
    assert max(sizes) <= BATCH_ROWS


def test_a_missing_file_is_refused_with_its_near_namesakes(tmp_path, make):
    make("reviews.csv", text=["a"])
    with pytest.raises(DataError, match=r"revews\.csv does not exist; did you mean reviews\.csv"):
        find_source(tmp_path / "revews.csv")
    with pytest.raises(DataError, match=r"does not exist \(the folder holds reviews\.csv\)"):
        find_source(tmp_path / "zzz")
    with pytest.raises(DataError, match="nor does the folder"):
        find_source(tmp_path / "no" / "file.csv")
    with pytest.raises(DataError, match="no file matches"):
        find_source(tmp_path / "*.parquet")


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.csv"
    path.touch()
    with pytest.raises(DataError, match=r"empty\.csv is empty \(0 bytes\)"):
        find_source(path)


def test_a_file_without_rows_is_refused(tmp_path):
    path = tmp_path / "header.csv"
    path.write_text("text,label\n")
    with pytest.raises(DataError, match=r"header\.csv has columns but no rows"):
        sample_rows(find_source(path))


def test_an_unknown_ending_is_refused_with_advice(tmp_path):
    for name, advice in (
        ("a.json", "one object a line"),
        ("a.csv.gz", "unpack"),
        ("a.doc", "convert"),
    ):
        (tmp_path / name).write_text("x")
        with pytest.raises(DataError, match=f"cannot be read; .*{advice}"):
            find_source(tmp_path / name)


def test_a_folder_of_several_formats_is_refused(tmp_path, make):
    make("a.csv", text=["a"])
    make("b.jsonl", text=["a"])
    with pytest.raises(DataError, match=r"several formats \(csv, jsonl\)"):
        find_source(tmp_path)


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no file that can be read"):
        find_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,x\na,1\nb\n", r"line 3: 1 values, expected 2 \(text, x\)"),
        ("a.csv", 'text,x\n"a\nb",1\nc,2,3\n', "line 4: 3 values, expected 2"),
        ("a.csv", "text,x\na,1\nb,two\n", "line 3: column 'x' holds 'two', expected a number"),
        ("a.csv", "text,x,x\na,1,1\n", "more than one column 'x'"),
        ("a.tsv", "text\tx\na\n", "line 2: 1 values, expected 2"),
        ("a.jsonl", '{"text": "a", "x": 1}\n{"text": \n', "line 2: not JSON"),
        ("a.jsonl", '{"text": "a", "x": 1}\n[1]\n', "line 2: holds a list, expected an object"),
        ("a.jsonl", '{"text": ["a"], "x": 1}\n', "line 1: 'text' holds .* expected one string"),
        ("a.jsonl", '{"text": "a", "x": 1}\n{"text": "b", "x": "no"}\n', "line 2: 'x' holds 'no'"),
        ("a.parquet", "PAR1 this is no parquet file PAR1", "damaged or not what its ending says"),
        ("a.arrow", "ARROW1 this is no arrow file", "damaged or not what its ending says"),
        ("a.npz", "this is no zip file", "damaged or not what its ending says"),
    ],
)
def test_a_broken_file_is_refused_with_the_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        rows_of(path, {"text": "string", "x": "number"})


def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("text,x\nschön,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        rows_of(path, {"text": "string"})


def test_a_parquet_file_damaged_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(5000)]}), path)
    data = bytearray(path.read_bytes())
    data[400:500] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        rows_of(path, {"text": "string"})


def test_arrays_of_different_lengths_or_three_axes_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((3, 2)), y=np.zeros(4))
    with pytest.raises(DataError, match=r"arrays have \[3, 4\] rows"):
        sample_rows(find_source(path))
    np.savez(path, x=np.zeros((3, 2, 2)))
    with pytest.raises(DataError, match=r"shape \(3, 2, 2\)"):
        sample_rows(find_source(path))


def test_a_missing_column_is_refused_with_the_nearest_and_all_columns(make):
    for ending in ("csv", "jsonl", "parquet"):
        path = make(f"a.{ending}", Text=["a"], other=["b"])
        with pytest.raises(DataError, match=r"no column 'text' \(did you mean 'Text'\?\).*other"):
            rows_of(path, {"text": "string"})


def test_jsonl_is_read_at_fifty_thousand_rows_a_second_or_more(make):
    path = make("many.jsonl", text=[f"sentence number {i}" for i in range(50_000)])
    started = time.perf_counter()
    assert len(rows_of(path, {"text": "string"})) == 50_000
    assert time.perf_counter() - started < 5
