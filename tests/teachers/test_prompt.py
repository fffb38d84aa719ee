"""Prompts: what the model sees of a row, and in which order the classes stand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError
from limbeck.teachers.pricing import Price, most_prompt_tokens
from limbeck.teachers.prompt import Prompt, as_text, default_user, fields_of

NAMES = ("bad", "so so", "good")


def prompt(**changes):
    return Prompt(**{"system": "One of:\n{classes}", "user": "{text}", "names": NAMES,
                     "letters": True} | changes)  # fmt: skip


def test_a_question_lists_the_classes_and_shows_the_row():
    chat = prompt().messages(b"q", {"text": "hello {text} {{x}}"})
    assert chat == [
        {"role": "system", "content": "One of:\nA. bad\nB. so so\nC. good"},
        {"role": "user", "content": "hello {text} {{x}}"},
    ]


def test_without_letters_the_names_are_listed():
    chat = prompt(letters=False).messages(b"q", {"text": "x"})
    assert chat[0]["content"] == "One of:\n- bad\n- so so\n- good"


def test_doubled_braces_are_braces():
    chat = prompt(user='{{"t": "{text}"}}').messages(b"q", {"text": "x"})
    assert chat[1]["content"] == '{"t": "x"}'


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (float("nan"), ""), (3.0, "3"), (0.1, "0.1"), (1e300, "1e+300"), ("a\nb", "a\nb"),
     (float("inf"), "inf")],
)  # fmt: skip
def test_cells_are_shown_as_a_person_would_write_them(value, text):
    assert as_text(value) == text


def test_the_order_is_that_of_the_task_unless_it_is_shuffled():
    assert prompt().order(b"anything") == (0, 1, 2)


def test_orders_depend_on_seed_and_question_alone_and_are_all_equally_likely():
    ids = np.random.default_rng(0).integers(0, 256, (6000, 16), dtype=np.uint8)
    shuffled, again = prompt(shuffle=True, seed=4), prompt(shuffle=True, seed=4)
    orders = [shuffled.order(bytes(key)) for key in ids]
    assert orders == [again.order(bytes(key)) for key in ids]
    assert orders != [prompt(shuffle=True, seed=5).order(bytes(key)) for key in ids]
    counts = Counter(orders)
    assert len(counts) == 6
    # Multinomial: 1000 each, standard deviation 29.
    assert all(abs(count - 1000) < 6 * 29 for count in counts.values())


def test_letters_follow_the_order_that_is_listed():
    one = prompt(shuffle=True, seed=1)
    lines = one.messages(b"q" * 16, {"text": ""})[0]["content"].splitlines()[1:]
    assert lines == [f"{'ABC'[i]}. {NAMES[c]}" for i, c in enumerate(one.order(b"q" * 16))]


def test_fields_are_columns_each_once_in_order():
    found = fields_of("{b} {classes} {a} {b} {{no}}", ("a", "b"), what="user")
    assert found == ("b", "a")


@pytest.mark.parametrize(
    ("template", "words"),
    [("{txet}", "did you mean {text}"), ("{text", "stands alone"), ("a } b", "stands alone"),
     ("{text!r}", "is no column"), ("{}", "is no column"), ('{"a": 1}', "Write {{ and }}")],
)  # fmt: skip
def test_a_template_with_a_mistake_is_refused(template, words):
    with pytest.raises(ConfigError) as caught:
        fields_of(template, ("text",), what="teacher.endpoint.user")
    assert words in str(caught.value)
    assert "teacher.endpoint.user" in str(caught.value)


def test_the_default_shows_one_column_bare_and_several_by_name():
    assert default_user(("text",)) == "{text}"
    row = {"age": 3.0, "na:me!r": "x"}
    chat = prompt(user=default_user(tuple(row))).messages(b"", row)
    assert chat[1]["content"] == "age: 3\nna:me!r: x"


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_price_is_rounded_up_and_by_less_than_one_millionth(price_in, price_out, tokens, reply):
    exact = tokens * price_in + reply * price_out
    got = Price(price_in, price_out).of(tokens, reply)
    assert exact <= got * 10**6 < exact + 10**6


@given(st.text(max_size=200))
def test_no_prompt_has_more_tokens_than_its_bound(text):
    """A tokenizer of single bytes is the one that makes the most tokens."""
    chat = prompt().messages(b"q", {"text": text})
    tokens = sum(len(one["content"].encode("utf-8", "surrogatepass")) for one in chat)
    assert tokens <= most_prompt_tokens(chat, 0)
