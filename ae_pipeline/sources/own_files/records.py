"""The records of files, block by block. Each sort of file has a reader; a kind makes the rows.

reader = Tables(files, kind, column)  # or SingleFiles, or Arrays (arrays.py)
reader.count(file)                    # from headers: records that the file holds
for block in reader.read(file): block.rows, block.columns
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ae_pipeline.data.parquet.reader import int96_columns, int96_unit, open_parquet, read_tables
from ae_pipeline.data.pixels import PIXELS, SampleSpec, to_numpy
from ae_pipeline.data.sample_schema import schema_difference, spec_of, stated_spec
from ae_pipeline.errors import DataError
from ae_pipeline.kinds.base import Kind, Place, Row
from ae_pipeline.sources.own_files.columns import beside_columns, choose_column
from ae_pipeline.sources.own_files.listing import FoundFile


@dataclass(frozen=True)
class Records:
    """Consecutive records of a file, from number `first` on: their rows, and the columns beside them (n rows).

    `name` gives the name of each, by its number in these.
    """

    rows: Iterator[Row]
    columns: pa.Table
    first: int
    name: Place


class Reader(ABC):
    """What all files hold alike, and the records of each."""

    schema: pa.Schema
    """Columns beside the records, as the files have them."""

    def __init__(self) -> None:
        self.broken: dict[str, DataError] = {}
        """Files that cannot be opened, by name, and why."""
        self._counts: dict[str, int] = {}

    def count(self, file: FoundFile) -> int:
        """How many records the file holds; none if it is broken."""
        return self._counts.get(file.name, 0)

    @abstractmethod
    def read(self, file: FoundFile) -> Iterator[Records]:
        """All records, in order. Raises DataError for what is damaged, and what kinds refuse."""


class SingleFiles(Reader):
    """Files that are one record each."""

    schema = pa.schema([])

    def __init__(self, kind: Kind):
        super().__init__()
        self._kind = kind

    def count(self, file: FoundFile) -> int:  # noqa: ARG002
        return 1

    def read(self, file: FoundFile) -> Iterator[Records]:
        try:
            data = file.path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", place=file.path) from None
        rows = self._kind.to_rows(pa.array([data], pa.large_binary()), lambda _: str(file.path))
        yield Records(rows, pa.table({}), 0, lambda _: file.name)


class Tables(Reader):
    """Parquet files with the same columns: one holds the records, the others stay beside them."""

    def __init__(self, files: tuple[FoundFile, ...], kind: Kind, column: str | None):
        super().__init__()
        self._kind = kind
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
        self._int96 = int96_unit(old_times, {})
        with open_parquet(first[0].path, self._int96) as parquet:
            table = parquet.schema_arrow
        self._spec = _stated(first[0], table, column)
        self._column = PIXELS if self._spec else choose_column(str(first[0].path), table, kind, column)
        self.schema = beside_columns(table, self._column, kind)

    def read(self, file: FoundFile) -> Iterator[Records]:
        first = 0
        for table in read_tables(file.path, None, self._kind.block_records, self._int96):
            values = table.column(self._column).combine_chunks()
            values = values.chunk(0) if isinstance(values, pa.ChunkedArray) else values
            columns = table.drop_columns([self._column])
            if self._spec:
                numbers = pa.chunked_array([pa.array(range(first, first + len(table)))])
                values = to_numpy(table.column(PIXELS), self._spec, file.path, numbers)
                self._kind.refuse_array(values.shape, values.dtype, str(file.path))
            else:
                for name, beside in self._kind.beside(values).items():
                    columns = columns.append_column(f"{self._column}_{name}", beside)
            yield Records(
                self._kind.to_rows(values, row_place(file.path, first)), columns, first, row_place(file.name, first)
            )
            first += len(table)


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
