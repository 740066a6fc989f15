"""Samples on disk: rows of one fixed shape, with their ids and attributes, in Parquet shards.

    samples = SampleSet.open(Path("data/prepared/test"))
    for shard in samples.shards:
        for block in samples.blocks(shard, rows=1024):
            block.pixels      # (rows, *shape), the samples' dtype
            block.attributes  # Arrow table: id, label, ...

The canonical layout, which `prepare` and `decode` write: column `id` (int64 or string), any attribute columns, and
`pixels` (fixed-size binary: one sample's values, C order, little-endian). Shape and dtype stand in the Parquet
metadata under `ae_pipeline.samples`. Reading also takes Parquet files of other people: `pixels` as binary or as lists
of numbers, with or without `id`, in folders `key=value`, whose keys become columns.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ae_pipeline.data.blocks import Block, joined
from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.parquet.reader import int96_columns, int96_unit, open_parquet, read_tables
from ae_pipeline.data.parquet.writer import RowGroupWriter, rechunk, with_schema
from ae_pipeline.data.pixels import PIXELS, SampleSpec, from_numpy, to_numpy
from ae_pipeline.data.sample_files import FoundFiles, Keys, find_files
from ae_pipeline.data.sample_schema import (
    ROW_ID,
    attribute_fields,
    one_schema,
    refuse_key_columns,
    sample_schema,
    stated_kind,
    with_keys,
)
from ae_pipeline.data.value_range import RangeWatch, ValueRange, range_of
from ae_pipeline.errors import DataError
from ae_pipeline.files import recorded_name, sha256_file, sha256_json

ID = ROW_ID
# A file with more rows than this is read as several shards, cut between its row groups.
SHARD_ROWS = 100_000


@dataclass(frozen=True)
class Shard:
    """One unit of work: some row groups of one file."""

    path: Path
    row_groups: tuple[int, ...]
    rows: int
    first_row: int = 0
    """How many rows of the data set come before it."""
    row_in_file: int = 0
    """How many rows of its file come before it."""


class Elsewhere(Protocol):
    """Where the files of a data set were fetched from, for machines that do not see them."""

    def only(self, files: Iterable[Path]) -> "Elsewhere":
        """Keep some of the files alone."""

    def here(self, digests: Mapping[Path, str]) -> AbstractContextManager[bool]:
        """In the block, the files are on this machine; yields whether they came for it."""


class SampleSet:
    """A data set on disk; nothing but footers is read until rows are asked for."""

    def __init__(
        self,
        files: tuple[Path, ...],
        schema: pa.Schema,
        spec: SampleSpec,
        shards: tuple[Shard, ...],
        *,
        found: FoundFiles | None = None,
        int96: str = "ns",
        stored: Mapping[str, str] | None = None,
    ):
        """`found`: what the files' folders say; `int96`: unit of the files' INT96 times; `stored`: see `open`."""
        self.files = files
        self.spec = spec
        self.shards = shards
        self.watch: RangeWatch | None = None
        """Is given the pixels of every block that is read, (n, *shape)."""
        self.kind: KindEntry | None = None
        self.elsewhere: Elsewhere | None = None
        """Where the files were fetched from; None for files that were here."""
        self._schema = schema
        self._origin = FoundFiles(files[0].parent, files) if found is None else found
        self._int96 = int96
        self._stored = stored or {}
        self._digests: dict[Path, str] = {}
        self._shard_digests: dict[Shard, str] = {}

    @classmethod
    def open(
        cls, path: Path, expected: SampleSpec | None = None, stored: Mapping[str, str] | None = None
    ) -> "SampleSet":
        """Open a Parquet file, or a folder of them (in name order).

        `expected` gives shape and dtype where the files do not say them, and is checked where they do. `stored` are
        names and types of the columns of a store that the rows are meant for: of types that several hold the values of,
        its own is chosen. Columns of INT96 times are read for this; of all else, only footers.
        Raises DataError for what cannot be read or does not fit.
        """
        found = find_files(path)
        schemas: dict[Path, pa.Schema] = {}
        shards: list[Shard] = []
        rows = 0
        old_times: dict[Path, list[str]] = {}
        for file in found.files:
            with open_parquet(file) as parquet:
                schemas[file] = parquet.schema_arrow
                shards += shards_of(file, parquet.metadata, rows)
                rows += parquet.metadata.num_rows
                if columns := int96_columns(parquet.metadata):
                    old_times[file] = columns
        unit = int96_unit(old_times, stored or {})
        for file in old_times if unit != "ns" else ():
            with open_parquet(file, unit) as parquet:
                schemas[file] = parquet.schema_arrow
        schema, spec = one_schema(schemas, expected)
        refuse_key_columns(found, schema)
        if not shards:
            raise DataError(f"{path} holds no rows; expected at least one")
        opened = cls(found.files, schema, spec, tuple(shards), found=found, int96=unit, stored=stored)
        opened.kind = stated_kind(schemas)
        return opened

    @cached_property
    def rows(self) -> int:
        """Rows in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def nbytes(self) -> int:
        """Bytes of all samples, uncompressed, without ids and attributes."""
        return self.rows * self.spec.nbytes

    @property
    def has_ids(self) -> bool:
        """Whether the files have ids; where they have none, the rows are numbered."""
        return ID in self._schema.names

    @cached_property
    def attributes_schema(self) -> pa.Schema:
        """Columns beside the pixels, id first (made up from the row number where the files have none), keys last."""
        fields = attribute_fields(self._schema, self._stored)
        keys = self._origin.keys.get(self.files[0], ())
        return pa.schema([*fields, *(pa.field(name, pa.string()) for name, _ in keys if name not in fields.names)])

    @property
    def made_columns(self) -> tuple[str, ...]:
        """Columns that are not the data's own, but say which file a row is from."""
        return ()

    @property
    def rounded(self) -> str | None:
        """How far rows are from the data's own values, as far as they were read, in words; None: they are the same."""
        return None

    @property
    def left_out(self) -> str | None:
        """What lies beside the files and is no part of the data set, in words."""
        return self._origin.describe_left_out()

    @property
    def changed_by(self) -> dict[str, Any]:
        """What decides the rows beside the bytes of the files, as JSON; nothing where they are read as they are."""
        return {} if self._int96 == "ns" else {"int96": self._int96}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) that identifies the data set: over name and SHA-256 of every file, read side by side."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._file_digest, (file for file in self.files if file not in self._digests)))
        return sha256_json([[self.file_name(file), self._file_digest(file)] for file in self.files])

    def shard_digest(self, shard: Shard) -> str:
        """SHA-256 (hex) that identifies one shard by content, not by name; by its keys, too, if they are columns."""
        if shard not in self._shard_digests:
            keys = [[name, value] for name, value in self._keys(shard.path) if name not in self._schema.names]
            made_of = [self._file_digest(shard.path), list(shard.row_groups), *([keys] if keys else [])]
            self._shard_digests[shard] = sha256_json(made_of)
        return self._shard_digests[shard]

    def file_name(self, file: Path) -> str:
        """What a store calls the file: its name, with the folders that are its keys."""
        return recorded_name(file.relative_to(self._origin.root).as_posix() if self._keys(file) else file.name)

    def only(self, shard: Shard) -> "SampleSet":
        """One shard of it, with a watch of its own: as light to send somewhere as if there were no other shards."""
        alone = copy(self)
        for known in ("rows", "digest"):
            alone.__dict__.pop(known, None)
        alone.files, alone.shards = (shard.path,), (shard,)
        alone._origin = FoundFiles(self._origin.root, alone.files, {shard.path: self._keys(shard.path)})
        alone._digests = {file: self._digests[file] for file in alone.files if file in self._digests}
        alone._shard_digests = {one: self._shard_digests[one] for one in alone.shards if one in self._shard_digests}
        alone.watch = self.watch and RangeWatch(self.watch.offset, self.watch.scale)
        alone.elsewhere = self.elsewhere and self.elsewhere.only(alone.files)
        return alone

    @contextmanager
    def here(self) -> Iterator[None]:
        """In the block, the files can be read, also by a machine that does not have them.

        Raises DataError for one that changed meanwhile, UnreachableError.
        """
        if self.elsewhere is None:
            yield
            return
        with self.elsewhere.here(self._digests) as came:
            if came:
                self._note_states()
            yield

    def _note_states(self) -> None:
        """The files are new here."""

    def seen(self) -> Any:
        """What was found while rows were read, for `join`; can be pickled."""
        return self.watch

    def join(self, seen: Any) -> None:
        """Add what a copy of it has seen that read other rows."""
        if self.watch and seen:
            self.watch.join(seen)

    def _keys(self, file: Path) -> Keys:
        return self._origin.keys.get(file, ())

    def blocks(self, shard: Shard, rows: int) -> Iterator[Block]:
        """Yield the shard's rows in blocks of `rows`; only the last one may be shorter.

        Where blocks are cut depends on the shard alone, never on row groups or on who reads.
        """
        first_row = shard.first_row
        tables = read_tables(shard.path, list(shard.row_groups), rows, self._int96, first_row=shard.row_in_file)
        for table in rechunk(tables, rows):
            attributes = with_keys(shard.path, table.drop_columns([PIXELS]), self._keys(shard.path))
            if not self.has_ids:
                numbers = np.arange(first_row, first_row + table.num_rows)
                attributes = attributes.append_column(ID, [numbers])
            attributes = with_schema(attributes, self.attributes_schema)
            pixels = to_numpy(table.column(PIXELS), self.spec, shard.path, attributes.column(ID))
            if self.watch is not None:
                self.watch.add(pixels)
            yield Block(attributes, pixels)
            first_row += table.num_rows

    def refuse_missing_ids(self, shard: Shard, start: int, attributes: pa.Table) -> None:
        """Raise DataError if a row has no id; `start` is the place in the shard of the first row of `attributes`."""
        ids = attributes.column(ID)
        if not ids.null_count:
            return
        first = shard.row_in_file + start + int(np.flatnonzero(ids.is_null())[0])
        raise DataError(
            f"{shard.path}: row {first:,} (the first one is 0) and perhaps others have no id; give every row one, or "
            "drop the column"
        )

    def numbered(self, attributes: pa.Table, first_row: int) -> pa.Table:
        """Attributes with the rows' numbers in a store, from `first_row` on, where the files have no ids."""
        if self.has_ids:
            return attributes
        numbers = np.arange(first_row, first_row + len(attributes))
        return attributes.set_column(0, self.attributes_schema.field(ID), [numbers])

    def all_blocks(self, rows: int) -> Iterator[Block]:
        """The blocks of all shards, in order."""
        return chain.from_iterable(self.blocks(shard, rows) for shard in self.shards)

    def load(self) -> Block:
        """All rows at once, for data sets that fit in memory."""
        return joined(list(self.all_blocks(8192)))

    def measure_range(self) -> ValueRange:
        """Where the values lie; reads all of them."""
        return range_of((block.pixels for block in self.all_blocks(2048)), self.rows * self.spec.size)

    def watch_range(self, scaling: Any) -> RangeWatch:
        """Watch what is read from now on; `scaling` is a codec's, with offset and scale."""
        self.watch = RangeWatch(scaling.offset, scaling.scale)
        return self.watch

    def _file_digest(self, file: Path) -> str:
        if file not in self._digests:
            self._digests[file] = sha256_file(file)
        return self._digests[file]


