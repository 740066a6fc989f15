"""_manifest.json: what a latent store holds. Written last; a store without it does not exist.

A store that grows keeps the manifests of its earlier snapshots as `_snapshots/<number>.json`.
Documented in docs/store-format.md. Format version 4 is written where there are very many parts: the manifest then
lists files that list them (`segments.py`). Else it is 3 where parts were joined, and 2 where none were; version 1 is
read, too.
Readable without torch.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)

from ae_pipeline.data.json_types import JsonModel, Samples
from ae_pipeline.errors import LinkedStoreError, NewerFormatError, StoreError, first_line
from ae_pipeline.files import finished_file, json_bytes, sha256_json
from ae_pipeline.params.base import problems
from ae_pipeline.store.format.entries import (
    LARGEST_MANIFEST,
    MANIFEST_NAME,
    REBUILD,
    SNAPSHOTS_FOLDER,
    CodecEntry,
    ColumnEntry,
    LatentEntry,
    ProbeEntry,
    SourceEntry,
    Totals,
)
from ae_pipeline.store.format.manifest_text import digest_of, no_garbage, put_together, take_apart, text_of_parts
from ae_pipeline.store.format.part_entries import (
    PART_NAME,
    LateEntry,
    MissingEntry,
    PartEntry,
    part_number,
    rows_of_shards,
)
from ae_pipeline.store.format.segment_file import SEGMENTS_FOLDER, SegmentEntry
from ae_pipeline.store.format.segments import SegmentedParts, as_segments
from ae_pipeline.store.storage.folder import LocalStorage, Storage, place_of, read_whole
from ae_pipeline.store.storage.place import open_storage

STORE_FORMAT = 2
JOINED_FORMAT = 3
"""The version of a store that has parts which were joined from others."""
SEGMENTED_FORMAT = 4
"""The version of a store whose manifest lists segments."""
_READABLE = (1, STORE_FORMAT, JOINED_FORMAT, SEGMENTED_FORMAT)
MOST_LISTED = 10_000
"""Shards that a manifest lists itself; a store that has more gets segments with its next snapshot, and keeps them."""
CODEC_FOLDER = "_codec"
_PLACES = (MANIFEST_NAME, CODEC_FOLDER, SNAPSHOTS_FOLDER, SEGMENTS_FOLDER)
# Whoever goes through all of them must come to an end.
MOST_SNAPSHOTS = 999_999
# Bytes of a manifest whose objects are so many that garbage collection would look through them several times.
_LARGE = 1 << 20

_PARTS = TypeAdapter(list[PartEntry], config=ConfigDict(cache_strings="none"))  # hardly two are the same
_SEGMENTS = TypeAdapter(Annotated[list[SegmentEntry], Field(min_length=1)])


def _as_they_are(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, SegmentedParts) else handler(value)


class Manifest(JsonModel):
    """The whole of _manifest.json."""

    format: Literal[1, 2, 3, 4]
    snapshot: Annotated[int, Field(ge=1, le=MOST_SNAPSHOTS)]
    parent: int | None
    codec: CodecEntry
    samples: Samples
    latent: LatentEntry
    columns: list[ColumnEntry]
    source: SourceEntry
    missing: list[MissingEntry] = Field(default_factory=list)
    """Not there where nothing is missing, as in all stores that were written before there were partial ones."""
    late: list[LateEntry] = Field(default_factory=list)
    """Not there either where nothing ever was missing."""
    parts: Annotated[Sequence[PartEntry], Field(min_length=1), WrapValidator(_as_they_are)]
    """A list; of format 4, `SegmentedParts`, which are read where they are asked for."""
    totals: Totals
    probe: ProbeEntry | None = None
    written_by: dict[str, Any]

    @model_serializer(mode="wrap")
    def _without_nothing(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in values(self).items() if value or name not in ("missing", "late")}

    @property
    def missing_rows(self) -> int:
        """Rows of the data that the store does not hold, as their shards could not be encoded."""
        return sum(entry.rows for entry in self.missing)

    @property
    def segments(self) -> list[SegmentEntry]:
        """The segments that list the parts; none where the manifest lists them itself."""
        return self.parts.segments if isinstance(self.parts, SegmentedParts) else []

    @property
    def id_type(self) -> type:
        """The type of all ids: int or str."""
        return type(self.segments[0].id_min if self.segments else self.parts[0].id_min)

    @property
    def made_of(self) -> list[str]:
        """What tells its parts from those of any other manifest: the digests of their jobs, or of its segments."""
        return [segment.sha256 for segment in self.segments] or [part.job for part in self.parts]

    @property
    def last_number(self) -> int:
        """The highest number in a part's name."""
        parts = self.parts
        return parts.last_number if isinstance(parts, SegmentedParts) else max(part_number(one.name) for one in parts)

    @property
    def next_number(self) -> int:
        """The number of the next new part: behind those of all parts, and of those that are missing."""
        return 1 + max([self.last_number, *(entry.number for entry in self.missing)])

    @property
    def shard_count(self) -> int:
        """How many shards all parts were made from."""
        parts = self.parts
        return parts.shards if isinstance(parts, SegmentedParts) else sum(len(part.shards) for part in parts)

    @property
    def shard_digests(self) -> list[str]:
        """The digests of all shards, in the order of their rows; parts that are joined change nothing here."""
        if isinstance(self.parts, SegmentedParts):
            return [digest.hex() for some in self.parts.shard_digests() for digest in some.to_pylist()]
        return [shard.digest for part in self.parts for shard in part.shards]

    def held(self, digests: Collection[str]) -> set[str]:
        """Which of these digests are of shards in the store."""
        if isinstance(self.parts, SegmentedParts):
            return self.parts.held(digests)
        return {shard.digest for part in self.parts for shard in part.shards}.intersection(digests)

    def unlisted(self, names: Collection[str]) -> set[str]:
        """Which of these names are of no part."""
        if isinstance(self.parts, SegmentedParts):
            return self.parts.unlisted(names)
        return set(names) - {part.name for part in self.parts}

    def first_rows(self) -> list[int]:
        """The number of the first row of each shard (`rows_of_shards`), by which rows without an id are numbered."""
        late = {entry.shard: entry.first_row for entry in self.late}
        gaps = {entry.first_row: entry.rows for entry in self.missing}
        if late:
            gaps |= {late[one.shard.digest]: one.rows for one in rows_of_shards(self.parts) if one.shard.digest in late}
        found, row = [], 0
        for one in rows_of_shards(self.parts):
            if one.shard.digest in late:
                found.append(late[one.shard.digest])
                continue
            while row in gaps:
                row += gaps[row]
            found.append(row)
            row += one.rows
        return found

    @model_validator(mode="after")
    def _totals_agree(self) -> "Manifest":
        if len({column.name for column in self.columns}) != len(self.columns):
            raise ValueError("two columns have one name")
        if isinstance(self.parts, SegmentedParts):
            _check_segments(self.parts, self.totals)
            return self
        if self.format >= SEGMENTED_FORMAT:
            raise ValueError(f"format {self.format} lists segments, and no parts")
        if sum(part.rows for part in self.parts) != self.totals.rows:
            raise ValueError("totals.rows is not the sum of the parts' rows")
        if len({part.name for part in self.parts}) != len(self.parts):
            raise ValueError("a part is listed twice")
        if len({type(value) for part in self.parts for value in (part.id_min, part.id_max)}) != 1:
            raise ValueError("ids are integers in some parts and strings in others")
        joined = [part for part in self.parts if part.is_joined]
        if any(sum(entry.rows for entry in part.joined) != part.rows for part in joined):
            raise ValueError("the rows of a part are not those of its shards")
        if joined and self.format < JOINED_FORMAT:
            raise ValueError(f"parts with several shards are of format {JOINED_FORMAT}, found format {self.format}")
        return self


