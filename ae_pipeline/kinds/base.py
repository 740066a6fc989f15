"""The contract of a kind, and what kinds share.

    rows of one shape  <-  to_rows    <-  records: the user's pictures, vectors, clips
    rows of one shape  ->  from_rows  ->  records again, of the user's column and type
                       ->  write      ->  a file of the user's own sort

Records come as values of an Arrow column, as an array (n, ...), or as files of one record each. Most kinds make one row
of a record. A kind that makes several (tiles of a picture, frames of a clip) says so and gives `Several`.

A kind holds nothing of the data. What it must know of them is its **state**: plain JSON that is made once, before the
rows for training are (`fit`), and kept in the codec. The same records and the same state give the same rows, alone and
among others: repairing a store makes its bytes again.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pyarrow as pa

from ae_pipeline.data.pixels import DTYPES, SampleSpec
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.state import Form, KindState
from ae_pipeline.params.base import Section

Place = Callable[[int], str]
"""Where the record of this number, in its block, comes from. For messages."""
Piece = tuple[np.ndarray, dict[str, Any]]
"""Some rows of a record, (k, *shape), and their values in the kind's own columns, (k,) each."""


@dataclass(frozen=True)
class Several:
    """The rows of one record, piece by piece: memory is that of a piece, whatever the record's size."""

    rows: int
    """How many, at least one. To be had without making them."""
    pieces: Iterable[Piece]
    """They are asked for once. The record was found whole before: making them raises only for what changed since."""


Row = np.ndarray | Several | DataError
"""What becomes of a record: its row (*shape) of a dtype in DTYPES, its rows, or why it cannot be read."""
Source: TypeAlias = pa.Array | np.ndarray | Path
"""Records as they are found: values of a column, an array (n, ...), or one file."""

WIDER = ("float16", "float64")
"""Types of numbers that a kind may make float32 of, if it says how and gives them back; others refuse them."""
_ADVICE = {
    "float16": "widen them to float32, which changes no value",
    "float64": "if float32 is exact enough for you, convert them first",
}


