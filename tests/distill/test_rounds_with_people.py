"""People as the teacher of a run that buys in rounds: ask, tell, days apart, in any process."""

from dataclasses import replace

import numpy as np
import pytest

from limbeck.distill.folder import RunFolder
from limbeck.distill.people import ask, tell
from limbeck.distill.round_files import RoundFiles
from limbeck.distill.run import distill
from limbeck.errors import WaitingError
from tests.distill.test_people import fill, make, rows_of

FIRST = 14  # validation and test


@pytest.fixture
def config(tmp_path):
    plain = make(tmp_path)
    return replace(plain, buy=replace(plain.buy, rule="rad", rounds=2, per_round=6, steps=8))


def answer(config, rows=100):
    asked = ask(config, rows=rows)
    if asked.path is not None:
        tell(config, [fill(asked.path)])
    return asked


def test_a_student_chooses_the_next_questions_when_a_round_is_answered(config):
    assert answer(config).rows == {"validation": 8, "test": 6, "pool": 0}
    files = RoundFiles(RunFolder(config.out))
    assert files.batch(1) is None
    assert answer(config).rows == {"validation": 0, "test": 0, "pool": 6}
    assert files.batch(2) is None
    assert answer(config).rows == {"validation": 0, "test": 0, "pool": 6}
    assert not set(files.batch(1).rows) & set(files.batch(2).rows)
    last = ask(config, rows=100)
    assert last.path is None
    outcome = distill(config)
    assert outcome.record.cost.bought == FIRST + 12


def test_a_round_that_is_answered_in_part_is_waited_for(config):
    answer(config)
    asked = ask(config, rows=4)
    assert asked.unasked == 2
    tell(config, [fill(asked.path)])
    with pytest.raises(WaitingError, match="2 of 6 round-1 questions have no answer of people yet"):
        distill(config)
    assert answer(config).rows["pool"] == 2
    assert RoundFiles(RunFolder(config.out)).batch(2) is None


def test_nothing_new_is_chosen_while_questions_are_out(config):
    answer(config)
    out = ask(config, rows=100)
    again = ask(config, rows=100)
    assert again.path is None
    assert again.out == 6
    tell(config, [fill(out.path)])
    assert ask(config, rows=100).rows["pool"] == 6


def test_the_last_round_may_be_answered_in_part(config):
    answer(config)
    answer(config)
    asked = ask(config, rows=3)
    tell(config, [fill(asked.path)])
    outcome = distill(config)
    assert outcome.record.cost.bought == FIRST + 9


def test_what_goes_out_is_what_the_rule_chose(config, tmp_path):
    answer(config)
    asked = ask(config, rows=100)
    batch = RoundFiles(RunFolder(config.out)).batch(1)
    lines = (tmp_path / "pool.csv").read_text().splitlines()[1:]
    wanted = np.array([[float(x) for x in lines[row].split(",")[:2]] for row in batch.rows])
    found = np.array([[float(row["a"]), float(row["b"])] for row in rows_of(asked.path)])
    assert np.array_equal(wanted[wanted[:, 0].argsort()], found[found[:, 0].argsort()])
