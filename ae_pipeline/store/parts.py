"""The parts of an open store, each read and checked as a whole. `LatentStore` adds the choice of rows.

`read_part` is the format's one reader, part_writer.py its one writer.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.codec.context.known import known_streams
from ae_pipeline.codec.header import HEADER_NAME, WEIGHTS_NAME, CodecHeader, read_header
from ae_pipeline.data.parquet.columns import leaf_columns
from ae_pipeline.data.parquet.writer import rechunk
from ae_pipeline.data.samples import ID
from ae_pipeline.errors import CodecError, DamagedPartError, StoreError, first_line
from ae_pipeline.files import sha256_file
from ae_pipeline.store.format.entries import MANIFEST_NAME
from ae_pipeline.store.format.layouts import LATENT, STREAM, Layout, layout_of
from ae_pipeline.store.format.manifest import CODEC_FOLDER, Manifest, kept_snapshots, read_manifest, snapshot_name
from ae_pipeline.store.format.part_entries import JoinedEntry, PartEntry, ShardRows
from ae_pipeline.store.format.part_file import PartFile
from ae_pipeline.store.format.part_writer import ERROR, RESERVED
from ae_pipeline.store.format.verified_file import NOT_THE_FILE, VerifiedFile
from ae_pipeline.store.storage.folder import LocalStorage, Storage, copy_file, place_of
from ae_pipeline.store.storage.place import open_storage

CODEC_FILES = (HEADER_NAME, WEIGHTS_NAME)
_COLUMN_ROWS = 65_536


# Called with a part that cannot be read and the reason, when the rest is to be read without it.
OnDamaged = Callable[[PartEntry, DamagedPartError], None]


@dataclass(frozen=True)
class LatentRows:
    """Consecutive rows of a store."""

    attributes: pa.Table
    latents: np.ndarray
    error: np.ndarray


class Parts:
    """The parts and the codec of an open store; nothing but the manifest is read until rows are asked for."""

    def __init__(self, place: Path | str | Storage, manifest: Manifest, codec_of: "Parts | None" = None):
        """`codec_of`: the store whose codec it is, where parts of it lie in a folder of their own."""
        self.storage = open_storage(place)
        self._codec_of = codec_of
        self.manifest = manifest
        self._fetched: Path | None = None
        self._schema: pa.Schema | None = None

    @classmethod
    def open(cls, place: Path | str | Storage, snapshot: int | None = None) -> Self:
        """Open a complete store, as of its newest snapshot or an earlier one. Raises StoreError."""
        return cls(place, read_manifest(place, snapshot))

    @property
    def _layout(self) -> Layout:  # kept, its functions would keep an open store from being sent to another process
        return layout_of(self.manifest.latent.layout, self.streams())

    def streams(self) -> Any:
        """What reads and writes the streams of a context codec; None in other layouts. Raises CodecError."""
        if self.manifest.latent.layout != STREAM:
            return None
        fingerprint = self.manifest.codec.fingerprint
        return known_streams(fingerprint) or _streams(self.codec_path, fingerprint)

    @property
    def location(self) -> str:
        """Path or URL, for messages."""
        return self.storage.location

    @property
    def path(self) -> Path:
        """The folder of a local store."""
        assert isinstance(self.storage, LocalStorage), f"{self.location} is no folder"
        return self.storage.path

    @property
    def codec_path(self) -> Path:
        """The codec inside the store: its folder, or of a remote store a temporary copy. Raises StoreError."""
        if self._codec_of is not None:
            return self._codec_of.codec_path
        if isinstance(self.storage, LocalStorage):
            with suppress(FileNotFoundError):  # `read_header` says so better
                self._check_codec_files()
            return self.storage.path / CODEC_FOLDER
        if self._fetched is None or not self._fetched.exists():  # it may come from another machine
            folder = Path(tempfile.mkdtemp(prefix="ae-pipeline-codec-"))
            # Removed with the store, or when the program ends.
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            for name in CODEC_FILES:
                inside = f"{CODEC_FOLDER}/{name}"
                with self.reading(inside):
                    copy_file(self.storage, inside, folder / name, most=self.manifest.codec.bytes)
            self._fetched = folder
        return self._fetched

    def _check_codec_files(self) -> None:
        """Raise StoreError for a link, and before it is read for a file that is larger than the whole codec."""
        most = self.manifest.codec.bytes
        for inside in (f"{CODEC_FOLDER}/{name}" for name in CODEC_FILES):
            try:
                size = self.storage.size(inside)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise self._error(inside, first_line(error), "restore the store") from None
            if size > most:
                found = f"has {size:,} bytes, more than the whole codec, which has {most:,} by the manifest"
                raise self._error(inside, found, "run `ae-pipeline repair --codec` with a copy")

    def _error(self, name: str, finding: str, advice: str) -> StoreError:
        return StoreError(finding, place=place_of(self.storage, name), advice=advice)

    @property
    def nbytes(self) -> int:
        """Bytes of everything the store needs: parts, codec, manifest and its segments."""
        kept = snapshot_name(self.manifest.snapshot)
        manifest = self.storage.size(kept if self.storage.exists(kept) else MANIFEST_NAME)
        manifest += sum(segment.bytes for segment in self.manifest.segments)
        return self.manifest.totals.bytes_parts + self.manifest.codec.bytes + manifest

    def codec_header(self) -> CodecHeader:
        """The codec's description. Raises StoreError if it is not the one that wrote the store."""
        header = read_header(self.codec_path)
        codec, latent = self.manifest.codec, self.manifest.latent
        if header.fingerprint != codec.fingerprint:
            here, there = f"{header.fingerprint[:12]}...", f"{codec.fingerprint[:12]}..."
            found = f"has fingerprint {here}, but the store was written with {there}"
            advice = "put the right codec back: `ae-pipeline repair` takes a copy (--codec)"
            raise self._error(CODEC_FOLDER, found, advice)
        said = (header.model.latent_size, header.quantiser.levels, header.samples)
        if said != (latent.size, latent.levels, self.manifest.samples):
            found = "is for other samples or latents than the manifest says"
            raise self._error(CODEC_FOLDER, found, "restore the store")
        if sha256_file(self.codec_path / HEADER_NAME) != codec.files.get("codec.json"):
            found = "was changed: its SHA-256 is not the one in the manifest"
            advice = "restore it, or run `ae-pipeline repair` with a copy of the codec"
            raise self._error(f"{CODEC_FOLDER}/{HEADER_NAME}", found, advice)
        return header

    def schema(self) -> pa.Schema:
        """All columns of the rows, id first. Read once, from the first part that can be read."""
        for number, part in enumerate(self.manifest.parts):
            if self._schema is not None:
                break
            try:
                with self.open_part(part) as parquet:
                    self._schema = parquet.rows_schema
            except DamagedPartError as error:
                if number == len(self.manifest.parts) - 1:
                    every = f"none of the {number + 1} parts of {self.location} can be read; the last: " * bool(number)
                    raise DamagedPartError(f"{every}{error}") from None
        return self._schema

    def attributes_schema(self) -> pa.Schema:
        """Columns beside latent and error, id first."""
        return pa.schema([field for field in self.schema() if field.name not in RESERVED])

    def read_part(self, part: PartEntry, rows: int) -> Iterator[LatentRows]:
        """Yield a part's rows in blocks of at most `rows`. Raises DamagedPartError."""
        count = 0
        with self.open_part(part) as parquet:
            for batch in parquet.iter_batches(batch_size=rows):
                count += batch.num_rows
                yield self.to_rows(pa.table(batch))
            if count != part.rows:
                raise ValueError(f"it has {count} rows, the manifest says {part.rows}")

    def read_column(self, part: PartEntry, name: str) -> Iterator[pa.Array]:
        """Yield one column of a part, block by block. Raises DamagedPartError."""
        with self.open_part(part) as parquet:
            for batch in parquet.iter_batches(batch_size=_COLUMN_ROWS, columns=[name]):
                yield batch.column(0)

    def read_shard(self, one: ShardRows, rows: int) -> Iterator[LatentRows]:
        """Yield the rows of a shard in blocks of at most `rows`. Raises DamagedPartError."""
        if one.is_whole_part:
            yield from self.read_part(one.part, rows)
            return
        for table in rechunk(self.part_tables(one.part, one.start, one.rows), rows):
            yield self.to_rows(table)

    def read_values(self, one: ShardRows, name: str) -> Iterator[pa.Array]:
        """Yield one column of a shard's rows, block by block. Raises DamagedPartError."""
        for table in self.part_tables(one.part, one.start, one.rows, [name]):
            yield from table.column(0).chunks

    def shard_values(self, part: PartEntry, name: str) -> Iterator[tuple[JoinedEntry, list[Any]]]:
        """Yield each shard of a part with its values in one column, all read at once. Raises DamagedPartError."""
        values = [value for array in self.read_column(part, name) for value in array.to_pylist()]
        start = 0
        for entry in part.joined:
            yield entry, values[start : start + entry.rows]
            start += entry.rows

    def part_tables(
        self, part: PartEntry, start: int = 0, rows: int | None = None, columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows of a part from `start` on, as they are in the row groups that hold some.

        `rows`: how many (None: all). Raises DamagedPartError.
        """
        stop = part.rows if rows is None else start + rows
        with self.open_part(part) as parquet:
            first = 0
            for group in range(parquet.metadata.num_row_groups):
                end = first + parquet.metadata.row_group(group).num_rows
                if max(first, start) < min(end, stop):
                    table = parquet.read_row_group(group, columns=columns)
                    yield table.slice(max(0, start - first), min(end, stop) - max(first, start))
                first = end

    def to_rows(self, table: pa.Table) -> LatentRows:
        """A table of all columns in NumPy's terms. Raises ValueError if its latents are not of the store's size."""
        return LatentRows(
            table.drop_columns([name for name in table.column_names if name in RESERVED]),
            self.to_latents(table),
            table.column(ERROR).to_numpy(),
        )

    def to_latents(self, table: pa.Table) -> np.ndarray:
        """int8 (rows, L) of a table with the column of latents. Raises ValueError as `to_rows`."""
        latents = table.column(LATENT).combine_chunks()
        return self._layout.to_numpy(latents, self.manifest.latent.size)

    def largest_error(self) -> float:
        """The largest `error` of a row, from the statistics in the footers of the parts. Raises DamagedPartError."""
        groups = (footer.row_group(number) for footer in self._footers() for number in range(footer.num_row_groups))
        return float(max(group.column(group.num_columns - 1).statistics.max for group in groups))  # `error` is the last

    def latent_bytes(self) -> int:
        """Compressed bytes of the latent column alone, over all parts."""
        return sum(column_bytes(footer, LATENT) for footer in self._footers())

    def _footers(self) -> Iterator[Any]:
        for part in self.manifest.parts:
            with self.open_part(part) as parquet:
                yield parquet.metadata

    @contextmanager
    def open_part(self, part: PartEntry) -> Iterator[pq.ParquetFile]:
        """A part as a Parquet file whose bytes are checked as they are read. Raises DamagedPartError."""
        with self.reading(part.name), self.checked_part(part) as parquet:
            yield parquet

    @contextmanager
    def checked_part(self, part: PartEntry) -> Iterator[pq.ParquetFile]:
        """Open a part for a caller who names the file: Arrow's and Python's errors pass, and DamagedError."""
        file = VerifiedFile(self.storage, part)
        options = {"metadata": file.metadata(), "page_checksum_verification": True, "pre_buffer": False}
        with PartFile(file, self._layout, self.manifest.latent.size, **options) as parquet:
            self._check_columns(parquet.schema_arrow)
            yield parquet

    def _check_columns(self, schema: pa.Schema) -> None:
        """Raise ValueError unless the columns of a part are the store's."""
        found = [(field.name, str(field.type)) for field in schema]
        wanted = [(column.name, column.type) for column in self.manifest.columns]
        if found != wanted:
            here, there = (", ".join(f"{name}: {kind}" for name, kind in columns) for columns in (found, wanted))
            raise ValueError(f"has the columns {here}, the manifest says {there}")
        latent = self._layout.file_type(self.manifest.latent.size)
        if found[0][0] != ID or found[-2:] != [(LATENT, str(latent)), (ERROR, "float")]:
            raise ValueError(f"its columns are not {ID}, attributes, {LATENT} ({latent}) and {ERROR} (float)")

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Turn what reading a damaged file raises into one error that names it: DamagedPartError, or StoreError."""
        where = place_of(self.storage, name)
        advice = "restore it, or run `ae-pipeline repair` with the data that was encoded"
        try:
            yield
        except FileNotFoundError:
            instead = self._removed_since(name) or advice
            raise DamagedPartError("is missing, but the manifest lists it", place=where, advice=instead) from None
        except MemoryError:  # Arrow's is one of its exceptions
            raise
        except OSError as error:
            # Nobody is to repair, or to read on without, what is only out of reach for now.
            from_arrow = type(error) is OSError and error.errno is None
            if from_arrow or (isinstance(self.storage, LocalStorage) and error.errno not in NOT_THE_FILE):
                raise DamagedPartError(f"is damaged: {first_line(error)}", place=where, advice=advice) from None
            advice = "give access to it, then try again"
            raise StoreError(f"cannot be read: {first_line(error)}", place=where, advice=advice) from None
        except (pa.ArrowException, ValueError, KeyError) as error:
            raise DamagedPartError(f"is damaged: {first_line(error)}", place=where, advice=advice) from None

    def _removed_since(self, name: str) -> str | None:
        """What to do if a newer snapshot does without the file: then nobody damaged it."""
        try:
            newest = read_manifest(self.storage)
        except StoreError:
            return None
        mine = self.manifest.snapshot
        if newest.snapshot == mine or not newest.unlisted([name]):
            return None
        if mine in kept_snapshots(self.storage):  # it is one whose parts were joined since
            return None
        return f"snapshot {mine} was removed since it was opened: open snapshot {newest.snapshot}"


@lru_cache(maxsize=4)
def _streams(codec: Path, fingerprint: str) -> Any:
    """What reads the streams of a store's codec. Raises CodecError."""
    from ae_pipeline.codec.codec import Codec  # torch is not needed to read other layouts

    found = Codec.load(codec)
    if found.fingerprint != fingerprint or found.streams is None:
        raise CodecError(f"{codec} is not the codec that wrote the store's streams; restore the store")
    return found.streams


def column_bytes(metadata: Any, name: str) -> int:
    """Compressed bytes of a column of the table, all that is nested in it, in one Parquet file."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    places = leaf_columns(metadata.schema.to_arrow_schema())[name]
    return sum(group.column(place).total_compressed_size for group in groups for place in places)
