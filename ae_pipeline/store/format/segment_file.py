"""A segment: a Parquet file with what a manifest says of many parts, a row for each, so that some of it can be read.

    entry, table = write_segment(folder, snapshot=7, table=table_of(parts))
    entries_of(table) == parts

A manifest that lists segments says of each what is needed to pass over it: its parts, rows and range of ids, and the
digests of its pieces, so that whoever reads one column checks just that.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from ae_pipeline.data.json_types import Sha256
from ae_pipeline.data.parquet.limits import read_footer
from ae_pipeline.files import finished_file
from ae_pipeline.store.format.entries import Count
from ae_pipeline.store.format.part_entries import Id, PartEntry, Pieces, Rows, part_number
from ae_pipeline.store.format.verified_file import DamagedError, VerifiedFile, cut
from ae_pipeline.store.storage.folder import LocalStorage, Storage

SEGMENTS_FOLDER = "_segments"
SEGMENT_NAME = rf"^{SEGMENTS_FOLDER}/[0-9]{{6}}-[0-9a-f]{{16}}\.parquet$"
MOST_GROUP_PARTS = 8192
"""Parts that a row group has at most; a reader makes objects of all of them."""
_GROUP_BYTES = 16 << 20
# A part that was joined from a million others has one row, with all its shards.
_MOST_GROUP_BYTES = 256 << 20
_MOST_FILE_BYTES = 1 << 30
# What the columns of fixed size take for each part, each shard and each piece.
_PART_BYTES, _SHARD_BYTES, _PIECE_BYTES = 160, 64, 24

_PIECE = pa.struct([("bytes", pa.int64()), ("digest", pa.binary(16))])
_SHARD = pa.struct(
    [
        ("name", pa.string()),
        ("rows", pa.int64()),
        ("file", pa.string()),
        ("row_groups", pa.list_(pa.int64())),
        ("digest", pa.binary(32)),
    ]
)
_ENTRIES = TypeAdapter(list[PartEntry], config=ConfigDict(cache_strings="none"))


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SegmentEntry:
    """What a manifest says of one segment."""

    name: Annotated[str, Field(pattern=SEGMENT_NAME)]
    """The snapshot that it was written for, and the first 16 digits of its digest."""
    parts: Rows
    shards: Rows
    """Shards of all its parts: more than parts where some were joined."""
    rows: Rows
    """Rows of all its parts."""
    bytes_parts: Count
    """Bytes of all its parts."""
    last_number: Count
    """The highest number in a part's name."""
    id_min: Id
    id_max: Id
    bytes: Count
    sha256: Sha256
    pieces: Annotated[Pieces, Field(min_length=2)]

    @property
    def snapshot(self) -> int:
        """The snapshot that it was written for."""
        return segment_snapshot(self.name)


def segment_snapshot(name: str) -> int:
    """The snapshot that a segment was written for, by its name."""
    return int(name.removeprefix(f"{SEGMENTS_FOLDER}/").split("-")[0])


def schema_of_segment(id_type: pa.DataType) -> pa.Schema:
    """The columns of a segment; a store's ids are all int64, all uint64 or all text."""
    return pa.schema(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("rows", pa.int64(), nullable=False),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("sha256", pa.binary(32), nullable=False),
            pa.field("id_min", id_type, nullable=False),
            pa.field("id_max", id_type, nullable=False),
            pa.field("job", pa.binary(32), nullable=False),
            pa.field("shards", pa.list_(_SHARD), nullable=False),
            pa.field("pieces", pa.list_(_PIECE)),
        ]
    )


def table_of(parts: Sequence[PartEntry]) -> pa.Table:
    """Entries of parts as the rows of a segment."""
    ids = [value for part in parts for value in (part.id_min, part.id_max)]
    if isinstance(ids[0], str):
        id_type = pa.string()
    else:
        id_type = pa.uint64() if any(isinstance(value, int) and value >= 1 << 63 for value in ids) else pa.int64()
    columns = [
        pa.array([part.name for part in parts]),
        pa.array([part.rows for part in parts], pa.int64()),
        pa.array([part.bytes for part in parts], pa.int64()),
        _digests([part.sha256 for part in parts]),
        pa.array(ids[::2], id_type),
        pa.array(ids[1::2], id_type),
        _digests([part.job for part in parts]),
        _shards_column(parts),
        _pieces_column(parts),
    ]
    return pa.Table.from_arrays(columns, schema=schema_of_segment(id_type))


def _digests(digests: list[str], size: int = 32) -> pa.Array:
    return pa.array(map(bytes.fromhex, digests), pa.binary(size), size=len(digests))


