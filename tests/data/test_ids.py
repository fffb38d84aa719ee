"""Ids against the encoding written out by hand, and against what they must not depend on."""

import hashlib
import math
import struct
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data import Schema, contains, content_ids, distinct, question_ids, row_ids
from limbeck.data.ids import GatheredIds, Places, as_arrow, from_arrow
from limbeck.errors import DataError

texts = st.lists(st.one_of(st.none(), st.text(max_size=6)), min_size=1, max_size=6)
numbers = st.lists(st.one_of(st.none(), st.floats(), st.integers(-5, 5)), min_size=1, max_size=6)


def id_by_hand(row: dict[str, object]) -> bytes:
    """One row's id, straight from the description of the encoding."""
    written = b""
    for name in sorted(row):
        value = row[name]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            kind, raw = b"0", b""
        elif isinstance(value, str):
            kind, raw = b"t", value.encode()
        else:
            kind, raw = b"n", struct.pack("<d", 0.0 if value == 0 else float(value))
        encoded = name.encode()
        written += struct.pack("<I", len(encoded)) + encoded + kind
        written += struct.pack("<Q", len(raw)) + raw
    return hashlib.blake2b(written, digest_size=16).digest()


@given(a=texts, x=numbers)
def test_ids_are_the_hash_of_the_encoding_written_by_hand(a, x):
    n = min(len(a), len(x))
    x = [None if v is None else float(v) for v in x]
    batch = pa.record_batch({"é": pa.array(a[:n], pa.string()), "x": pa.array(x[:n], pa.float64())})
    got = row_ids(batch, ["x", "é"])
    want = [id_by_hand({"é": a[i], "x": x[i]}) for i in range(n)]
    assert [row.tobytes() for row in got] == want


@given(a=texts, cut=st.integers(0, 6))
def test_ids_do_not_depend_on_string_type_slices_or_column_order(a, cut):
    plain = pa.record_batch({"a": pa.array(a, pa.string()), "b": pa.array(a, pa.string())})
    large = pa.record_batch({"b": pa.array(a, pa.large_string()), "a": pa.array(a).cast("string")})
    coded = pa.record_batch({"a": pa.array(a, pa.string()).dictionary_encode(), "b": plain["b"]})
    want = row_ids(plain, ["a", "b"])
    assert (row_ids(large, ["b", "a"]) == want).all()
    assert (row_ids(coded, ["a", "b"]) == want).all()
    assert (row_ids(plain.slice(cut), ["a", "b"]) == want[cut:]).all()


def test_equal_numbers_of_different_types_have_equal_ids():
    def of(values, kind):
        return row_ids(pa.record_batch({"x": pa.array(values, kind)}), ["x"])

    want = of([0, 1, 7], pa.int8())
    for kind in (pa.int64(), pa.uint16(), pa.float32(), pa.float64()):
        assert (of([0, 1, 7], kind) == want).all()
    assert (of([-0.0, 1.0, 7.0], pa.float64()) == want).all()
    assert (of([None], pa.int64()) == of([math.nan], pa.float64())).all()


def test_texts_that_could_be_confused_have_different_ids():
    batch = pa.record_batch(
        {
            "a": pa.array(["ab", "a", "", None, "", "1"]),
            "b": pa.array(["", "b", "ab", "ab", None, "1"]),
        }
    )
    both = row_ids(batch, ["a", "b"])
    assert len({row.tobytes() for row in both}) == 6
    # The name counts too, and "1" is not 1.
    assert (row_ids(batch, ["a"])[5] != row_ids(batch, ["b"])[5]).any()
    number = pa.record_batch({"a": pa.array([1.0])})
    assert (row_ids(number, ["a"])[0] != row_ids(batch, ["a"])[5]).any()


def test_question_ids_ignore_columns_that_the_teacher_does_not_see():
    batch = pa.record_batch({"t": ["same", "same"], "x": [1.0, 2.0]})
    schema = Schema(("t",), ("x",), (), None, ())
    assert (np.diff(question_ids(batch, ["t"]).astype(int), axis=0) == 0).all()
    assert (np.diff(content_ids(batch, schema).astype(int), axis=0) != 0).any()


def test_ids_of_no_rows_are_an_empty_matrix():
    batch = pa.RecordBatch.from_pylist([], schema=pa.schema([("t", pa.string())]))
    assert row_ids(batch, ["t"]).shape == (0, 16)