def _check_segments(parts: SegmentedParts, totals: Totals) -> None:
    if (parts.rows, parts.bytes_parts) != (totals.rows, totals.bytes_parts):
        raise ValueError("totals.rows and totals.bytes_parts are not the sums over the segments")
    if len({segment.name for segment in parts.segments}) != len(parts.segments):
        raise ValueError("a segment is listed twice")
    if len(parts.id_types) != 1:
        raise ValueError("ids are integers in some parts and strings in others")


def format_of(parts: Sequence[PartEntry]) -> Literal[2, 3, 4]:
    """The version that a manifest with these parts is written in: the lowest, so that older programs read on."""
    if isinstance(parts, SegmentedParts) or sum(len(part.shards) for part in parts) > MOST_LISTED:
        return 4
    return 3 if any(part.is_joined for part in parts) else 2


def settled(manifest: Manifest, storage: Storage | None, folder: Path) -> tuple[Manifest, list[str]]:
    """The manifest as it is to be written, and the segments that it lists and no manifest before it did.

    These are written into `folder`, flushed, and belong into the store at `storage` before the manifest does.
    """
    if format_of(manifest.parts) != SEGMENTED_FORMAT:
        return manifest, []
    parts, written = as_segments(storage, manifest.parts).settled(folder, manifest.snapshot)
    update = {"format": SEGMENTED_FORMAT, "parts": parts}
    return manifest.model_copy(update=update), [segment.name for segment in written]