def _shards_column(parts: Sequence[PartEntry]) -> pa.Array:
    shards = [shard for part in parts for shard in part.shards]
    # A part that was not joined has the name and rows of its one shard itself.
    joined = [entry for part in parts for entry in (part.joined if part.is_joined else [None])]
    values = pa.StructArray.from_arrays(
        [
            pa.array([entry and entry.name for entry in joined], pa.string()),
            pa.array([entry and entry.rows for entry in joined], pa.int64()),
            pa.array([shard.file for shard in shards], pa.string()),
            pa.array([shard.row_groups for shard in shards], pa.list_(pa.int64())),
            _digests([shard.digest for shard in shards]),
        ],
        fields=list(_SHARD),
    )
    return pa.ListArray.from_arrays(_offsets([len(part.joined) if part.is_joined else 1 for part in parts]), values)


def _pieces_column(parts: Sequence[PartEntry]) -> pa.Array:
    pairs = [piece.split(":") for part in parts for piece in part.pieces or ()]
    values = pa.StructArray.from_arrays(
        [pa.array([int(size) for size, _ in pairs], pa.int64()), _digests([digest for _, digest in pairs], 16)],
        fields=list(_PIECE),
    )
    offsets = _offsets([len(part.pieces or ()) for part in parts])
    absent = pa.array([part.pieces is None for part in parts])
    return pa.ListArray.from_arrays(offsets, values, mask=absent)


def _offsets(lengths: list[int]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def entries_of(table: pa.Table) -> list[PartEntry]:
    """The rows of a segment as entries of parts. Raises ValueError for what no manifest may say."""
    rows = table.to_pylist()
    for row in rows:
        for name in ("sha256", "job"):
            row[name] = row[name].hex()
        joined = len(row["shards"]) > 1
        row["shard"] = [_shard_of(shard, joined=joined) for shard in row.pop("shards")]
        if not joined:
            (row["shard"],) = row["shard"]
        if row["pieces"] is not None:
            row["pieces"] = [f"{piece['bytes']}:{piece['digest'].hex()}" for piece in row["pieces"]]
    return _ENTRIES.validate_python(rows)


def _shard_of(shard: dict[str, Any], *, joined: bool) -> dict[str, Any]:
    inner = {"file": shard["file"], "row_groups": shard["row_groups"], "digest": shard["digest"].hex()}
    return {"name": shard["name"], "rows": shard["rows"], "shard": inner} if joined else inner


def shard_digests_of(table: pa.Table) -> pa.Array:
    """The digests of all shards in a table's column `shards`, as 32 bytes each."""
    lists = table.column("shards").combine_chunks()
    return pc.struct_field(pc.list_flatten(lists), "digest")


def write_segment(folder: Path, snapshot: int, table: pa.Table) -> SegmentEntry:
    """Write these rows into `folder`, flushed, under the name that they have in a store; its entry.

    The bytes are a function of the rows and the version of pyarrow. Raises ValueError for a part whose shards take more
    memory than readers allow.
    """
    # The bytes do not depend on the pieces that it came in, nor on what Parquet said of its columns.
    table = pa.Table.from_arrays(
        [column.combine_chunks() for column in table.columns],
        schema=schema_of_segment(table.schema.field("id_min").type),
    )
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer, table.schema, compression="zstd", compression_level=1, use_dictionary=False, write_page_checksum=True
    ) as writer:
        for start, end in _groups(table):
            writer.write_table(table.slice(start, end - start), row_group_size=end - start)
    data = buffer.getbuffer()
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{SEGMENTS_FOLDER}/{snapshot:06d}-{sha256[:16]}.parquet"
    with finished_file(folder / name) as temporary:
        temporary.write_bytes(data)
        return _entry(_described(temporary, name), table)


def found_segment(storage: LocalStorage, name: str) -> tuple[SegmentEntry, list[PartEntry]]:
    """A segment that lies in a store whose manifest is lost, and its parts.

    Raises ValueError, OSError or what Arrow raises unless the digest in its name is its own.
    """
    if storage.size(name) > _MOST_FILE_BYTES:
        raise DamagedError("is too large for a segment")
    file = _described(storage.path / name, name)
    if file.sha256[:16] not in name:
        raise DamagedError("its digest is not the one in its name")
    with SegmentFile(storage, file) as segment:
        table = segment.columns()
    return _entry(file, table), entries_of(table)


