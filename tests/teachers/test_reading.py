"""Replies of a chat model: what is read, and what is refused instead of guessed."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.teachers.reading import plain, read_logprobs, read_votes

NAMES = ("negative", "Neutral", "très positif")


def said(*contents):
    return json.dumps({"choices": [{"message": {"content": text}} for text in contents]}).encode()


def listed(alternatives, *, token=None, before=()):
    """A completion whose answer has these alternatives, as probabilities by token."""
    top = [{"token": name, "logprob": math.log(p) if p else -9999.0} for name, p in alternatives]
    first = {"token": token or alternatives[0][0], "logprob": top[0]["logprob"]}
    tokens = [{"token": text, "logprob": 0.0, "top_logprobs": []} for text in before]
    return json.dumps(
        {"choices": [{"logprobs": {"content": [*tokens, {**first, "top_logprobs": top}]}}]}
    ).encode()


@pytest.mark.parametrize(
    "text",
    ["neutral", "NEUTRAL", " Neutral.\n", '"Neutral"', "“neutral.”", "'Neutral'.", "`neutral`",
     "".join(chr(ord(letter) + 0xFEE0) for letter in "neutral")],  # full width
)  # fmt: skip
def test_a_class_name_is_read_in_any_dress(text):
    assert read_votes([said(text)], NAMES, 1).probs == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    "text",
    ["It is neutral", "neutral, I think", "neutral negative", "neutral..!", "neutra", "", "   ",
     "B", "positif", None, ["neutral"], {"text": "neutral"}, 7],
)  # fmt: skip
def test_anything_more_or_less_than_a_class_name_is_a_failure(text):
    reading = read_votes([said(text)], NAMES, 1)
    assert reading.probs is None
    assert "is not exactly one of the classes" in reading.failure


def test_composed_and_decomposed_letters_are_the_same():
    assert read_votes([said("tre\u0300s positif")], NAMES, 1).probs == (0.0, 0.0, 1.0)


@given(st.text(max_size=30))
def test_plain_is_settled_after_one_pass_of_case_and_form(text):
    once = plain(text)
    assert once == once.strip()
    assert plain(text.upper()) == plain(text.upper().casefold())


def test_votes_are_shares_over_one_or_several_replies():
    lines = [said("negative", "neutral"), said("neutral"), said("neutral")]
    assert read_votes(lines, NAMES, 4).probs == (0.25, 0.75, 0.0)


def test_votes_beyond_those_asked_for_do_not_count():
    assert read_votes([said("neutral", "negative", "negative")], NAMES, 1).probs == (0.0, 1.0, 0.0)


def test_unreadable_votes_are_left_out_up_to_half():
    assert read_votes([said("neutral", "neutral", "oh")], NAMES, 3).probs == (0.0, 1.0, 0.0)
    assert read_votes([said("neutral", "oh")], NAMES, 2).probs == (0.0, 1.0, 0.0)
    assert "'oh'" in read_votes([said("neutral", "oh", "ah")], NAMES, 3).failure


def test_too_few_votes_are_a_failure():
    assert read_votes([said("neutral")], NAMES, 3).failure == "the server sent 1 of 3 votes"


def test_a_reply_cut_short_says_what_to_raise():
    line = json.dumps(
        {"choices": [{"message": {"content": "neut"}, "finish_reason": "length"}]}
    ).encode()
    assert "raise teacher.endpoint.max_tokens" in read_votes([line], NAMES, 1).failure


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"<html>", "is not JSON"),
        (b"[1]", "no chat completion"),
        (b"{}", "no choices"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": [3]}', "no choices"),
        (b'{"error": {"message": "overloaded"}}', "overloaded"),
    ],
)
def test_what_is_no_completion_is_told_as_such(line, why):
    assert why in read_votes([line], NAMES, 1).failure
    assert why in read_logprobs(line, "ABC").failure


def test_log_probabilities_are_scaled_to_the_options():
    reading = read_logprobs(listed([("B", 0.6), ("A", 0.2), ("C", 0.1), ("The", 0.1)]), "ABC")
    assert reading.probs == pytest.approx((0.2 / 0.9, 0.6 / 0.9, 0.1 / 0.9))


def test_spellings_of_a_letter_are_added_up():
    reading = read_logprobs(listed([("A", 0.5), (" A", 0.2), ("a", 0.1), ("B", 0.2)]), "AB")
    assert reading.probs == pytest.approx((0.8, 0.2))


def test_an_option_that_is_not_listed_gets_what_is_left_but_no_more_than_the_least_listed():
    # 0.1 is left: two options share it equally.
    reading = read_logprobs(listed([("A", 0.8), ("B", 0.1)]), "ABCD")
    assert reading.probs == pytest.approx((0.8, 0.1, 0.05, 0.05))
    # 0.3 is left, but what was not listed is at most as likely as what was.
    reading = read_logprobs(listed([("A", 0.6), ("x", 0.1)]), "AB")
    assert reading.probs == pytest.approx((0.6 / 0.7, 0.1 / 0.7))


def test_a_drawn_token_outside_the_list_counts_but_bounds_nothing():
    line = json.loads(listed([("A", 0.6), ("B", 0.2)]))
    line["choices"][0]["logprobs"]["content"][0] |= {"token": "C", "logprob": math.log(0.01)}
    reading = read_logprobs(json.dumps(line).encode(), "ABCD")
    # D shares nothing, so it gets all of the 0.19 that is left, less than 0.2.
    assert reading.probs == pytest.approx((0.6, 0.2, 0.01, 0.19))


def test_white_space_before_the_answer_is_passed_over():
    line = listed([("B", 0.9), ("A", 0.1)], before=("\n", " "))
    assert read_logprobs(line, "AB").probs == pytest.approx((0.1, 0.9))


def test_probability_off_the_options_is_a_failure():
    failure = read_logprobs(listed([("The", 0.7), ("A", 0.2), ("B", 0.1)]), "AB").failure
    assert "only 30% of the probability is on the letters" in failure
    assert "'The'" in failure


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}, 3])
def test_a_server_without_log_probabilities_is_told_of_votes(logprobs):
    line = json.dumps({"choices": [{"message": {"content": "A"}, "logprobs": logprobs}]}).encode()
    failure = read_logprobs(line, "AB").failure
    assert "no log-probabilities" in failure
    assert "probabilities to votes" in failure


@pytest.mark.parametrize(
    "broken",
    [{"token": "A"}, {"logprob": -1}, "A", {"token": 3, "logprob": 0},
     {"token": "A", "logprob": float("nan")}],
)  # fmt: skip
def test_a_broken_alternative_is_a_failure(broken):
    token = {"token": "A", "logprob": -0.1, "top_logprobs": [broken]}
    line = json.dumps({"choices": [{"logprobs": {"content": [token]}}]}).encode()
    assert "no token or no log-probability" in read_logprobs(line, "AB").failure


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=26),
    st.integers(1, 26),
    st.floats(0.51, 1.0),
)
def test_probabilities_are_close_to_the_true_ones_however_few_are_listed(raw, top, mass):
    """Brute force: a server that lists the `top` likeliest of known probabilities."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(raw)]
    true = [mass * value / sum(raw) for value in raw]
    ranked = sorted(zip(letters, true, strict=True), key=lambda pair: -pair[1])[:top]
    reading = read_logprobs(listed(ranked), letters)
    shown = sum(p for _, p in ranked)
    if abs(shown - 0.5) < 1e-6:
        return
    if shown < 0.5:
        assert reading.probs is None
        return
    assert sum(reading.probs) == pytest.approx(1.0)
    # What is not listed is bounded, and so is the error that it makes.
    hidden = 1.0 - shown
    for got, p in zip(reading.probs, true, strict=True):
        assert abs(got - p / mass) <= 2 * hidden + (1 - mass) / mass + 1e-9


KEYS = ("choices", "message", "content", "logprobs", "token", "logprob", "top_logprobs", "error")
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(ANY_JSON)
def test_no_json_breaks_the_parser(value):
    line = json.dumps(value).encode()
    for reading in (read_votes([line], NAMES, 1), read_logprobs(line, "ABC")):
        assert (reading.probs is None) == bool(reading.failure)
