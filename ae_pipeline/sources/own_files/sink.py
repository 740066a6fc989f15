"""Where the records of a person's files go: rows and columns of both splits, what was read, and what was left out.

files.parquet       name, size and SHA-256 of every file, and how many records were read of how many
left_out.parquet    every record, or file, that was left out, and why
kind.json, train.npy and the others: splits.py
"""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from ae_pipeline.data.parquet.writer import RowGroupWriter
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import DataError, named
from ae_pipeline.kinds.base import Row, Several
from ae_pipeline.sources.own_files.columns import Kept
from ae_pipeline.sources.own_files.drawing.records import Drawing
from ae_pipeline.sources.own_files.listing import FoundFile
from ae_pipeline.sources.own_files.records import Records
from ae_pipeline.sources.own_files.splits import SPLITS, SplitWriter

FILES = pa.schema(
    {"source_file": pa.string(), "bytes": pa.int64(), "sha256": pa.string(), "records": pa.int64(), "read": pa.int64()}
)
_LEFT_OUT = pa.schema({"record": pa.string(), "reason": pa.string()})
_GROUP_ROWS = 10_000
_NAMED = 5
# Rows are gathered up to this size before they are written: many small ones, or a single picture.
_PIECE_BYTES = 32 << 20


class Sink:
    """Where records go: both splits, the list of files, the list of what is left out. A context manager."""

    def __init__(self, raw: Path, path: str, skip_unreadable: bool, kept: Kept, for_several_shapes: str):
        self.kept = kept
        self._path, self._skip = path, skip_unreadable
        self._for_several_shapes = for_several_shapes
        self._sizes = Counter[SampleSpec]()
        self._examples: dict[SampleSpec, str] = {}
        self.records = 0
        self._unreadable = self._rows = 0
        self._named: list[str] = []
        self._rounding, self._rounded = 0.0, 0
        self._splits = {split: SplitWriter(raw, split, kept.schema) for split in SPLITS}
        self.files = RowGroupWriter(raw / "files.parquet", FILES, _GROUP_ROWS)
        self._left_out = RowGroupWriter(raw / "left_out.parquet", _LEFT_OUT, _GROUP_ROWS)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for split in self._splits.values():
                opened.enter_context(split)
            for table in (self.files, self._left_out):
                opened.enter_context(table)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def add(self, file: FoundFile, records: Records, first_number: int, drawing: Drawing) -> int:
        """Write the records that can be read, and return how many. `first_number`: of the first one, among all."""
        pending: list[Row] = []
        written = start = size = 0
        for number, row in enumerate(records.rows):
            if isinstance(row, Several):
                written += self._write_several(file, records, number, row, first_number, drawing)
                start = number + 1
                continue
            if isinstance(row, DataError):
                self.leave_out(records.name(number), row)
            else:
                self._count(row, records.name(number))
                size += row.nbytes
            pending.append(row)
            if size >= _PIECE_BYTES:
                written += self._write(file, records, start, pending, first_number, drawing)
                pending, start, size = [], number + 1, 0
        written += self._write(file, records, start, pending, first_number, drawing)
        self._rounding += records.rounding[0]
        self._rounded += records.rounding[1]
        self.records += written
        return written

    def _write(
        self, file: FoundFile, records: Records, start: int, found: list[Row], first_number: int, drawing: Drawing
    ) -> int:
        """Write the rows `found` of the records from number `start` of the block on."""
        rows = [row for row in found if isinstance(row, np.ndarray)]
        if len(self._sizes) != 1 or not rows:
            return len(rows)
        (spec,) = self._sizes
        readable = np.array([not isinstance(row, DataError) for row in found])
        beside = records.columns.slice(start, len(found))
        columns = self.kept.table(beside, file, first_number + start, len(found)).filter(pa.array(readable))
        drawn = drawing.of(file.name, records.first + start, len(found))[readable]
        values = np.stack(rows)
        for split, chosen in zip(SPLITS, (~drawn, drawn), strict=True):
            if chosen.any():
                self._splits[split].write(spec, values[chosen], columns.filter(pa.array(chosen)))
        return len(rows)

    def _write_several(
        self, file: FoundFile, records: Records, number: int, found: Several, first_number: int, drawing: Drawing
    ) -> int:
        """Write the rows of record number `number` of the block, piece by piece: all of them into one split."""
        line = self.kept.table(records.columns.slice(number, 1), file, first_number + number, 1)
        split = SPLITS[int(drawing.of(file.name, records.first + number, 1)[0])]
        for place, (rows, values) in enumerate(found.pieces):
            if not place:
                self._count(rows[0], records.name(number))
            if len(self._sizes) != 1:
                break
            (spec,) = self._sizes
            self._splits[split].write(spec, rows, self.kept.rows_of(line, self._rows, len(rows), values))
            self._rows += len(rows)
        return 1

    def leave_out(self, name: str, error: DataError) -> None:
        """Remember a record or a file that cannot be read."""
        self._unreadable += 1
        if len(self._named) < _NAMED:
            self._named.append(str(error))
        self._left_out.append(pa.table([[name], [str(error)]], schema=_LEFT_OUT))

    def _count(self, row: np.ndarray, name: str) -> None:
        try:
            spec = SampleSpec(row.shape, row.dtype.newbyteorder("=").name)
        except DataError as error:
            raise error.with_fields(place=f"{self._path}: {name}:") from None
        self._sizes[spec] += 1
        self._examples.setdefault(spec, name)

    def refuse_unreadable(self) -> None:
        """Raise DataError for records that cannot be read, unless they may be left out."""
        if self._unreadable and not self._skip:
            raise self._unreadable_error(
                "mend or remove them, or set source.files.skip_unreadable to true, which leaves them out"
            )

    def _unreadable_error(self, advice: str) -> DataError:
        what = f"{self._path} has {self._unreadable:,} record(s) or file(s) that cannot be read: "
        more = self._unreadable - len(self._named)
        return DataError(what + "; ".join(self._named) + (f" (and {more:,} more)" if more else ""), advice=advice)

    def refuse_what_was_found(self) -> None:
        """Raise DataError for records that cannot be read, of several sizes, or too few for two splits."""
        if self._unreadable and not self._sizes:
            raise self._unreadable_error("no record can be read: mend them, or name others in source.files.path")
        self.refuse_unreadable()
        if len(self._sizes) > 1:
            found = [f"{n:,} of {spec.describe()} ({self._examples[spec]})" for spec, n in self._sizes.most_common()]
            raise DataError(
                f"{self._path} has records of {len(found):,} sizes: {named(found, _NAMED)}",
                advice=f"expected one: {self._for_several_shapes}, or name those of one size by a glob in "
                "source.files.path",
            )
        for split, writer in self._splits.items():
            if not writer.rows:
                what = f"{self._path} leaves no record for the {split} split that can be read"
                raise DataError(what, advice="name more files, or set another source.files.test_fraction or seed")

    def describe(self, what_is_rounded: str) -> str:
        """What was read, in words."""
        (spec,) = self._sizes
        rows = {split: writer.rows for split, writer in self._splits.items()}
        of_records = "" if self.records == sum(rows.values()) else f" of {self.records:,} records"
        what = "rows" if of_records else "records"
        found = f"{sum(rows.values()):,} {what} of {spec.describe()}{of_records}: "
        found += f"{rows['train']:,} train, {rows['test']:,} test"
        if self._rounded:
            root = (self._rounding / self._rounded) ** 0.5
            found += f"; {what_is_rounded} rounded to float32, root mean square error {root:.2g}"
        if not self._unreadable:
            return found
        return f"{found}; {self._unreadable:,} left out (left_out.parquet): {'; '.join(self._named)}"
