"""Oracle: encoding each row alone and laying the results side by side."""

import os
import resource
import sys
import time
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data.schema import Schema
from limbeck.errors import DataError, StorageError
from limbeck.students import EncodedStore, MemoryStore, TextBagConfig, TextBagEncoder
from limbeck.students import store as store_module

SCHEMA = Schema(text=("text",), numeric=(), category=(), label=None, classes=("no", "yes"))
TEXTS = ["not good", "", "fine!", "word " * 30, "中文", "a"] * 7


def encoder(**changes):
    return TextBagEncoder.fit([], SCHEMA, TextBagConfig(**changes))


def batch(texts):
    return pa.RecordBatch.from_pydict({"text": pa.array(texts, pa.large_string())})


def batches(texts, size=5):
    return [batch(texts[i : i + size]) for i in range(0, len(texts), size)]


def refuse():
    raise AssertionError("the rows were read again")
    yield


def check_take(store, one_by_one, rows):
    taken = store.take(np.array(rows, dtype=np.int64))
    expected = [one_by_one[r] for r in rows]
    assert taken.lengths.tolist() == [len(e) for e in expected]
    assert taken.values.tolist() == [v for e in expected for v in e]


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(0, len(TEXTS) - 1), max_size=60))
def test_both_stores_give_any_rows_in_any_order(tmp_path_factory, rows):
    enc = encoder()
    alone = [enc.encode(batch([text])).values.tolist() for text in TEXTS]
    path = tmp_path_factory.getbasetemp() / "any.bin"
    for small in (-1, store_module.SMALL):  # read a row at a time, or held in memory
        with mock.patch.object(store_module, "SMALL", small):
            store = EncodedStore.build(enc, batches(TEXTS), path, rows=len(TEXTS))
        assert (store._memory is None) == (small < 0)
        check_take(store, alone, rows)
    check_take(MemoryStore.build(enc, batches(TEXTS)), alone, rows)


@pytest.mark.parametrize("buckets", [1000, 2**17])
def test_values_keep_the_dtype_of_the_encoder(tmp_path, buckets):
    enc = encoder(buckets=buckets)
    store = EncodedStore.build(enc, batches(TEXTS), tmp_path / "rows.bin", rows=len(TEXTS))
    assert store.take(np.array([0])).values.dtype == enc.dtype
    assert MemoryStore.build(enc, batches(TEXTS)).take(np.array([0])).values.dtype == enc.dtype


def test_a_finished_file_is_used_again_without_reading_the_rows(tmp_path):
    path = tmp_path / "rows.bin"
    EncodedStore.build(encoder(), batches(TEXTS), path, rows=len(TEXTS), source="a")
    again = EncodedStore.build(encoder(), refuse(), path, rows=len(TEXTS), source="a")
    assert len(again) == len(TEXTS)


@pytest.mark.parametrize("changed", ["settings", "rows", "source", "cut", "garbage"])
def test_a_file_of_other_rows_or_a_broken_one_is_written_anew(tmp_path, changed):
    path = tmp_path / "rows.bin"
    EncodedStore.build(encoder(), batches(TEXTS), path, rows=len(TEXTS))
    if changed == "cut":
        os.truncate(path, path.stat().st_size - 3)
    elif changed == "garbage":
        path.write_bytes(b"x" * 9)
    texts = TEXTS[:-1] if changed == "rows" else TEXTS
    enc = encoder(buckets=777) if changed == "settings" else encoder()
    source = "other" if changed == "source" else ""
    store = EncodedStore.build(enc, batches(texts), path, rows=len(texts), source=source)
    assert len(store) == len(texts)
    expected = enc.encode(batch(texts))
    got = store.take(np.arange(len(texts)))
    np.testing.assert_array_equal(got.values, expected.values)


def test_an_interrupted_build_leaves_no_file(tmp_path):
    def breaks():
        yield batch(TEXTS[:3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EncodedStore.build(encoder(), breaks(), tmp_path / "rows.bin", rows=9)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_number_of_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"5 rows were announced .* but 42 came"):
        EncodedStore.build(encoder(), batches(TEXTS), tmp_path / "rows.bin", rows=5)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_one_length_are_taken_as_a_table():
    table = np.arange(24, dtype=np.uint8).reshape(6, 4)
    store = MemoryStore(table.reshape(-1), np.full(6, 4))
    taken = store.take(np.array([5, 0, 5]))
    assert taken.lengths.tolist() == [4, 4, 4]
    np.testing.assert_array_equal(taken.values.reshape(3, 4), table[[5, 0, 5]])


@pytest.mark.parametrize("row", [-1, 42])
def test_a_row_out_of_range_is_refused(tmp_path, row):
    stores = [
        EncodedStore.build(encoder(), batches(TEXTS), tmp_path / "rows.bin", rows=42),
        MemoryStore.build(encoder(), batches(TEXTS)),
    ]
    for store in stores:
        with pytest.raises(DataError, match="store of 42"):
            store.take(np.array([0, row]))


def test_empty_stores_and_empty_takes(tmp_path):
    empty = EncodedStore.build(encoder(), [], tmp_path / "none.bin", rows=0)
    assert len(empty) == 0
    assert len(empty.take(np.array([], dtype=np.int64))) == 0
    assert len(MemoryStore.build(encoder(), [])) == 0


def test_a_full_disk_is_one_sentence_and_leaves_no_file(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        EncodedStore.build(encoder(), batches(TEXTS), tmp_path / "rows.bin", rows=len(TEXTS))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_does_not_grow_with_the_pool(tmp_path):
    rows = 200_000
    text = batch(["the food was really good and cheap"] * 1000)
    enc = encoder()
    EncodedStore.build(enc, [text], tmp_path / "warm.bin", rows=1000)
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    path = tmp_path / "rows.bin"
    store = EncodedStore.build(enc, (text for _ in range(rows // 1000)), path, rows=rows)
    generator = np.random.default_rng(0)
    times = []
    for _ in range(200):
        chosen = generator.integers(0, rows, 256)
        start = time.perf_counter()
        store.take(chosen)
        times.append(time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    assert path.stat().st_size > 10e6
    assert grown < 12e6  # 8 bytes a row, three times over while it is built, and one batch
    assert np.median(times) < 5e-3  # a wide bound: 0.3 ms is usual


def test_a_row_that_is_refused_is_named_and_nothing_is_written(tmp_path, monkeypatch):
    enc, honest = encoder(), TextBagEncoder.encode

    def spoilt(self, rows):
        if "word 7" in rows.column(0).to_pylist():
            raise DataError("no such word")
        return honest(self, rows)

    monkeypatch.setattr(TextBagEncoder, "encode", spoilt)
    texts = [f"word {i}" for i in range(12)]
    with pytest.raises(DataError, match="row 7: no such word"):
        EncodedStore.build(enc, batches(texts), tmp_path / "x.bin", rows=12)
    assert list(tmp_path.iterdir()) == []
