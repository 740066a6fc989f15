"""Which column of a table holds the records, and which columns are written beside their rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ae_pipeline.data.pixels import PIXELS
from ae_pipeline.data.sample_schema import ROW_ID, STORE_COLUMNS, refuse_alike, with_keys, without_views
from ae_pipeline.errors import DataError, named
from ae_pipeline.kinds.base import Kind
from ae_pipeline.sources.own_files.listing import FoundFile

SOURCE_FILE, LABEL, FOLDER = "source_file", "label", "folder"
RECORD = "record"
"""The column that says which record a row belongs to, where records have several rows."""
_TAKEN = {
    PIXELS: "the rows' own column",
    SOURCE_FILE: "the name of each record's file",
    **dict.fromkeys(STORE_COLUMNS, "which a latent store keeps for itself"),
}
_NOT_TAKEN = {**_TAKEN, ROW_ID: "by which the rows are called"}
_TOGETHER = "; columns of numbers make a vector together, as a list in source.files.column (--column for each)"


Wanted = str | Sequence[str] | None
"""The column with the records, or the columns that make a record together; None: the only one that can be."""
_NAMED = 12


def refuse_repeated_names(place: Path, schema: pa.Schema) -> None:
    """Raise DataError for columns of one name, which nothing tells apart."""
    repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if repeated:
        what = f"has several columns named {named([f'`{name}`' for name in repeated], _NAMED)}"
        raise DataError(what, place=place, advice="rename or drop all but one")


def choose_columns(place: str, schema: pa.Schema, kind: Kind, wanted: Sequence[str]) -> list[str]:
    """Columns that make a record together, in the order wanted. Raises DataError, which names the one that cannot."""
    taken = _NOT_TAKEN
    able = [field.name for field in schema if kind.takes_together(field.type) and field.name not in taken]
    advice = f"name some of {named([f'`{name}`' for name in able], _NAMED)} in source.files.column"
    if not able:
        advice = "set another source.files.kind, or name one column of records in source.files.column"
    for name in wanted:
        if name not in schema.names:
            there = named([f"{field.name} ({field.type})" for field in schema], _NAMED)
            raise DataError(f"has no column `{name}`, found the columns {there}", place=place, advice=advice)
        if wanted.count(name) > 1:
            what = f"has one column `{name}`, and source.files.column names it {wanted.count(name)} times"
            raise DataError(what, place=place, advice="name each column once")
        found = schema.field(name).type
        if not kind.takes_together(found):
            what = f"has `{name}` of type {found}, which cannot be one of several columns that make a record together"
            if len(wanted) == 1 and kind.takes(found):
                what, advice = (
                    f"has records in `{name}`, found source.files.column: [{name}]",
                    "write it without brackets",
                )
                raise DataError(what, place=place, advice=advice)
            raise DataError(
                what,
                place=place,
                advice=f"make numbers of it, or leave it out: it is then kept beside them as it is; {advice}",
            )
        if name in taken:
            what = f"has a column `{name}` among those of its records, {taken[name]}"
            raise DataError(what, place=place, advice="leave it out, or rename it")
    return list(wanted)


def all_columns(place: str, schema: pa.Schema, kind: Kind) -> list[str]:
    """All columns that can make a record together, for kinds that take them all. Raises DataError where none can."""
    found = [field.name for field in schema if kind.takes_together(field.type) and field.name not in _NOT_TAKEN]
    if not found:
        there = named([f"{field.name} ({field.type})" for field in schema], _NAMED)
        what = f"has no column that can be one of a record, found the columns {there}"
        raise DataError(what, place=place, advice="set another source.files.kind")
    return found


def refuse_same_names(place: Path, together: pa.Schema | None, beside: pa.Schema, kept: Sequence[str] = ()) -> None:
    """Raise DataError where a column that is taken together with others has the name of one that is kept beside.

    `kept` are those that the kind itself keeps of its columns.
    """
    for name in kept:
        if beside.names.count(name) > 1:
            what = f"has a column `{name}`, which the kind keeps beside its records under this very name"
            raise DataError(what, place=place, advice="rename it")
    for name in together.names if together is not None else ():
        if name in beside.names and name not in kept:
            what = f"has a column `{name}` among those of its records, and another one of that name is kept beside them"
            raise DataError(what, place=place, advice="rename it, or leave it out of source.files.column")


def choose_column(place: str, schema: pa.Schema, kind: Kind, wanted: str | None) -> str:
    """The column with the records. Raises DataError if it is not there, of another type, or not the only one."""
    found = [field.name for field in schema if kind.takes(field.type)]
    there = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    if wanted is None:
        if len(found) == 1:
            return found[0]
        which = (
            f"several columns that can be records ({', '.join(found)})" if found else "no column that can be records"
        )
        advice = "name it in source.files.column, or set another source.files.kind"
        if not found and any(kind.takes_together(field.type) for field in schema):
            advice += _TOGETHER
        raise DataError(f"has {which}, found the columns {there}", place=place, advice=advice)
    if wanted not in schema.names:
        raise DataError(f"has no column `{wanted}`", place=place, advice=f"set source.files.column to one of {there}")
    if wanted not in found:
        kinds = f"has `{wanted}` of type {schema.field(wanted).type}, which are no records of this kind"
        advice = "set another source.files.kind or source.files.column"
        if kind.takes_together(schema.field(wanted).type):
            advice = (
                f"name it in a list, source.files.column: [{wanted}], alone or with others that make a vector together"
            )
        raise DataError(kinds, place=place, advice=advice)
    return wanted


def beside_columns(schema: pa.Schema, column: str | Sequence[str], kind: Kind) -> pa.Schema:
    """Columns beside the records: the table's others, then what the records' own values say."""
    if not isinstance(column, str):
        return pa.schema([field for field in schema if field.name not in column])
    others = [field for field in schema if field.name != column]
    made = kind.beside(pa.nulls(0, schema.field(column).type)) if kind.takes(schema.field(column).type) else {}
    return pa.schema([*others, *(pa.field(f"{column}_{name}", values.type) for name, values in made.items())])


class Kept:
    """The columns that are written: id, the file's name, the label, and all others of the person's.

    Where a record has several rows, rows are numbered, `record` has the record's number or the person's own id, and
    `several` has the columns that the kind gives each row. Raises DataError for names that stand for something else,
    and for a label that is not there.
    """

    def __init__(self, found: pa.Schema, file: FoundFile, label: str | None, several: pa.Schema | None = None):
        self._label, self._several = label, several
        self._taken = dict(_TAKEN)
        if several is not None:
            own = [RECORD, *several.names]
            self._taken |= dict.fromkeys(own, "which says what each row of a record is")
        self.has_ids = ROW_ID in found.names
        if ROW_ID in dict(file.keys):
            what = f"lies in a folder {ROW_ID}=..., but `{ROW_ID}` is a column of every row"
            raise DataError(what, place=file.path, advice="rename the folder")
        keys = [pa.field(name, pa.string()) for name, _ in file.keys if name not in found.names]
        self._found = [*(_written(file.path, field) for field in found), *keys]
        names = [field.name for field in self._found]
        self._refuse_names(file.path, names)
        numbers = pa.field(ROW_ID, pa.int64(), nullable=False)
        first = _id_field(file.path, found) if self.has_ids else numbers
        made = [pa.field(LABEL, pa.string())] if label == FOLDER else []
        rest = [field.with_name(self._renamed(field.name)) for field in self._found if field.name != ROW_ID]
        if several is not None:
            first = first.with_name(RECORD)
        self._of_records = pa.schema([first, pa.field(SOURCE_FILE, pa.string()), *made, *rest])
        others = list(self._of_records)[1:]
        self.schema = self._of_records if several is None else pa.schema([numbers, first, *several, *others])
        refuse_alike(file.path, self.schema, {**self._taken, ROW_ID: "the rows' ids"})

    @property
    def key(self) -> str:
        """The column that says which record a row is of: its id, or `record`."""
        return ROW_ID if self._several is None else RECORD

    def rows_of(self, record: pa.Table, first_id: int, rows: int, values: dict[str, Any]) -> pa.Table:
        """Columns of some rows of one record: `record` is its line of `table`, `values` are the kind's own, (rows,)."""
        assert self._several is not None
        arrays: dict[str, Any] = {ROW_ID: pa.array(np.arange(first_id, first_id + rows))}
        arrays |= {name: pa.array(values[name], self._several.field(name).type) for name in self._several.names}
        same = record.take(pa.array(np.zeros(rows, np.int64)))
        columns = [arrays[name] if name in arrays else same.column(name) for name in self.schema.names]
        return pa.Table.from_arrays(columns, schema=self.schema)

    def table(self, columns: pa.Table, file: FoundFile, first_number: int, rows: int) -> pa.Table:
        """The columns of `rows` records, a line each, which are number `first_number` and so on of all."""
        if columns.num_columns:
            columns = with_keys(file.path, columns, file.keys)
        else:
            columns = pa.table({name: pa.repeat(pa.scalar(value, pa.string()), rows) for name, value in file.keys})
        found = dict(zip(columns.column_names, columns.columns, strict=True))
        arrays: list[pa.ChunkedArray | pa.Array] = []
        originals = {self._renamed(name): name for name in found}
        originals[self.key] = ROW_ID
        for field in self._of_records:
            if field.name == self.key and not self.has_ids:
                arrays.append(pa.array(np.arange(first_number, first_number + rows)))
            elif field.name == SOURCE_FILE:
                arrays.append(pa.repeat(pa.scalar(file.name), rows))
            elif field.name == LABEL and self._label == FOLDER:
                arrays.append(pa.repeat(pa.scalar(self._folder(file)), rows))
            else:
                arrays.append(_cast(file.path, found[originals[field.name]], field))
        return pa.Table.from_arrays(arrays, schema=self._of_records)

    def of_files(self, files: Sequence[FoundFile], first_number: int) -> pa.Table:
        """`table` for files of one record each."""
        arrays: list[pa.Array] = []
        for field in self._of_records:
            if field.name == self.key:
                arrays.append(pa.array(np.arange(first_number, first_number + len(files))))
            elif field.name == SOURCE_FILE:
                arrays.append(pa.array([file.name for file in files], pa.string()))
            elif field.name == LABEL and self._label == FOLDER:
                arrays.append(pa.array([self._folder(file) for file in files], pa.string()))
            else:
                keys = [{self._renamed(name): value for name, value in file.keys} for file in files]
                arrays.append(pa.array([found[field.name] for found in keys], pa.string()))
        return pa.Table.from_arrays(arrays, schema=self._of_records)

    def _folder(self, file: FoundFile) -> str:
        if not file.folder:
            advice = "move it into one, or set source.files.label to null"
            raise DataError("lies in no sub-folder that could be its label", place=file.path, advice=advice)
        return file.folder

    def _renamed(self, name: str) -> str:
        return LABEL if name == self._label and self._label != FOLDER else name

    def _refuse_names(self, path: Path, names: list[str]) -> None:
        for name in names:
            if name in self._taken:
                raise DataError(f"has a column `{name}`, {self._taken[name]}", place=path, advice="rename it")
        if self._label == FOLDER and FOLDER in names:
            what = f"has a column `{FOLDER}`, which source.files.label could mean as well as its sub-folder"
            raise DataError(what, place=path, advice="rename the column")
        if self._label not in (None, FOLDER, *names):
            what = f"has no column `{self._label}` for the label"
            raise DataError(what, place=path, advice=f"set source.files.label to {', '.join((FOLDER, *names))} or null")
        if self._label not in (None, LABEL) and LABEL in names:
            what = f"has a column `{LABEL}` beside what source.files.label says, {self._label}"
            raise DataError(what, place=path, advice=f"rename it, or set source.files.label to {LABEL}")


def _written(path: Path, field: pa.Field) -> pa.Field:
    """A column as it is written: categories as their values, texts in one piece."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if "dictionary<" in str(kind):
        what = f"has categories within the column `{field.name}` ({field.type})"
        raise DataError(what, place=path, advice="write them as plain values")
    return pa.field(field.name, without_views(kind))


def _id_field(path: Path, schema: pa.Schema) -> pa.Field:
    kind = schema.field(ROW_ID).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_integer(kind):
        return pa.field(ROW_ID, pa.int64(), nullable=False)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.field(ROW_ID, pa.string(), nullable=False)
    what = f"has ids of type {kind} in the column `{ROW_ID}`, expected integers or strings"
    raise DataError(what, place=path, advice="convert or rename it")


def _cast(path: Path, column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if field.name in (ROW_ID, RECORD) and not field.nullable and column.null_count:
        what = f"has {column.null_count:,} or more rows without a value in the column `{ROW_ID}`"
        raise DataError(what, place=path, advice="give every row one, or rename the column")
    try:
        return column if column.type == field.type else column.cast(field.type)
    except pa.ArrowException:
        what = f"has values of type {column.type} in the column `{field.name}` that do not fit {field.type}"
        raise DataError(what, place=path, advice="convert or rename it") from None
