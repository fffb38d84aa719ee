"""Answers in a file are the answers of the ledger."""

import csv
import json

import pyarrow.parquet as pq
import pytest
import torch

from limbeck.errors import ConfigError, StorageError
from limbeck.ledger import Budget
from limbeck.ledger.export import export
from limbeck.teachers.base import Money

from .conftest import TEACHER, Shop


def read(path):
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_answer_is_written_once_with_its_classes_price_version_and_run(
    shop, tmp_path, monkeypatch, ending
):
    monkeypatch.setattr("limbeck.ledger.export._BATCH", 2)
    shop.ledger.describe(TEACHER, {"classes": ["gut", "schlecht, böse", 'so "so"']})
    shop.record(shop.reserve(3, 1, 7, worst=60), price=11, version="v1", failed=[1])
    shop.record(shop.reserve(2, 5, run="zwei", worst=60), price=12)
    path = tmp_path / f"answers.{ending}"
    assert export(shop.ledger, path) == 4
    rows = read(path)
    assert [int(row["question"], 16) for row in rows] == [3, 7, 2, 5]
    names = ("prob_gut", "prob_schlecht, böse", 'prob_so "so"')
    probs = torch.tensor([[float(row[name]) for name in names] for row in rows])
    assert torch.equal(probs, Shop.probs(Shop.ids(3, 7, 2, 5)))
    assert [int(row["price_micros"]) for row in rows] == [11, 11, 12, 12]
    assert {row["currency"] for row in rows} == {"USD"}
    assert [row["server_version"] or None for row in rows] == ["v1", "v1", None, None]
    assert [row["run"] for row in rows] == ["run", "run", "zwei", "zwei"]
    assert all(row["recorded_at"].endswith("+00:00") for row in rows)


def test_one_of_two_teachers_is_chosen_by_its_fingerprint(shop, tmp_path):
    shop.buy(1)
    shop.record(shop.ledger.reserve("run", "g" * 64, shop.ids(1, 2), Money(0), Budget(9)))
    path = tmp_path / "answers.jsonl"
    with pytest.raises(ConfigError, match="choose one with --teacher"):
        export(shop.ledger, path)
    assert not path.exists()
    assert export(shop.ledger, path, teacher="ggg") == 2
    assert set(read(path)[0]) >= {"prob_0", "prob_1", "prob_2"}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_teacher_without_answers_gives_a_file_without_rows(shop, tmp_path, ending):
    shop.ledger.describe(TEACHER, {"classes": ["a", "b"]})
    path = tmp_path / f"answers.{ending}"
    assert export(shop.ledger, path, teacher="f") == 0
    assert read(path) == []


def test_an_ending_that_is_not_known_is_refused(shop, tmp_path):
    with pytest.raises(ConfigError, match=r"'\.xlsx'.*\.csv, \.jsonl, \.parquet"):
        export(shop.ledger, tmp_path / "answers.xlsx")


def test_a_file_that_cannot_be_written_leaves_the_old_one(shop, tmp_path, monkeypatch):
    shop.buy(1)
    path = tmp_path / "answers.csv"
    path.write_text("before")
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("limbeck.data.results.pc.write_csv", full)
    with pytest.raises(StorageError, match="the disk is full"):
        export(shop.ledger, path)
    assert path.read_text() == "before"
