"""What is purged is nowhere in the file any more; all else stays."""

import numpy as np
import pytest

from limbeck.errors import ConfigError, StorageError
from limbeck.ledger import Budget, connections
from limbeck.ledger.merge import merge
from limbeck.ledger.purge import Purged, purge, read_ids, vacuum
from limbeck.ledger.verify import verify
from limbeck.teachers.base import Money

from .conftest import TEACHER, Shop

SECRET = b"the reply about Ada Lovelace, born 1815"
OTHER = b"the reply about Charles Babbage"
FIRST = 0x8C1F_94D7_55A3_E20B << 64  # no id is a number that the file is full of anyway


def bytes_on_disk(ledger):
    """What a thief of the folder would find."""
    files = sorted(ledger.path.parent.glob(ledger.path.name + "*"))
    return b"".join(file.read_bytes() for file in files)


def fill(shop, n=400):
    """Many answers and failures with raw replies, two of them secret; several pages of them."""
    for start in range(0, n, 50):
        numbers = [*range(FIRST + start, FIRST + start + 50)]
        reservation = shop.reserve(*numbers, worst=500, queries=10_000)
        secret = [number for number in numbers if number in (FIRST + 7, FIRST + 333)]
        plain = [number for number in numbers if number not in secret]
        failed = [number for number in plain if (number - FIRST) % 5 == 0]
        shop.record(reservation, only=plain, failed=failed, price=1, raw=OTHER * 20, keep=True)
        for number in secret:  # 7 is an answer, 333 a failure
            failed = [number] if number == FIRST + 333 else []
            shop.record(reservation, only=[number], failed=failed, price=1, raw=SECRET, keep=True)


def test_content_and_ids_are_gone_from_file_and_log_and_all_else_stays(shop):
    fill(shop)
    with_it = bytes_on_disk(shop.ledger)
    assert SECRET in with_it
    assert Shop.ids(FIRST + 7).tobytes() in with_it
    known, spent = shop.known(*range(FIRST, FIRST + 400)), shop.spent()
    assert purge(shop.ledger, shop.ids(FIRST + 7, FIRST + 333, FIRST + 99_999)) == Purged(1, 2)
    left = bytes_on_disk(shop.ledger)
    assert SECRET not in left
    assert Shop.ids(FIRST + 7).tobytes() not in left
    assert Shop.ids(FIRST + 333).tobytes() not in left
    assert Shop.probs(Shop.ids(FIRST + 7)).numpy().tobytes() not in left
    assert OTHER in left
    assert shop.spent() == spent, "what was spent stays counted"
    assert shop.known(*range(FIRST, FIRST + 400)) == [known[i] and i != 7 for i in range(400)]
    assert verify(shop.ledger.path) == []


def test_closing_and_opening_brings_nothing_back(shop, tmp_path):
    fill(shop)
    purge(shop.ledger, shop.ids(FIRST + 7, FIRST + 333))
    shop.ledger.close()
    shop.ledger = Shop(tmp_path / "ledger.sqlite").ledger
    assert SECRET not in bytes_on_disk(shop.ledger)
    shop.buy(FIRST + 7)  # may be asked again, under a place of its own in the budget
    assert shop.known(FIRST + 7) == [True]


def test_the_log_says_how_many_and_not_what(shop):
    fill(shop)
    purge(shop.ledger, shop.ids(FIRST + 7, FIRST + 333))
    with shop.ledger.reading() as connection:
        told = connection.execute("SELECT detail FROM events WHERE kind = 'purge'").fetchall()
    assert told == [('{"answers": 1, "attempts": 2}',)]


def test_only_the_teachers_that_are_named_are_purged(shop):
    shop.buy(1)
    reservation = shop.ledger.reserve("run", "g" * 64, shop.ids(1), Money(0), Budget(99))
    shop.record(reservation)
    assert purge(shop.ledger, {"g" * 64: shop.ids(1), "h" * 64: shop.ids(1)}) == Purged(1, 1)
    assert shop.known(1) == [True]
    assert not shop.ledger.known("g" * 64, shop.ids(1)).any()


