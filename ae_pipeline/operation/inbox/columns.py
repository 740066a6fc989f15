"""The columns of a store that an inbox fills, and files of every kind fitted to them.

The first good file decides the columns of a store. Later files may have theirs in any order and may lack some, which
are null then. Types are cast where no value changes. Nothing is left out and no text is made a number: what would need
that does not fit. Every row says in `file_sha256` which file brought it, and rows without an id are called
`<path in the inbox>#<row>`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ae_pipeline.codec.codec import BLOCK_ROWS
from ae_pipeline.data.blocks import Block
from ae_pipeline.data.sample_schema import refuse_alike
from ae_pipeline.data.samples import ID, SampleSet, Shard
from ae_pipeline.errors import DataError, first_line
from ae_pipeline.sources.own_files.columns import RECORD
from ae_pipeline.sources.own_files.samples import OwnSamples
from ae_pipeline.store.format.part_writer import BESIDE, RESERVED
from ae_pipeline.store.writing.checks import as_written, check_id_type

FILE_DIGEST = "file_sha256"
FILE_DIGEST_TYPE = pa.binary(32)
LABEL = "label"
_KINDS = {
    "number": (pa.types.is_integer, pa.types.is_floating),
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "bytes": (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary),
    "decimal": (pa.types.is_decimal,),
}


def new_columns(found: pa.Schema, *, converted: bool) -> pa.Schema:
    """Columns of a new store whose first file has `found` (`id` only if the file has ids).

    A store that begins with a converted file (IDX, an image) has `label`, whole numbers of 64 bits as pandas writes
    them: whether labels come with the first file is chance.
    """
    kind = plain_type(found.field(ID).type) if ID in found.names else pa.string()
    fields = [pa.field(field.name, plain_type(field.type, widest=converted)) for field in found if field.name != ID]
    fields.insert(0, pa.field(ID, kind, nullable=False))
    if converted and LABEL not in found.names:
        fields.append(pa.field(LABEL, pa.int64()))
    if FILE_DIGEST not in found.names:  # else the file is refused
        fields.append(pa.field(FILE_DIGEST, FILE_DIGEST_TYPE))
    return as_written(pa.schema(fields))


def plain_type(kind: pa.DataType, *, widest: bool = False) -> pa.DataType:
    """One type for what several writers spell differently: texts, bytes and lists without `large`, no dictionaries."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(plain_type(kind.value_type)))
    if widest and _kind(kind) == "number":
        return pa.int64() if pa.types.is_integer(kind) else pa.float64()
    if _kind(kind) == "bytes" and not pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    return pa.string() if _kind(kind) == "text" else kind


def check_fits(file: Path, found: pa.Schema, columns: pa.Schema, store: Path) -> None:
    """Raise DataError if a file with the columns `found` (`id` only if it has ids) cannot fit, whatever its values."""
    unknown = [name for name in found.names if name not in columns.names]
    if unknown:
        expected = ", ".join(name for name in columns.names if name != FILE_DIGEST)
        raise DataError(
            f"{file} has columns that {store} does not have: {', '.join(unknown)}, expected {expected}; drop them, "
            f"rename them to one of these, {another_store(store)}"
        )
    wanted_id = columns.field(ID).type
    if ID not in found.names and _kind(wanted_id) != "text":
        raise DataError(
            f"{file} has no `{ID}`, and its rows cannot be called by its name, because the ids of {store} are of type "
            f"{wanted_id}; give it as Parquet with such ids, {another_store(store)}"
        )
    for field in found:
        wanted = columns.field(field.name).type
        becomes_text = field.name == ID and _kind(wanted) == "text"
        if not becomes_text and _kind(field.type) not in ("null", _kind(wanted)):
            raise DataError(
                f"{file}: column `{field.name}` is of type {field.type}, expected {wanted} as in {store}; convert "
                f"it{_or_drop(field.name)}, {another_store(store)}"
            )
    for field in columns:
        if not field.nullable and field.name not in (*found.names, ID):
            raise DataError(f"{file} has no column `{field.name}`, which is never null in {store}; add it")


