"""Votes of people as answers."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import AnswerError, ConfigError, TeacherError
from limbeck.teachers.human import HumanTeacher, replies_of

CLASSES = ("no", "maybe", "yes")
TEACHER = HumanTeacher(CLASSES, ("text",))
votes = st.lists(
    st.dictionaries(st.sampled_from(CLASSES), st.integers(1, 9)), min_size=1, max_size=8
)


def ids(n):
    return np.arange(16 * n, dtype=np.uint8).reshape(n, 16)


@given(votes)
def test_an_answer_is_the_share_of_votes_and_nobody_sure_is_no_answer(counts):
    answers, ok = TEACHER.parse(replies_of(ids(len(counts)), counts))
    assert ok.tolist() == [bool(one) for one in counts]
    wanted = [[one.get(c, 0) / sum(one.values()) for c in CLASSES] for one in counts if one]
    np.testing.assert_allclose(answers.probs.numpy(), np.array(wanted).reshape(-1, 3), atol=1e-6)
    assert np.array_equal(answers.ids, ids(len(counts))[ok])


@given(votes, st.integers(0, 10**6))
def test_every_vote_costs_its_price_and_nobody_is_paid_for_none(counts, price):
    replies = replies_of(ids(len(counts)), counts, price=price)
    assert replies.price.tolist() == [price * sum(one.values()) for one in counts]
    assert [why is None for why in replies.failure] == [bool(one) for one in counts]


def test_it_is_not_asked_like_the_others():
    batch = pa.RecordBatch.from_pydict({"text": ["a", "b"]})
    with pytest.raises(
        TeacherError, match=r"2 questions are for people.*limbeck ask.*limbeck tell"
    ):
        TEACHER.ask(ids(2), batch)


def test_votes_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="less than one vote"):
        replies_of(ids(1), [{"no": 0}])
    with pytest.raises(AnswerError, match="a vote is for 'perhaps'"):
        TEACHER.parse(replies_of(ids(1), [{"perhaps": 1}]))


def test_another_question_or_group_of_people_is_another_teacher():
    others = [
        HumanTeacher(CLASSES, ("text",), question="Well?"),
        HumanTeacher(CLASSES, ("text",), fingerprint="the night shift"),
        HumanTeacher(CLASSES, ("text", "title")),
    ]
    assert len({TEACHER.fingerprint, *(one.fingerprint for one in others)}) == 4
