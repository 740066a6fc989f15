"""Which snapshots of a store there are, what each of them added, and whether their manifests are whole.

`vacuum` removes the manifests of earlier snapshots. So that one that was removed on purpose can be told from one that
was lost, and so that what each snapshot added stays known, it leaves `_snapshots/vacuumed.json`: how many parts each
removed snapshot had. A snapshot adds its parts after those of the one before. Parts that were joined since count as
before: what is counted are shards.
"""

import hashlib
import json
import operator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile, zip_longest
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from ae_pipeline.errors import NewerFormatError, StoreError, first_line
from ae_pipeline.files import json_bytes, sha256_json, write_json
from ae_pipeline.store.care.findings import Damage
from ae_pipeline.store.care.part_checks import damage_of_segment
from ae_pipeline.store.format.entries import LARGEST_MANIFEST, MANIFEST_NAME, SNAPSHOTS_FOLDER, Count
from ae_pipeline.store.format.manifest import (
    Manifest,
    holds_part_of_store,
    kept_snapshots,
    manifest_bytes,
    manifest_text,
    read_manifest,
    snapshot_name,
)
from ae_pipeline.store.format.part_entries import PartEntry, ShardEntry, ShardRows, rows_of_shards
from ae_pipeline.store.format.segments import SegmentedParts
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import LocalStorage, Storage, place_of, read_whole
from ae_pipeline.store.storage.place import open_storage

VACUUMED_NAME = f"{SNAPSHOTS_FOLDER}/vacuumed.json"
MISSPELT = "was changed between its values, which are as they were"
_LARGEST_RECORD = 16 << 20
_NAMED = 100
# What all snapshots of a store have in common.
_SAME = ("codec", "samples", "latent", "columns")
_RECORD = TypeAdapter(dict[Literal["parts"], list[Count]])


def read_vacuumed(place: Path | str | Storage) -> list[int]:
    """The numbers of parts of snapshots 1, 2, ... that were removed on purpose; none where there is no record.

    Of one whose manifest was damaged by then, those of the one before. Raises StoreError if the record is damaged.
    """
    storage = open_storage(place)
    where = place_of(storage, VACUUMED_NAME)
    try:
        data = read_whole(storage, VACUUMED_NAME, most=_LARGEST_RECORD)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        advice = "give permission, or restore it"
        raise StoreError(f"cannot be read: {first_line(error)}", place=where, advice=advice) from None
    try:
        values = json.loads(data)
        digest = values.pop("digest")
        if digest != sha256_json(values):
            raise ValueError("its digest does not match its contents")
        return _RECORD.validate_python(values)["parts"]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        advice = "restore it, or run `ae-pipeline vacuum`"
        raise StoreError(f"is damaged: {first_line(error)}", place=where, advice=advice) from None


def note_removed(store: Path, last: int) -> None:
    """Record that snapshots 1 to `last` are gone, durably, before their manifests are removed.

    The parts that one added whose manifest is lost count with the one after it.
    """
    try:
        counts = read_vacuumed(store)[:last]
    except StoreError:
        counts = []
    there = set(kept_snapshots(LocalStorage(store)))
    for number in range(len(counts) + 1, last + 1):
        counts.append(counts[-1] if counts else 0)
        if number in there or number == last:  # the newest one is elsewhere
            with suppress(StoreError):
                counts[-1] = read_manifest(store, number).shard_count
    values = {"parts": counts}
    write_json(store / VACUUMED_NAME, {**values, "digest": sha256_json(values)})


def added_shards(place: Path | str | Storage, snapshot: int) -> tuple[LatentStore, list[ShardRows]]:
    """Open a store and list the shards that one snapshot added, also if it was removed since, or parts were joined.

    A repair and a compaction add none.

    Raises StoreError if there is no such snapshot, or its manifest is lost.
    """
    newest = LatentStore.open(place)
    counts = [0, *read_vacuumed(place)]
    if snapshot > newest.manifest.snapshot:
        read_manifest(place, snapshot)  # raises: there is none
    before, then = (
        counts[number] if number < len(counts) else read_manifest(place, number).shard_count
        for number in (snapshot - 1, snapshot)
    )
    parts = newest.manifest.parts
    if isinstance(parts, SegmentedParts):
        return newest, parts.shards_between(before, then)
    return newest, list(islice(rows_of_shards(parts), before, then))


