"""The scaling of columns that are taken together: exact where it can be, near where not, and no outlier decides it."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ae_pipeline.data.table_columns.scaled import columns
from ae_pipeline.data.table_columns.scaled.columns import fit_ranges, rounding_of_columns, rows_of_columns
from ae_pipeline.data.table_columns.scaled.scaling import Range, scaled, unscaled, usual_range
from ae_pipeline.errors import DataError

DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
FLOATS = ("float16", "float32", "float64")


def range_of(values):
    values = values.astype(np.uint8) if values.dtype == bool else values
    return usual_range(values, values.min().item(), values.max().item())


def structs(**found):
    arrays = [pa.array(values) for values in found.values()]
    return pa.StructArray.from_arrays(arrays, names=list(found))


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_come_back_the_same_where_a_float32_tells_them_apart(dtype):
    limits = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    ends = np.array([limits[0], limits[0], limits[1], limits[1]], dtype)
    near = np.array([max(limits[0], limits[1] - step) for step in range(1000)], dtype)
    for values in (near, np.append(near, ends)):
        found = range_of(values)
        y = scaled(values, found)
        again = unscaled(y, found, values.dtype)
        assert again.dtype == dtype
        # 1,000 neighbours of 2 ** 63 differ as 1,000 small integers do: differences are taken of integers.
        if len(values) == 1000 or values.itemsize <= 2:
            np.testing.assert_array_equal(again, values)
            np.testing.assert_array_equal(unscaled(y.astype(np.float32), found, values.dtype), values)
        assert unscaled(np.array([-1e30, 1e30]), found, values.dtype).tolist() == list(map(int, limits))


@given(
    st.lists(st.floats(-1e300, 1e300, allow_nan=False), min_size=1, max_size=50),
    st.lists(st.floats(-1e300, 1e300, allow_nan=False), min_size=1, max_size=50),
)
@settings(max_examples=100, deadline=None)
def test_floats_keep_their_order_and_come_back_near_wherever_they_lie(train, others):
    found = range_of(np.array(train))
    values = np.sort(np.array(train + others))
    y = scaled(values, found)
    there = np.isfinite(y)
    assert (np.diff(y[there]) >= 0).all()
    again = unscaled(y, found, values.dtype)[there]
    distance = np.maximum(np.abs(values[there] - found.low), found.width)
    # The farther a value is from the usual ones, the fewer of its digits are left.
    assert (np.abs(again - values[there]) <= 1e-11 * distance).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_narrow_floats_keep_their_type_and_never_become_infinite(dtype):
    values = np.linspace(-3, 60, 101).astype(dtype)
    found = range_of(values)
    assert unscaled(scaled(values, found), found, values.dtype).dtype == dtype
    for y in (1e9, -1e9, 300.0):
        assert np.isfinite(unscaled(np.array([y]), found, np.dtype(dtype))).all()


def test_these_values_have_these_places_for_ever():
    """Codecs hold weights that were trained on them."""
    found = Range(low=10.0, high=14.0)
    values = np.array([10, 12, 14, 16, 18, 22, 40_014, 8, 6, -40_000])
    wanted = [0, 0.5, 1, 1.5, 2, 2.25, 4.7776031494140625, -0.5, -1, -3.7776412963867188]
    np.testing.assert_array_equal(scaled(values, found), wanted)
    np.testing.assert_allclose(unscaled(scaled(values, found), found, values.dtype), values, rtol=1e-12)
    constant = Range(low=5, high=5)
    np.testing.assert_array_equal(scaled(np.array([5, 6, 4, 10, 20]), constant), [0, 1.2, -1.2, 2, 2.5])
    np.testing.assert_array_equal(
        unscaled(np.array([0.99, -1, 1.2, -1.2, 2, 2.5]), constant, np.dtype("int64")), [5, 5, 6, 4, 10, 20]
    )


def from_the_documents(y, low, high):
    """What docs/store-format.md says of a row's value, written from there."""

    def h(t):
        k = math.floor(t)
        return t if t <= 1 else 2**k * (1 + t - k) - 1

    w = high - low or abs(low) or 1
    if low == high:
        return low if -1 <= y <= 1 else low + math.copysign(w * h(h(abs(y) - 1)), y)
    return high + w * h(h(y - 1)) if y > 1 else low - w * h(h(-y)) if y < 0 else low + w * y


@pytest.mark.parametrize(("low", "high"), [(0.0, 3.0), (-7.25, -7.0), (5.0, 5.0), (0.0, 0.0), (-2.5, -2.5)])
def test_a_reader_undoes_the_scaling_as_the_documents_say(low, high):
    y = np.linspace(-6, 6, 241)
    wanted = [from_the_documents(value, low, high) for value in y.tolist()]
    np.testing.assert_allclose(unscaled(y, Range(low=low, high=high), np.dtype("float64")), wanted, rtol=1e-13)


