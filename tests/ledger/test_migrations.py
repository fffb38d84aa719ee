"""Files of every earlier version go on with all they held.

The first schema is copied here literally: no change of the code can change what was shipped.
"""

import sqlite3

import numpy as np
import pytest
import torch

from limbeck.errors import AnswerError
from limbeck.ledger import Budget, SqliteLedger
from limbeck.ledger.migrations import APPLICATION_ID, MIGRATIONS
from limbeck.ledger.verify import verify
from limbeck.teachers.base import Money

from .conftest import TEACHER, Shop

FIRST = """
CREATE TABLE teachers (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, info TEXT NOT NULL,
    num_classes INTEGER, embedding_dim INTEGER) STRICT;
CREATE TABLE answers (
    id INTEGER PRIMARY KEY, teacher INTEGER NOT NULL REFERENCES teachers(id),
    question BLOB NOT NULL, probs BLOB NOT NULL, embedding BLOB, raw BLOB,
    price INTEGER NOT NULL, server_version TEXT, run TEXT NOT NULL,
    at INTEGER NOT NULL) STRICT;
CREATE UNIQUE INDEX answers_key ON answers(teacher, question);
CREATE TABLE reservations (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, teacher INTEGER NOT NULL,
    owner TEXT NOT NULL, currency TEXT NOT NULL, at INTEGER NOT NULL,
    answered INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
    in_flight INTEGER NOT NULL DEFAULT 0, unknown INTEGER NOT NULL DEFAULT 0,
    micros INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX reservations_run ON reservations(run);
CREATE INDEX reservations_open ON reservations(in_flight) WHERE in_flight > 0;
CREATE TABLE attempts (
    reservation INTEGER NOT NULL REFERENCES reservations(id),
    question BLOB NOT NULL, teacher INTEGER NOT NULL, worst INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'reserved'
        CHECK (state IN ('reserved', 'settled', 'failed', 'unknown', 'released')),
    price INTEGER NOT NULL DEFAULT 0, failure TEXT, raw BLOB,
    PRIMARY KEY (reservation, question)) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX attempts_in_flight ON attempts(teacher, question)
    WHERE state = 'reserved';
CREATE TABLE events (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, run TEXT NOT NULL,
    detail TEXT NOT NULL) STRICT;
CREATE TRIGGER events_stay BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER events_last BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
INSERT INTO teachers VALUES (1, '{TEACHER}', '{"classes": ["a", "b", "c"]}', 3, 2),
    (2, 'new', '{}', NULL, NULL);
-- Two answered and one failed for 4 each, one unknown and, of a process that has died, one in
-- flight at 9; another run has one that was given back.
INSERT INTO reservations VALUES
    (1, 'old run', 1, 'earlier/1/2/3', 'EUR', 1700000000000, 2, 1, 0, 0, 12),
    (2, 'old run', 1, 'earlier/1/2/3', 'EUR', 1700000000001, 0, 0, 1, 1, 18),
    (3, 'another', 1, 'earlier/1/2/3', 'EUR', 1700000000002, 0, 0, 0, 0, 0);
INSERT INTO attempts VALUES
    (1, x'00000000000000000000000000000001', 1, 9, 'settled', 4, NULL, NULL),
    (1, x'00000000000000000000000000000002', 1, 9, 'settled', 4, NULL, NULL),
    (1, x'00000000000000000000000000000003', 1, 9, 'failed', 4, 'no words', x'3f'),
    (2, x'00000000000000000000000000000004', 1, 9, 'unknown', 0, NULL, NULL),
    (2, x'00000000000000000000000000000005', 1, 9, 'reserved', 0, NULL, NULL),
    (3, x'00000000000000000000000000000006', 1, 9, 'released', 0, NULL, NULL);
INSERT INTO events VALUES (1, 1700000000000, 'reserve', 'old run', '{"questions": 3}');
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path):
    """A file as the first version of Limbeck left it."""
    path = tmp_path / "ledger.sqlite"
    file = sqlite3.connect(path)
    file.executescript(FIRST.replace("{TEACHER}", TEACHER))
    file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    ids, embeddings = Shop.ids(1, 2), np.array([[1.0, 2.0], [3.0, 4.0]], "<f2")
    probs = Shop.probs(ids).numpy().astype("<f4")
    for key, row, half in zip(ids, probs, embeddings, strict=True):
        file.execute(
            "INSERT INTO answers (teacher, question, probs, embedding, raw, price, run, at) "
            "VALUES (1, ?, ?, ?, x'21', 4, 'old run', 1700000000005)",
            (key.tobytes(), row.tobytes(), half.tobytes()),
        )
    file.commit()
    file.close()
    return path


def test_the_first_schema_is_still_what_the_first_step_makes(old):
    file, made = sqlite3.connect(old), sqlite3.connect(":memory:")
    MIGRATIONS[0](made)
    query = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"

    def schema(connection):
        rows = connection.execute(query).fetchall()
        return [(*row[:3], " ".join((row[3] or "").split())) for row in rows]

    assert schema(file) == schema(made)
    file.close()
    made.close()


def test_answers_replies_spending_and_events_of_the_first_version_are_kept(old):
    shop = Shop(old)
    got = shop.answers(2, 1)
    assert torch.equal(got.probs, Shop.probs(Shop.ids(2, 1)))
    assert got.embeddings.tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert got.spread is None
    spent = shop.spent("old run")
    assert (spent.answered, spent.failed, spent.unknown, spent.reserved) == (2, 1, 2, 0)
    assert spent.money == Money(30, "EUR")
    assert shop.spent("another").queries == 0
    with shop.ledger.reading() as connection:
        raw = connection.execute("SELECT raw FROM answers UNION SELECT raw FROM attempts")
        assert set(raw.fetchall()) == {(b"!",), (b"?",), (None,)}
        kinds = connection.execute("SELECT kind FROM events ORDER BY id").fetchall()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    assert kinds == [("reserve",), ("unknown",)]  # the dead process is noticed on opening
    assert version == len(MIGRATIONS)
    assert verify(old) == []
    shop.ledger.close()


def test_teachers_of_the_first_version_go_on_as_they_were(old):
    shop = Shop(old)
    with pytest.raises(AnswerError, match="but earlier none"):
        shop.record(shop.reserve(13), embeddings=torch.zeros(1, 2), spread=torch.zeros(1, 3))
    shop.record(shop.reserve(14), embeddings=torch.zeros(1, 2), version="v9")
    assert shop.ledger.versions(TEACHER) == {"v9": 1}
    # One without answers may begin with a spread.
    reservation = shop.ledger.reserve("run", "new", shop.ids(1), Money(0), Budget(9999))
    shop.record(reservation, spread=torch.full((1, 3), 0.5))
    assert shop.ledger.answers("new", shop.ids(1)).spread.tolist() == [[0.5, 0.5, 0.5]]
    assert verify(old) == []
    shop.ledger.close()


@pytest.mark.parametrize("steps", range(1, len(MIGRATIONS) + 1))
def test_every_version_on_the_way_is_brought_to_the_newest(old, steps):
    file = sqlite3.connect(old, isolation_level=None)
    for step in MIGRATIONS[1:steps]:
        step(file)
    file.execute(f"PRAGMA user_version = {steps}")
    file.close()
    with SqliteLedger(old) as ledger:
        assert ledger.known(TEACHER, Shop.ids(1, 2, 3)).tolist() == [True, True, False]
        assert ledger.spent("old run").money == Money(30, "EUR")
    assert verify(old) == []


@pytest.mark.parametrize("broken", range(1, len(MIGRATIONS)))
def test_a_step_that_is_cut_short_leaves_the_old_version_whole(old, monkeypatch, broken):
    def half(connection):
        MIGRATIONS[broken](connection)
        raise KeyboardInterrupt

    steps = (*MIGRATIONS[:broken], half, *MIGRATIONS[broken + 1 :])
    monkeypatch.setattr("limbeck.ledger.migrations.MIGRATIONS", steps)
    with pytest.raises(KeyboardInterrupt):
        SqliteLedger(old)
    monkeypatch.undo()
    file = sqlite3.connect(old)
    assert file.execute("PRAGMA user_version").fetchone() == (1,)
    assert file.execute("SELECT COUNT(*) FROM answers").fetchone() == (2,)
    file.close()
    with SqliteLedger(old) as ledger:
        assert ledger.spent("old run").answered == 2
