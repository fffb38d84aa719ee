"""Each kind of damage is found and told in a sentence; a ledger that is whole has none."""

import sqlite3

import numpy as np
import pytest
import torch

from limbeck.errors import StorageError
from limbeck.ledger import SqliteLedger
from limbeck.ledger.verify import verify

from .conftest import Shop


@pytest.fixture
def used(shop):
    """A ledger that has seen everything, closed."""
    shop.record(
        shop.reserve(1, 2, 3, worst=30),
        failed=[2],
        price=4,
        embeddings=torch.zeros(2, 4),
        spread=torch.zeros(2, 3),
    )
    shop.ledger.release(shop.reserve(4, worst=9), unknown=True)
    shop.ledger.release(shop.reserve(5, run="b", worst=9), unknown=False)
    shop.reserve(6, worst=9)
    shop.ledger.close()
    return shop.ledger.path


def break_it(path, *statements):
    file = sqlite3.connect(path)
    for statement in statements:
        file.execute(statement)
    file.commit()
    file.close()


def test_a_ledger_in_use_is_whole(used):
    assert verify(used) == []


def test_an_empty_ledger_is_whole(tmp_path):
    SqliteLedger(tmp_path / "l.sqlite").close()
    assert verify(tmp_path / "l.sqlite") == []


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("UPDATE reservations SET answered = 9 WHERE id = 1", "1 reservations whose counters"),
        ("UPDATE reservations SET micros = micros + 1 WHERE id = 2", "1 reservations whose count"),
        ("UPDATE totals SET micros = 1 WHERE run = 'run'", "totals of runs that differ"),
        ("DELETE FROM totals WHERE run = 'b'", "1 totals of runs that differ"),
        ("UPDATE answers SET teacher = 7 WHERE id = 1", "1 answers of a teacher that is not"),
        ("UPDATE reservations SET teacher = 7 WHERE id = 3", "1 reservations for a teacher"),
        ("DELETE FROM reservations WHERE id = 2", "1 attempts of a reservation that is not there"),
        ("UPDATE attempts SET teacher = 7 WHERE state = 'unknown'", "1 attempts of another teach"),
        ("DELETE FROM answers WHERE id = 1", "1 questions that were settled but have no answer"),
        (
            "UPDATE attempts SET state = 'failed' WHERE question IN "
            "(SELECT question FROM answers WHERE id = 1)",
            "1 answers that no attempt has settled",
        ),
        ("UPDATE answers SET probs = x'00' WHERE id = 1", "1 answers whose probabilities, emb"),
        ("UPDATE answers SET embedding = NULL WHERE id = 1", "1 answers whose probabilities, emb"),
        ("UPDATE answers SET embedding = x'0000' WHERE id = 1", "1 answers whose probabilities"),
        ("UPDATE answers SET spread = NULL WHERE id = 1", "1 answers whose probabilities, emb"),
        ("UPDATE answers SET question = x'01' WHERE id = 1", "1 answers whose question is not 16"),
    ],
)
def test_what_does_not_belong_together_is_told(used, statement, sentence):
    break_it(used, statement)
    found = verify(used)
    assert any(line.startswith(sentence) or sentence in line for line in found), found


@pytest.mark.parametrize(
    ("column", "values", "sentence"),
    [
        ("probs", np.array([0.5, 0.5, 0.1], "<f4"), "1 answers of teacher ffffffffffff do not sum"),
        ("probs", np.array([1.2, -0.2, 0.0], "<f4"), "hold what is no number in its range"),
        ("probs", np.array([np.nan, 0.5, 0.5], "<f4"), "hold what is no number in its range"),
        ("embedding", np.array([0, np.inf, 0, 0], "<f2"), "hold what is no number in its range"),
        ("spread", np.array([0, np.nan, 0], "<f4"), "hold what is no number in its range"),
    ],
)
def test_answers_that_are_none_are_told(used, column, values, sentence):
    break_it(used, f"UPDATE answers SET {column} = x'{values.tobytes().hex()}' WHERE id = 2")
    (line,) = verify(used)
    assert sentence in line


def test_a_damaged_page_is_told_and_the_file_is_left_alone(tmp_path):
    shop = Shop(tmp_path / "l.sqlite")
    shop.buy(*range(900))
    shop.ledger.close()
    data = bytearray(shop.ledger.path.read_bytes())
    data[40_960:45_056] = bytes(4096)
    shop.ledger.path.write_bytes(data)
    found = verify(shop.ledger.path)
    assert found
    assert all("damaged" in line for line in found)


def test_a_file_cut_short_is_told(tmp_path):
    shop = Shop(tmp_path / "l.sqlite")
    shop.buy(*range(900))
    shop.ledger.close()
    data = shop.ledger.path.read_bytes()
    shop.ledger.path.write_bytes(data[: len(data) // 2])
    assert all("damaged" in line for line in verify(shop.ledger.path))
    assert verify(shop.ledger.path)


def test_what_is_no_ledger_is_refused(tmp_path):
    with pytest.raises(StorageError, match="there is no ledger"):
        verify(tmp_path / "none.sqlite")
    (tmp_path / "cut.sqlite").write_bytes(b"")
    with pytest.raises(StorageError, match="is empty, expected a ledger"):
        verify(tmp_path / "cut.sqlite")
    assert (tmp_path / "cut.sqlite").read_bytes() == b""
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StorageError, match="another program"):
        verify(tmp_path / "other.sqlite")