class Kind(ABC):
    """What a row means. `state` is None where nothing is fitted yet; a kind may need it for its rows."""

    State: ClassVar[type[KindState]] = KindState
    """What the kind keeps: a pydantic model with limits on every size, since codecs come from other people."""
    Options: ClassVar[type[Section]] = Section
    """Settings of the kind, with defaults: `source.files.settings` of params.yaml."""
    several: ClassVar[bool] = False
    """Whether a record can have several rows, whatever the state; see `makes_several`."""
    suffixes: tuple[str, ...] = ()
    """Endings of files, lower case with the dot, that are one record each; other records stand in tables and arrays."""
    block_records: int = 2048
    """Records of a table or array that are in memory at once."""
    column: str = "record"
    """Name of the column for records that come from files without names of columns."""

    takes_all_together: ClassVar[bool] = False
    """Whether all columns of a table that `takes_together` knows make a record, where none are named."""

    points_somewhere: ClassVar[bool] = True
    """Whether rows that are vectors have a direction by which they are searched: `cosine`, `recall_at_10`."""

    for_several_shapes: ClassVar[str] = "bring them to one size and one number of channels first"
    """What to do about records whose rows have several shapes."""

    def fit(self, form: Form, settings: Section, records: Iterator[Source]) -> KindState:  # noqa: ARG002
        """The state for records that stand as `form` says; `settings` is of the kind's `Options`.

        `records` are all of them in order, block by block, read as far as they are asked for; some may be broken. Where
        columns make records together, those that are held out for the test are not among them.
        """
        return self.State(form=form)

    def makes_several(self, state: KindState) -> bool:  # noqa: ARG002
        """Whether a record can have several rows, with this state."""
        return self.several

    @abstractmethod
    def takes(self, column: pa.DataType) -> bool:
        """Whether the values of a table's column of this type can be records."""

    def takes_together(self, column: pa.DataType) -> bool:  # noqa: ARG002
        """Whether a column of this type can be one of several that make a record together, row by row.

        Such records come and go as structs with a field for each column (`Form.together`), and stand in a table alone.
        """
        return False

    @abstractmethod
    def refuse_array(self, shape: tuple[int, ...], dtype: np.dtype, place: str) -> None:
        """Raise DataError, of `place`, unless the first axis of an array of this shape can be that of records."""

    def to_rows(self, records: pa.Array | np.ndarray, place: Place, state: KindState | None = None) -> Iterator[Row]:
        """What becomes of each record, in order.

        Gives a DataError for a record that is missing or cannot be read, which some people leave out, and raises one
        for values that no row may have: NaN, infinity, and types that no sample has.
        """
        if isinstance(records, np.ndarray):
            return self.rows_of_array(records, place, state)
        if tensor_shape(records.type) is not None:
            return self.rows_of_array(tensors(records, place), place, state)
        return self.rows_of_column(records, place, state)

    def rows_of_array(self, records: np.ndarray, place: Place, state: KindState | None) -> Iterator[Row]:  # noqa: ARG002
        """`to_rows` for an array (n, ...) or tensors: they are the rows, unless a kind makes others of them."""
        return finite_rows(records, place)

    @abstractmethod
    def rows_of_column(self, records: pa.Array, place: Place, state: KindState | None) -> Iterator[Row]:
        """`to_rows` for a column of any type but tensors that the kind takes."""

    def read_file(self, path: Path, state: KindState | None = None) -> Row:
        """`to_rows` for a file that is one record. This reads it whole: kinds with large records do better."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", place=path) from None
        return next(self.to_rows(pa.array([data], pa.large_binary()), lambda _: str(path), state))

    def beside(self, records: pa.Array) -> dict[str, pa.Array]:  # noqa: ARG002
        """What the values of a column say beside the records, (n,) each: kept as columns `<column>_<name>`."""
        return {}

    def kept_beside(self, state: KindState) -> pa.Schema:  # noqa: ARG002
        """Columns that the kind itself keeps beside records that columns make together; they are `folded`, too."""
        return pa.schema([])

    def beside_together(self, records: pa.Array, state: KindState) -> dict[str, pa.Array]:  # noqa: ARG002
        """The columns of `kept_beside` for records that columns make together, (n,) each."""
        return {}

    def rounding(self, records: pa.Array | np.ndarray, state: KindState | None = None) -> tuple[float, int]:  # noqa: ARG002
        """Sum of the squared differences between values and rows, and how many values; (0, 0): none is rounded."""
        return 0.0, 0

    def unlike_constants(self, records: pa.Array | np.ndarray, state: KindState | None) -> dict[str, int]:  # noqa: ARG002
        """How many records have a value that training never saw, by name, where training saw one value only."""
        return {}

    def what_is_rounded(self, state: KindState | None) -> str:  # noqa: ARG002
        """What `rounding` measures, in words that stand before "rounded to float32"."""
        return "float64"

    def row_columns(self, state: KindState) -> pa.Schema:  # noqa: ARG002
        """Columns that the kind gives each row of a record that has several: place in the record, true size."""
        return pa.schema([])

    def value_names(self, state: KindState) -> tuple[str, ...]:
        """The columns that a row's values are of, where columns were taken together."""
        return () if state.form.together is None else tuple(state.form.together.names)

    def column_type(self, state: KindState, spec: SampleSpec) -> pa.DataType:
        """Type of the column that `from_rows` makes: the user's own, or what suits records that were in no column."""
        if state.form.sort == "table" and state.form.arrow_type is not None:
            return state.form.arrow_type
        return self.usual_type(state, spec)

    @abstractmethod
    def usual_type(self, state: KindState, spec: SampleSpec) -> pa.DataType:
        """Type of a column of records that come from files, or from arrays; `spec` is that of a row."""

    @abstractmethod
    def from_rows(self, rows: np.ndarray, attributes: pa.Table, state: KindState) -> pa.Array:
        """The records that these rows, (n, *shape), are, as values of a column of `column_type`.

        `attributes` are the rows' columns in the store, (n,). Where a record has several rows, they are all there and
        together, and the column has a value for each record. Raises DataError for rows that no record can have.
        """

    def folded(self, state: KindState) -> tuple[str, ...]:
        """Names of attributes that `from_rows` puts back into the records."""
        return tuple(self.row_columns(state).names)

    def to_array(self, rows: np.ndarray, attributes: pa.Table, state: KindState) -> np.ndarray:  # noqa: ARG002
        """The records of an array in the type that its values had; arguments as for `from_rows`."""
        kind = state.form.arrow_type
        return rows if kind is None else narrowed(rows, np.dtype(kind.to_pandas_dtype()))

    def ending(self, state: KindState, spec: SampleSpec) -> str | None:  # noqa: ARG002
        """Ending of the files that `write` makes, with the dot; None: records of this kind are no files."""
        return None

    def write(self, pieces: Iterable[tuple[np.ndarray, pa.Table]], path: Path, state: KindState) -> None:
        """One record as a file of the user's own sort: all its rows and their attributes, piece by piece, in order.

        `path` must not exist yet (FileExistsError). The same rows give the same bytes.
        """
        raise NotImplementedError

    def restored(self, pieces: Iterable[tuple[np.ndarray, pa.Table]], state: KindState) -> Iterator[np.ndarray]:
        """The values of a record that has several rows, for metrics of whole records (evaluation/measures/records/).

        float64 pieces along the record's first axis, such as samples (n, channels) or lines (n, width, channels), as a
        file that `write` makes has them, scaled so that the range of that file is 1 (or from -1 to 1). `pieces` as for
        `write`. How the rows are cut decides how the record is, whatever the rows' values. Memory is that of a piece.
        Raises IncompleteRecordError where rows are missing or not in order. Kinds without such metrics have none.
        """
        raise NotImplementedError


