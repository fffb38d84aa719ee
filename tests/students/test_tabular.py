"""Oracles: numpy over all rows at once, and a one-hot table written by hand."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data.schema import Schema
from limbeck.errors import ConfigError, DataError
from limbeck.students import TabularConfig, TabularEncoder, build
from limbeck.students.tabular import MAX_VALUES, Moments

NUMBERS = Schema(text=(), numeric=("x", "y"), category=(), label=None, classes=("no", "yes"))
MIXED = Schema(text=(), numeric=("x",), category=("c",), label=None, classes=("no", "yes"))


def table(**columns):
    types = {"c": pa.large_string()}
    return pa.RecordBatch.from_pydict(
        {k: pa.array(v, types.get(k, pa.float64())) for k, v in columns.items()}
    )


def features(encoder, rows):
    return encoder.collate(encoder.encode(rows))["features"].numpy()


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=50),
    cuts=st.lists(st.integers(0, 50), max_size=4),
)
def test_streamed_moments_are_those_of_all_rows_at_once(values, cuts):
    moments = Moments()
    for part in np.split(np.array(values), sorted(c for c in cuts if c <= len(values))):
        moments.add(part)
    known = np.array(values)[~np.isnan(values)]
    assert moments.count == len(known)
    assert moments.missing == (len(known) < len(values))
    if len(known):
        assert moments.mean == pytest.approx(known.mean(), rel=1e-9, abs=1e-6)
        if known.std() > 1e-3:
            assert moments.std == pytest.approx(known.std(), rel=1e-6)


def test_moments_far_from_zero_lose_no_digits():
    values = 1e9 + np.random.default_rng(0).normal(size=10_000)
    moments = Moments()
    for part in np.split(values, 10):
        moments.add(part)
    assert moments.std == pytest.approx(values.std(), rel=1e-6)


def test_numbers_are_scaled_and_missing_ones_marked_where_any_was_missing():
    train = table(x=[1.0, 3.0, None, 5.0], y=[2.0, 4.0, 6.0, 8.0])
    encoder = TabularEncoder.fit([train], NUMBERS, TabularConfig())
    got = features(encoder, table(x=[3.0, None], y=[5.0, float("nan")]))
    std = np.std([1, 3, 5])
    np.testing.assert_allclose(got, [[0, 0, 0], [0, 1, 0]], atol=1e-6)
    assert features(encoder, table(x=[3.0 + std], y=[5.0]))[0, 0] == pytest.approx(1)


@pytest.mark.parametrize("value", [0.0, 1 / 3, 1e90, 1e300, -7.0])
def test_a_constant_column_scales_to_zero(value):
    rows = table(x=[value] * 9, y=list(range(9)))
    encoder = TabularEncoder.fit([rows.slice(0, 4), rows.slice(4)], NUMBERS, TabularConfig())
    np.testing.assert_allclose(features(encoder, rows)[:, 0], 0, atol=1e-6)


def test_a_column_that_is_always_missing_is_harmless():
    rows = table(x=[None] * 3, y=[1.0, 2.0, 3.0])
    encoder = TabularEncoder.fit([rows], NUMBERS, TabularConfig())
    np.testing.assert_allclose(features(encoder, rows)[:, :2], [[0, 1]] * 3)


def test_absurd_values_stay_finite():
    encoder = TabularEncoder.fit([table(x=[1.0, 2.0], y=[0.0, 1.0])], NUMBERS, TabularConfig())
    assert np.isfinite(features(encoder, table(x=[1e308], y=[float("inf")]))).all()


def test_categories_are_one_hot_with_one_place_for_all_others():
    train = table(x=[0.0] * 5, c=["b", "a", "b", None, "b"])
    encoder = TabularEncoder.fit([train], MIXED, TabularConfig())
    # By frequency, then by name: b, "", a, then others. A missing category is the empty string.
    got = features(encoder, table(x=[0.0] * 4, c=["a", "b", "new", None]))[:, 1:]
    np.testing.assert_array_equal(got, [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]])


def test_only_the_most_frequent_values_get_a_place_of_their_own():
    often = [f"v{i:03d}" for i in range(MAX_VALUES)] * 2
    rare = [f"r{i}" for i in range(40_000)]
    rows = [table(x=[0.0] * len(v), c=v) for v in (often, rare)]
    encoder = TabularEncoder.fit(rows, MIXED, TabularConfig())
    assert encoder.width == 1 + MAX_VALUES + 1
    assert encoder.columns[1]["values"] == sorted(set(often))


def test_a_task_without_its_columns_is_sent_to_text_bag():
    schema = Schema(text=("t",), numeric=(), category=(), label=None, classes=("no", "yes"))
    with pytest.raises(ConfigError, match=r"its inputs: t.*'text_bag'"):
        build("tabular", {}, schema, [], 2, torch.Generator())


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="0 rows"):
        build("tabular", {}, NUMBERS, [], 2, torch.Generator())


@pytest.mark.parametrize(("name", "value"), [("hidden", 0), ("layers", 0), ("dropout", 1.0)])
def test_a_bad_value_of_each_setting_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        TabularConfig(**{name: value})


def test_wrong_settings_class_and_broken_config_are_refused():
    with pytest.raises(ConfigError, match="TabularConfig"):
        build("tabular", object(), NUMBERS, [], 2, torch.Generator())
    with pytest.raises(ConfigError, match="columns"):
        TabularEncoder.from_config({"columns": 3})


def test_depth_and_width_follow_the_settings():
    rows = [table(x=[1.0, 2.0], y=[0.0, 1.0])]
    student = build("tabular", {"hidden": 7, "layers": 3}, NUMBERS, rows, 2, torch.Generator())
    shapes = [tuple(p.shape) for p in student.module.parameters() if p.ndim == 2]
    assert shapes == [(7, 2), (7, 7), (7, 7), (2, 7)]