def columns_for_image(file: Path, columns: pa.Schema | None, store: Path) -> pa.Schema:
    """The columns of `store`, which an image begins if it has none. Raises DataError if an image cannot fit.

    Its row has an id, `file_sha256` and nothing else.
    """
    fitted = new_columns(pa.schema([]), converted=True) if columns is None else columns
    check_fits(file, pa.schema([]), fitted, store)
    if FILE_DIGEST not in fitted.names:
        raise DataError(
            f"{file} is an image, and {store}, begun by an older version, has no column `{FILE_DIGEST}` to know it by; "
            f"give it as Parquet, {another_store(store)}"
        )
    return fitted


def another_store(store: Path) -> str:
    """The end of a reason: the way out that leaves the file as it is."""
    return (
        f"or begin another store: rename {store} and {store.name}.batches within their folder "
        '(docs/operations.md, "Another store")'
    )


class FittedFile(SampleSet):
    """One file of an inbox with the columns of its store, known by the bytes that came, also if it was converted."""

    def __init__(
        self, samples: SampleSet, name: str, digest: str, columns: pa.Schema | None, store: Path, *, converted: bool
    ):
        """`samples` is the file as it is, or converted: then its ids are row numbers only. `name`: its path in the
        inbox; `digest`: SHA-256 (hex) of what came; `columns`: of `store`, None if the file begins it.
        """
        self._samples, self.name, self._sha256, self._store = samples, name, digest, store
        self._names_rows, self._begins = converted or not samples.has_ids, columns is None
        found = samples.attributes_schema.remove(0) if self._names_rows else samples.attributes_schema
        # Rows are called by their file here; of the user's own files another column would say so, too.
        self._found = pa.schema([field for field in found if field.name not in samples.made_columns])
        self._records = samples.record_names if isinstance(samples, OwnSamples) else None
        if self._records is not None:
            self._found = _with_text(self._found, RECORD)
        self.columns = new_columns(self._found, converted=converted) if columns is None else columns
        schema = self.columns
        if self._names_rows and FILE_DIGEST not in schema.names and schema.field(ID).type == pa.int64():
            # A store of before rows were called by their file: it numbers those without an id, and goes on to do so.
            self._names_rows, self._found = False, samples.attributes_schema
            schema = schema.remove(0)
        super().__init__(samples.files, schema, samples.spec, samples.shards)

    @property
    def changed_by(self) -> dict[str, Any]:
        """Name and columns; see SampleSet."""
        columns = [[field.name, str(field.type), field.nullable] for field in self.columns]
        return {"fitted": {"name": self.name, "columns": columns}}

    def check(self) -> None:
        """Read all rows, as encoding will: what cannot be encoded is found now. Raises DataError."""
        file = self.files[0]
        if ID in self._found.names:
            check_id_type(file, plain_type(self._found.field(ID).type))
        taken = [name for name in self._found.names if name in (*RESERVED, FILE_DIGEST)]
        if taken:
            raise DataError(
                f"{file}: column names {', '.join(taken)} are reserved in an inbox's store; rename or drop them"
            )
        if self._begins:
            ids = "the ids, which are made up where a file has none" if self._names_rows else "the rows' ids"
            beside = {**BESIDE, ID: ids, FILE_DIGEST: "which an inbox's store keeps for itself"}
            refuse_alike(file, self._found, beside)
        check_fits(file, self._found, self.columns, self._store)
        kinds = [(field.name, field.type) for field in self.attributes_schema]
        nested = [name for name, kind in kinds if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType)]
        for shard in self.shards:
            start = 0
            for block in self.blocks(shard, BLOCK_ROWS):
                self._samples.refuse_missing_ids(shard, start, block.attributes)
                start += len(block.pixels)
                for name in nested:
                    self._check_readable_again(block.attributes.select([name]))

    def _check_readable_again(self, column: pa.Table) -> None:
        """Find what pyarrow writes into Parquet but cannot read, before a part with it is committed.

        Lists of a fixed size, and tensors, are such where rows have none, as in a file that lacks the column.
        """
        written = pa.BufferOutputStream()
        try:
            pq.write_table(column, written)
            pq.read_table(pa.BufferReader(written.getvalue()))
        except MemoryError:  # Arrow's is one of its exceptions
            raise
        except (pa.ArrowException, NotImplementedError, OSError) as error:
            raise DataError(
                f"{self.files[0]}: Parquet would not give back column `{column.column_names[0]}` of type "
                f"{column.schema.types[0]} ({first_line(error)}): pyarrow cannot read lists of a fixed size where rows "
                f"have none; give every row a value, {another_store(self._store)}"
            ) from None

    def blocks(self, shard: Shard, rows: int) -> Iterator[Block]:
        """The shard's rows; see SampleSet. Raises DataError for values that do not fit."""
        for block in self._samples.blocks(shard, rows):
            columns = [self._column(block.attributes, field) for field in self.attributes_schema]
            yield Block(pa.Table.from_arrays(columns, schema=self.attributes_schema), block.pixels)

    def _column(self, table: pa.Table, field: pa.Field) -> Any:
        if field.name == FILE_DIGEST:
            return pa.array([bytes.fromhex(self._sha256)] * len(table), field.type)
        if field.name not in table.column_names:
            return pa.nulls(len(table), field.type)
        column = table.column(field.name)
        if field.name == ID and self._names_rows:
            return pc.binary_join_element_wise(self.name, column.cast(pa.string()), "#").cast(field.type)
        if field.name == RECORD and self._records is not None:
            return self._records_of(column, field.type)
        try:
            cast = cast_exactly(column, field.type)
        except pa.ArrowException as error:
            raise DataError(
                f"{self.files[0]}: column `{field.name}` is of type {column.type}, and not all of its values fit "
                f"{field.type} as in {self._store}: {first_line(error)}; correct them{_or_drop(field.name)}, "
                f"{another_store(self._store)}"
            ) from None
        if cast.null_count and not field.nullable and field.name != ID:
            raise DataError(
                f"{self.files[0]}: column `{field.name}` has nulls, which {self._store} does not allow; fill them"
            )
        return cast

    def _records_of(self, column: pa.ChunkedArray, kind: pa.DataType) -> Any:
        """Records are called by their file, with the number of their first row if it may have several."""
        if self._records == "file":
            return pa.repeat(pa.scalar(self.name, kind), len(column))
        return pc.binary_join_element_wise(self.name, column.cast(pa.string()), "#").cast(kind)

    def _file_digest(self, file: Path) -> str:  # noqa: ARG002 (there is one)
        return self._sha256


