"""Kind `table`: a record is a row of a table, its row the places of its values in lists and on grids.

Texts, truth values and dictionaries are places in a list of what there is; numbers are places on a grid that is as fine
as their bound needs, and come back within it (`max_error`, a share of the range; or by column); dates and times come
back as they were. A column that has no value in some rows has a field more, which says so. What no field holds, such as
a text that is not in the list, or a number far beyond the others, stands beside the row as it is, in `exceptions`.

Columns that no model helps stay columns of the store: texts that differ from row to row, names of rows, floats that are
to be kept exactly and are on no grid. Columns of other types, and `id`, are none of the record's: they are kept beside
it, as for all kinds.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.table_columns import exceptions as kept
from ae_pipeline.data.table_columns.fit import Bound, seer_of
from ae_pipeline.data.table_columns.rows import TableRows, fields_of, values_of
from ae_pipeline.data.table_columns.state import Column, Unchanged
from ae_pipeline.data.table_columns.whole import is_category, is_number, is_time
from ae_pipeline.errors import DataError, named
from ae_pipeline.kinds.base import Kind, Place, Row, Source
from ae_pipeline.kinds.state import Form, KindState
from ae_pipeline.params.base import Section

MOST_COLUMNS = 500
_NAMED = 12
_Share = Annotated[float, Field(ge=0, lt=1)]
_Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TableOptions(Section):
    """`source.files.settings` of this kind."""

    max_error: _Share = 0.01
    """No number comes back further from the original than this share of its column's range; 0: all as they were."""
    shares: dict[str, _Share] = Field(default_factory=dict)
    """Shares that single columns have instead, by name."""
    absolute: dict[str, _Positive] = Field(default_factory=dict)
    """How far off the numbers of single columns may be, in their own units, by name."""
    unchanged: list[str] = Field(default_factory=list)
    """Columns that stay as they are, beside the latents."""


class TableState(KindState):
    """What the codec keeps."""

    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=MOST_COLUMNS)]

    @model_validator(mode="after")
    def _fits_its_columns(self) -> "TableState":
        together = self.form.together
        if together is None or len(together) != len(self.columns):
            raise ValueError("a table's state has a line for each of its columns")
        if len(set(together.names)) < len(together):
            raise ValueError("two columns have one name")
        for field, column in zip(together, self.columns, strict=True):
            wanted = {"category": is_category(field.type), "number": is_number(field.type) or is_time(field.type)}
            if not wanted.get(column.sort, True):
                raise ValueError(f"`{field.name}` of type {field.type} is no {column.sort}")
        if not fields_of(self.columns):
            raise ValueError("no column is left for a model")
        return self


