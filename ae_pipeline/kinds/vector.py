"""Kind `vector`: a record is a list of numbers, such as an embedding, its row these numbers.

They keep their type, but for two. Numbers of float16 become float32, which changes no value. Numbers of float64 are
rounded to float32, by at most 6e-8 of each; `rounding` measures it, and a vector with numbers beyond float32 is refused
by name. Decoded vectors have the user's own type again: rounded to float16, or widened to float64.

Columns of numbers of a table can be taken together, by their names: each row's numbers in them are its vector, scaled
column by column (data/table_columns/scaled/). They come back as these columns, in their types.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_serializer, model_validator
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.table_columns.scaled.columns import (
    MOST_COLUMNS,
    columns_of_rows,
    fit_ranges,
    is_number,
    rounding_of_columns,
    rows_of_columns,
    unlike_constants,
)
from ae_pipeline.data.table_columns.scaled.scaling import Range
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import (
    WIDER,
    Kind,
    Place,
    Row,
    Source,
    as_tensors,
    finite_rows,
    narrowed,
    refuse_dtype,
    refuse_infinite,
    tensor_shape,
)
from ae_pipeline.kinds.state import Form, KindState
from ae_pipeline.params.base import Section


class VectorState(KindState):
    """What the codec keeps."""

    ranges: Annotated[tuple[Range, ...], Field(max_length=MOST_COLUMNS)] | None = None
    """The usual range of each column that was taken by name; for other vectors there is none, and no such key."""

    @model_validator(mode="after")
    def _fits_its_columns(self) -> "VectorState":
        columns = self.form.together
        if (columns is None) != (self.ranges is None):
            raise ValueError("ranges belong to columns that were taken by name, and to no other vectors")
        if columns is not None and len(set(columns.names)) < len(columns):
            raise ValueError("two columns that were taken by name have one name")
        for field, found in zip(columns or (), self.ranges or (), strict=True):
            if not is_number(field.type) or not found.is_of(np.dtype(field.type.to_pandas_dtype())):
                raise ValueError(f"the range of `{field.name}` is none of a column of type {field.type}")
        return self

    @model_serializer(mode="wrap")
    def _without_nothing(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        return {key: value for key, value in written.items() if key != "ranges" or value is not None}


class VectorKind(Kind):
    """Vectors as lists (of any or of one length), as Arrow's tensors of one dimension, or as the rows of an array.

    And as columns of numbers that are taken together.
    """

    State = VectorState
    column = "vector"

    def fit(self, form: Form, settings: Section, records: Iterator[Source]) -> VectorState:  # noqa: ARG002
        columns = form.together
        if columns is None:
            return VectorState(form=form)
        if len(columns) > MOST_COLUMNS:
            what = f"{len(columns):,} columns are named, of which a codec keeps at most {MOST_COLUMNS:,}"
            raise DataError(what, advice="name fewer in source.files.column, or write them as one column of lists")
        return VectorState(form=form, ranges=fit_ranges(columns, (one for one in records if isinstance(one, pa.Array))))

    def takes(self, column: pa.DataType) -> bool:
        shape = tensor_shape(column)
        return (shape is not None and len(shape) == 1) or (_is_list(column) and _is_number(column.value_type))

    def takes_together(self, column: pa.DataType) -> bool:
        return is_number(column)

    def refuse_array(self, shape: tuple[int, ...], dtype: np.dtype, place: str) -> None:
        refuse_dtype(dtype, place, WIDER)
        if len(shape) != 2:
            what = f"has shape {list(shape)}, expected (vectors, values)"
            raise DataError(what, place=place, advice="reshape it, or set source.files.kind: image for pictures")

    def rows_of_array(self, records: np.ndarray, place: Place, state: KindState | None) -> Iterator[Row]:  # noqa: ARG002
        refuse_dtype(records.dtype, place(0), WIDER)
        rows, beyond = _as_samples(records)
        if beyond is not None:
            number = int(beyond.reshape(len(records), -1).any(axis=1).argmax())
            _refuse_beyond(records[number], place(number))
        yield from finite_rows(rows, place)

    def rows_of_column(self, records: pa.Array, place: Place, state: KindState | None) -> Iterator[Row]:
        if pa.types.is_struct(records.type):
            yield from rows_of_columns(records, _ranges_of(state), place)
        else:
            yield from _rows_of_lists(records, place)

    def rounding(self, records: pa.Array | np.ndarray, state: KindState | None = None) -> tuple[float, int]:
        values = records
        if isinstance(records, pa.Array) and pa.types.is_struct(records.type):
            return rounding_of_columns(records, _ranges_of(state)) if state is not None else (0.0, 0)
        if isinstance(records, pa.Array):
            kind = records.type
            flat = records.storage.flatten() if tensor_shape(kind) is not None else records.flatten()
            if not pa.types.is_float64(flat.type):
                return 0.0, 0
            values = flat.drop_null().to_numpy()
        if values.dtype != np.float64:
            return 0.0, 0
        with np.errstate(over="ignore", invalid="ignore"):
            apart = values - values.astype(np.float32)
        return float(np.square(apart[np.isfinite(apart)]).sum()), values.size

    def unlike_constants(self, records: pa.Array | np.ndarray, state: KindState | None) -> dict[str, int]:
        is_together = isinstance(records, pa.Array) and pa.types.is_struct(records.type)
        return unlike_constants(records, _ranges_of(state)) if is_together and state is not None else {}

    def what_is_rounded(self, state: KindState | None) -> str:
        is_together = state is not None and state.form.together is not None
        return "scaled columns" if is_together else super().what_is_rounded(state)

    def usual_type(self, state: KindState, spec: SampleSpec) -> pa.DataType:
        return pa.list_(state.form.arrow_type or pa.from_numpy_dtype(spec.dtype))

    def from_rows(self, rows: np.ndarray, attributes: pa.Table, state: KindState) -> pa.Array:  # noqa: ARG002
        if (columns := state.form.together) is not None:
            return columns_of_rows(rows, columns, _ranges_of(state))
        kind = self.column_type(state, SampleSpec(rows.shape[1:], rows.dtype.name))
        if tensor_shape(kind) is not None:
            return as_tensors(rows, kind)
        count, size = rows.shape
        numbers = narrowed(rows, np.dtype(kind.value_type.to_pandas_dtype()))
        values = pa.array(np.ascontiguousarray(numbers).reshape(-1), kind.value_type)
        if pa.types.is_fixed_size_list(kind):
            return pa.FixedSizeListArray.from_arrays(values, type=kind)
        is_large = pa.types.is_large_list(kind)
        offsets = pa.array(np.arange(count + 1, dtype=np.int64) * size, pa.int64() if is_large else pa.int32())
        return (pa.LargeListArray if is_large else pa.ListArray).from_arrays(offsets, values, type=kind)


def _ranges_of(state: KindState | None) -> tuple[Range, ...]:
    assert isinstance(state, VectorState)
    assert state.ranges is not None
    return state.ranges


def _rows_of_lists(lists: pa.Array, place: Place) -> Iterator[Row]:
    values = lists.values
    dtype = np.dtype(values.type.to_pandas_dtype())
    refuse_dtype(dtype, place(0), WIDER)
    # A list that is missing may have values that are none; those of the others are looked at one by one.
    missing = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    numbers = (values.fill_null(0) if values.null_count else values).to_numpy()
    samples, beyond = _as_samples(numbers)
    all_finite = dtype.kind != "f" or bool(np.isfinite(numbers).all())
    there = lists.is_valid().to_numpy(zero_copy_only=False)
    for number, (start, stop) in enumerate(zip(*_bounds(lists), strict=True)):
        if not there[number]:
            yield DataError("has no vector", place=place(number), advice="put it there, or remove the row")
            continue
        if missing is not None and missing[start:stop].any():
            raise DataError("has a value that is missing", place=place(number), advice="fill it, or remove the row")
        if not all_finite and not np.isfinite(numbers[start:stop]).all():
            refuse_infinite(place(number))
        if beyond is not None and beyond[start:stop].any():
            _refuse_beyond(numbers[start:stop], place(number))
        yield samples[start:stop]


def _as_samples(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers of any shape in a type that samples have, and which of them float32 cannot hold; None: it holds all."""
    if numbers.dtype.newbyteorder("=").name not in WIDER:
        return numbers, None
    with np.errstate(over="ignore"):
        samples = numbers.astype(np.float32)
    beyond = np.isinf(samples) & np.isfinite(numbers)
    return samples, beyond if beyond.any() else None


def _refuse_beyond(numbers: np.ndarray, place: str) -> None:
    worst = float(numbers[np.abs(np.where(np.isfinite(numbers), numbers, 0)).argmax()])
    what = f"has values that float32 cannot hold, such as {worst:g}"
    raise DataError(what, place=place, advice="scale them, or remove this record, first")


def _bounds(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Where each list begins and ends among the values, (n,) each."""
    if pa.types.is_fixed_size_list(lists.type):
        size = lists.type.list_size
        starts = (lists.offset + np.arange(len(lists))) * size
        return starts, starts + size
    offsets = lists.offsets.to_numpy()
    return offsets[:-1], offsets[1:]


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


KIND = VectorKind