@dataclass
class Snapshots:
    """What the manifests of a store are."""

    storage: Storage
    names: list[str]
    """All files of the store."""
    manifest: Manifest | None = None
    """The manifest to check with: the newest, or if that is damaged the latest that is not; None if all are."""
    newest: bool = False
    """Whether that is the newest snapshot's."""
    earlier: list[int] = field(default_factory=list)
    """Snapshots before the newest that can be opened."""
    damaged: list[Damage] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    """Names of all manifests that belong to the store, or are in the notices."""
    segments: dict[str, str | None] = field(default_factory=dict)
    """All segments, by name, and what is wrong with each; None: nothing."""
    older: dict[str, PartEntry] = field(default_factory=dict)
    """Parts of earlier snapshots whose rows the newest has in a part that was joined from them, by name."""

    def damage(self, name: str, reason: str, *, costs: bool = False) -> None:
        """Note that a file is damaged or missing; `costs`: rows that it listed may be listed nowhere else."""
        found = reason if name in self.names else "is missing"
        self.damaged.append(Damage(name, found, None if costs else 0))


def read_snapshots(storage: Storage, snapshot: int | None) -> Snapshots:
    """Read all manifests that should be there, or that of one snapshot.

    Raises StoreError if there is no store, or no such snapshot.
    """
    found = Snapshots(storage, storage.names())
    if snapshot is not None:
        there = snapshot_name(snapshot) in found.names
        name = snapshot_name(snapshot) if there else MANIFEST_NAME
        found.manifest = _read(storage, snapshot, name, found, there=there)
        return found
    found.known.add(MANIFEST_NAME)
    newest = _read(storage, None, MANIFEST_NAME, found, there=holds_part_of_store(storage))
    oldest = _oldest(storage, found)
    kept = set(kept_snapshots(storage))
    last = newest.snapshot if newest else max(kept, default=0) + 1
    missing = [number for number in range(oldest, last) if number not in kept]
    for number in sorted({*missing[:_NAMED], *kept}.intersection(range(oldest, last))):
        manifest = _read_earlier(storage, number, newest, found)
        if manifest:
            found.earlier.append(number)
            found.manifest = manifest
    if len(missing) > _NAMED:
        found.damaged.append(Damage(snapshot_name(missing[_NAMED]), f"is missing, as {len(missing):,} in all are", 0))
    _check_others([number for number in sorted(kept) if not oldest <= number < last], newest, found)
    if newest:
        found.manifest, found.newest = newest, True
    return found


def state_of(storage: Storage) -> list[bytes | None]:
    """What an append, a repair with new bytes or a vacuum changes: another run did something if it is not the same."""
    found: list[bytes | None] = []
    for name in (MANIFEST_NAME, VACUUMED_NAME):
        try:
            found.append(hashlib.sha256(read_whole(storage, name, most=LARGEST_MANIFEST)).digest())
        except (OSError, StoreError):
            found.append(None)
    return found


def _read(storage: Storage, snapshot: int | None, name: str, found: Snapshots, *, there: bool) -> Manifest | None:
    """A manifest; an error is noted as damage of the file `name` if there is such a snapshot, else raised."""
    manifest = None
    try:
        manifest = read_manifest(storage, snapshot)
        _check_spelling(storage, name, manifest)
    except NewerFormatError:
        raise
    except StoreError as error:
        if not there:
            raise
        found.damage(name, error.finding, costs=manifest is None)
    return manifest and _with_whole_segments(manifest, found, costs=True)


def _with_whole_segments(manifest: Manifest, found: Snapshots, *, costs: bool) -> Manifest:
    """The manifest with the parts that its whole segments list; the others are noted as damaged.

    `costs`: whether their rows are listed nowhere else.
    """
    parts = manifest.parts
    if not isinstance(parts, SegmentedParts):
        return manifest
    for segment in parts.segments:
        if segment.name not in found.segments:
            found.segments[segment.name] = reason = damage_of_segment(found.storage, segment)
            if reason and costs:
                lost = Damage(segment.name, reason, segment.rows, segment.id_min, segment.id_max)
                found.damaged.append(lost)
            elif reason:
                found.damaged.append(Damage(segment.name, reason, 0))
    whole = {segment.name for segment in parts.segments if not found.segments[segment.name]}
    if len(whole) < len(parts.segments):
        return manifest.model_copy(update={"parts": parts.only(whole)})
    if twice := parts.listed_twice():
        found.damage(MANIFEST_NAME, f"lists {twice} twice", costs=True)
    return manifest