class TableKind(Kind):
    """Rows of a Parquet table; all columns of types that it knows are taken, where none are named."""

    State, Options = TableState, TableOptions
    column = "row"
    takes_all_together = True
    points_somewhere = False
    block_records = 8192

    def fit(self, form: Form, settings: Section, records: Iterator[Source]) -> TableState:
        assert isinstance(settings, TableOptions)
        columns = form.together
        if columns is None:
            raise DataError("are no tables", advice="give Parquet files, or set another source.files.kind")
        _refuse_unknown(settings, columns)
        if len(columns) > MOST_COLUMNS:
            what = f"{len(columns):,} columns, of which a codec of tables takes at most {MOST_COLUMNS}"
            raise DataError(what, advice="name fewer in source.files.column")
        seers = [seer_of(field.type, _bound(settings, field.name)) for field in columns]
        for block in records:
            assert isinstance(block, pa.Array)
            for seer, column in zip(seers, block.flatten(), strict=True):
                seer.add(column)
        found = [
            Unchanged(reason="asked for") if field.name in settings.unchanged else seer.state()
            for field, seer in zip(columns, seers, strict=True)
        ]
        if not fields_of(found):
            reasons = [f"`{field.name}` ({_why(column)})" for field, column in zip(columns, found, strict=True)]
            what = f"no column is left that a model helps: {named(reasons, _NAMED)}"
            raise DataError(what, advice="keep this table as Parquet with zstd")
        return TableState(form=form, columns=tuple(found))

    def takes(self, column: pa.DataType) -> bool:  # noqa: ARG002
        return False

    def takes_together(self, column: pa.DataType) -> bool:
        return is_category(column) or is_number(column) or is_time(column)

    def refuse_array(self, shape: tuple[int, ...], dtype: np.dtype, place: str) -> None:
        what = f"is an array of shape {list(shape)} of {dtype}, which is no table"
        raise DataError(what, place=place, advice="write it as Parquet, or set source.files.kind: vector")

    def rows_of_column(self, records: pa.Array, place: Place, state: KindState | None) -> Iterator[Row]:  # noqa: ARG002
        yield from self._rows(records, state).rows

    def kept_beside(self, state: KindState) -> pa.Schema:
        assert isinstance(state, TableState)
        assert state.form.together is not None
        pairs = zip(state.form.together, state.columns, strict=True)
        return pa.schema(
            [*(field for field, column in pairs if isinstance(column, Unchanged)), pa.field(kept.NAME, pa.string())]
        )

    def beside_together(self, records: pa.Array, state: KindState) -> dict[str, pa.Array]:
        names = self.kept_beside(state).names[:-1]
        found = {name: records.field(name) for name in names}
        return found | {kept.NAME: self._rows(records, state).exceptions}

    def folded(self, state: KindState) -> tuple[str, ...]:
        return tuple(self.kept_beside(state).names)

    def usual_type(self, state: KindState, spec: SampleSpec) -> pa.DataType:  # noqa: ARG002
        assert state.form.arrow_type is not None
        return state.form.arrow_type

    def value_names(self, state: KindState) -> tuple[str, ...]:
        assert isinstance(state, TableState)
        assert state.form.together is not None
        pairs = zip(state.form.together.names, map(fields_of, zip(state.columns)), strict=True)
        return tuple(name if field is fields[-1] else f"{name}, missing" for name, fields in pairs for field in fields)

    def from_rows(self, rows: np.ndarray, attributes: pa.Table, state: KindState) -> pa.Array:
        assert isinstance(state, TableState)
        assert state.form.together is not None
        return values_of(rows, attributes, state.form.together, state.columns)

    def _rows(self, records: pa.Array, state: KindState | None) -> TableRows:
        assert isinstance(state, TableState)
        return TableRows(records, state.columns)


def _bound(settings: TableOptions, name: str) -> Bound:
    absolute = settings.absolute.get(name)
    return Bound(None if absolute is not None else settings.shares.get(name, settings.max_error), absolute)


def _why(column: Column) -> str:
    return column.reason if isinstance(column, Unchanged) else f"always {column.value}"  # type: ignore[union-attr]


def _refuse_unknown(settings: TableOptions, columns: pa.Schema) -> None:
    """Raise DataError for a column that settings name and the table does not have, or that has no bound."""
    for key in ("shares", "absolute", "unchanged"):
        for name in getattr(settings, key):
            if name not in columns.names:
                there = named([f"`{other}`" for other in columns.names], _NAMED)
                what = f"source.files.settings.{key} names the column `{name}`, which is none of the table's: {there}"
                raise DataError(what, advice="correct its name, or leave it out")
            if key != "unchanged" and not is_number(columns.field(name).type):
                what = f"source.files.settings.{key} names `{name}` of type {columns.field(name).type}, which is exact"
                raise DataError(what, advice="leave it out: bounds are for numbers")
    both = set(settings.shares) & set(settings.absolute)
    if both:
        what = f"source.files.settings has two bounds for {named([f'`{name}`' for name in sorted(both)], _NAMED)}"
        raise DataError(what, advice="give each column one, in shares or in absolute")


KIND = TableKind
