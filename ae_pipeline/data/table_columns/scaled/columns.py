"""Columns of numbers of a table as the rows of the kind `vector`, and rows as these columns again.

A record is a struct with a field for each column, in the order in which the user named them (`Form.together`). Its row
has their values on a common scale (scaling.py), as float32. What that rounds is measured in the same units.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from ae_pipeline.data.table_columns.scaled.scaling import Range, scaled, unscaled, usual_range
from ae_pipeline.errors import DataError, named

MOST_COLUMNS = 1024
"""Their names, types and ranges travel in the codec."""
_NAMED = 12
# Values that ranges are taken of: rows with equal steps between them, all where there are fewer.
_KEPT_VALUES, _LEAST_KEPT, _MOST_KEPT = 1 << 22, 1 << 12, 1 << 18


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type can be one of a vector's."""
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def fit_ranges(schema: pa.Schema, records: Iterable[pa.StructArray]) -> tuple[Range, ...]:
    """The range of each column; records without all values are passed over. Memory does not grow with their number.

    Raises DataError for a column that no record has a value in, and for one that floats cannot span.
    """
    seen, filled = _Seen(len(schema)), np.zeros(len(schema), bool)
    for block in records:
        whole, columns = _columns(block)
        if not seen.rows:
            filled |= [column.null_count < len(column) for column in block.flatten()]
        if whole.any():
            seen.add([_as_integers(values[whole]) for values in columns])
    if not seen.rows:
        empty = [name for name, has_some in zip(schema.names, filled, strict=True) if not has_some]
        names = named([f"`{name}`" for name in empty or schema.names], _NAMED)
        what = f"no record has a value in {names}" if empty else f"no record has finite values in all of {names}"
        raise DataError(what, advice="name other columns in source.files.column")
    ranges = []
    for number, field in enumerate(schema):
        kept = np.concatenate(seen.kept[number])
        try:
            ranges.append(usual_range(kept, seen.least[number], seen.greatest[number]))
        except ValueError:
            what = f"the column `{field.name}` has values further from each other than floats reach"
            raise DataError(what, advice="divide them by some number first, or leave the column out") from None
    return tuple(ranges)


def _as_integers(values: np.ndarray) -> np.ndarray:
    """0 and 1 for truth values; all others as they are."""
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


