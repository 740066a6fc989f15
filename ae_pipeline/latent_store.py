"""The latent store: a folder of Parquet parts, a copy of the codec, and a manifest. Format: docs/store-format.md.

    store = LatentStore.open(Path("data/latents/test"))
    for part in store.manifest.parts:
        for rows in store.read_part(part, codec.BLOCK_ROWS):
            rows.latents       # int8 (n, L)
            rows.attributes    # Arrow table: id, label, ...
            rows.error         # float32 (n,): MSE of each decoded row, measured when it was encoded

`PartWriter` and `read_part` are the format's one writer and one reader.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.codec_header import CodecHeader, read_header
from ae_pipeline.errors import DataError, StoreError, first_line
from ae_pipeline.files import sha256_file
from ae_pipeline.layouts import LATENT, LAYOUTS
from ae_pipeline.manifest import CODEC_FOLDER, MANIFEST_NAME, Manifest, PartEntry, read_manifest, snapshot_path
from ae_pipeline.parquet_writer import RowGroupWriter
from ae_pipeline.samples import ID, id_encoding

ERROR = "error"
RESERVED = (LATENT, ERROR, "residual", "residual_bound")
PART_KEY = b"ae_pipeline.part"
_ERROR_FRACTION_BITS = 8


@dataclass(frozen=True)
class LatentRows:
    """Consecutive rows of a store."""

    attributes: pa.Table
    latents: np.ndarray
    error: np.ndarray


class LatentStore:
    """An open store; nothing but the manifest is read until rows are asked for."""

    def __init__(self, path: Path, manifest: Manifest):
        self.path = path
        self.manifest = manifest
        self._verified: set[str] = set()

    @classmethod
    def open(cls, path: Path, snapshot: int | None = None) -> "LatentStore":
        """Open a complete store, as of its newest snapshot or an earlier one. Raises StoreError."""
        return cls(path, read_manifest(path, snapshot))

    @property
    def codec_path(self) -> Path:
        """The codec inside the store."""
        return self.path / CODEC_FOLDER

    @property
    def nbytes(self) -> int:
        """Bytes on disk of everything the store needs: parts, codec and manifest."""
        earlier = snapshot_path(self.path, self.manifest.snapshot)
        manifest = (earlier if earlier.exists() else self.path / MANIFEST_NAME).stat().st_size
        return self.manifest.totals.bytes_parts + self.manifest.codec.bytes + manifest

    def codec_header(self) -> CodecHeader:
        """The codec's description. Raises StoreError if it is not the one that wrote the store."""
        header = read_header(self.codec_path)
        wanted = self.manifest.codec.fingerprint
        if header.fingerprint != wanted:
            raise StoreError(
                f"{self.codec_path} has fingerprint {header.fingerprint[:12]}..., but the store was written with "
                f"{wanted[:12]}...; put the right codec back"
            )
        return header

    def attributes_schema(self) -> pa.Schema:
        """Columns beside latent and error, id first."""
        schema = self._open(self.manifest.parts[0]).schema_arrow
        return pa.schema([field for field in schema if field.name not in RESERVED])

    def read_part(self, part: PartEntry, rows: int) -> Iterator[LatentRows]:
        """Yield a part's rows in blocks of at most `rows`. Raises StoreError for what is damaged."""
        path = self.path / part.name
        layout = LAYOUTS[self.manifest.latent.layout]
        size = self.manifest.latent.size
        count = 0
        with self._open(part) as parquet:
            try:
                for batch in parquet.iter_batches(batch_size=rows):
                    count += batch.num_rows
                    yield LatentRows(
                        pa.table(batch.drop_columns([n for n in batch.schema.names if n in RESERVED])),
                        layout.to_numpy(batch.column(LATENT), size),
                        batch.column(ERROR).to_numpy(),
                    )
            except (pa.ArrowException, OSError, ValueError, KeyError) as error:
                raise StoreError(f"{path} is damaged: {first_line(error)}; restore it or encode again") from None
        if count != part.rows:
            raise StoreError(f"{path} has {count} rows, the manifest says {part.rows}; restore it or encode again")

    def latent_bytes(self) -> int:
        """Compressed bytes of the latent column alone, over all parts."""
        total = 0
        for part in self.manifest.parts:
            with self._open(part) as parquet:
                total += column_bytes(parquet.metadata, LATENT)
        return total

    def _open(self, part: PartEntry) -> pq.ParquetFile:
        path = self.path / part.name
        try:
            self._verify(path, part)
            return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
        except FileNotFoundError:
            raise StoreError(f"{path} is missing, but the manifest lists it; restore it or encode again") from None
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{path} is damaged: {first_line(error)}; restore it or encode again") from None

    def _verify(self, path: Path, part: PartEntry) -> None:
        """Compare size and SHA-256 with the manifest, once: Parquet's checksums cover pages, not headers and footer."""
        found = path.stat().st_size
        if found != part.bytes:
            raise StoreError(f"{path} has {found} bytes, the manifest says {part.bytes}; restore it or encode again")
        if part.name not in self._verified:
            if sha256_file(path) != part.sha256:
                raise StoreError(
                    f"{path} is damaged: its SHA-256 is not the one in the manifest; restore it or encode again"
                )
            self._verified.add(part.name)