def write_manifest(store: Path, manifest: Manifest) -> None:
    """Commit a store: after this it exists."""
    with finished_file(store / MANIFEST_NAME) as temporary, open(temporary, "wb") as file:
        file.writelines(manifest_text(manifest))


def manifest_text(manifest: Manifest, digest: str | None = None) -> Iterator[memoryview | bytes]:
    """The bytes of a manifest's file, some at a time; the digest over all values, if it is not known, comes last."""
    if isinstance(manifest.parts, SegmentedParts):
        values = manifest_values(manifest)
        return iter([json_bytes({**values, "digest": digest or sha256_json(values)})])
    return put_together(_values(manifest, digest), manifest.parts)


def grown_text(manifest: Manifest, old: Manifest, data: bytes) -> bytes:
    """The bytes of a manifest's file. Its first parts are those of an older one, and copied from that one's file."""
    if isinstance(manifest.parts, SegmentedParts):
        return b"".join(manifest_text(manifest))
    text = text_of_parts(data) if old.format >= STORE_FORMAT else b""
    return b"".join(put_together(_values(manifest), manifest.parts[len(old.parts) if text else 0 :], text))


def manifest_values(manifest: Manifest) -> dict[str, Any]:
    """All values of a manifest's file but the digest; parts that are to be in segments must be `settled`."""
    if not isinstance(manifest.parts, SegmentedParts):
        return manifest.model_dump(mode="json")
    segments = _SEGMENTS.dump_python(manifest.segments, mode="json")
    values = manifest.model_copy(update={"parts": []}).model_dump(mode="json")
    return dict(("segments", segments) if name == "parts" else (name, value) for name, value in values.items())


def _values(manifest: Manifest, digest: str | None = None) -> dict[str, Any]:
    """What a manifest's file says, but for the parts."""
    values = manifest.model_copy(update={"parts": []}).model_dump(mode="json")
    return {**values, "digest": digest or digest_of(values, manifest.parts)}


def read_manifest(store: Path | str | Storage, snapshot: int | None = None) -> Manifest:
    """Read and check the manifest of the newest snapshot, or of an earlier one. Raises StoreError.

    An earlier snapshot can be read when the newest manifest is damaged.
    """
    storage, newest = open_storage(store), None
    try:
        newest = _read(storage, MANIFEST_NAME)
    except LinkedStoreError:
        raise
    except StoreError as error:
        try:
            kept = kept_snapshots(storage)
        except OSError:
            raise error from None  # what keeps the manifest from being read, said with its place
        if snapshot is None and kept and not isinstance(error, NewerFormatError):
            until = f"until then, `ae-pipeline decode --snapshot {kept[-1]}` reads what stood there before"
            raise error.with_fields(advice=f"{error.advice}; {until}") from None
        if snapshot not in kept:
            raise
    if newest and snapshot in (None, newest.snapshot):
        return newest
    name = snapshot_name(snapshot or 0)
    if not storage.exists(name):
        numbers = ", ".join(map(str, sorted({*kept_snapshots(storage), newest.snapshot if newest else 0} - {0})))
        raise StoreError(f"{storage.location} has no snapshot {snapshot}; it has {numbers}: give one of them")
    manifest = _read(storage, name)
    if manifest.snapshot != snapshot:
        found = f"is of snapshot {manifest.snapshot}, expected {snapshot}"
        raise StoreError(found, place=place_of(storage, name), advice="put the right one back")
    return manifest


def _read(storage: Storage, name: str) -> Manifest:
    return parse_manifest(manifest_bytes(storage, name), place_of(storage, name), storage)


def holds_part_of_store(storage: Storage) -> bool:
    """Whether there are files that can only be of a store, whatever else is lost of it."""
    try:
        names = _names_in(storage, "")
    except OSError:  # a bucket that does not exist
        return False
    return any(name in _PLACES or re.match(PART_NAME, name) for name in names)


def kept_snapshots(storage: Storage) -> list[int]:
    """Numbers of the earlier snapshots whose manifests are there, rising."""
    names = _names_in(storage, f"{SNAPSHOTS_FOLDER}/")
    return sorted(int(name[:-5]) for name in names if re.fullmatch(r"[1-9][0-9]{0,5}\.json", name))


def _names_in(storage: Storage, folder: str) -> set[str]:
    """Files and folders in one folder. `names` would list everything below: a store's place may be a whole disk."""
    if isinstance(storage, LocalStorage):
        return {path.name for path in (storage.path / folder).glob("*")}
    return {name.removeprefix(folder).split("/")[0] for name in storage.names() if name.startswith(folder)}


