"""The records of files, block by block. Each sort of file has a reader; a kind makes the rows.

reader = Tables(files, kind, column)  # or SingleFiles, or Arrays (arrays.py)
reader.count(file)                    # from headers: records that the file holds
reader.state = kind.fit(reader.form, settings, reader.sources())
for block in reader.read(file): block.rows, block.columns
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ae_pipeline.data.arrow_types import type_to_json
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.parquet.reader import int96_columns, int96_unit, open_parquet, read_tables
from ae_pipeline.data.pixels import PIXELS, SampleSpec, to_numpy
from ae_pipeline.data.sample_schema import schema_difference, spec_of, stated_kind, stated_spec
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Kind, Place, Row, Source
from ae_pipeline.kinds.state import Form, KindState
from ae_pipeline.sources.own_files.columns import (
    Wanted,
    all_columns,
    beside_columns,
    choose_column,
    choose_columns,
    refuse_repeated_names,
)
from ae_pipeline.sources.own_files.drawing.records import Drawing
from ae_pipeline.sources.own_files.listing import FoundFile

# Values of one column that are read at once.
_VALUES = 1 << 16


@dataclass(frozen=True)
class Records:
    """Consecutive records of a file, from number `first` on: their rows, and the columns beside them (n rows).

    `name` gives the name of each, by its number in these.
    """

    rows: Iterator[Row]
    columns: pa.Table
    first: int
    name: Place
    rounding: tuple[float, int] = (0.0, 0)
    """What `Kind.rounding` says of these records."""
    values: pa.Array | np.ndarray | None = None
    """The records as they stand in the file; None for a file that is one record."""


class Reader(ABC):
    """What all files hold alike, and the records of each."""

    schema: pa.Schema
    """Columns beside the records, as the files have them."""
    form: Form | None
    """How the records stand in the files; None for files in this package's own layout, which are rows already."""
    entry: KindEntry | None = None
    """What files in this package's own layout say of their rows."""

    def __init__(self, files: Sequence[FoundFile], kind: Kind) -> None:
        self.files, self.kind = files, kind
        self.state: KindState | None = None
        """The kind's state, once it is fitted, or from a codec."""
        self.broken: dict[str, DataError] = {}
        """Files that cannot be opened, by name, and why."""
        self._counts: dict[str, int] = {}

    def sources(self, drawing: Drawing | None = None) -> Iterator[Source]:
        """The records of all files that can be opened, as kinds take them, block by block.

        With `drawing`, those of tables that are held out for the test are not among them.
        """
        for file in self.files:
            first = 0
            for block in self._sources(file) if file.name not in self.broken else ():
                if drawing is not None and isinstance(block, pa.Array):
                    number, first = first, first + len(block)
                    yield block.filter(pa.array(~drawing.of(file.name, number, len(block))))
                else:
                    yield block

    @abstractmethod
    def _sources(self, file: FoundFile) -> Iterator[Source]:
        """The records of a file."""

    def count(self, file: FoundFile) -> int:
        """How many records the file holds; none if it is broken."""
        return self._counts.get(file.name, 0)

    @abstractmethod
    def read(self, file: FoundFile) -> Iterator[Records]:
        """All records, in order. Raises DataError for what is damaged, and what kinds refuse."""

    def values_of(self, file: FoundFile, name: str) -> Iterator[pa.Array]:
        """The values of a column beside the records, some records at a time."""
        raise NotImplementedError


class SingleFiles(Reader):
    """Files that are one record each."""

    schema = pa.schema([])
    form = Form(sort="files")

    def count(self, file: FoundFile) -> int:  # noqa: ARG002
        return 1

    def _sources(self, file: FoundFile) -> Iterator[Source]:
        yield file.path

    def read(self, file: FoundFile) -> Iterator[Records]:
        rows = (self.kind.read_file(path, self.state) for path in [file.path])
        yield Records(rows, pa.table({}), 0, lambda _: file.name)


