"""Kills, full disks, damaged files and injected faults: nothing that was recorded is lost."""

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from limbeck.errors import BudgetError, StorageError
from limbeck.ledger import SqliteLedger, attempts, owners
from limbeck.ledger.connections import Connections
from limbeck.ledger.migrations import MIGRATIONS

from .conftest import TEACHER, Shop


class Fault(Exception):
    """What the tests inject."""


def break_commit(monkeypatch, when):
    """Let the next commit fail, before or after it happened."""
    real = SqliteLedger._commit

    def commit(self, connection):
        monkeypatch.setattr(SqliteLedger, "_commit", real)
        if when == "after":
            real(self, connection)
        raise Fault

    monkeypatch.setattr(SqliteLedger, "_commit", commit)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_at_the_commit_of_reserve_never_frees_budget_that_is_taken(shop, monkeypatch, when):
    break_commit(monkeypatch, when)
    with pytest.raises(Fault):
        shop.reserve(1, 2, worst=10, queries=2)
    assert shop.spent().reserved == (2 if when == "after" else 0)
    if when == "after":  # the process that reserved dies; the next one finds its questions
        monkeypatch.setattr(attempts, "is_alive", lambda owner, age: False)
        monkeypatch.setattr(attempts, "this_process", lambda: "boot/ns/1/2")
        with pytest.raises(BudgetError):
            shop.reserve(1, queries=2)
        assert len(shop.reserve(1, 2, queries=4).ids) == 2
    else:
        assert len(shop.reserve(1, 2, queries=2).ids) == 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_at_the_commit_of_record_writes_all_or_nothing(shop, monkeypatch, when):
    reservation = shop.reserve(1, 2, worst=10)
    break_commit(monkeypatch, when)
    with pytest.raises(Fault):
        shop.record(reservation, failed=[2], price=3)
    recorded = when == "after"
    assert shop.known(1) == [recorded]
    spent = shop.spent()
    assert (spent.answered, spent.failed, spent.reserved) == ((1, 1, 0) if recorded else (0, 0, 2))
    shop.record(reservation, failed=[2], price=3)
    assert shop.known(1, 2) == [True, False]
    assert shop.spent().money.micros == 6


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_at_the_commit_of_release_leaves_a_ledger_that_goes_on(shop, monkeypatch, when):
    reservation = shop.reserve(1)
    break_commit(monkeypatch, when)
    with pytest.raises(Fault):
        shop.ledger.release(reservation, unknown=False)
    assert shop.spent().reserved == (0 if when == "after" else 1)
    shop.ledger.release(reservation, unknown=False)
    assert shop.spent().queries == 0


@pytest.mark.parametrize(("worst", "state"), [(10, "unknown"), (0, "released")])
def test_what_a_dead_process_left_is_freed_and_counted_if_it_may_have_been_billed(
    shop, monkeypatch, worst, state
):
    shop.reserve(1, 2, worst=worst)
    assert shop.spent().reserved == 2
    monkeypatch.setattr(attempts, "is_alive", lambda owner, age: False)
    monkeypatch.setattr(attempts, "this_process", lambda: "boot/ns/1/2")
    assert shop.numbers(shop.reserve(1, 2, run="other").ids) == [1, 2]
    spent = shop.spent()
    assert spent.reserved == 0
    assert spent.unknown == (2 if state == "unknown" else 0)


def test_a_process_is_alive_until_it_ends_and_its_number_alone_is_not_enough():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    boot, namespace, _, _ = owners.this_process().split("/")
    start = owners._start(child.pid)
    name = f"{boot}/{namespace}/{child.pid}/{start}"
    assert owners.is_alive(owners.this_process(), 0)
    assert owners.is_alive(name, 0)
    assert not owners.is_alive(f"{boot}/{namespace}/{child.pid}/{start}9", 0)
    assert not owners.is_alive(f"earlier-boot/{namespace}/{child.pid}/{start}", 0)
    assert owners.is_alive(f"{boot}/other-container/1/1", 60)
    assert not owners.is_alive(f"{boot}/other-container/1/1", 7200)
    child.kill()
    time.sleep(0.05)
    assert not owners.is_alive(name, 0), "a zombie is dead"
    child.communicate()
    assert not owners.is_alive(name, 0)


def _reserve_and_hang(path, ready):
    shop = Shop(Path(path))
    shop.buy(1)
    shop.reserve(2, 3, worst=20)
    ready.set()
    time.sleep(60)


def test_a_killed_process_keeps_its_answers_and_gives_up_its_reservations(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=_reserve_and_hang, args=(tmp_path / "l.sqlite", ready))
    child.start()
    assert ready.wait(20)
    shop = Shop(tmp_path / "l.sqlite")
    assert shop.spent().reserved == 2
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    shop.ledger.close()
    shop = Shop(tmp_path / "l.sqlite")  # opening it is enough
    assert (shop.spent().answered, shop.spent().unknown, shop.spent().reserved) == (1, 2, 0)
    assert shop.known(1, 2, 3) == [True, False, False]
    shop.ledger.close()