class ShardWriter(RowGroupWriter):
    """Write one canonical shard block by block; use as a context manager. The file has its name only when whole."""

    def __init__(
        self,
        path: Path,
        attributes: pa.Schema,
        spec: SampleSpec,
        row_group_rows: int = 8192,
        kind: KindEntry | None = None,
    ):
        self._spec = spec
        schema = sample_schema(attributes, spec, kind)
        super().__init__(
            path,
            schema,
            row_group_rows,
            use_dictionary=[name for name in schema.names if name not in (ID, PIXELS)],
            column_encoding={ID: id_encoding(schema.field(ID).type)},
            # min and max of pixels would be two whole samples per row group.
            write_statistics=[name for name in schema.names if name != PIXELS],
        )

    def write(self, attributes: pa.Table, pixels: np.ndarray) -> None:
        """Append rows: attributes as in the schema, pixels as (rows, *shape)."""
        self.append(attributes.append_column(PIXELS, from_numpy(pixels.reshape(len(pixels), -1), self._spec.dtype)))


def id_encoding(id_type: pa.DataType) -> str:
    """Delta encoding makes rising integer ids nearly free."""
    return "DELTA_BINARY_PACKED" if id_type in (pa.int32(), pa.int64()) else "PLAIN"


def shards_of(file: Path, footer: Any, first_row: int) -> Iterator[Shard]:
    """The shards of a file that have rows; `first_row` is the place in the data set of the file's first one."""
    groups: list[int] = []
    start = rows = 0
    for group in range(footer.num_row_groups):
        groups.append(group)
        rows += footer.row_group(group).num_rows
        if rows >= SHARD_ROWS or (rows and group == footer.num_row_groups - 1):
            yield Shard(file, tuple(groups), rows, first_row + start, start)
            groups, start, rows = [], start + rows, 0