class _Seen:
    """The ends of each column's values, and some of its values."""

    def __init__(self, columns: int):
        self.rows = 0
        self.kept: list[list[np.ndarray]] = [[] for _ in range(columns)]
        self.least: list[float] = []
        self.greatest: list[float] = []
        self._most = min(_MOST_KEPT, max(_LEAST_KEPT, _KEPT_VALUES // columns))
        self._every, self._held = 1, 0

    def add(self, columns: list[np.ndarray]) -> None:
        """Take values (n,) of each column."""
        ends = [(values.min().item(), values.max().item()) for values in columns]
        first = not self.rows
        self.least = [low if first else min(low, self.least[n]) for n, (low, _) in enumerate(ends)]
        self.greatest = [high if first else max(high, self.greatest[n]) for n, (_, high) in enumerate(ends)]
        start = -self.rows % self._every
        for kept, values in zip(self.kept, columns, strict=True):
            kept.append(values[start :: self._every].copy())
        self.rows += len(columns[0])
        self._held += len(self.kept[0][-1])
        while self._held > self._most:
            self._every *= 2
            self.kept = [[np.concatenate(kept)[::2].copy()] for kept in self.kept]
            self._held = len(self.kept[0][0])


def rows_of_columns(
    records: pa.StructArray, ranges: tuple[Range, ...], place: Callable[[int], str]
) -> Iterator[np.ndarray | DataError]:
    """The row of each record, (columns,) float32, or which value is missing; `place` names it, by its number.

    Raises DataError for NaN, infinity, and what is too far from the range for the scale.
    """
    names = [field.name for field in records.type]
    _, columns = _columns(records)
    fields = records.flatten()
    rows = np.empty((len(records), len(names)), np.float32)
    missing, refused = np.full(len(records), -1), np.full(len(records), -1)
    for number, (values, found) in enumerate(zip(columns, ranges, strict=True)):
        there = fields[number].is_valid().to_numpy(zero_copy_only=False)
        on_scale = scaled(values, found)
        missing[~there] = number
        refused[there & ~np.isfinite(on_scale)] = number
        rows[:, number] = np.where(np.isfinite(on_scale), on_scale, 0)
    for number, row in enumerate(rows):
        if refused[number] >= 0:
            column = int(refused[number])
            _refuse(columns[column][number], names[column], ranges[column], place(number))
        if missing[number] >= 0:
            what = f"has no value in the column `{names[missing[number]]}`"
            yield DataError(what, place=place(number), advice="fill it, or remove the row")
        else:
            yield row


def _refuse(value: np.generic, name: str, found: Range, place: str) -> None:
    """Raise the DataError of a value that cannot be scaled."""
    if not np.isfinite(value):
        what = f"has {'NaN' if np.isnan(value) else 'an infinite value'} in the column `{name}`, expected a number"
        raise DataError(what, place=place, advice="fill it with one, or remove the row, and others like it, first")
    what = f"has {value} in the column `{name}`, too far from {found.low:g} to {found.high:g}, where most values lie"
    raise DataError(what, place=place, advice="correct it, or remove the row")


def rounding_of_columns(records: pa.StructArray, ranges: tuple[Range, ...]) -> tuple[float, int]:
    """`Kind.rounding`: how far the values are, on their common scale, from those that their rows stand for."""
    whole, columns = _columns(records)
    total = 0.0
    for values, found in zip(columns, ranges, strict=True):
        there = values[whole]
        exact = scaled(there, found)
        again = scaled(unscaled(exact.astype(np.float32), found, there.dtype), found)
        with np.errstate(invalid="ignore"):
            apart = again - exact
        total += float(np.square(apart[np.isfinite(apart)]).sum())
    return total, int(whole.sum()) * len(columns)


def unlike_constants(records: pa.StructArray, ranges: tuple[Range, ...]) -> dict[str, int]:
    """Records with another value in a column whose range is a single one, by the column's name."""
    constant = {number: found.low for number, found in enumerate(ranges) if found.is_constant}
    if not constant:
        return {}
    whole, columns = _columns(records)
    counts = {records.type[number].name: int((columns[number][whole] != low).sum()) for number, low in constant.items()}
    return {name: count for name, count in counts.items() if count}


def columns_of_rows(rows: np.ndarray, schema: pa.Schema, ranges: tuple[Range, ...]) -> pa.StructArray:
    """The records that rows (n, columns) are, as structs of the columns' types. Raises ValueError for other rows."""
    if rows.shape[1:] != (len(schema),):
        raise ValueError(f"{len(schema)} columns, and rows of shape {list(rows.shape[1:])}")
    made = []
    for number, (field, found) in enumerate(zip(schema, ranges, strict=True)):
        dtype = np.dtype(field.type.to_pandas_dtype())
        made.append(pa.array(unscaled(rows[:, number], found, dtype), field.type))
    return pa.StructArray.from_arrays(made, fields=list(schema))


def _columns(records: pa.StructArray) -> tuple[np.ndarray, list[np.ndarray]]:
    """(n,) Whether each record has all its values, and they are finite; and the values of each column, (n,).

    What is missing stands there as 0.
    """
    whole = np.ones(len(records), bool)
    columns = []
    for column in records.flatten():
        if column.null_count:
            whole &= column.is_valid().to_numpy(zero_copy_only=False)
        values = _numbers(column)
        whole &= np.isfinite(values)
        columns.append(values)
    return whole, columns


def _numbers(column: pa.Array) -> np.ndarray:
    kind = column.type
    if not column.null_count:
        found = column
    elif pa.types.is_float16(kind):  # Arrow cannot fill these
        found = column.cast(pa.float32()).fill_null(0.0)
    else:
        found = column.fill_null(False if pa.types.is_boolean(kind) else 0)
    values: np.ndarray = found.to_numpy(zero_copy_only=False)
    return values.astype(kind.to_pandas_dtype(), copy=False)