class PartWriter:
    """Write one part block by block; use as a context manager. The file has its name only when whole."""

    def __init__(self, path: Path, attributes: pa.Schema, layout: str, latent_size: int, row_group_rows: int, job: str):
        taken = [name for name in attributes.names if name in RESERVED]
        if taken:
            raise DataError(f"column names {', '.join(taken)} are reserved in a latent store; rename them first")
        self._layout = LAYOUTS[layout]
        schema = pa.schema(
            [
                *attributes,
                pa.field(LATENT, self._layout.arrow_type(latent_size), nullable=False),
                pa.field(ERROR, pa.float32(), nullable=False),
            ],
            metadata=part_metadata(job),
        )
        others = [name for name in attributes.names if name != ID]
        self._file = RowGroupWriter(
            path,
            schema,
            row_group_rows,
            use_dictionary=[*others, *self._layout.dictionary_columns],
            column_encoding={ID: id_encoding(schema.field(ID).type), ERROR: "BYTE_STREAM_SPLIT"},
            write_statistics=[*others, ID, ERROR],
        )

    def __enter__(self) -> "PartWriter":
        self._file.__enter__()
        return self

    def write(self, attributes: pa.Table, latents: np.ndarray, error: np.ndarray) -> None:
        """Append rows: latents int8 (n, L), error float32 (n,)."""
        table = attributes.append_column(LATENT, self._layout.to_arrow(latents))
        self._file.write(table.append_column(ERROR, pa.array(round_error(error))))

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)


def part_metadata(job: str) -> dict[bytes, bytes]:
    """What a part says of itself: the digest of the job that made it."""
    return {PART_KEY: json.dumps({"format": 1, "job": job}).encode()}


def round_error(error: np.ndarray) -> np.ndarray:
    """float32 rounded to 8 fraction bits (at most 0.2% off): a diagnostic needs no more, and the rest would not
    compress: 15 more bits in every row, an eighth of a default row.
    """
    drop = 23 - _ERROR_FRACTION_BITS
    bits = error.astype(np.float32).view(np.uint32)
    # Adding half of the last kept bit rounds to nearest; a carry into the exponent gives the next power of two.
    return ((bits + np.uint32(1 << (drop - 1))) >> np.uint32(drop) << np.uint32(drop)).view(np.float32)


def column_bytes(metadata: Any, name: str) -> int:
    """Compressed bytes of a column, given by its top-level name, in one Parquet file."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    return sum(column.total_compressed_size for column in columns if column.path_in_schema.split(".")[0] == name)