def snapshot_name(snapshot: int) -> str:
    """Where the manifest of an earlier snapshot is kept, in the store."""
    return f"{SNAPSHOTS_FOLDER}/{snapshot}.json"


def parse_manifest(data: bytes, where: str, storage: Storage | None = None) -> Manifest:
    """Check a manifest's bytes; `where` is their file, for messages, and `storage` has the segments, if it lists any.

    Raises StoreError.
    """
    with no_garbage() if len(data) > _LARGE else nullcontext():
        try:
            return _parse_in_pieces(data) or _parse_whole(data, storage)
        except StoreError as error:
            raise error.with_fields(place=where, advice=error.advice or REBUILD) from None


def _parse_in_pieces(data: bytes) -> Manifest | None:
    """The manifest if all is right with it, spelling included: several times as fast as the whole, in less memory."""
    parts: list[PartEntry] = []
    try:
        head, pieces = take_apart(data)
        values = json.loads(head)
        digest = values.pop("digest")
        for piece in pieces:
            parts += _PARTS.validate_json(piece)
        # Entries of format 1 lack keys that these have.
        if values["format"] in (STORE_FORMAT, JOINED_FORMAT) and digest == digest_of(values, parts):
            return Manifest.model_validate({**values, "parts": parts})
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # read as a whole, it says what is wrong
    return None


def _parse_whole(data: bytes, storage: Storage | None = None) -> Manifest:
    try:
        values = json.loads(data)
        if not isinstance(values, dict):
            raise StoreError("was changed: it is no JSON object")
        digest = values.pop("digest", None)
        _refuse_newer(values, digest)
        if digest != sha256_json(values):
            raise StoreError("was changed: its digest does not match its contents")
        if values.get("format") == SEGMENTED_FORMAT:
            values = _with_segments(values, storage)
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise StoreError(f"is not a valid manifest: {problems(error)[0]}") from None
    except (ValueError, RecursionError) as error:  # also NaN, half a character: read by Python, but not JSON
        raise StoreError(f"is not readable JSON: {first_line(error)}") from None


def _with_segments(values: dict[str, Any], storage: Storage | None) -> dict[str, Any]:
    """A manifest's values with its parts in place of its segments. Raises StoreError."""
    try:
        segments = _SEGMENTS.validate_python(values.get("segments"))
    except ValidationError as error:
        raise StoreError(f"is not a valid manifest: segments: {problems(error)[0]}") from None
    parts = SegmentedParts(storage, segments, values["snapshot"] if isinstance(values.get("snapshot"), int) else 0)
    if "parts" in values:
        raise StoreError(f"is not a valid manifest: it lists parts, and segments as format {SEGMENTED_FORMAT} does")
    return {"parts": parts, **{name: value for name, value in values.items() if name != "segments"}}


def _refuse_newer(values: dict[str, Any], digest: Any) -> None:
    """Raise NewerFormatError for a later format, unless its digest says that just this number was changed."""
    found = values.get("format")
    newer = isinstance(found, int) and found > max(_READABLE)
    if newer and digest not in [sha256_json({**values, "format": known}) for known in _READABLE]:
        expected = f"{', '.join(map(str, _READABLE[:-1]))} or {_READABLE[-1]}"
        finding = f"has format {found}, expected {expected}: a later version of ae-pipeline wrote it"
        raise NewerFormatError(finding, advice="use that one")


def manifest_bytes(storage: Storage, name: str = MANIFEST_NAME) -> bytes:
    """A manifest as it stands there. Raises StoreError."""
    try:
        return read_whole(storage, name, most=LARGEST_MANIFEST)
    except (FileNotFoundError, NotADirectoryError) as error:
        if isinstance(storage, LocalStorage) and not storage.path.exists():
            raise StoreError(
                f"no store at {storage.location}; check the path, or make one with `ae-pipeline encode`"
            ) from None
        # S3 says so where a bucket does not exist.
        reason = "" if name in str(error) else f": {first_line(error)}"
        found = f"is not a complete latent store ({name} is missing{reason})"
        advice = (
            "it was lost, or never written: `ae-pipeline verify` says what is left, and if rows are, `repair` helps"
            if holds_part_of_store(storage)
            else "encode again, or give another folder"
        )
        raise StoreError(found, place=storage.location, advice=advice) from None
    except OSError as error:
        raise StoreError(
            f"cannot be read: {first_line(error)}",
            place=place_of(storage, name),
            advice="give permission, check network and credentials, or restore the store",
        ) from None