def test_columns_without_an_id_are_refused():
    batch = pa.record_batch({"v": pa.array([[1.0, 2.0]])})
    with pytest.raises(DataError, match=r"'v' holds list.*text, numbers or images"):
        row_ids(batch, ["v"])
    with pytest.raises(DataError, match="column 'w' is needed"):
        row_ids(batch, ["w"])
    with pytest.raises(DataError, match="at least one column"):
        row_ids(batch, [])


@given(st.lists(st.integers(0, 6), max_size=30), st.lists(st.integers(0, 9), max_size=10))
def test_distinct_and_contains_agree_with_python_dicts_and_sets(values, others):
    def ids(numbers):
        # Equal first halves: the second half must be looked at too.
        made = np.zeros((len(numbers), 16), np.uint8)
        made[:, 15] = numbers
        return made

    first, group = distinct(ids(values))
    order = list(dict.fromkeys(values))
    assert first.tolist() == [values.index(v) for v in order]
    assert group.tolist() == [order.index(v) for v in values]
    assert contains(ids(others), ids(values)).tolist() == [v in others for v in values]


def test_ids_survive_the_way_through_arrow():
    ids = np.arange(64, dtype=np.uint8).reshape(4, 16)
    assert (from_arrow(as_arrow(ids)) == ids).all()
    assert (from_arrow(as_arrow(ids).slice(1, 2)) == ids[1:3]).all()
    with pytest.raises(DataError, match="shape \\(n, 16\\)"):
        as_arrow(ids[:, :8])


@pytest.mark.slow
def test_a_text_column_is_hashed_at_a_hundred_thousand_rows_a_second_or_more():
    batch = pa.record_batch(
        {"text": [f"about nine words in a sentence such as {i}" for i in range(65536)]}
    )
    started = time.perf_counter()
    row_ids(batch, ["text"])
    assert 65536 / (time.perf_counter() - started) > 1e5


@pytest.mark.parametrize("picked", [False, True])
@pytest.mark.parametrize("small", [0, 10_000])
def test_gathered_ids_group_like_distinct_however_they_are_cut(monkeypatch, picked, small):
    monkeypatch.setattr("limbeck.data.ids._SMALL", small)
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (700, 16), np.uint8)
    ids = pool[rng.integers(0, len(pool), 2_000)]
    ids[::7, :8] = ids[0, :8]  # the same beginning, another end
    rows = rng.integers(0, len(ids), 1_500) if picked else None
    gathered = GatheredIds(ids, rows)
    whole = ids if rows is None else ids[rows]
    assert len(gathered) == len(whole)
    assert (gathered[:] == whole).all()
    leads = gathered.leads()
    assert np.flatnonzero(leads).tolist() == distinct(whole)[0].tolist()
    left = gathered.without(leads, lambda some: some[:, 3] < 128)
    assert left.tolist() == (leads & (whole[:, 3] >= 128)).tolist()


def test_questions_are_looked_up_in_blocks_and_in_place(monkeypatch):
    monkeypatch.setattr("limbeck.data.ids._BLOCK", 100)
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 256, (950, 16), np.uint8)
    rows, places = rng.permutation(950)[:700], rng.integers(0, 700, 333)
    sizes = []

    def look(some):
        sizes.append(len(some))
        return some[:, 0] < 100

    found = GatheredIds(ids, rows).which(look, places)
    assert found.tolist() == (ids[rows[places], 0] < 100).tolist()
    assert sizes == [100, 100, 100, 33]
    assert GatheredIds(ids).which(look).tolist() == (ids[:, 0] < 100).tolist()
    assert GatheredIds(ids[:0]).which(look).tolist() == []
    assert GatheredIds(ids[:0]).leads().tolist() == []


@given(st.lists(st.booleans(), max_size=40), st.integers(-45, 45), st.integers(-45, 45))
def test_places_of_a_mask_are_sliced_like_a_list(mask, start, stop):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("limbeck.data.ids._MASK_BLOCK", 4)
        places = Places(np.array(mask, np.bool_))
        expected = [i for i, there in enumerate(mask) if there]
        assert len(places) == len(expected)
        assert places[start:stop].tolist() == expected[start:stop]
        assert places[:].tolist() == expected


def test_grouping_a_million_ids_takes_few_bytes_an_id():
    import tracemalloc

    rng = np.random.default_rng(2)
    ids = rng.integers(0, 256, (1_000_000, 16), np.uint8)
    tracemalloc.start()
    try:
        leads = GatheredIds(ids).leads()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert leads.all()
    assert peak < 6 * len(ids)
