"""Samples on disk: rows of one fixed shape, with their ids and attributes, in Parquet shards.

    samples = SampleSet.open(Path("data/prepared/test"))
    for shard in samples.shards:
        for block in samples.blocks(shard, rows=1024):
            block.pixels      # (rows, *shape), the samples' dtype
            block.attributes  # Arrow table: id, label, ...

The canonical layout, which `prepare` and `decode` write: column `id` (int64 or string), any attribute columns, and
`pixels` (fixed-size binary: one sample's values, C order, little-endian). Shape and dtype stand in the Parquet
metadata under `ae_pipeline.samples`. Reading also takes Parquet files of other people: `pixels` as binary or as a list
of numbers, with or without `id`.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.errors import DataError, first_line
from ae_pipeline.files import sha256_file, sha256_json
from ae_pipeline.parquet_limits import read_footer
from ae_pipeline.parquet_writer import RowGroupWriter, rechunk
from ae_pipeline.pixels import PIXELS, SampleSpec, from_numpy, to_numpy
from ae_pipeline.sample_schema import sample_schema, schema_difference, spec_of, stated_spec

ID = "id"
# A file with more rows than this is read as several shards, cut between its row groups.
SHARD_ROWS = 100_000


@dataclass(frozen=True)
class Shard:
    """One unit of work: some row groups of one file."""

    path: Path
    row_groups: tuple[int, ...]
    rows: int


@dataclass(frozen=True)
class Block:
    """Consecutive rows: attributes (id first) as Arrow, pixels as (rows, *shape)."""

    attributes: pa.Table
    pixels: np.ndarray


class SampleSet:
    """A data set on disk; nothing but footers is read until rows are asked for."""

    def __init__(self, files: tuple[Path, ...], schema: pa.Schema, spec: SampleSpec, shards: tuple[Shard, ...]):
        self.files = files
        self.spec = spec
        self.shards = shards
        self.watch: Callable[[np.ndarray], None] | None = None
        """Called with the pixels of every block that is read, (n, *shape), from the thread that reads it."""
        self._schema = schema
        self._digests: dict[Path, str] = {}

    @classmethod
    def open(cls, path: Path, expected: SampleSpec | None = None) -> "SampleSet":
        """Open a Parquet file, or a folder of them (in name order).

        `expected` gives shape and dtype where the files do not say them, and is checked where they do.
        Raises DataError for what cannot be read or does not fit.
        """
        files = _parquet_files(path)
        schemas: list[pa.Schema] = []
        shards: list[Shard] = []
        for file in files:
            parquet = _open_parquet(file)
            schemas.append(parquet.schema_arrow)
            shards += _shards(file, parquet.metadata)
            parquet.close()
        for file, schema in zip(files, schemas, strict=True):
            if not schema.equals(schemas[0], check_metadata=False):
                which = schema_difference(schema, schemas[0])
                raise DataError(f"{file} has other columns than {files[0]}: {which}; give all files the same")
        spec = spec_of(files[0], schemas[0], expected)
        for file, schema in zip(files, schemas, strict=True):
            stated = stated_spec(file, schema)
            if stated not in (None, spec):
                raise DataError(
                    f"{file} holds samples of {stated.describe()}, expected {spec.describe()} as {files[0]} has"
                )
        shards = [shard for shard in shards if shard.rows]
        if not shards:
            raise DataError(f"{path} holds no rows; expected at least one")
        return cls(files, schemas[0], spec, tuple(shards))

    @property
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
        """Columns beside the pixels, id first (made up from the row number where the files have none)."""
        fields = [field.with_metadata(None) for field in self._schema if field.name not in (ID, PIXELS)]
        numbers = pa.field(ID, pa.int64(), nullable=False)
        first = self._schema.field(ID).with_metadata(None) if self.has_ids else numbers
        if pa.types.is_dictionary(first.type):  # pandas writes categories so
            first = first.with_type(first.type.value_type)
        return pa.schema([first, *fields])

    @property
    def changed_by(self) -> dict[str, Any]:
        """What decides the rows beside the bytes of the files, as JSON; nothing where they are read as they are."""
        return {}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) that identifies the data set: over name and SHA-256 of every file, read side by side."""
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(self._file_digest, self.files))
        return sha256_json([[file.name, digest] for file, digest in zip(self.files, digests, strict=True)])

    def shard_digest(self, shard: Shard) -> str:
        """SHA-256 (hex) that identifies one shard by content, not by name."""
        return sha256_json([self._file_digest(shard.path), list(shard.row_groups)])

    def blocks(self, shard: Shard, rows: int) -> Iterator[Block]:
        """Yield the shard's rows in blocks of `rows`; only the last one may be shorter.

        Where blocks are cut depends on the shard alone, never on row groups or on who reads.
        """
        first_row = sum(s.rows for s in self.shards[: self.shards.index(shard)])
        for table in rechunk(self._tables(shard, rows), rows):
            attributes = table.drop_columns([PIXELS])
            if not self.has_ids:
                numbers = np.arange(first_row, first_row + table.num_rows)
                attributes = attributes.add_column(0, self.attributes_schema.field(ID), [numbers])
            attributes = attributes.select(self.attributes_schema.names).replace_schema_metadata(None)
            if pa.types.is_dictionary(attributes.field(ID).type):
                attributes = attributes.set_column(
                    0, self.attributes_schema.field(ID), attributes[ID].cast(self.attributes_schema.field(ID).type)
                )
            pixels = to_numpy(table.column(PIXELS), self.spec, shard.path, attributes.column(ID))
            if self.watch is not None:
                self.watch(pixels)
            yield Block(attributes, pixels)
            first_row += table.num_rows

    def refuse_missing_ids(self, shard: Shard, start: int, attributes: pa.Table) -> None:
        """Raise DataError if a row has no id; `start` is the place in the shard of the first row of `attributes`."""
        ids = attributes.column(ID)
        if not ids.null_count:
            return
        before = sum(other.rows for other in self.shards[: self.shards.index(shard)] if other.path == shard.path)
        first = before + start + int(np.flatnonzero(ids.is_null())[0])
        raise DataError(
            f"{shard.path}: row {first:,} (the first one is 0) and perhaps others have no id; give every row one, or "
            "drop the column"
        )

    def load(self) -> Block:
        """All rows at once, for data sets that fit in memory."""
        blocks = [block for shard in self.shards for block in self.blocks(shard, 8192)]
        return Block(
            pa.concat_tables([block.attributes for block in blocks]),
            np.concatenate([block.pixels for block in blocks]),
        )

    def _tables(self, shard: Shard, rows: int) -> Iterator[pa.Table]:
        with _open_parquet(shard.path) as parquet:
            try:
                # Shards are read side by side: Arrow's own threads would only have them wait for each other.
                for batch in parquet.iter_batches(rows, list(shard.row_groups), use_threads=False):
                    batch.validate(full=True)  # Arrow reads texts that are no UTF-8, and nobody could read them again
                    yield pa.Table.from_batches([batch])
            except MemoryError:  # Arrow's is one of its exceptions
                raise
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{shard.path} is damaged: {first_line(error)}; make or fetch it again") from None

    def _file_digest(self, file: Path) -> str:
        if file not in self._digests:
            self._digests[file] = sha256_file(file)
        return self._digests[file]


