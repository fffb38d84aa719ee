"""Shares against the rule they follow; cuts against sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.cut import apportion, cut


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=6), data=st.data())
def test_seats_sum_up_stay_near_proportion_and_leave_no_class_out(counts, data):
    present, total = sum(c > 0 for c in counts), sum(counts)
    if total == 0:
        return
    seats_wanted = data.draw(st.integers(present, total))
    seats = apportion(np.array(counts), seats_wanted)
    assert seats.sum() == seats_wanted
    for count, seat in zip(counts, seats, strict=True):
        exact = count * seats_wanted / total
        assert (seat >= 1) == (count > 0)
        assert seat <= max(1, np.ceil(exact))
        assert seat <= count


@given(seed=st.integers(0, 1000), copies=st.integers(1, 3), classes=st.integers(2, 4))
def test_parts_are_disjoint_by_content_and_as_large_as_asked(seed, copies, classes):
    rng = np.random.default_rng(seed)
    contents = 12 * classes
    content = rng.permutation(np.tile(np.arange(contents), copies))
    ids = np.zeros((len(content), 16), np.uint8)
    ids[:, 3] = content
    labels = content % classes
    names = tuple("abcd"[:classes])
    wanted = {"validation": 2 * classes, "test": classes + 1}
    parts = cut(ids, labels, wanted, names, rng, where="a.csv")
    sides = {name: set(content[mask]) for name, mask in parts.items()}
    assert {name: len(side) for name, side in sides.items()} == wanted
    assert not sides["validation"] & sides["test"]
    for name, mask in parts.items():
        # Every copy of a chosen content is in the part, and every class has a row.
        assert mask.sum() == copies * wanted[name]
        assert set(labels[mask]) == set(range(classes))