class Tables(Reader):
    """Parquet files with the same columns: one holds the records, or some together; the others stay beside them."""

    def __init__(self, files: Sequence[FoundFile], kind: Kind, column: Wanted):
        super().__init__(files, kind)
        first: tuple[FoundFile, pa.Schema] | None = None
        old_times: dict[Path, list[str]] = {}
        for file in files:
            try:
                with open_parquet(file.path) as parquet:
                    schema, metadata = parquet.schema_arrow, parquet.metadata
            except DataError as error:
                self.broken[file.name] = error
                continue
            self._counts[file.name] = metadata.num_rows
            if times := int96_columns(metadata):
                old_times[file.path] = times
            if first is None:
                first = file, schema
            _refuse_other_columns(file, schema, *first)
        if first is None:
            raise next(iter(self.broken.values()))
        self.int96 = int96_unit(old_times, {})
        with open_parquet(first[0].path, self.int96) as parquet:
            table = parquet.schema_arrow
        self._spec: SampleSpec | None = None
        self._column: str | None = None
        self._beside = pa.schema([])
        self._fields: list[pa.Field] = []
        """The columns that make a record together; none where one column holds the records."""
        self._choose(first[0], table, column)

    def _choose(self, file: FoundFile, table: pa.Schema, column: Wanted) -> None:
        """Set which columns hold the records, and what form they have."""
        refuse_repeated_names(file.path, table)
        names = tuple(table.names)
        if column is None and self.kind.takes_all_together and _stated(file, table, column) is None:
            column = all_columns(str(file.path), table, self.kind)
        if column is not None and not isinstance(column, str):
            chosen = choose_columns(str(file.path), table, self.kind, column)
            self._fields = [table.field(name).with_metadata(None) for name in chosen]
            self._beside = beside_columns(table, chosen, self.kind)
            self.form = Form(sort="table", type=describe_type(pa.struct(self._fields), file.path), columns=names)
            return
        self._spec = _stated(file, table, column)
        self._column = PIXELS if self._spec else choose_column(str(file.path), table, self.kind, column)
        self._beside = beside_columns(table, self._column, self.kind)
        if self._spec:
            self.form, self.entry = None, stated_kind({file.path: table})
        else:
            described = describe_type(table.field(self._column).type, file.path)
            self.form = Form(sort="table", column=self._column, type=described, columns=names)

    @property
    def schema(self) -> pa.Schema:
        """Columns beside the records: the table's others, and what the kind keeps of them, once it is fitted."""
        if self._column is not None or self.state is None:
            return self._beside
        return pa.schema([*self._beside, *self.kind.kept_beside(self.state)])

    @property
    def _names(self) -> list[str]:
        """The columns with the records."""
        return [field.name for field in self._fields] if self._column is None else [self._column]

    def _values(self, table: pa.Table) -> pa.Array:
        """The records of a table: the column, or structs of the columns that make one together."""
        found = [_in_one(table.column(name)) for name in self._names]
        return found[0] if self._column is not None else pa.StructArray.from_arrays(found, fields=self._fields)

    def _sources(self, file: FoundFile) -> Iterator[Source]:
        columns = None if self._column is not None else self._names
        for table in read_tables(file.path, None, self.kind.block_records, self.int96, columns=columns):
            yield self._values(table)

    def values_of(self, file: FoundFile, name: str) -> Iterator[pa.Array]:
        for table in read_tables(file.path, None, _VALUES, self.int96, columns=[name]):
            yield _in_one(table.column(name))

    def read(self, file: FoundFile, row_groups: list[int] | None = None, row_in_file: int = 0) -> Iterator[Records]:
        """All records, or those of some row groups, before which the file has `row_in_file` records."""
        first = row_in_file
        for table in read_tables(file.path, row_groups, self.kind.block_records, self.int96, first_row=row_in_file):
            values = self._values(table)
            columns = table.drop_columns(self._names)
            if self._spec:
                numbers = pa.chunked_array([pa.array(range(first, first + len(table)))])
                values = to_numpy(table.column(PIXELS), self._spec, file.path, numbers)
                self.kind.refuse_array(values.shape, values.dtype, str(file.path))
            elif self._column is not None:
                for name, beside in self.kind.beside(values).items():
                    columns = columns.append_column(f"{self._column}_{name}", beside)
            elif self.state is not None:
                for name, beside in self.kind.beside_together(values, self.state).items():
                    columns = columns.append_column(name, beside)
            rows = self.kind.to_rows(values, row_place(file.path, first), self.state)
            rounding = self.kind.rounding(values, self.state)
            yield Records(rows, columns, first, row_place(file.name, first), rounding, values)
            first += len(table)


def describe_type(kind: pa.DataType, path: Path) -> Any:
    """The type of records as a codec keeps it. Raises DataError for one that cannot be kept."""
    try:
        return type_to_json(kind)
    except ValueError as error:
        raise DataError(
            f"has records of a type that cannot be kept: {error}", place=path, advice="write them in another one"
        ) from None


def _in_one(column: pa.ChunkedArray) -> pa.Array:
    values = column.combine_chunks()
    return values.chunk(0) if isinstance(values, pa.ChunkedArray) else values


def row_place(path: Path | str, first: int) -> Place:
    """Names rows of a file in messages; `first` is the number of the block's first one."""
    return lambda number: f"{path}: row {first + number:,} (the first one is 0)"


def _refuse_other_columns(file: FoundFile, schema: pa.Schema, first: FoundFile, expected: pa.Schema) -> None:
    """Raise DataError where columns of two files differ in name, type or order."""
    if not schema.equals(expected, check_metadata=False):
        which = schema_difference(schema, expected)
        raise DataError(f"{file.path} has other columns than {first.path}: {which}; give all files the same")
    stated = [stated_spec(one.path, found) for one, found in ((file, schema), (first, expected))]
    if stated[0] != stated[1]:
        found, wanted = (spec.describe() if spec else "samples of no stated shape" for spec in stated)
        raise DataError(f"{file.path} holds {found}, but {first.path} {wanted}; give all files the same")


def _stated(file: FoundFile, schema: pa.Schema, column: str | None) -> SampleSpec | None:
    """Shape and dtype of the rows of files in this package's own layout; None for all others."""
    if column not in (None, PIXELS) or PIXELS not in schema.names or stated_spec(file.path, schema) is None:
        return None
    return spec_of(file.path, schema, None)