def test_a_few_outliers_move_no_other_value():
    values = np.random.default_rng(0).normal(size=1000)
    usual = range_of(values)
    for outliers in ([1e9], [1e300, -1e300], [1e9] * 30):
        found = range_of(np.append(values, outliers))
        assert found.width == pytest.approx(usual.width, rel=0.15)
        assert np.abs(scaled(np.append(values, outliers), found)).max() < 12
    few = np.array([1.0, 2, 3, 4, 5, 6, 7, 1e12])
    assert range_of(few).width < 10


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([0] * 990 + [5, 6, 7, 8, 1_000_000], 0, 8),
        ([3] * 999 + [4], 3, 4),
        ([1, 1, 1], 1, 1),
        ([0, 1], 0, 1),
    ],
)
def test_a_column_that_mostly_has_one_value_gets_the_range_of_the_others(values, low, high):
    assert range_of(np.array(values)) == Range(low=low, high=high)


@pytest.mark.parametrize(("value", "other"), [(0.1, 0.2), (0.0, 3.0), (-7.5, 0.0)])
def test_a_constant_column_comes_back_exactly_and_another_value_is_seen(value, other):
    found = range_of(np.full(9, value))
    near = np.linspace(-1, 1, 50).astype(np.float32)
    assert (unscaled(near, found, np.dtype("float64")) == value).all()
    y = scaled(np.array([other]), found)
    assert abs(y[0]) > 1
    assert unscaled(y, found, np.dtype("float64"))[0] == pytest.approx(other, abs=1e-9)


def test_all_rows_give_the_range_whatever_the_blocks_and_memory_is_of_some(monkeypatch):
    monkeypatch.setattr(columns, "_MOST_KEPT", 300)
    monkeypatch.setattr(columns, "_LEAST_KEPT", 300)
    values = np.random.default_rng(0).normal(size=5000)
    whole = structs(a=values, b=np.arange(5000))
    found = [
        fit_ranges(pa.schema(list(whole.type)), [whole[start : start + step] for start in range(0, 5000, step)])
        for step in (5000, 370, 2048)
    ]
    assert found[0] == found[1] == found[2]
    assert found[0][0].low == pytest.approx(-1.645, abs=0.4)
    assert found[0][1].width == pytest.approx(4500, rel=0.03)
    rare = structs(a=np.where(np.arange(5000) == 4999, 1, 0))
    assert fit_ranges(pa.schema(list(rare.type)), [rare])[0] == Range(low=0, high=1)


def test_what_a_float32_rounds_away_is_measured_on_the_common_scale():
    small = structs(a=np.arange(1000), b=np.arange(1000) % 2 == 0)
    ranges = fit_ranges(pa.schema(list(small.type)), [small])
    assert rounding_of_columns(small, ranges) == (0.0, 2000)
    # Integers above 2 ** 24 that lie far from each other do not all survive.
    large = np.random.default_rng(0).integers(0, 2**60, 1000)
    wide = structs(a=large)
    ranges = fit_ranges(pa.schema(list(wide.type)), [wide])
    total, count = rounding_of_columns(wide, ranges)
    rows = np.stack(list(rows_of_columns(wide, ranges, str)))[:, 0]
    lost = (unscaled(rows, ranges[0], np.dtype("int64")) - large) / ranges[0].width
    assert count == 1000
    assert total == pytest.approx(np.square(lost).sum(), rel=0.01)
    assert 1e-9 < np.sqrt(total / count) < 1e-7
    # Records that cannot be read are no part of it.
    broken = structs(a=pa.array([1.0, None, float("nan"), 3.0]))
    assert rounding_of_columns(broken, (Range(low=1.0, high=3.0),)) == (0.0, 2)


def test_columns_without_values_or_beyond_floats_are_refused_by_name():
    empty = structs(a=pa.array([1.0, 2.0]), b=pa.array([None, None], pa.int32()))
    with pytest.raises(DataError, match=r"^no record has a value in `b`; name other columns in source.files.column"):
        fit_ranges(pa.schema(list(empty.type)), [empty])
    apart = structs(a=pa.array([1.0, None]), b=pa.array([float("nan"), 2.0]))
    with pytest.raises(DataError, match=r"^no record has finite values in all of `a`, `b`; name other columns"):
        fit_ranges(pa.schema(list(apart.type)), [apart])
    far = structs(a=pa.array([-1.5e308] * 5 + [1.5e308] * 5))
    with pytest.raises(DataError, match="the column `a` has values further from each other than floats reach; divide"):
        fit_ranges(pa.schema(list(far.type)), [far])
    near = structs(a=pa.array([5e-324, 1e-323, 1.5e-323, 2e-323, 1e300]))
    ranges = fit_ranges(pa.schema(list(near.type)), [near])
    with pytest.raises(DataError, match=r"4 has 1e\+300 in the column `a`, too far from 9.88131e-324 to"):
        list(rows_of_columns(near, ranges, str))


@pytest.mark.parametrize(
    "wrong",
    [{"low": 1, "high": 2.0}, {"low": 2, "high": 1}, {"low": float("nan"), "high": 1.0}, {"low": 0, "high": 2**64}],
)
def test_a_range_that_none_can_have_is_refused(wrong):
    with pytest.raises(ValidationError):
        Range.model_validate(wrong)
