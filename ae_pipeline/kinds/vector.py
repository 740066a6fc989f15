"""Kind `vector`: a record is a list of numbers, such as an embedding, its row these numbers in the type they have."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Kind, Place, Row, refuse_dtype, refuse_infinite, tensor_shape


class VectorKind(Kind):
    """Vectors as lists (of any or of one length), as Arrow's tensors of one dimension, or as the rows of an array."""

    def takes(self, column: pa.DataType) -> bool:
        shape = tensor_shape(column)
        return (shape is not None and len(shape) == 1) or (_is_list(column) and _is_number(column.value_type))

    def refuse_array(self, shape: tuple[int, ...], dtype: np.dtype, place: str) -> None:
        refuse_dtype(dtype, place)
        if len(shape) != 2:
            what = f"has shape {list(shape)}, expected (vectors, values)"
            raise DataError(what, place=place, advice="reshape it, or set source.files.kind: image for pictures")

    def rows_of_column(self, records: pa.Array, place: Place) -> Iterator[Row]:
        yield from _rows_of_lists(records, place)


def _rows_of_lists(lists: pa.Array, place: Place) -> Iterator[Row]:
    values = lists.values
    dtype = np.dtype(values.type.to_pandas_dtype())
    refuse_dtype(dtype, place(0))
    # A list that is missing may have values that are none; those of the others are looked at one by one.
    missing = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    numbers = (values.fill_null(0) if values.null_count else values).to_numpy()
    all_finite = dtype.kind != "f" or bool(np.isfinite(numbers).all())
    there = lists.is_valid().to_numpy(zero_copy_only=False)
    for number, (start, stop) in enumerate(zip(*_bounds(lists), strict=True)):
        if not there[number]:
            yield DataError("has no vector", place=place(number), advice="put it there, or remove the row")
            continue
        if missing is not None and missing[start:stop].any():
            raise DataError("has a value that is missing", place=place(number), advice="fill it, or remove the row")
        row = numbers[start:stop]
        if not all_finite and not np.isfinite(row).all():
            refuse_infinite(place(number))
        yield row


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
