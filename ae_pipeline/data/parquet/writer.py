"""Rows in pieces of one size: a Parquet file written table by table, whole or not at all; tables cut anew."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.files import arrow_file, finished_file

# Higher levels gain nothing on latents, and on pixels less than they cost.
ZSTD_LEVEL = 1


class RowGroupWriter:
    """A context manager; the file has its name only when the block ended well. Page checksums are always written.

    The name is on disk when the folder is: tables are written into folders that are finished as a whole.
    """

    def __init__(self, path: Path, schema: pa.Schema, row_group_rows: int, **options: Any):
        self._schema = schema
        self._group_rows = row_group_rows
        self._options = options
        self._path = path
        self._pending: list[pa.Table] = []
        self._pending_rows = 0

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            sink = arrow_file(opened.enter_context(finished_file(self._path, sync_name=False)), "w")
            if isinstance(sink, pa.NativeFile):
                opened.enter_context(sink)
            writer = pq.ParquetWriter(
                sink,
                self._to_file(_without_rows(self._schema)).schema,
                compression="zstd",
                write_page_checksum=True,
                **{"compression_level": ZSTD_LEVEL, **self._options},
            )
            self._writer = opened.enter_context(writer)
            opened.push(self._write_rest)
            self._opened = opened.pop_all()
        return self

    def append(self, table: pa.Table) -> None:
        """Append rows; a row group is written when it is full."""
        assert table.column_names == self._schema.names
        self._pending.append(with_schema(table, self._schema))
        self._pending_rows += len(table)
        while self._pending_rows >= self._group_rows:
            self._flush(self._group_rows)

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def _write_rest(self, *error: Any) -> None:
        if error[0] is None and self._pending_rows:
            self._flush(self._pending_rows)

    def _to_file(self, group: pa.Table) -> pa.Table:
        """What is written of a whole row group; columns may have other types then."""
        return group

    def _flush(self, rows: int) -> None:
        table = pa.concat_tables(self._pending)
        self._writer.write_table(self._to_file(table.slice(0, rows)), row_group_size=rows)
        self._pending = [table.slice(rows)]
        self._pending_rows -= rows


def _without_rows(schema: pa.Schema) -> pa.Table:
    """Not `Schema.empty_table`: it cannot make tensors with a permutation, nor lists or structs of tensors."""
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order and types."""
    # `Table.cast` will not do: it breaks lists of the type null that are a slice of others.
    columns = [table.column(name) for name in schema.names]
    columns = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def rechunk(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut the same rows into tables of `rows`; only the last one may be shorter."""
    pending: list[pa.Table] = []
    count = 0
    for table in tables:
        rest = table
        while count + rest.num_rows >= rows:
            yield pa.concat_tables([*pending, rest.slice(0, rows - count)])
            rest, pending, count = rest.slice(rows - count), [], 0
        if rest.num_rows:
            pending.append(rest)
            count += rest.num_rows
    if pending:
        yield pa.concat_tables(pending)
