"""Files to splits: what is cut, what is left out, what is refused, and that it happens once."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.data import DataConfig, Dataset, content_ids, prepare
from limbeck.data.writer import RowWriter
from limbeck.errors import ConfigError, DataError, LimbeckWarning, StorageError

from .conftest import reviews, write


def texts(data: Dataset) -> list[str]:
    return data.table.column("text").to_pylist()


def files(folder: Path, **columns: dict[str, list[object]]) -> DataConfig:
    """Write one CSV a role and name them in a config."""
    return DataConfig(**{role: write(folder / f"{role}.csv", c) for role, c in columns.items()})


def four_files(folder: Path) -> dict[str, dict[str, list[object]]]:
    pool = {"text": reviews(300, 400)["text"]}
    return {
        "labelled": reviews(0, 100),
        "validation": reviews(100, 200),
        "test": reviews(200, 300),
        "pool": pool,
    }


def test_four_files_become_four_splits_with_the_rows_as_they_were(tmp_path):
    columns = four_files(tmp_path)
    splits = prepare(files(tmp_path, **columns), tmp_path / "run", 0)
    for role, data in columns.items():
        assert texts(getattr(splits, role)) == data["text"]
    assert splits.schema.classes == ("neg", "pos")
    assert splits.labelled.labels.tolist() == [i % 2 for i in range(100)]
    assert splits.pool.labels is None
    batch = splits.test.table.to_batches()[0]
    assert (splits.test.content_ids == content_ids(batch, splits.schema)).all()


def test_one_file_is_cut_into_stratified_parts_without_loss(tmp_path):
    labels = ["a"] * 100 + ["b"] * 40 + ["c"] * 10
    rows = {"text": [f"a sentence of number {i}" for i in range(150)], "label": labels}
    config = DataConfig(labelled=write(tmp_path / "all.jsonl", rows))
    splits = prepare(config, tmp_path / "run", 3)
    assert (len(splits.labelled), len(splits.validation), len(splits.test)) == (90, 30, 30)
    assert splits.pool is None
    for part in (splits.validation, splits.test):
        assert np.bincount(part.labels).tolist() == [20, 8, 2]
    together = texts(splits.labelled) + texts(splits.validation) + texts(splits.test)
    assert sorted(together) == sorted(rows["text"])
    truth = dict(zip(rows["text"], labels, strict=True))
    for part in (splits.labelled, splits.validation, splits.test):
        assert [splits.schema.classes[c] for c in part.labels] == [truth[t] for t in texts(part)]


def test_the_seed_decides_the_cut(tmp_path):
    config = DataConfig(labelled=write(tmp_path / "all.csv", reviews(0, 200)), test_rows=50)
    one, same, other = (
        texts(prepare(config, tmp_path / name, seed).test)
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert one == same
    assert set(one) != set(other)
    assert len(one) == 50


def test_equal_rows_stay_on_one_side_of_the_cut(tmp_path):
    rows = reviews(0, 60)
    repeated = {name: values * 3 for name, values in rows.items()}
    config = DataConfig(labelled=write(tmp_path / "all.csv", repeated))
    splits = prepare(config, tmp_path / "run", 0)
    sides = [set(texts(part)) for part in (splits.labelled, splits.validation, splits.test)]
    assert sum(len(side) for side in sides) == len(set.union(*sides)) == 60
    assert splits.found["labelled repeats itself"] == 2 * 36


def test_rows_without_a_label_in_the_one_file_are_the_pool(tmp_path):
    rows = reviews(0, 200)
    rows["label"][100:] = [None] * 50 + [""] * 50
    for ending in ("csv", "parquet", "jsonl"):
        config = DataConfig(labelled=write(tmp_path / f"all.{ending}", rows))
        splits = prepare(config, tmp_path / ending, 0)
        assert texts(splits.pool) == rows["text"][100:]
        assert len(splits.labelled) + len(splits.validation) + len(splits.test) == 100
        assert any("100 rows" in note and "join the pool" in note for note in splits.notes)


def test_number_labels_sort_by_value_and_agree_between_formats(tmp_path):
    rows = {"text": reviews(0, 120)["text"], "label": [i % 12 for i in range(120)]}
    test = {"text": reviews(200, 212)["text"], "label": [float(i) for i in range(12)]}
    config = DataConfig(
        labelled=write(tmp_path / "a.csv", rows), test=write(tmp_path / "t.parquet", test)
    )
    splits = prepare(config, tmp_path / "run", 0)
    assert splits.schema.classes == tuple(str(i) for i in range(12))
    assert splits.test.labels.tolist() == list(range(12))


def test_given_classes_keep_their_order(tmp_path):
    config = DataConfig(labelled=write(tmp_path / "a.csv", reviews(0, 60)), classes=("pos", "neg"))
    splits = prepare(config, tmp_path / "run", 0)
    assert splits.schema.classes == ("pos", "neg")


def test_pool_rows_that_are_in_other_splits_are_left_out_and_counted(tmp_path):
    columns = four_files(tmp_path)
    shared = reviews(0, 3)["text"] + reviews(100, 105)["text"] + reviews(200, 207)["text"]
    columns["pool"] = {"text": [*shared, "  ", "", "new here", "new here"]}
    splits = prepare(files(tmp_path, **columns), tmp_path / "run", 0)
    assert texts(splits.pool) == ["new here", "new here"]
    assert splits.found["pool repeats labelled"] == 3
    assert splits.found["pool repeats validation"] == 5
    assert splits.found["pool repeats test"] == 7
    assert splits.found["pool repeats itself"] == 1
    assert splits.found["pool blank"] == 2
    assert "7 pool rows were left out because they are also test rows." in splits.notes


def test_a_pool_that_is_empty_without_the_shared_rows_is_refused(tmp_path):
    columns = four_files(tmp_path)
    columns["pool"] = {"text": [*reviews(0, 5)["text"], " "]}
    with pytest.raises(DataError, match="pool is empty after leaving out 1 blank rows and 5 rows"):
        prepare(files(tmp_path, **columns), tmp_path / "run", 0)


@pytest.mark.parametrize(
    ("first", "second", "loser"),
    [
        ("test", "labelled", "labelled"),
        ("test", "validation", "validation"),
        ("labelled", "validation", "validation"),
    ],
)
def test_rows_shared_by_labelled_splits_are_refused_or_dropped_on_request(
    tmp_path, first, second, loser
):
    columns = four_files(tmp_path)
    for name in ("text", "label"):
        columns[second][name] = columns[second][name] + columns[first][name][:7]
    config = files(tmp_path, **columns)
    with pytest.raises(
        DataError, match=rf"7 rows of .*{loser}\.csv.* are also in .*such as row"
    ) as e:
        prepare(config, tmp_path / "run", 0)
    assert "drop_test_overlap" in str(e.value)
    assert "the dish number" in str(e.value)
    assert not (tmp_path / "run" / "splits.json").exists()

    splits = prepare(replace(config, drop_test_overlap=True), tmp_path / "run2", 0)
    assert len(splits.test) == 100
    assert splits.found[f"{loser} repeats {first}"] == 7
    sides = [set(texts(part)) for part in (splits.labelled, splits.validation, splits.test)]
    assert sum(len(side) for side in sides) == len(set.union(*sides))


def test_equal_texts_with_different_labels_are_reported(tmp_path):
    columns = four_files(tmp_path)
    columns["labelled"]["text"][0] = columns["labelled"]["text"][1]
    with pytest.warns(LimbeckWarning, match="1 contents .* carry different labels"):
        splits = prepare(files(tmp_path, **columns), tmp_path / "run", 0)
    assert splits.found["labelled contradicts itself"] == 1


def test_one_class_only_is_refused(tmp_path):
    rows = {"text": reviews(0, 50)["text"], "label": ["pos"] * 50}
    with pytest.raises(
        DataError, match=r"one class only \('pos' in 50 rows\), expected at least two"
    ):
        prepare(DataConfig(labelled=write(tmp_path / "a.csv", rows)), tmp_path / "run", 0)


@pytest.mark.parametrize("role", ["test", "validation"])
def test_an_unknown_class_in_test_or_validation_is_refused(tmp_path, role):
    columns = four_files(tmp_path)
    columns[role]["label"][:2] = ["poss", "poss"]
    message = rf"{role}\.csv: 2 rows have label 'poss' \(did you mean 'pos'\?\)"
    with pytest.raises(DataError, match=message):
        prepare(files(tmp_path, **columns), tmp_path / "run", 0)


def test_a_label_outside_the_given_classes_is_refused(tmp_path):
    rows = reviews(0, 60)
    rows["label"][5] = "meh"
    config = DataConfig(labelled=write(tmp_path / "a.csv", rows), classes=("neg", "pos"))
    with pytest.raises(
        DataError, match=r"1 rows have label 'meh'.*none of the classes \['neg', 'pos'\]"
    ):
        prepare(config, tmp_path / "run", 0)


def test_fractions_as_labels_are_refused(tmp_path):
    rows = {"text": reviews(0, 50)["text"], "label": [i / 7 for i in range(50)]}
    with pytest.raises(DataError, match=r"holds the fraction 0\.14.*Limbeck classifies"):
        prepare(DataConfig(labelled=write(tmp_path / "a.parquet", rows)), tmp_path / "run", 0)


@pytest.mark.parametrize("role", ["labelled", "validation", "test"])
def test_an_empty_text_is_refused_where_rows_have_labels(tmp_path, role):
    columns = four_files(tmp_path)
    columns[role]["text"][:2] = ["", " \t"]
    with pytest.raises(DataError, match=rf"{role}\.csv .*2 labelled rows have an empty text"):
        prepare(files(tmp_path, **columns), tmp_path / "run", 0)


@pytest.mark.parametrize("role", ["validation", "test"])
def test_missing_labels_in_validation_and_test_are_refused(tmp_path, role):
    columns = four_files(tmp_path)
    columns[role]["label"][0] = ""
    with pytest.raises(DataError, match=rf"{role}\.csv .*1 of 100 rows have no label"):
        prepare(files(tmp_path, **columns), tmp_path / "run", 0)


def test_a_labelled_file_without_any_label_is_refused(tmp_path):
    rows = {"text": reviews(0, 9)["text"], "label": [""] * 9}
    with pytest.raises(DataError, match="none of its 9 rows has a label"):
        prepare(DataConfig(labelled=write(tmp_path / "a.csv", rows)), tmp_path / "run", 0)


def test_a_missing_column_is_refused_in_every_file(tmp_path):
    columns = four_files(tmp_path)
    columns["pool"] = {"txt": ["a", "b"]}
    with pytest.raises(DataError, match=r"pool\.csv has no column 'text' \(did you mean 'txt'\?\)"):
        prepare(files(tmp_path, **columns), tmp_path / "run", 0)


def test_infinity_is_refused_and_missing_numbers_are_nan(tmp_path):
    rows = {"x": [1.5, float("nan")] * 30, "z": list(range(59, -1, -1)), "y": [0, 1] * 30}
    rows["x"] = [v if i < 2 else float(i) for i, v in enumerate(rows["x"])]
    path = write(tmp_path / "a.parquet", rows)
    splits = prepare(DataConfig(labelled=path, numeric=("x", "z")), tmp_path / "run", 0)
    parts = (splits.labelled, splits.validation, splits.test)
    assert sum(int(np.isnan(p.table["x"].to_numpy()).sum()) for p in parts) == 1
    rows["x"][3] = float("-inf")
    write(path, rows)
    with pytest.raises(DataError, match=r"column 'x' holds 1 infinite values \(first: -inf\)"):
        prepare(DataConfig(labelled=path, numeric=("x", "z")), tmp_path / "run2", 0)


def test_too_few_rows_of_a_class_to_cut_are_refused(tmp_path):
    rows = reviews(0, 60)
    rows["text"] += ["a rare one", "a rare one", "another rare one"]
    rows["label"] += ["rare"] * 3
    config = DataConfig(labelled=write(tmp_path / "a.csv", rows))
    message = "class 'rare' has 2 distinct labelled rows, too few to cut validation and test"
    with pytest.raises(DataError, match=message):
        prepare(config, tmp_path / "run", 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"test_rows": 1}, "1 rows for test cannot hold one of each of the 2 classes"),
        ({"test_rows": 59}, "leaves fewer than one of each class"),
        ({"test_rows": 40, "validation_rows": 30}, "leaves fewer than one of each class"),
    ],
)
def test_counts_that_cannot_be_cut_are_refused(tmp_path, rows, message):
    config = DataConfig(labelled=write(tmp_path / "a.csv", reviews(0, 60)), **rows)
    with pytest.raises(DataError, match=message):
        prepare(config, tmp_path / "run", 0)


def test_columns_that_a_teacher_reads_are_carried_along(tmp_path):
    rows = reviews(0, 60) | {"p0": [i / 60 for i in range(60)]}
    rows |= {"p": [[i / 60, 1 - i / 60] for i in range(60)]}
    config = DataConfig(labelled=write(tmp_path / "a.parquet", rows))
    splits = prepare(config, tmp_path / "run", 0, keep=["p0", "p"])
    row = splits.test.take(np.array([1])).to_pylist()[0]
    assert row["p"] == [row["p0"], 1 - row["p0"]]
    assert splits.schema.inputs == ("text",)
    with pytest.raises(DataError, match="no column 'q'"):
        prepare(config, tmp_path / "run2", 0, keep=["q"])


def test_a_second_call_opens_what_was_staged_even_if_the_files_are_gone(tmp_path):
    config = files(tmp_path, **four_files(tmp_path))
    first = prepare(config, tmp_path / "run", 0)
    before = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "run").iterdir()}
    config.pool.unlink()
    os.utime(config.test)
    again = prepare(config, tmp_path / "run", 0)
    assert {f.name: f.stat().st_mtime_ns for f in (tmp_path / "run").iterdir()} == before
    for role in ("labelled", "validation", "test", "pool"):
        assert getattr(again, role).table.equals(getattr(first, role).table)
        assert (getattr(again, role).content_ids == getattr(first, role).content_ids).all()
    assert (again.notes, again.schema) == (first.notes, first.schema)
    assert sorted(before) == [
        "labelled.arrow",
        "pool.arrow",
        "splits.json",
        "test.arrow",
        "validation.arrow",
    ]


def test_changed_settings_seeds_or_files_are_refused_for_an_old_folder(tmp_path):
    rows = write(tmp_path / "a.csv", reviews(0, 60))
    prepare(DataConfig(labelled=rows), tmp_path / "run", 0)
    with pytest.raises(DataError, match="staged with seed = 0 but seed = 1"):
        prepare(DataConfig(labelled=rows), tmp_path / "run", 1)
    with pytest.raises(DataError, match="staged with test_rows = 0 but test_rows = 9"):
        prepare(DataConfig(labelled=rows, test_rows=9), tmp_path / "run", 0)
    write(rows, reviews(0, 61))
    with pytest.raises(DataError, match=r"a\.csv has changed since .* use a new folder"):
        prepare(DataConfig(labelled=rows), tmp_path / "run", 0)


def test_a_damaged_staged_folder_is_refused(tmp_path):
    config = DataConfig(labelled=write(tmp_path / "a.csv", reviews(0, 60)))
    folder = tmp_path / "run"
    prepare(config, folder, 0)
    (folder / "test.arrow").write_bytes(b"ARROW1 no longer")
    with pytest.raises(DataError, match=r"test\.arrow is missing or damaged .* remove the folder"):
        prepare(config, folder, 0)
    (folder / "splits.json").write_text("{")
    with pytest.raises(DataError, match=r"splits\.json is damaged"):
        prepare(config, folder, 0)


def test_a_kill_while_staging_leaves_a_folder_that_can_be_used_again(tmp_path, monkeypatch):
    config = files(tmp_path, **four_files(tmp_path))
    want = prepare(config, tmp_path / "whole", 0)
    folder = tmp_path / "killed"
    real, writes = os.replace, 0

    def dying(source, target):
        nonlocal writes
        if writes == fatal:
            raise KeyboardInterrupt
        writes += 1
        real(source, target)

    fatal = 0
    while True:
        writes = 0
        monkeypatch.setattr(os, "replace", dying)
        try:
            prepare(config, folder, 0)
            break
        except KeyboardInterrupt:
            assert not (folder / "splits.json").exists()
            fatal += 1
        finally:
            monkeypatch.setattr(os, "replace", real)
    assert fatal >= 8
    got = prepare(config, folder, 0)
    assert got.pool.table.equals(want.pool.table)
    assert (got.labelled.content_ids == want.labelled.content_ids).all()
    assert not list(folder.glob("staging*"))


def test_long_rows_are_staged_in_smaller_pieces(tmp_path):
    rows = {"text": [f"{i} " + "long " * 500 for i in range(9000)]}
    pool = tmp_path / "pool.parquet"
    pq.write_table(pa.table(rows), pool)
    config = DataConfig(labelled=write(tmp_path / "a.csv", reviews(0, 60)), pool=pool)
    data = prepare(config, tmp_path / "run", 0).pool
    sizes = [b.num_rows for b in data.table.to_batches()]
    assert max(sizes) <= 4096
    assert texts(data) == rows["text"]


def test_paths_in_a_file_are_taken_from_its_folder():
    config = DataConfig(labelled=Path("a.csv"), pool=Path("/abs/p.csv")).relative_to(
        Path("/home/me")
    )
    assert config.labelled == Path("/home/me/a.csv")
    assert config.pool == Path("/abs/p.csv")
    assert config.test is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_rows": -1}, "test_rows=-1: must be >= 0"),
        ({"test_rows": 5, "test": Path("t.csv")}, "leave one of them out"),
        ({"text": ("a",), "category": ("a",)}, "'a' is named twice"),
        ({"text": ("a",), "label": "a"}, "both the label and an input"),
        ({"classes": ("a", "a")}, "name 'a' twice"),
        ({"classes": ("a",)}, "one class only"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(labelled=Path("a.csv"), **settings)


def test_the_record_names_every_source_with_its_hash(tmp_path):
    config = DataConfig(labelled=write(tmp_path / "a.csv", reviews(0, 60)))
    prepare(config, tmp_path / "run", 0)
    record = json.loads((tmp_path / "run" / "splits.json").read_text())
    (source,) = record["sources"]["labelled"]
    assert source["bytes"] == config.labelled.stat().st_size
    assert len(source["sha256"]) == 64


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    config = files(tmp_path, **four_files(tmp_path))

    def full(self):
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    with monkeypatch.context() as patch:
        patch.setattr(RowWriter, "_flush", full)
        with pytest.raises(StorageError, match="the disk is full; free some space") as caught:
            prepare(config, tmp_path / "run", 0)
    assert caught.value.exit_code == 2
    assert not list((tmp_path / "run").iterdir())
    assert len(prepare(config, tmp_path / "run", 0).pool) == 100
