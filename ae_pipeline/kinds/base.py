"""The contract of a kind, and what kinds share.

Records are what a person has: pictures, vectors. They come as values of an Arrow column (image files as their bytes) or
as an array (n, ...). A kind makes one row of each, and says of each that it cannot read why not.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from ae_pipeline.data.pixels import DTYPES
from ae_pipeline.errors import DataError

Place = Callable[[int], str]
"""Where the record of this number, in its block, comes from. For messages."""
Row = np.ndarray | DataError
"""A record's row, (*shape) of a dtype in DTYPES, little-endian or as the machine has it, or why it cannot be read."""

_WIDEN = {
    "float16": "widen them to float32, which changes no value",
    "float64": "if float32 is exact enough for you, convert them first",
}


class Kind(ABC):
    """What a row means. Kinds hold no state of the data: the same records give the same rows in any order of blocks."""

    suffixes: tuple[str, ...] = ()
    """Endings of files, lower case with the dot, that are one record each; other records stand in tables and arrays."""
    block_records: int = 2048
    """Records of a table or array that are in memory at once."""

    @abstractmethod
    def takes(self, column: pa.DataType) -> bool:
        """Whether the values of a table's column of this type can be records."""

    @abstractmethod
    def refuse_array(self, shape: tuple[int, ...], dtype: np.dtype, place: str) -> None:
        """Raise DataError, of `place`, unless the first axis of an array of this shape can be that of records."""

    def to_rows(self, records: pa.Array | np.ndarray, place: Place) -> Iterator[Row]:
        """One row for each record, in order.

        Gives a DataError for a record that is missing or cannot be read, which some people leave out, and raises one
        for values that no row may have: NaN, infinity, and types that no sample has.
        """
        if isinstance(records, np.ndarray):
            return finite_rows(records, place)
        if tensor_shape(records.type) is not None:
            return finite_rows(tensors(records, place), place)
        return self.rows_of_column(records, place)

    @abstractmethod
    def rows_of_column(self, records: pa.Array, place: Place) -> Iterator[Row]:
        """`to_rows` for a column of any type but tensors that the kind takes."""

    def beside(self, records: pa.Array) -> dict[str, pa.Array]:  # noqa: ARG002
        """What the values of a column say beside the records, (n,) each: kept as columns `<column>_<name>`."""
        return {}


def refuse_dtype(dtype: np.dtype, place: str) -> None:
    """Raise DataError for numbers that no sample can have: nothing is cast without a word."""
    if dtype.newbyteorder("=").name not in DTYPES:
        name = dtype.name
        advice = _WIDEN.get(name, "convert them to one of these first, if it holds them")
        raise DataError(f"holds values of type {name}, expected {', '.join(DTYPES)}", place=place, advice=advice)


def tensor_shape(kind: pa.DataType) -> tuple[int, ...] | None:
    """Shape of the tensors of a column of Arrow's fixed-shape tensors; None for any other type."""
    return tuple(kind.shape) if isinstance(kind, pa.FixedShapeTensorType) else None


def tensors(records: pa.Array, place: Place) -> np.ndarray:
    """(n, *shape) values of a column of fixed-shape tensors. Raises DataError where one is missing or permuted."""
    kind = records.type
    if kind.permutation not in (None, list(range(len(kind.shape)))):
        what = f"has tensors whose dimensions are stored in the order {kind.permutation}"
        raise DataError(what, place=place(0), advice="write them in the order that they have")
    storage = records.storage
    if storage.null_count:
        number = int(np.flatnonzero(storage.is_null())[0])
        raise DataError("has no tensor", place=place(number), advice="remove that row first")
    values = storage.flatten()
    refuse_dtype(np.dtype(values.type.to_pandas_dtype()), place(0))
    if values.null_count:
        number = int(np.flatnonzero(values.is_null())[0]) // max(1, storage.type.list_size)
        raise DataError("has a value that is missing", place=place(number), advice="fill or remove it first")
    return values.to_numpy().reshape(len(records), *kind.shape)


def finite_rows(rows: np.ndarray, place: Place) -> Iterator[Row]:
    """The rows of an array (n, ...). Raises DataError where one has NaN or infinity."""
    refuse_dtype(rows.dtype, place(0))
    if rows.dtype.kind == "f":
        bad = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
        if bad.any():
            refuse_infinite(place(int(bad.argmax())))
    yield from rows


def refuse_infinite(place: str) -> None:
    """Raise the DataError of a record with NaN or infinity."""
    advice = "remove or repair this record, and others like it, first"
    raise DataError("has values that are NaN or infinite", place=place, advice=advice)