def test_a_dry_run_counts_and_removes_nothing(shop):
    fill(shop, 50)
    before = shop.known(*range(FIRST, FIRST + 50))
    assert purge(shop.ledger, shop.ids(FIRST + 7, FIRST + 5), dry_run=True) == Purged(1, 2)
    assert purge(shop.ledger, shop.ids(FIRST + 7, FIRST + 5), dry_run=True) == Purged(1, 2)
    assert shop.known(*range(FIRST, FIRST + 50)) == before
    assert SECRET in bytes_on_disk(shop.ledger)


def test_questions_in_flight_stop_a_purge_before_anything_is_removed(shop):
    shop.buy(1)
    shop.reserve(2)
    with pytest.raises(ConfigError, match=r"1 of these questions are in flight.*stop the run"):
        purge(shop.ledger, shop.ids(1, 2))
    assert shop.known(1) == [True]


def test_the_sentence_of_a_failure_goes_too(shop):
    reservation = shop.reserve(1, 2)
    shop.record(reservation, failed=[1])
    purge(shop.ledger, shop.ids(1))
    assert len(shop.ledger.failed("run", TEACHER)) == 0
    assert b"it said nothing" not in bytes_on_disk(shop.ledger)
    assert shop.spent().failed == 1


def test_a_reader_that_keeps_the_old_log_is_told_of(shop, tmp_path, monkeypatch):
    fill(shop, 50)
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.05)
    other, mine = Shop(tmp_path / "ledger.sqlite"), Shop(tmp_path / "ledger.sqlite")
    with other.ledger.reading() as connection:
        connection.execute("SELECT COUNT(*) FROM answers").fetchone()
        with pytest.raises(StorageError, match=r"in use by another process.*ledger vacuum"):
            purge(mine.ledger, shop.ids(FIRST + 7))
        assert mine.known(FIRST + 7) == [False]
    vacuum(mine.ledger)
    assert SECRET not in bytes_on_disk(mine.ledger)
    other.ledger.close()
    mine.ledger.close()


def test_a_purge_cannot_be_half_of_another_transaction(shop):
    shop.buy(1)
    with shop.ledger.together(), pytest.raises(ConfigError, match="cannot be a part"):
        purge(shop.ledger, shop.ids(1))
    assert shop.known(1) == [True]


def test_vacuum_gives_the_room_back_and_keeps_every_answer(shop):
    fill(shop)
    with shop.ledger.writing() as connection:
        connection.execute("DELETE FROM answers WHERE raw IS NOT NULL AND price = 1 AND id % 2")
    known = shop.known(*range(FIRST, FIRST + 400))
    done = vacuum(shop.ledger)
    assert done.after < done.before
    assert done.after == len(shop.ledger.path.read_bytes()), "the log is empty"
    assert shop.known(*range(FIRST, FIRST + 400)) == known


def test_another_ledger_brings_back_what_is_not_purged_there(shop, tmp_path):
    shop.buy(1)
    copy = Shop(tmp_path / "copy.sqlite")
    merge(copy.ledger, shop.ledger.path)
    purge(shop.ledger, shop.ids(1))
    merge(shop.ledger, copy.ledger.path)
    assert shop.known(1) == [True]
    copy.ledger.close()


def test_ids_are_read_from_a_file_and_a_wrong_line_is_named(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text(f"{1:032x}\n\n  {2:032x}\n")
    assert np.array_equal(read_ids(path), Shop.ids(1, 2))
    path.write_text(f"{1:032x}\nAda Lovelace\n")
    with pytest.raises(ConfigError, match=r"line 2 of .*'Ada Lovelace'.*32 hexadecimal digits"):
        read_ids(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_ids(tmp_path / "none.txt")
