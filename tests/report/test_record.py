"""A whole record through JSON, and the binning of margins."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ConfigError
from limbeck.report.record import RunRecord, bin_margins

from .factory import bare, make_record


@pytest.mark.parametrize("full", [True, False])
def test_json_gives_the_same_record_back(full: bool) -> None:
    record = make_record(rows=300)
    record = record if full else bare(record)
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert RunRecord.from_dict(json.loads(text)) == record


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 200), bins=st.integers(1, 30))
def test_every_margin_is_counted_once_in_its_bin(seed: int, n: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    margins, right = np.round(rng.random(n), 2), rng.random(n) < 0.7
    groups = bin_margins(margins, right, bins=bins)
    assert len(groups) == bins
    assert sum(g.right for g in groups) == right.sum()
    assert sum(g.wrong for g in groups) == n - right.sum()
    for i, g in enumerate(groups):
        inside = np.floor(margins * bins).clip(0, bins - 1) == i
        assert g.right + g.wrong == inside.sum()


def test_the_largest_margin_is_in_the_last_bin() -> None:
    groups = bin_margins(np.array([0.0, 1.0]), np.array([False, True]), bins=4)
    assert (groups[0].wrong, groups[-1].right) == (1, 1)


def test_no_bins_are_refused() -> None:
    with pytest.raises(ConfigError, match="bins=0"):
        bin_margins(np.ones(1), np.ones(1), bins=0)


def test_an_empty_part_says_why() -> None:
    record = bare(make_record(rows=100))
    assert record.why_missing("trust") == "No arm of this run uses trust."
    assert record.why_missing("size") == "Not measured in this run."