def _buy_all(path, out):
    shop, bought = Shop(Path(path)), 0
    try:
        for number in range(200):
            got = shop.reserve(number, worst=5, queries=150, money=600)
            shop.record(got, price=3)
            bought += len(got.ids)
    except BudgetError:
        pass
    out.put(bought)
    shop.ledger.close()


def test_two_processes_share_one_budget(tmp_path):
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    path = tmp_path / "l.sqlite"
    children = [context.Process(target=_buy_all, args=(path, out)) for _ in range(2)]
    for child in children:
        child.start()
    bought = [out.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    shop = Shop(path)
    spent = shop.spent()
    assert sum(bought) == spent.answered == spent.queries == 150
    assert spent.money.micros == 450
    shop.ledger.close()


def _read_in_child(shop, out):
    out.put(shop.known(1))
    shop.buy(2)
    shop.ledger.close()


def test_a_forked_child_uses_the_ledger_without_harm_to_its_parent(shop):
    shop.buy(1)
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    child = context.Process(target=_read_in_child, args=(shop, out))
    child.start()
    assert out.get(timeout=20) == [True]
    child.join()
    assert child.exitcode == 0
    shop.buy(3)
    assert shop.known(1, 2, 3) == [True, True, True]


def test_a_full_disk_is_one_sentence_and_loses_nothing(shop):
    shop.buy(1)
    with shop.ledger.writing() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    shop.ledger._connections.get().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="the disk is full; free some space") as caught:
        shop.buy(*range(10, 5_000), queries=20_000)
    assert caught.value.exit_code == 2
    before = shop.spent().answered
    assert shop.known(1) == [True]
    shop.ledger._connections.get().execute("PRAGMA max_page_count = 1000000")
    shop.buy(5)
    assert shop.spent().answered == before + 1


def test_a_folder_that_may_not_be_written_is_one_sentence():
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody who may not write")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(StorageError, match="check that its folder exists and is writable"):
                SqliteLedger(Path(folder) / "ledger.sqlite")
            with pytest.raises(StorageError, match="permission is denied"):
                SqliteLedger(Path(folder) / "new" / "ledger.sqlite")
        finally:
            os.seteuid(0)


def test_a_read_only_ledger_is_one_sentence():
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody who may not write")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "ledger.sqlite"
        Shop(path).ledger.close()
        os.seteuid(65534)
        try:
            with pytest.raises(StorageError, match=r"read-only|cannot be opened"):
                SqliteLedger(path)
        finally:
            os.seteuid(0)


def test_a_truncated_file_is_one_sentence_and_is_left_alone(tmp_path):
    path = tmp_path / "l.sqlite"
    shop = Shop(path)
    shop.buy(*range(500))
    shop.ledger.close()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StorageError, match="damaged"):
        SqliteLedger(path).known(TEACHER, shop.ids(*range(500)))
    assert path.read_bytes() == data[: len(data) // 2]


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "l.sqlite"
    path.write_text("id,label\n" * 200)
    with pytest.raises(StorageError, match="not an SQLite file or is damaged"):
        SqliteLedger(path)


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "l.sqlite"
    file = sqlite3.connect(path)
    file.execute("CREATE TABLE mine (x)")
    file.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="another program"):
        SqliteLedger(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "l.sqlite"
    Shop(path).ledger.close()
    file = sqlite3.connect(path)
    file.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    file.close()
    before = path.read_bytes()
    with pytest.raises(
        StorageError, match=rf"schema version {len(MIGRATIONS) + 1}.*update Limbeck"
    ):
        SqliteLedger(path)
    assert path.read_bytes() == before


def test_an_answer_of_the_wrong_length_is_not_served(shop, tmp_path):
    shop.buy(1)
    file = sqlite3.connect(tmp_path / "ledger.sqlite")
    file.execute("UPDATE answers SET probs = x'00'")
    file.commit()
    file.close()
    with pytest.raises(StorageError, match="wrong length; the file is damaged"):
        shop.answers(1)


def test_counters_always_equal_the_attempts(shop):
    shop.record(shop.reserve(1, 2, 3, worst=30), failed=[2], price=4)
    shop.ledger.release(shop.reserve(4, worst=9), unknown=True)
    shop.ledger.release(shop.reserve(5, worst=9), unknown=False)
    shop.reserve(6, worst=9)
    with shop.ledger.writing() as connection:
        states = dict(
            connection.execute("SELECT state, COUNT(*) FROM attempts GROUP BY state").fetchall()
        )
    spent = shop.spent()
    assert states == {"settled": 2, "failed": 1, "unknown": 1, "released": 1, "reserved": 1}
    assert (spent.answered, spent.failed, spent.unknown, spent.reserved) == (2, 1, 1, 1)
    assert spent.money.micros == 3 * 4 + 9 + 9


def test_connections_of_ended_threads_are_used_again(tmp_path):
    import threading

    connections = Connections(tmp_path / "l.sqlite")
    for _ in range(20):
        thread = threading.Thread(target=connections.get)
        thread.start()
        thread.join()
    assert len(connections._open) < 20
    connections.close()