def _with_text(columns: pa.Schema, name: str) -> pa.Schema:
    """Columns with this one as a text."""
    place = columns.get_field_index(name)
    return columns.set(place, columns.field(place).with_type(pa.string()))


def cast_exactly(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The column's values in another type. Raises ArrowException if it cannot hold one of them."""
    if column.type == kind:
        return column
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), kind)])
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    cast = plain.cast(kind)
    before, after = plain, cast.cast(plain.type)
    while pa.types.is_list(before.type) or pa.types.is_large_list(before.type):
        before, after = pc.list_flatten(before), pc.list_flatten(after)
    if pa.types.is_floating(before.type):  # which Arrow rounds without a word
        old, new = before.to_numpy(), after.to_numpy()
        changed = np.flatnonzero((old != new) & ~(np.isnan(old) & np.isnan(new)))
        if changed.size:
            raise pa.ArrowInvalid(f"{old[changed[0]]} would become {new[changed[0]]}")
    elif not before.equals(after):  # Arrow checks these casts itself; it is not to be the only one
        raise pa.ArrowInvalid("some would change")
    return cast


def _or_drop(name: str) -> str:
    """The advice to drop a column; no file can do without its ids."""
    return "" if name == ID else ", drop the column"


def _kind(kind: pa.DataType) -> str:
    """What types have in common between which values may be cast."""
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list of {_kind(kind.value_type)}"
    if pa.types.is_timestamp(kind):
        return f"time in {kind.tz}"
    return next((name for name, tests in _KINDS.items() if any(test(kind) for test in tests)), str(kind))
