"""Rows of a table as rows of fields, and these as rows of the table again."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ae_pipeline.data.table_columns.exceptions import NAME, Exceptions, of_scalar, read_exceptions
from ae_pipeline.data.table_columns.fields import FieldOptions
from ae_pipeline.data.table_columns.state import Category, Column, Constant, Number, Unchanged
from ae_pipeline.data.table_columns.whole import as_column, numbers_of, of_middles, on_grid


def fields_of(columns: Sequence[Column]) -> list[FieldOptions]:
    """The fields of a row, in order: of a number that may be missing, the field that says so comes first."""
    found: list[FieldOptions] = []
    for column in columns:
        if isinstance(column, Category):
            found.append(FieldOptions(sort="category", largest=len(column.values) - 1))
        elif isinstance(column, Number):
            present = len(found) if column.missing else None
            if column.missing:
                found.append(FieldOptions(sort="category", largest=len(column.missing)))
            made = FieldOptions(sort="number", largest=column.largest, cell=column.cell, present=present)
            found.append(made)
    return found


class TableRows:
    """What becomes of the rows of a table, structs of its columns: fields, and the exceptions beside them."""

    def __init__(self, records: pa.StructArray, columns: Sequence[Column]):
        fields = fields_of(columns)
        self.rows = np.zeros((len(records), len(fields)), np.float32)
        """(n, fields) float32: k / largest."""
        self._kept = Exceptions(len(records))
        place = 0
        for name, values, column in zip(records.type.names, records.flatten(), columns, strict=True):
            if isinstance(column, Constant):
                self._others(name, values, column)
            elif isinstance(column, Category):
                self.rows[:, place] = self._categories(name, values, column) / fields[place].largest
                place += 1
            elif isinstance(column, Number):
                places, missing = self._numbers(name, values, column)
                if column.missing:
                    self.rows[:, place] = missing / fields[place].largest
                    place += 1
                self.rows[:, place] = places / column.largest
                place += 1

    @property
    def exceptions(self) -> pa.Array:
        """(n,) texts; null in most rows."""
        return self._kept.column()

    def _others(self, name: str, values: pa.Array, column: Constant) -> None:
        """Keep what is not the constant."""
        found = _plain(values)
        wanted = of_scalar(column.value)
        other = [row for row, value in enumerate(found) if not _same(value, wanted)]
        self._kept.add(name, np.array(other, np.int64), [found[row] for row in other])

    def _categories(self, name: str, values: pa.Array, column: Category) -> np.ndarray:
        plain = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
        encoded = plain.dictionary_encode(null_encoding="encode")
        known = {value: place for place, value in enumerate(column.values)}
        words = encoded.dictionary.to_pylist()
        places = np.array([known.get(word, -1) for word in words], np.int64)[encoded.indices.to_numpy()]
        new = np.flatnonzero(places < 0)
        self._kept.add(name, new, plain.take(pa.array(new)).to_pylist())
        return np.maximum(places, 0)

    def _numbers(self, name: str, values: pa.Array, column: Number) -> tuple[np.ndarray, np.ndarray]:
        """K of each number, and what it is that a row has instead: 0, or the place in `missing` plus 1."""
        try:
            numbers, there = numbers_of(values)
        except OverflowError:
            numbers, there = np.zeros(len(values), np.int64), np.zeros(len(values), bool)
            all_rows = np.arange(len(values))
            self._kept.add(name, all_rows, values.to_pylist())
            return numbers, numbers
        places, inside = on_grid(numbers, column)
        missing = np.zeros(len(values), np.int64)
        is_nan = np.isnan(numbers) & there if numbers.dtype.kind == "f" else np.zeros(len(values), bool)
        for number, (what, rows) in enumerate([("null", ~there), ("nan", is_nan)]):
            if what in column.missing:
                missing[rows] = column.missing.index(what) + 1
            else:
                beyond = np.flatnonzero(rows)
                self._kept.add(name, beyond, [None, np.nan][number : number + 1] * len(beyond))
        other = np.flatnonzero(there & ~is_nan & ~inside)
        self._kept.add(name, other, numbers[other].tolist())
        return np.where(inside & there & ~is_nan, places, 0), missing


def values_of(rows: np.ndarray, attributes: pa.Table, schema: pa.Schema, columns: Sequence[Column]) -> pa.StructArray:
    """The rows of the table that rows (n, fields) float32 and the columns beside them stand for.

    Raises ValueError for rows of other fields, and for what no field can have.
    """
    fields = fields_of(columns)
    if rows.shape[1:] != (len(fields),):
        raise ValueError(f"{len(fields)} fields, and rows of shape {list(rows.shape[1:])}")
    exceptions = read_exceptions(attributes.column(NAME))
    if unknown := set(exceptions) - set(schema.names):
        raise ValueError(f"exceptions of a column `{min(unknown)}`, which there is not")
    twice = np.rint(rows.astype(np.float64) * [field.denominator for field in fields]).astype(np.int64)
    made, place = [], 0
    for field, column in zip(schema, columns, strict=True):
        if isinstance(column, Unchanged):
            kept = attributes.column(field.name).combine_chunks()
            whole = kept.chunk(0) if isinstance(kept, pa.ChunkedArray) else kept
            made.append(whole if whole.type == field.type else whole.cast(field.type))
            continue
        other = exceptions.get(field.name, (np.empty(0, np.int64), []))
        if isinstance(column, Constant):
            made.append(_of_list([of_scalar(column.value)] * len(rows), field.type, other))
        elif isinstance(column, Category):
            made.append(_of_categories(twice[:, place], column, field.type, other))
            place += 1
        else:
            missing = twice[:, place] if column.missing else None
            place += bool(column.missing)
            made.append(_of_numbers(twice[:, place], missing, column, field.type, other))
            place += 1
    return pa.StructArray.from_arrays(made, fields=list(schema))


def _of_categories(
    places: np.ndarray, column: Category, kind: pa.DataType, other: tuple[np.ndarray, list[Any]]
) -> pa.Array:
    if places.size and not 0 <= places.min() <= places.max() < len(column.values):
        raise ValueError("a category beyond the last one")
    words, (rows, values) = list(column.values), other
    if len(rows):
        new = list(dict.fromkeys(values))
        places = places.copy()
        places[rows] = len(words) + np.array([new.index(value) for value in values])
        words += new
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    plain = pa.array(words, inner).take(pa.array(places))
    return _as_dictionary(plain, kind) if pa.types.is_dictionary(kind) else plain


def _as_dictionary(plain: pa.Array, kind: pa.DictionaryType) -> pa.Array:
    encoded = plain.dictionary_encode()
    indices = encoded.indices.cast(kind.index_type)
    return pa.DictionaryArray.from_arrays(indices, encoded.dictionary, ordered=kind.ordered)


def _of_numbers(
    twice: np.ndarray,
    missing: np.ndarray | None,
    column: Number,
    kind: pa.DataType,
    other: tuple[np.ndarray, list[Any]],
) -> pa.Array:
    dtype = np.dtype(kind.to_pandas_dtype()) if pa.types.is_floating(kind) else np.dtype(np.int64)
    values, there = of_middles(twice, column, dtype), np.ones(len(twice), bool)
    for number, what in enumerate(column.missing):
        assert missing is not None
        if what == "null":
            there &= missing != number + 1
        else:
            values[missing == number + 1] = np.nan
    rows, found = other
    if len(rows):
        there[rows] = [value is not None for value in found]
        if any(isinstance(value, int) and not -(1 << 63) <= value < 1 << 63 for value in found):
            wide = [int(value) if here else None for value, here in zip(values, there, strict=True)]
            return _of_list(wide, kind, other)
        values[rows] = [0 if value is None else value for value in found]
    return as_column(values, there, kind)


def _of_list(values: list[Any], kind: pa.DataType, other: tuple[np.ndarray, list[Any]]) -> pa.Array:
    for row, value in zip(other[0].tolist(), other[1], strict=True):
        values[row] = value
    if pa.types.is_dictionary(kind):
        return _as_dictionary(pa.array(values, kind.value_type), kind)
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        there = np.array([value is not None for value in values])
        return as_column(np.array([value or 0 for value in values], np.int64), there, kind)
    return pa.array(values, kind)


def _plain(values: pa.Array) -> list[Any]:
    """Values as exceptions have them: whole numbers for times and decimals."""
    if pa.types.is_temporal(values.type) or pa.types.is_decimal(values.type):
        numbers, there = numbers_of(values)
        return [value if here else None for value, here in zip(numbers.tolist(), there, strict=True)]
    found: list[Any] = values.to_pylist()
    return found


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, float) and isinstance(wanted, float):
        return np.float64(value).tobytes() == np.float64(wanted).tobytes() or (np.isnan(value) and np.isnan(wanted))
    return bool(value == wanted) and (value is None) == (wanted is None)
