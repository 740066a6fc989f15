"""The form that the user's records had, and Parquet in that form: their own column, its type, and the other columns.

    form = OwnForm(store)                                   # from the store alone: the codec's kind and its state
    decode_parts(store, out, partial(RecordsWriter, form))

What a kind keeps (kinds/state.py) says the form. Columns that were made up, such as `source_file`, come first; the
user's own follow in their order.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.data.blocks import Block, joined
from ae_pipeline.data.parquet.writer import RowGroupWriter
from ae_pipeline.data.samples import ID
from ae_pipeline.errors import ConfigError, DataError, first_line
from ae_pipeline.kinds import open_kind
from ae_pipeline.store.latent_store import LatentStore

SOURCE_FILE, RECORD = "source_file", "record"
_LABEL, _FOLDER = "label", "folder"
# Columns that change from one record to the next; the second one says which file of an inbox brought a row.
_SAYS_RECORD = (RECORD, "file_sha256")
_ROW_GROUP_ROWS = 8192
_PLAIN = "decode with --format rows, and put the right codec back"


class OwnForm:
    """What the records of a store looked like. `attributes` are the columns that are decoded (None: all).

    Raises ConfigError for a kind that is not installed here, and DataError for a codec that says nothing of a kind.
    """

    def __init__(self, store: LatentStore, attributes: pa.Schema | None = None):
        header = store.codec_header()
        if header.kind is None:
            raise DataError("has a codec that says nothing of the user's records", place=store.location)
        self.kind, self.state = open_kind(header.kind, store.location)
        self.form, self.spec = self.state.form, header.spec
        self.several = self.kind.makes_several(self.state)
        """Whether a record can have several rows."""
        self.attributes = store.attributes_schema() if attributes is None else attributes
        self.column = self.form.column or self.kind.column
        made = self.kind.column_type(self.state, self.spec)
        self._own = self.form.together or pa.schema([pa.field(self.column, made)])
        """The user's column of records, or the columns that make one together."""
        takes = self.kind.takes if self.form.together is None else self.kind.takes_together
        if not all(takes(field.type) for field in self._own):
            what = f"keeps {made} as the type of its records, which are none of the kind `{header.kind.name}`"
            raise DataError(what, place=f"the codec of {store.location}", advice=_PLAIN)
        self.schema = self._schema(store.location)

    def needed(self, store: LatentStore) -> list[str]:
        """Columns of the store that making and naming records takes, whether they are among `attributes` or not."""
        known = [column.name for column in store.manifest.columns]
        return [name for name in (*_SAYS_RECORD, SOURCE_FILE, *self.kind.folded(self.state)) if name in known]

    @property
    def ending(self) -> str | None:
        """Ending of the files that its records are written as, if they can be."""
        return self.kind.ending(self.state, self.spec)

    def _schema(self, place: str) -> pa.Schema:
        fields = {self._name(field.name): field for field in self.attributes if not self._is_left_out(field.name)}
        for name in self._own.names:
            if name in fields:
                raise ConfigError(
                    f"{place} has a column `{name}`, which is also the name of the records' own; choose others "
                    "(--columns), or decode with --format rows"
                )
        if len(fields) < sum(not self._is_left_out(name) for name in self.attributes.names):
            twice = f"has two columns for the name `{self.form.label}`"
            raise ConfigError(f"{place} {twice}; choose others (--columns), or decode with --format rows")
        made = {name: field.with_name(name) for name, field in fields.items()}
        made |= {field.name: field for field in self._own}
        theirs = [name for name in dict.fromkeys(self.form.columns) if name in made] or self._own.names
        return pa.schema([made[name] for name in [*(name for name in made if name not in theirs), *theirs]])

    def _is_left_out(self, name: str) -> bool:
        """Whether a column says only how rows are records."""
        return name in self.kind.folded(self.state) or (self.several and name == ID)

    def _name(self, name: str) -> str:
        """The user's own name for a column."""
        if name == RECORD and self.several and ID in self.form.columns:
            return ID
        return self.form.label if name == _LABEL and self.form.label not in (None, _FOLDER) else name

    def table(self, attributes: pa.Table, rows: np.ndarray) -> pa.Table:
        """Whole records, as a table of the user's columns; a row of them for each record. Raises DataError."""
        try:
            values = self.kind.from_rows(rows, attributes, self.state)
        except (pa.ArrowException, ValueError, TypeError) as error:
            what = f"keeps of its records what does not fit its rows: {first_line(error)}"
            raise DataError(what, place="the codec", advice=_PLAIN) from None
        lines = self.lines(attributes)
        if len(values) != len(lines):
            what = f"makes {len(values):,} records of what are {len(lines):,}"
            raise DataError(what, place="the codec's kind", advice=_PLAIN)
        if self.form.together is None:
            return lines.append_column(self.column, values).select(self.schema.names)
        for field, column in zip(self._own, values.flatten(), strict=True):
            lines = lines.append_column(field, column)
        return lines.select(self.schema.names)

    def lines(self, attributes: pa.Table) -> pa.Table:
        """The columns beside the records under the user's names, a row of them for each record."""
        if self.several:
            attributes = attributes.take(pa.array(np.flatnonzero(record_starts(attributes))))
        kept = [name for name in self.attributes.names if not self._is_left_out(name)]
        return attributes.select(kept).rename_columns([self._name(name) for name in kept])


