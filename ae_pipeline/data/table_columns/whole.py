"""Values of an Arrow column as whole numbers or floats, and whole numbers k of a grid as such values again.

Whole numbers are integers, the unscaled value of decimals, and dates, times and durations in their own unit.
"""

import numpy as np
import pyarrow as pa

from ae_pipeline.data.table_columns.state import Number

_LARGEST_EXACT = 1 << 53
"""float64 has all whole numbers up to here."""


def is_time(kind: pa.DataType) -> bool:
    """Dates, times, timestamps and durations: numbers that nobody wants rounded."""
    return pa.types.is_temporal(kind) and not pa.types.is_interval(kind)


def is_category(kind: pa.DataType) -> bool:
    """Texts, truth values, and dictionaries of texts."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)
    return is_text or (inner == kind and pa.types.is_boolean(kind))


def is_number(kind: pa.DataType) -> bool:
    """Integers, floats and decimals of up to 18 digits."""
    is_short = pa.types.is_decimal128(kind) and kind.precision <= 18
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or is_short


def numbers_of(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Values (n,), int64 or the column's own float type, and where there are any. 0 stands where there is none.

    Raises OverflowError for integers beyond int64.
    """
    there = column.is_valid().to_numpy(zero_copy_only=False)
    kind = column.type
    if pa.types.is_floating(kind):
        wide = column.cast(pa.float32()) if pa.types.is_float16(kind) else column
        floats = wide.fill_null(0.0).to_numpy(zero_copy_only=False)
        return floats.astype(kind.to_pandas_dtype(), copy=False), there
    if pa.types.is_decimal(kind):
        unscaled = pa.Array.from_buffers(
            pa.int64(), 2 * len(column), [None, column.buffers()[1]], offset=2 * column.offset
        )
        return np.where(there, unscaled.to_numpy()[::2], 0), there
    if is_time(kind):
        whole = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif kind == pa.uint64():
        whole = column.fill_null(0)
        if len(whole) and int(whole.to_numpy(zero_copy_only=False).max()) >= 1 << 63:
            raise OverflowError("integers beyond int64")
    else:
        whole = column
    return whole.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64), there


def on_grid(values: np.ndarray, grid: Number) -> tuple[np.ndarray, np.ndarray]:
    """K of each value (n,), int64, and whether the grid has it within its bound."""
    if grid.decimals is None:
        assert isinstance(grid.low, float)
        with np.errstate(over="ignore", invalid="ignore"):
            away = (values.astype(np.float64) - grid.low) / grid.step
        inside = np.isfinite(away) & (away >= -grid.largest) & (away <= 2 * grid.largest)
        places = np.rint(np.where(inside, away, 0)).astype(np.int64)
        # A value of the grid that is the nearest one may still be too far away where floats are coarse.
        return places, inside & (np.abs(values - of_middles(2 * places, grid, np.dtype(np.float64))) <= grid.step)
    low, step = int(grid.low), int(grid.step)
    if values.dtype.kind == "f":
        whole, exact = decimals_of(values, grid.decimals)
    else:
        whole, exact = values, np.ones(len(values), bool)
    # Differences are taken of what is near alone, so that none goes beyond int64.
    first, last = max(-(1 << 63), low - grid.largest * step), min((1 << 63) - 1, low + 2 * grid.largest * step)
    inside = exact & (whole >= first) & (whole <= last)
    away = np.where(inside, whole, low) - low
    places, rest = np.divmod(away + (step // 2 if grid.rounds else 0), step)
    inside &= (places >= -grid.largest) & (places <= 2 * grid.largest)
    if not grid.rounds:
        inside &= rest == 0
    return places, inside


def decimals_of(values: np.ndarray, decimals: int) -> tuple[np.ndarray, np.ndarray]:
    """The whole numbers n (n,) of floats n / 10 ** decimals, and which values are such, to the last bit."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(values.astype(np.float64) * 10.0**decimals)
    small = np.abs(scaled) < _LARGEST_EXACT
    whole = np.where(small, scaled, 0)
    same = (whole / 10.0**decimals).astype(values.dtype) == values
    return whole.astype(np.int64), small & same & ~((values == 0) & np.signbit(values))


def of_middles(twice: np.ndarray, grid: Number, dtype: np.dtype) -> np.ndarray:
    """Values (n,) of `dtype` at half of int64 `twice` on the grid; whole numbers are rounded down."""
    if grid.decimals is None:
        return _of_float_type(grid.low + twice / 2 * grid.step, dtype)
    low, step = int(grid.low), int(grid.step)
    if dtype.kind == "f":
        return _of_float_type((2 * low + twice * step) / (2 * 10.0**grid.decimals), dtype)
    return low + (twice * step >> 1)


def _of_float_type(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64 in a column's own type: its largest number for what is beyond it, and never infinity."""
    limits = np.finfo(dtype)
    return values.clip(limits.min, limits.max).astype(dtype)


def as_column(values: np.ndarray, there: np.ndarray | None, kind: pa.DataType) -> pa.Array:
    """Values (n,), int64 or floats, as a column of this type; `there` (n,) says where it has one."""
    mask = None if there is None or there.all() else ~there
    if pa.types.is_decimal(kind):
        values = values.clip(1 - 10**kind.precision, 10**kind.precision - 1)
        both = np.stack([values, values >> 63], 1)  # 128 bits
        valid = None if mask is None else pa.array(~mask).buffers()[1]
        return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(np.ascontiguousarray(both))])
    if is_time(kind):
        whole = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(values.astype(whole.to_pandas_dtype()), whole, mask=mask).cast(kind)
    return pa.array(_narrowed(values, np.dtype(kind.to_pandas_dtype())), kind, mask=mask)


def _narrowed(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values in a column's own type. The middle of a cell may lie beyond it: its nearest end is nearer to the value."""
    if values.dtype == dtype:
        return values
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return values.clip(max(limits.min, -(1 << 63)), min(limits.max, (1 << 63) - 1)).astype(dtype)