def _described(path: Path, name: str) -> "_File":
    """What a file on this machine is, in pieces. Raises ValueError for one that would take too much memory."""
    whole = hashlib.sha256()
    pieces = cut(path, whole, _MOST_GROUP_BYTES)
    return _File(name, read_footer(path).num_rows, path.stat().st_size, whole.hexdigest(), pieces)


def _entry(file: "_File", table: pa.Table) -> SegmentEntry:
    last_number = max(part_number(part) for part in table.column("name").to_pylist())
    of_file: dict[str, Any] = {"name": file.name, "bytes": file.bytes, "sha256": file.sha256, "pieces": file.pieces}
    return SegmentEntry(**what_it_lists(table), **of_file, last_number=last_number)


def what_it_lists(table: pa.Table) -> dict[str, Any]:
    """What an entry says of the parts that are listed, but for `last_number`. Raises ValueError for an odd sum."""
    return {
        "parts": len(table),
        "shards": pc.sum(pc.list_value_length(table.column("shards"))).as_py(),
        "rows": pc.sum(table.column("rows")).as_py(),
        "bytes_parts": pc.sum(table.column("bytes")).as_py(),
        "id_min": pc.min(table.column("id_min")).as_py(),
        "id_max": pc.max(table.column("id_max")).as_py(),
    }


def _groups(table: pa.Table) -> Iterator[tuple[int, int]]:
    """First row and end of each row group, so that none takes much memory."""
    shards = table.column("shards").combine_chunks()
    files = pc.struct_field(pc.list_flatten(shards), "file")
    sizes = np.concatenate([[0], np.cumsum(pc.binary_length(files).to_numpy(zero_copy_only=False) + _SHARD_BYTES)])
    ends = np.cumsum(pc.list_value_length(shards).to_numpy(zero_copy_only=False))
    pieces = pc.fill_null(pc.list_value_length(table.column("pieces")), 0).to_numpy(zero_copy_only=False)
    of_each = np.diff(sizes[np.concatenate([[0], ends])]) + _PIECE_BYTES * pieces + _PART_BYTES
    start, size = 0, 0
    for place, more in enumerate(of_each.tolist()):
        if place > start and (size + more > _GROUP_BYTES or place - start >= MOST_GROUP_PARTS):
            yield start, place
            start, size = place, 0
        size += more
    yield start, len(table)


class _File(NamedTuple):
    """A segment as a file in pieces."""

    name: str
    rows: int
    bytes: int
    sha256: str
    pieces: list[str]


def as_file(entry: SegmentEntry) -> _File:
    """A segment as `verified_file` takes it; its rows are parts."""
    return _File(entry.name, entry.parts, entry.bytes, entry.sha256, list(entry.pieces))


class SegmentFile(pq.ParquetFile):  # type: ignore[misc]
    """An open segment, whose bytes are checked as they are read.

    Raises DamagedError, OSError, ValueError or what Arrow raises for one that is not what the manifest says.
    """

    def __init__(self, storage: Storage, segment: "_File"):
        """`segment` as `as_file` makes it."""
        file = VerifiedFile(storage, segment, most=_MOST_GROUP_BYTES)
        metadata = file.metadata()
        groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        if max(groups) > MOST_GROUP_PARTS:
            raise DamagedError(f"has a row group of {max(groups)} parts, at most {MOST_GROUP_PARTS} are allowed")
        self.firsts = np.concatenate([[0], np.cumsum(groups)]).tolist()
        """The number of the first part of each row group, and of all parts."""
        super().__init__(file, metadata=metadata, page_checksum_verification=True, pre_buffer=False)
        names = self.schema_arrow.names
        kind = self.schema_arrow.field("id_min").type if "id_min" in names else pa.null()
        kinds = (pa.int64(), pa.uint64(), pa.string())
        if kind not in kinds or not self.schema_arrow.equals(schema_of_segment(kind)):
            raise DamagedError("has other columns than a segment")

    def columns(self, names: Sequence[str] | None = None) -> pa.Table:
        """Some columns of all parts; `shards.list.element.digest` gives `shards` with nothing else in it."""
        table = self.read(columns=names, use_threads=False)
        table.validate(full=True)
        return table

    def entries(self, group: int) -> list[PartEntry]:
        """The parts of a row group."""
        table = self.read_row_group(group, use_threads=False)
        table.validate(full=True)
        return entries_of(table)


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of several segments; ids of different types become the wider one."""
    kinds = {table.schema.field("id_min").type for table in tables}
    schema = schema_of_segment(pa.uint64()) if len(kinds) > 1 else tables[0].schema
    return pa.concat_tables([table.cast(schema) for table in tables])