def refuse_dtype(dtype: np.dtype, place: str, more: tuple[str, ...] = ()) -> None:
    """Raise DataError for numbers that no sample can have, but for `more`: nothing is cast without a word."""
    if dtype.newbyteorder("=").name not in (*DTYPES, *more):
        name = dtype.name
        advice = _ADVICE.get(name, "convert them to one of these first, if it holds them")
        expected = ", ".join((*DTYPES, *more))
        raise DataError(f"holds values of type {name}, expected {expected}", place=place, advice=advice)


def tensor_shape(kind: pa.DataType) -> tuple[int, ...] | None:
    """Shape of the tensors of a column of Arrow's fixed-shape tensors; None for any other type."""
    return tuple(kind.shape) if isinstance(kind, pa.FixedShapeTensorType) else None


def tensors(records: pa.Array, place: Place) -> np.ndarray:
    """(n, *shape) values of a column of fixed-shape tensors. Raises DataError where one is missing or permuted."""
    kind = records.type
    if kind.permutation not in (None, list(range(len(kind.shape)))):
        what = f"has tensors whose dimensions are stored in the order {kind.permutation}"
        raise DataError(what, place=place(0), advice="write them in the order that they have")
    refuse_dtype(np.dtype(kind.value_type.to_pandas_dtype()), place(0), WIDER)
    storage = records.storage
    if storage.null_count:
        number = int(np.flatnonzero(storage.is_null())[0])
        raise DataError("has no tensor", place=place(number), advice="remove that row first")
    values = storage.flatten()
    if values.null_count:
        number = int(np.flatnonzero(values.is_null())[0]) // max(1, storage.type.list_size)
        raise DataError("has a value that is missing", place=place(number), advice="fill or remove it first")
    return values.to_numpy().reshape(len(records), *kind.shape)


def as_tensors(rows: np.ndarray, kind: pa.FixedShapeTensorType) -> pa.Array:
    """Rows (n, *shape) as a column of tensors of this type; the way back from `tensors`."""
    values = narrowed(rows, np.dtype(kind.value_type.to_pandas_dtype())).reshape(-1)
    size = int(np.prod(kind.shape))
    storage = pa.FixedSizeListArray.from_arrays(pa.array(values, kind.value_type), type=pa.list_(kind.value_type, size))
    return pa.ExtensionArray.from_storage(kind, storage.cast(kind.storage_type))


def finite_rows(rows: np.ndarray, place: Place) -> Iterator[Row]:
    """The rows of an array (n, ...). Raises DataError where one has NaN or infinity."""
    refuse_dtype(rows.dtype, place(0))
    if rows.dtype.kind == "f":
        bad = ~np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
        if bad.any():
            refuse_infinite(place(int(bad.argmax())))
    yield from rows


def narrowed(rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rows in another type, rounded; what a narrow float cannot hold becomes its largest value, never infinity."""
    if rows.dtype == dtype:
        return rows
    if dtype.kind == "f":
        limit = np.finfo(dtype).max
        return np.clip(rows, -limit, limit).astype(dtype) if np.finfo(rows.dtype).max > limit else rows.astype(dtype)
    return rows.astype(dtype)


def refuse_infinite(place: str) -> None:
    """Raise the DataError of a record with NaN or infinity."""
    advice = "remove or repair this record, and others like it, first"
    raise DataError("has values that are NaN or infinite", place=place, advice=advice)
