"""Several parts of a store made one, row after row, without decoding: ids, attributes, latents and errors as they are.

    entry = join_parts([(store, part), ...], entries, number, store.manifest, folder)

The bytes depend on the rows, the shards that they come from, the store's settings and the version of pyarrow, and on
nothing else: a part that is joined from joined ones is the one that would be joined from all their shards' parts. So
`repair` makes it again from the data.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import pyarrow as pa

from ae_pipeline.data.parquet.limits import MOST_ROW_GROUP_BYTES
from ae_pipeline.data.parquet.writer import rechunk
from ae_pipeline.errors import DamagedPartError, first_line
from ae_pipeline.files import sha256_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.care.same_values import same_values
from ae_pipeline.store.format.entries import LatentEntry
from ae_pipeline.store.format.layouts import LATENT
from ae_pipeline.store.format.manifest import Manifest
from ae_pipeline.store.format.part_entries import JoinedEntry, PartEntry, part_number
from ae_pipeline.store.format.part_writer import RESERVED, PartWriter, part_metadata
from ae_pipeline.store.format.verified_file import cut
from ae_pipeline.store.latent_store import LatentStore

_COMPARED_ROWS = 65_536
_FIELD_ID = b"PARQUET:field_id"

Held = tuple[LatentStore, PartEntry]
"""A part, and the store to read it from."""


class CannotJoinError(ValueError):
    """Parts that cannot be joined so that every value stays what it is; they are left as they are."""


class TooLargeError(CannotJoinError):
    """Parts whose rows would be a row group that takes more memory than readers allow."""


def joined_job(codec_fingerprint: str, settings: LatentEntry | EncodeParams, entries: Sequence[JoinedEntry]) -> str:
    """SHA-256 (hex) over everything that decides the bytes of a part that is joined of these shards."""
    made_of = {
        "codec": codec_fingerprint,
        "joined": [[entry.name, entry.shard.digest] for entry in entries],
        "layout": settings.layout,
        "row_group_rows": settings.row_group_rows,
        "pyarrow": pa.__version__,
    }
    return sha256_json(made_of)


def join_parts(
    parts: Sequence[Held], entries: Sequence[JoinedEntry], number: int, manifest: Manifest, folder: Path
) -> PartEntry:
    """Join parts in `folder`, or take what is there if that is whole and of the same rows; all of it is compared.

    `entries` are their shards, in order; `manifest` that of the store. Memory is that of a row group. Raises
    CannotJoinError, and DamagedPartError for a part that cannot be read.
    """
    job = joined_job(manifest.codec.fingerprint, manifest.latent, entries)
    path = folder / f"part-{number:05d}-{job[:16]}.parquet"
    if path.exists():
        try:
            return _checked(path, job, parts, entries, manifest)
        except (CannotJoinError, DamagedPartError):
            path.unlink()  # an interrupted run left it
    try:
        _write(path, job, parts, entries, manifest)
        return _checked(path, job, parts, entries, manifest)
    except (CannotJoinError, DamagedPartError):
        path.unlink(missing_ok=True)
        raise


def schema_of(held: Held) -> pa.Schema:
    """The columns of a part, to compare with another one's: what Parquet itself numbers is left out."""
    store, part = held
    with store.open_part(part) as parquet:
        schema: pa.Schema = parquet.rows_schema
    kept = []
    for field in schema:
        metadata = {key: value for key, value in (field.metadata or {}).items() if key != _FIELD_ID}
        kept.append(field.with_metadata(metadata or None))
    return pa.schema(kept)


def why_not(schema: pa.Schema) -> str | None:
    """Why parts with these columns are not joined; None if they are.

    Of a dictionary, values are kept and not their order; that has a meaning where it is declared to.
    """
    for field in schema:
        kind = field.type
        inner = [kind.value_type] if pa.types.is_dictionary(kind) else [kind]
        if (pa.types.is_dictionary(kind) and kind.ordered) or any(_has_dictionary(one) for one in inner):
            return f"the column `{field.name}` is of type {kind}, whose dictionaries cannot be joined"
    return None


def _has_dictionary(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_dictionary(kind.storage_type)
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    return pa.types.is_dictionary(kind) or any(map(_has_dictionary, inner))


class _JoinWriter(PartWriter):
    """Row groups whose bytes do not depend on the pieces that they came in."""

    def _to_file(self, group: pa.Table) -> pa.Table:
        latents = group.column(LATENT)
        if self._layout.coded_type and latents.nbytes > MOST_ROW_GROUP_BYTES:
            raise TooLargeError(f"latents of {len(group)} rows take {latents.nbytes} bytes in memory")
        columns = [_in_one_piece(column) for column in group.columns]
        return super()._to_file(pa.Table.from_arrays(columns, schema=group.schema))


def _in_one_piece(column: pa.ChunkedArray) -> pa.Array:
    if not pa.types.is_dictionary(column.type):
        return column.combine_chunks()
    values = column.cast(column.type.value_type).combine_chunks()
    return values.dictionary_encode().cast(column.type)


def _write(path: Path, job: str, parts: Sequence[Held], entries: Sequence[JoinedEntry], manifest: Manifest) -> None:
    store, first = parts[0]
    with store.open_part(first) as parquet:
        schema = parquet.rows_schema
    attributes = pa.schema([field for field in schema if field.name not in RESERVED])
    latent = manifest.latent
    numbers = [part_number(entry.name) for entry in entries]
    try:
        shape = (latent.layout, latent.size, latent.row_group_rows)
        with _JoinWriter(path, attributes, *shape, job, numbers, store.streams()) as writer:
            for table in chain.from_iterable(map(_tables, parts)):
                writer.append(table)
    except MemoryError:  # Arrow's is one of its exceptions
        raise
    except (pa.ArrowException, NotImplementedError) as error:
        raise CannotJoinError(f"pyarrow cannot write their rows together: {first_line(error)}") from None


def _tables(held: Held) -> Iterator[pa.Table]:
    store, part = held
    return store.part_tables(part)


def _checked(
    path: Path, job: str, parts: Sequence[Held], entries: Sequence[JoinedEntry], manifest: Manifest
) -> PartEntry:
    """The entry of a part that was joined; its rows are read back and compared with those that it was joined from."""
    whole = hashlib.sha256()
    try:
        pieces = cut(path, whole)
    except (ValueError, OSError, pa.ArrowException) as error:
        kind = TooLargeError if "in memory" in str(error) else CannotJoinError
        raise kind(first_line(error)) from None
    entry = PartEntry(
        name=path.name,
        rows=sum(one.rows for one in entries),
        bytes=path.stat().st_size,
        sha256=whole.hexdigest(),
        id_min=min(part.id_min for _, part in parts),
        id_max=max(part.id_max for _, part in parts),
        job=job,
        shard=list(entries),
        pieces=pieces,
    )
    joined = LatentStore(path.parent, manifest, codec_of=parts[0][0])
    with joined.open_part(entry) as parquet:
        if (parquet.schema_arrow.metadata or {}) != part_metadata(job, entry.joined_numbers):
            raise CannotJoinError("another job has made it")
    found = rechunk(_tables((joined, entry)), _COMPARED_ROWS)
    wanted = rechunk(chain.from_iterable(map(_tables, parts)), _COMPARED_ROWS)
    if not all(
        one is not None and other is not None and same_values(one, other) for one, other in zip_longest(found, wanted)
    ):
        raise CannotJoinError("their rows do not come out of Parquet as they went in")
    return entry
