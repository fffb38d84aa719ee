"""Disks that fill up, files that are cut, locks that last, and processes killed at any moment."""

import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import threading
import time
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import LimbeckError, StorageError
from limbeck.ledger import SqliteLedger, connections
from limbeck.ledger.codec import pack_embeddings, unpack
from limbeck.ledger.verify import verify

from .conftest import TEACHER, Shop

FORK = multiprocessing.get_context("fork")


@settings(max_examples=80)
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_an_embedding_comes_back_within_the_stated_error(values):
    row = torch.tensor([values], dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # beyond the range it is told
        got = unpack(pack_embeddings(row, what="test"), "<f2", len(values)).double()
    wanted = row.double().clamp(-65504, 65504)
    bound = torch.where(wanted.abs() >= 2**-14, wanted.abs() * 2**-11, 2**-25)
    assert ((got - wanted).abs() <= bound).all()


def test_a_lock_that_lasts_is_one_sentence_and_nothing_is_lost(shop, tmp_path, monkeypatch):
    shop.buy(1)
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.05)
    late = Shop(tmp_path / "ledger.sqlite")
    with shop.ledger.writing():
        with pytest.raises(StorageError, match=r"another process keeps it locked.*later"):
            late.reserve(2)
        assert late.known(1) == [True], "readers do not wait"
        with pytest.raises(StorageError, match="another process keeps it locked"):
            SqliteLedger(tmp_path / "ledger.sqlite")
    assert len(late.reserve(2).ids) == 1
    late.ledger.close()


def test_a_short_lock_is_waited_for(shop):
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with shop.ledger.writing():
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(20)
    threading.Timer(0.1, leave.set).start()
    shop.buy(2)
    thread.join()
    assert shop.known(2) == [True]


def _buy_until_it_breaks(path, pipe, bytes_left):
    size = path.stat().st_size + bytes_left
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    shop = Shop(path)
    for number in range(100, 100_000):
        try:
            shop.buy(number, queries=10**6)
        except LimbeckError as error:
            pipe.send((type(error).__name__, str(error)))
            return
        pipe.send(number)


@pytest.mark.parametrize("bytes_left", [0, 70_000, 300_000])
def test_a_disk_that_fills_up_is_one_sentence_and_what_was_recorded_stays(tmp_path, bytes_left):
    shop = Shop(tmp_path / "ledger.sqlite")
    shop.buy(1, 2, 3)
    shop.ledger.close()
    mine, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_buy_until_it_breaks, args=(shop.ledger.path, theirs, bytes_left))
    child.start()
    theirs.close()
    told = []
    while not told or isinstance(told[-1], int):
        assert mine.poll(60)
        told.append(mine.recv())
    child.join()
    kind, sentence = told.pop()
    assert kind == "StorageError"
    assert "the disk" in sentence
    assert "every answer recorded before is kept" in sentence
    shop = Shop(tmp_path / "ledger.sqlite")
    assert all(shop.known(1, 2, 3, *told))
    shop.answers(*told)
    assert shop.spent().answered == 3 + len(told)
    assert verify(shop.ledger.path) == []
    shop.ledger.close()


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_a_file_cut_anywhere_gives_right_answers_or_one_sentence(tmp_path, keep):
    shop = Shop(tmp_path / "l.sqlite")
    shop.buy(*range(700))
    shop.ledger.close()
    data = shop.ledger.path.read_bytes()
    cut = data[: int(len(data) * keep)]
    shop.ledger.path.write_bytes(cut)
    told = []
    try:
        again = Shop(tmp_path / "l.sqlite")
    except StorageError as error:
        told.append(str(error))
    else:
        for number in range(0, 700, 7):
            try:
                got = again.answers(number).probs
                assert torch.equal(got, Shop.probs(Shop.ids(number)))
            except StorageError as error:
                told.append(str(error))
        again.ledger.close()
    assert told
    assert all("damaged" in sentence for sentence in told)
    assert not any("is kept" in sentence for sentence in told)
    assert shop.ledger.path.read_bytes() == cut
    assert all("damaged" in line for line in verify(shop.ledger.path))


def test_a_ledger_that_cannot_be_written_can_be_read_and_says_so(shop, tmp_path, monkeypatch):
    shop.buy(1)
    shop.ledger.close()
    before = shop.ledger.path.read_bytes()
    real = sqlite3.connect

    def read_only(path, **settings):
        return real(f"file:{path}?mode=ro", uri=True, **settings)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    again = Shop(tmp_path / "ledger.sqlite")
    assert again.known(1) == [True]
    assert verify(again.ledger.path) == []
    with pytest.raises(StorageError, match="is read-only; choose another folder"):
        again.reserve(2)
    again.ledger.close()
    monkeypatch.undo()
    assert shop.ledger.path.read_bytes() == before


def _work(path, pipe, first):
    """Buy one question after the other, in all the ways there are; tell what is on the disk."""
    shop = Shop(path)
    number = first
    while True:
        one, two = shop.reserve(number, worst=7), shop.reserve(number + 1, number + 2, worst=9)
        with shop.ledger.together():
            shop.record(one, price=7)
            shop.record(two, only=[number + 1], price=4)
            three = shop.reserve(number + 3)
        pipe.send([number, number + 1])
        shop.ledger.release(two, unknown=True)
        shop.record(three)
        pipe.send([number + 3])
        number += 4


@pytest.mark.slow
def test_two_processes_killed_at_random_moments_lose_nothing_that_they_told(tmp_path):
    path, rng = tmp_path / "l.sqlite", random.Random(0)
    Shop(path).ledger.close()
    told = []
    for moment in range(10):
        lines = [FORK.Pipe(duplex=False) for _ in range(2)]
        children = [
            FORK.Process(target=_work, args=(path, theirs, 10_000 * (2 * moment + i)))
            for i, (_, theirs) in enumerate(lines)
        ]
        for child, (_, theirs) in zip(children, lines, strict=True):
            child.start()
            theirs.close()
        assert lines[0][0].poll(60)
        time.sleep(rng.uniform(0, 0.05))
        for child, (mine, _) in zip(children, lines, strict=True):
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            try:
                while mine.poll(0):
                    told += mine.recv()
            except EOFError:
                pass
    shop = Shop(path)
    assert len(told) > 20
    assert all(shop.known(*told))
    assert torch.equal(shop.answers(*told).probs, Shop.probs(Shop.ids(*told)))
    spent = shop.spent()
    # At most two reservations of each process were in flight or just replied to at its death.
    assert len(told) <= spent.answered <= len(told) + 3 * 20
    assert spent.reserved == 0
    assert verify(path) == []
    with shop.ledger.reading() as connection:
        twice = connection.execute(
            "SELECT COUNT(*) FROM (SELECT 1 FROM attempts WHERE state = 'settled' "
            "GROUP BY teacher, question HAVING COUNT(*) > 1)"
        ).fetchone()
    assert twice == (0,), "nothing was bought twice"
    assert shop.ledger.versions(TEACHER) == {}
    shop.ledger.close()