def _check_spelling(storage: Storage, name: str, manifest: Manifest | None = None) -> None:
    """Raise StoreError unless a file is spelt as it was written: its digest is over its values, not the spaces."""
    data = manifest_bytes(storage, name)
    if not (manifest and is_spelt(manifest, data)) and data != json_bytes(json.loads(data)):
        raise StoreError(MISSPELT)


def is_spelt(manifest: Manifest, data: bytes) -> bool:
    """Whether `data`, which `manifest` was read from, is what `write_manifest` makes of it, byte for byte."""
    start = 0
    for some in manifest_text(manifest, data[-68:-4].decode("ascii", "replace")):  # it was found right when it was read
        if not data.startswith(some, start):
            return False
        start += len(some)
    return start == len(data)


def _oldest(storage: Storage, found: Snapshots) -> int:
    """The first snapshot that was not removed on purpose, by the record of those, which is checked."""
    found.known.add(VACUUMED_NAME)
    try:
        removed = read_vacuumed(storage)
        if VACUUMED_NAME in found.names:
            _check_spelling(storage, VACUUMED_NAME)
    except StoreError as error:
        found.damage(VACUUMED_NAME, error.finding)
        return min(kept_snapshots(storage), default=1)
    return len(removed) + 1


def _read_earlier(storage: Storage, number: int, newest: Manifest | None, found: Snapshots) -> Manifest | None:
    name = snapshot_name(number)
    found.known.add(name)
    try:
        manifest = read_manifest(storage, number)
        found.known |= {segment.name for segment in manifest.segments}
        _check_spelling(storage, name, manifest)
        count = len(manifest.parts)
        manifest = _with_whole_segments(manifest, found, costs=newest is None)
        if newest and len(manifest.parts) < count:
            return None
        if newest and not any(found.segments.values()):
            _check_begins(newest, manifest, found)
        if newest and any(getattr(newest, key) != getattr(manifest, key) for key in _SAME):
            raise StoreError(f"has another codec or other columns than snapshot {newest.snapshot}")
    except StoreError as error:
        found.damage(name, error.finding)
        return None
    return manifest


def _check_begins(newest: Manifest, earlier: Manifest, found: Snapshots) -> None:
    """Raise StoreError unless the newest snapshot begins with the parts of an earlier one, or with what they had.

    Parts of the earlier one that were joined since are noted: their files stay.
    """
    if _begins(newest.parts, earlier.parts):
        return
    now = {part.name: part for part in newest.parts}
    same = all(now.get(part.name, part) == part for part in earlier.parts)
    # The newest one may have fewer shards, where it is an old copy.
    pairs = zip_longest(rows_of_shards(earlier.parts), rows_of_shards(newest.parts))
    begins = takewhile(lambda pair: pair[0] is not None, pairs)
    if not same or not all(there and _what(here) == _what(there) for here, there in begins):
        raise StoreError(f"lists other parts than snapshot {newest.snapshot} begins with")
    found.older |= {part.name: part for part in earlier.parts if part.name not in now}


def _begins(newest: Sequence[PartEntry], earlier: Sequence[PartEntry]) -> bool:
    if isinstance(newest, SegmentedParts) and isinstance(earlier, SegmentedParts):
        return newest.begins_with(earlier)
    return len(newest) >= len(earlier) and all(map(operator.eq, earlier, newest))


def _what(one: ShardRows) -> tuple[str, int, ShardEntry]:
    return one.name, one.rows, one.shard


def _check_others(numbers: list[int], newest: Manifest | None, found: Snapshots) -> None:
    """Manifests that an interrupted append or vacuum left; or of a later snapshot than the newest."""
    found.known |= {snapshot_name(number) for number in numbers}
    later = [number for number in numbers if newest and number > newest.snapshot]
    if newest and later:
        reason = f"is of snapshot {newest.snapshot}, but there was a later one than {max(later)}: an old copy"
        found.damage(MANIFEST_NAME, reason, costs=True)
    left = [snapshot_name(number) for number in numbers if number not in later]
    if left:
        found.notices.append(
            f"an interrupted append or vacuum left {', '.join(left)}; the next one removes or replaces it"
        )