class ShardWriter:
    """Write one canonical shard block by block; use as a context manager. The file has its name only when whole."""

    def __init__(self, path: Path, attributes: pa.Schema, spec: SampleSpec, row_group_rows: int = 8192):
        self._schema = sample_schema(attributes, spec)
        self._spec = spec
        self._file = RowGroupWriter(
            path,
            self._schema,
            row_group_rows,
            use_dictionary=[name for name in self._schema.names if name not in (ID, PIXELS)],
            column_encoding={ID: id_encoding(self._schema.field(ID).type)},
            # min and max of pixels would be two whole samples per row group.
            write_statistics=[name for name in self._schema.names if name != PIXELS],
        )

    def __enter__(self) -> "ShardWriter":
        self._file.__enter__()
        return self

    def write(self, attributes: pa.Table, pixels: np.ndarray) -> None:
        """Append rows: attributes as in the schema, pixels as (rows, *shape)."""
        column = from_numpy(pixels.reshape(len(pixels), -1), self._spec.dtype)
        self._file.write(attributes.append_column(self._schema.field(PIXELS), column))

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)


def id_encoding(id_type: pa.DataType) -> str:
    """Delta encoding makes rising integer ids nearly free."""
    return "DELTA_BINARY_PACKED" if id_type in (pa.int32(), pa.int64()) else "PLAIN"


def _parquet_files(path: Path) -> tuple[Path, ...]:
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise DataError(f"no data set at {path}; expected a Parquet file or a folder of them")
    files = tuple(sorted(file for file in path.glob("*.parquet") if not file.name.startswith(("_", "."))))
    nested = [
        file for file in path.glob("*/**/*.parquet") if not file.relative_to(path).parts[0].startswith(("_", "."))
    ]
    if nested:
        raise DataError(
            f"{path} has Parquet files in sub-folders ({nested[0].relative_to(path)} and {len(nested) - 1} more), "
            "whose rows would be left out; put all files into one folder, or encode the sub-folders one by one"
        )
    if not files:
        images = "; image files are for the inbox, see `inbox` in params.yaml" if any(path.glob("*.png")) else ""
        raise DataError(f"no *.parquet files in {path}; expected a Parquet file or a folder of them{images}")
    return files


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        metadata = read_footer(file)
        return pq.ParquetFile(file, metadata=metadata, page_checksum_verification=True, pre_buffer=False)
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file} is not a readable Parquet file: {first_line(error)}; make or fetch it again") from None


def _shards(file: Path, metadata: Any) -> Iterator[Shard]:
    groups: list[int] = []
    rows = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        rows += metadata.row_group(group).num_rows
        if rows >= SHARD_ROWS:
            yield Shard(file, tuple(groups), rows)
            groups, rows = [], 0
    if groups:
        yield Shard(file, tuple(groups), rows)
