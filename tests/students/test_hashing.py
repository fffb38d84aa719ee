"""Oracle: the definition in the module's docstring, one row and one feature at a time."""

import ast
import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.students import hashing

SETTINGS = {"buckets": 1009, "word_ngrams": 2, "char_min": 3, "char_max": 5, "max_chars": 60}
TRICKY = st.text(st.sampled_from("ab A'!.9é ß\n\u3000中あ한😀İ\ud800\x00\uffff\u2019\U0010ffff"))


def kind_of(character):
    code = ord(character)
    if code >= 0xFFFF:
        return "mark"
    for first, stop in hashing._SPACES:
        if first <= code < stop:
            return "space"
    for first, stop in hashing._MARKS:
        if first <= code < stop:
            return "mark"
    return "letter"


def slow_words(text):
    words, open_word = [], False
    for character in text:
        kind = kind_of(character)
        if kind == "mark" or (kind == "letter" and not open_word):
            words.append([ord(character)])
        elif kind == "letter":
            words[-1].append(ord(character))
        open_word = kind == "letter"
    return words


def slow_hash(codes, salt, buckets):
    value = sum((code + 1) * pow(0x9E3779B97F4A7C15, i, 2**64) for i, code in enumerate(codes))
    value = (value % 2**64) ^ salt
    value = ((value ^ (value >> 32)) * 0xD6E8FEB86659FD93) % 2**64
    return ((value >> 32) * (buckets - 1) >> 32) + 1


def slow_row(text, *, buckets, word_ngrams, char_min, char_max, max_chars):
    words = slow_words(text[:max_chars].lower())
    border = [0x110000]
    ids = []
    for n in range(1, word_ngrams + 1):
        for i in range(len(words) - n + 1):
            run = words[i]
            for word in words[i + 1 : i + n]:
                run = run + border + word
            ids.append(slow_hash(run, 0x2545F4914F6CDD1D, buckets))
    for n in range(char_min, char_max + 1 if char_max else 0):
        for word in words:
            closed = border + word + border
            for i in range(len(closed) - n + 1):
                ids.append(slow_hash(closed[i : i + n], 0x5851F42D4C957F2D, buckets))
    return ids


def rows_of(texts, **changes):
    ids, lengths = hashing.hash_texts(texts, **{**SETTINGS, **changes})
    assert ids.dtype == lengths.dtype == np.int64
    assert len(lengths) == len(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] if texts else []


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(TRICKY | st.text(max_size=30), max_size=6))
def test_a_batch_equals_the_slow_definition_row_by_row(texts):
    assert rows_of(texts) == [slow_row(text, **SETTINGS) for text in texts]


@pytest.mark.parametrize(
    "changes",
    [{"word_ngrams": 1}, {"word_ngrams": 4}, {"char_max": 0}, {"char_min": 2, "char_max": 2},
     {"buckets": 2}, {"buckets": 2**24}, {"max_chars": 7}],
)  # fmt: skip
def test_every_setting_follows_the_definition(changes):
    texts = ["Not good, isn't it?", "", "  ", "中文 words", "a"]
    expected = [slow_row(text, **{**SETTINGS, **changes}) for text in texts]
    assert rows_of(texts, **changes) == expected


def test_words_are_cut_as_the_docstring_says():
    assert ["".join(map(chr, w)) for w in slow_words("don't stop! 中文 ok")] == [
        *("don't", "stop", "!", "中", "文", "ok")
    ]


@given(texts=st.lists(TRICKY, min_size=1, max_size=5), seed=st.integers(0, 99))
def test_a_row_does_not_depend_on_its_neighbours(texts, seed):
    order = np.random.default_rng(seed).permutation(len(texts))
    together = rows_of([texts[i] for i in order])
    assert together == [rows_of([texts[i]])[0] for i in order]


def test_ids_lie_between_one_and_the_number_of_buckets_and_fill_them_evenly():
    ids, _ = hashing.hash_texts(
        [f"w{i}" for i in range(60_000)],
        buckets=101, word_ngrams=1, char_min=2, char_max=0, max_chars=99,
    )  # fmt: skip
    counts = np.bincount(ids, minlength=101)
    assert counts[0] == 0
    assert len(counts) == 101
    expected = 60_000 / 100
    # Chi-squared with 99 degrees of freedom: 148 is its 99.9 % point.
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 148


def test_a_batch_of_nothing_and_texts_of_nothing_have_no_features():
    assert rows_of([]) == []
    assert rows_of(["", " \n", "\u3000"]) == [[], [], []]


def test_a_very_long_row_is_cut_at_max_chars():
    short = hashing.hash_texts(["ab " * 100], **{**SETTINGS, "max_chars": 300})
    long = hashing.hash_texts(["ab " * 1_000_000], **{**SETTINGS, "max_chars": 300})
    np.testing.assert_array_equal(short[0], long[0])


def test_it_imports_numpy_and_the_standard_library_only():
    tree = ast.parse(inspect.getsource(hashing))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert imported == {"collections.abc", "numpy", "numpy.typing"}
