"""A person's own files as a data set: what `encode`, `append`, `verify` and `repair` read with a codec of their kind.

The codec's kind and its state make the rows, as for training. A shard is some row groups of a Parquet file, some
records of an array, or some thousand files of one record each (grouping.py). Its digest is over names and contents of
its files, as their names are a column. Memory is that of a block, whatever the number of records.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import starmap
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ae_pipeline.data.blocks import Block, recut
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet, Shard
from ae_pipeline.data.value_range import RangeWatch
from ae_pipeline.errors import DataError, named
from ae_pipeline.files import sha256_file, sha256_json
from ae_pipeline.kinds.base import Row, Several
from ae_pipeline.sources.own_files.arrays import Arrays
from ae_pipeline.sources.own_files.columns import RECORD, SOURCE_FILE, Kept
from ae_pipeline.sources.own_files.grouping import KnownGroup, OwnShard, cut_file, group_files, label_of, match_known
from ae_pipeline.sources.own_files.listing import SINGLE, FoundFile, Listing
from ae_pipeline.sources.own_files.readers import refuse_changed, state_of
from ae_pipeline.sources.own_files.records import Reader, Records, Tables
from ae_pipeline.sources.own_files.words import in_words_of_commands

_NAMED = 5
# Files whose columns are made at once, and bytes of rows that are gathered.
_FILES_AT_ONCE = 256
_PIECE_BYTES = 32 << 20
Part = tuple[pa.Table, np.ndarray]
"""Attributes and rows, (n,) and (n, *shape)."""


class OwnSamples(SampleSet):
    """Records in a person's own files, as rows. Records that cannot be read are left out if `skip`, else refused."""

    def __init__(
        self,
        listing: Listing,
        reader: Reader,
        kept: Kept,
        spec: SampleSpec,
        *,
        skip: bool,
        notes: Sequence[str],
        known: Sequence[KnownGroup],
    ):
        super().__init__(tuple(file.path for file in listing.files), kept.schema, spec, ())
        self._reader, self._kept, self._skip = reader, kept, skip
        self._several = reader.state is not None and reader.kind.makes_several(reader.state)
        self._sort, self._notes = listing.sort, list(notes)
        self._states: dict[Path, tuple[int, ...]] = {}
        self._labels: dict[Path, str] = {file.path: file.name for file in listing.files}
        self._names = dict(self._labels)
        self.unmatched: tuple[str, ...] = ()
        """Names of files that stand in the store under `known`, but not with all the files that made their part."""
        self._left_out: list[str] = []
        # What `Kind.rounding` says of each block.
        self._rounding: list[tuple[float, int]] = []
        # What `Kind.unlike_constants` says, by file and first record: blocks may be read more than once.
        self._unlike: dict[tuple[str, int], dict[str, int]] = {}
        self._leave_broken_out()
        self.shards = tuple(self._plan(listing, known))
        if not self.shards:
            raise DataError("holds no records that can be read", place=listing.files[0].path, advice="give others")
        if self._left_out:
            self._notes.append(
                f"{len(self._left_out):,} record(s) that cannot be read: {named(self._left_out, _NAMED)}"
            )

    def _leave_broken_out(self) -> None:
        for error in self._reader.broken.values():
            self._leave_out(error)

    def _plan(self, listing: Listing, known: Sequence[KnownGroup]) -> Iterator[OwnShard]:
        """All shards, in order; rows are counted where a record may have several, or none."""
        files = [file for file in listing.files if file.name not in self._reader.broken]
        looks = self._skip or self._several
        if listing.sort == SINGLE:
            rows = {file.name: self._count(self._alone(file)) if looks else 1 for file in files}
            files = [file for file in files if rows[file.name]]
            groups = match_known(files, known, self._digest_of_group)
            used = {file.name for group in groups for file in group}
            self.unmatched = tuple(sorted({name for group in known for name in group.names} & (rows.keys() - used)))
            groups += group_files([file for file in files if file.name not in used], rows)
            shards = [
                OwnShard(group[0].path, (), sum(rows[one.name] for one in group), files=group) for group in groups
            ]
        else:
            shards = [shard for file in files for shard in cut_file(file, self._reader)]
            shards = [replace(shard, rows=self._count(shard)) for shard in shards] if looks else shards
        first = 0
        for shard in shards:
            if shard.rows:
                self._labels[shard.path] = label_of(shard.files) if listing.sort == SINGLE else shard.files[0].name
                yield replace(shard, first_row=first)
                first += shard.rows

    def _alone(self, file: FoundFile) -> OwnShard:
        return OwnShard(file.path, (), 1, files=(file,))

    def _count(self, shard: OwnShard) -> int:
        """Rows of a shard that can be read; those of a record that has several are not made for this."""
        # No name is held here: each record is given up before the next one is read.
        return sum(sum(map(self._rows_in, rows)) for rows, _, _ in self._sources(shard))

    def _rows_in(self, row: Row) -> int:
        if isinstance(row, DataError):
            self._leave_out(row)
            return 0
        return row.rows if isinstance(row, Several) else 1

    def _leave_out(self, error: DataError) -> None:
        if not self._skip:
            raise error.with_fields(advice=f"{error.advice or 'mend or remove it'}, or leave it out: --skip-unreadable")
        self._left_out.append(str(error))

    @property
    def has_ids(self) -> bool:
        return self._kept.has_ids and not self._several

    @property
    def record_names(self) -> Literal["numbers", "file"] | None:
        """What records of several rows are called where they have no ids: by their numbers, or by their file, which is
        one record. None for ids, and where a record is a row.
        """
        if not self._several or self._kept.has_ids:
            return None
        return "file" if self._sort == SINGLE else "numbers"

    @cached_property
    def attributes_schema(self) -> pa.Schema:
        return self._kept.schema

    @property
    def made_columns(self) -> tuple[str, ...]:
        return (SOURCE_FILE,)

    @property
    def rounded(self) -> str | None:
        said = []
        if count := sum(number for _, number in self._rounding):
            root = (sum(total for total, _ in self._rounding) / count) ** 0.5
            what = self._reader.kind.what_is_rounded(self._reader.state)
            said.append(f"values of {what} were rounded to float32, root mean square error {root:.2g}")
        unlike: Counter[str] = sum(map(Counter, self._unlike.values()), Counter())
        if unlike:
            columns = ", ".join(f"`{name}` ({count:,} rows)" for name, count in unlike.items())
            said.append(f"columns that never changed in training have other values, which are mostly lost: {columns}")
        return "; ".join(said) or None

    @property
    def left_out(self) -> str | None:
        return "; ".join(self._notes) or None

    @property
    def changed_by(self) -> dict[str, Any]:
        return {"int96": self._reader.int96} if isinstance(self._reader, Tables) and self._reader.int96 != "ns" else {}

    @cached_property
    def digest(self) -> str:
        return sha256_json([[self._names[file], self._file_digest(file)] for file in self.files])

    def shard_digest(self, shard: Shard) -> str:
        if shard not in self._shard_digests:
            assert isinstance(shard, OwnShard)
            self._shard_digests[shard] = self._digest_of_group(shard.files, shard.row_groups)
        return self._shard_digests[shard]

    def _digest_of_group(self, files: Sequence[FoundFile], row_groups: Sequence[int] = ()) -> str:
        return sha256_json([[[file.name, self._file_digest(file.path)] for file in files], list(row_groups)])

    def _file_digest(self, file: Path) -> str:
        if file not in self._digests:
            self._states[file] = state_of(file.stat())
            self._digests[file] = sha256_file(file)
        return self._digests[file]

    def file_name(self, file: Path) -> str:
        return self._labels[file]

    def only(self, shard: Shard) -> "OwnSamples":
        assert isinstance(shard, OwnShard)
        alone = copy(self)
        for cached in ("rows", "digest"):
            alone.__dict__.pop(cached, None)
        alone.files, alone.shards = tuple(file.path for file in shard.files), (shard,)
        alone._reader = copy(self._reader)
        alone._reader.files = shard.files
        for name in ("_digests", "_states", "_labels", "_names"):
            known: dict[Path, Any] = getattr(self, name)
            setattr(alone, name, {path: known[path] for path in alone.files if path in known})
        alone._shard_digests = {shard: self._shard_digests[shard]} if shard in self._shard_digests else {}
        alone.watch = self.watch and RangeWatch(self.watch.offset, self.watch.scale)
        alone.elsewhere = self.elsewhere and self.elsewhere.only(alone.files)
        alone._rounding, alone._unlike = [], {}
        return alone

    def _note_states(self) -> None:
        self._states = {file: state_of(file.stat()) for file in self.files}

    def seen(self) -> Any:
        return self.watch, self._rounding, self._unlike

    def join(self, seen: Any) -> None:
        watch, rounding, unlike = seen
        super().join(watch)
        self._rounding += rounding
        self._unlike |= unlike

    def numbered(self, attributes: pa.Table, first_row: int) -> pa.Table:
        if self.has_ids:
            return attributes
        if self._several and not self._kept.has_ids and len(attributes):
            place = attributes.column_names.index(RECORD)
            moved = first_row - attributes.column(0)[0].as_py()
            records = attributes.column(RECORD).to_numpy() + moved
            attributes = attributes.set_column(place, attributes.schema.field(RECORD), [pa.array(records)])
        return super().numbered(attributes, first_row)

    def refuse_missing_ids(self, shard: Shard, start: int, attributes: pa.Table) -> None:
        """Nothing: they are refused where they are read."""

    def blocks(self, shard: Shard, rows: int) -> Iterator[Block]:
        assert isinstance(shard, OwnShard)
        with in_words_of_commands():
            for block in recut(starmap(Block, self._parts(shard)), rows):
                if self.watch is not None:
                    self.watch.add(block.pixels)
                yield block
            for file in shard.files:
                if file.path in self._states:
                    refuse_changed(file.path, self._states[file.path])

    def _parts(self, shard: OwnShard) -> Iterator[Part]:
        """The rows of a shard, some at a time, numbered from `shard.first_row` on where they have no ids."""
        first = shard.first_row
        for rows, lines, name in self._sources(shard):
            for attributes, values in self._rows_of(rows, lines, name, first):
                one_row = not self._several
                yield (SampleSet.numbered(self, attributes, first) if one_row else attributes), values
                first += len(values)

    def _rows_of(self, found: Iterator[Row], lines: "Lines", name: Callable[[int], str], first: int) -> Iterator[Part]:
        pending: list[np.ndarray] = []
        numbers: list[int] = []
        for number, row in enumerate(found):
            if isinstance(row, DataError):
                if not self._skip:
                    self._leave_out(row)
            elif isinstance(row, Several):
                line = lines(number, 1, first)
                for values, own in row.pieces:
                    self._check(values.shape[1:], values.dtype, name(number))
                    yield self._kept.rows_of(line, first, len(values), own), values
                    first += len(values)
            else:
                self._check(row.shape, row.dtype, name(number))
                pending.append(row)
                numbers.append(number)
                if row.nbytes * len(pending) >= _PIECE_BYTES:
                    yield _gathered(pending, numbers, lines)
                    pending, numbers = [], []
        if pending:
            yield _gathered(pending, numbers, lines)

    def _check(self, shape: tuple[int, ...], dtype: np.dtype, place: str) -> None:
        if shape != self.spec.shape or dtype.newbyteorder("=").name != self.spec.dtype:
            found = f"is {dtype.newbyteorder('=').name} {'x'.join(map(str, shape)) or 'empty'}"
            advice = "give those of that size and type alone, or train a codec for these"
            raise DataError(f"{found}, expected {self.spec.describe()} as the codec has", place=place, advice=advice)

    def _sources(self, shard: OwnShard) -> Iterator[tuple[Iterator[Row], "Lines", Callable[[int], str]]]:
        """Records of a shard, some at a time: what becomes of each, the columns beside them, and their names."""
        if self._sort == SINGLE:
            for start in range(0, len(shard.files), _FILES_AT_ONCE):
                yield self._source_of_files(shard.files[start : start + _FILES_AT_ONCE])
            return
        (file,) = shard.files
        if isinstance(self._reader, Arrays):
            found = self._reader.read(file, shard.row_in_file, shard.row_in_file + shard.records)
        else:
            assert isinstance(self._reader, Tables)
            found = self._reader.read(file, list(shard.row_groups), shard.row_in_file)
        for records in found:
            self._rounding.append(records.rounding)
            if records.values is not None:
                found_here = self._reader.kind.unlike_constants(records.values, self._reader.state)
                self._unlike[file.name, records.first] = found_here
            yield self._source_of_records(records, file)

    def _source_of_files(self, files: Sequence[FoundFile]) -> tuple[Iterator[Row], "Lines", Callable[[int], str]]:
        rows = (self._reader.kind.read_file(file.path, self._reader.state) for file in files)

        def lines(start: int, count: int, first: int) -> pa.Table:
            return self._kept.of_files(files[start : start + count], first)

        return rows, lines, lambda number: str(files[number].path)

    def _source_of_records(
        self, records: Records, file: FoundFile
    ) -> tuple[Iterator[Row], "Lines", Callable[[int], str]]:
        def lines(start: int, count: int, first: int) -> pa.Table:
            return self._kept.table(records.columns.slice(start, count), file, first, count)

        return records.rows, lines, records.name


Lines = Callable[[int, int, int], pa.Table]
"""Columns beside records: from number `start` on, so many, numbered from `first` on."""


def _gathered(pending: list[np.ndarray], numbers: list[int], lines: Lines) -> Part:
    start, end = numbers[0], numbers[-1] + 1
    table = lines(start, end - start, 0)
    if len(numbers) < end - start:
        table = table.take(pa.array(np.array(numbers) - start))
    return table, np.stack(pending)
