"""Records go through JSON unchanged, and what does not fit is refused with its place."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import DataError
from limbeck.report.plain import from_plain, to_plain


@dataclass(frozen=True)
class Leaf:
    name: str
    value: float
    flag: bool = False


@dataclass(frozen=True)
class Tree:
    kind: Literal["oak", "elm"]
    leaves: tuple[Leaf, ...]
    pair: tuple[str, int]
    best: Leaf | None
    settings: dict[str, str | int | float | bool] = field(default_factory=dict)


leaves = st.builds(Leaf, st.text(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
scalars = st.one_of(
    st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
trees = st.builds(
    Tree,
    st.sampled_from(["oak", "elm"]),
    st.lists(leaves, max_size=3).map(tuple),
    st.tuples(st.text(), st.integers()),
    st.none() | leaves,
    st.dictionaries(st.text(), scalars, max_size=3),
)


@given(trees)
def test_json_gives_the_same_record_back(tree: Tree) -> None:
    assert from_plain(Tree, json.loads(json.dumps(to_plain(tree), allow_nan=False))) == tree


def test_defaults_fill_what_an_older_file_lacks() -> None:
    assert from_plain(Leaf, {"name": "a", "value": 1}) == Leaf("a", 1.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_are_refused_with_their_place(bad: float) -> None:
    tree = Tree("oak", (Leaf("a", 1.0), Leaf("b", bad)), ("x", 1), None)
    with pytest.raises(DataError, match=r"record\.leaves\[1\]\.value is (nan|-?inf)"):
        to_plain(tree)


def test_an_array_is_refused() -> None:
    with pytest.raises(DataError, match=r"record\.value is of type complex"):
        to_plain(Leaf("a", 1j))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ash"}, r"record\.kind is 'ash'; expected one of oak, elm"),
        ({"pair": ["x"]}, r"record\.pair .* expected 2 items"),
        ({"pair": ["x", "y"]}, r"record\.pair\[1\] is 'y'; expected int"),
        ({"leaves": {}}, r"record\.leaves .* expected a list"),
        ({"leaves": [3]}, r"record\.leaves\[0\] .* expected an object"),
        ({"best": {"name": "a"}}, r"record\.best\.value is missing"),
        ({"settings": {"a": None}}, r"record\.settings\.a"),
        ({"colour": 1}, r"unknown field 'colour'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    change: dict[str, object], message: str
) -> None:
    good = to_plain(Tree("oak", (), ("x", 1), None))
    assert isinstance(good, dict)
    with pytest.raises(DataError, match=message):
        from_plain(Tree, good | change)