def record_starts(attributes: pa.Table, before: pa.Table | None = None) -> np.ndarray:
    """(n,) Whether each row is the first of its record; `before` has the columns of the rows before these.

    In an inbox's store, records of two files may have one name, of which one replaced the other.
    """
    starts = np.zeros(len(attributes), bool)
    starts[:1] = before is None
    for name in _SAYS_RECORD if len(attributes) else ():
        values = attributes.column(name) if name in attributes.column_names else None
        # People may call a column of theirs like the inbox's.
        if values is not None and (name == RECORD or pa.types.is_fixed_size_binary(values.type)):
            starts[1:] |= pc.not_equal(values.slice(1), values.slice(0, len(values) - 1)).to_numpy().astype(bool)
            if before is not None:
                starts[0] |= values[0].as_py() != before.column(name)[-1].as_py()
    return starts


class Gathering:
    """Gathers rows that come some at a time into blocks of whole records."""

    def __init__(self) -> None:
        self._held: list[Block] = []

    def add(self, block: Block) -> Block | None:
        """The records that are whole once these rows are there, if any: the last one may go on."""
        before = self._held[-1].attributes if self._held else None
        starts = np.flatnonzero(record_starts(block.attributes, before))
        if not len(starts):
            self._held.append(block)
            return None
        self._held.append(block[: starts[-1]])
        whole = self.rest()
        self._held = [block[starts[-1] :]]
        return whole

    def rest(self) -> Block | None:
        """What is held, after the last rows."""
        held = [block for block in self._held if len(block)]
        self._held = []
        return joined(held) if held else None


def whole_records(blocks: Iterable[Block]) -> Iterator[Block]:
    """Cut rows into blocks of whole records."""
    gathering = Gathering()
    for block in blocks:
        if (whole := gathering.add(block)) is not None:
            yield whole
    if (rest := gathering.rest()) is not None:
        yield rest


class RecordsWriter(RowGroupWriter):
    """Parquet with the user's own columns; use as a context manager."""

    def __init__(self, form: OwnForm, path: Path):
        super().__init__(path, form.schema, _ROW_GROUP_ROWS)
        self._form = form
        self._gathering = Gathering()

    def write(self, attributes: pa.Table, pixels: np.ndarray) -> None:
        """Append rows; those of a record may come piece by piece."""
        if not self._form.several:
            self.append(self._form.table(attributes, pixels))
        elif len(pixels):
            self._append(self._gathering.add(Block(attributes, pixels)))

    def _append(self, whole: Block | None) -> None:
        if whole is not None:
            self.append(self._form.table(whole.attributes, whole.pixels))

    def _write_rest(self, *error: Any) -> None:
        if error[0] is None:
            self._append(self._gathering.rest())
        super()._write_rest(*error)
