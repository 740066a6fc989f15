"""The manifests of a store: the newest one, those of earlier snapshots, and the record of those that were removed."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from ae_pipeline.errors import NewerFormatError, StoreError, first_line
from ae_pipeline.store.care.snapshots import VACUUMED_NAME, Vacuumed, read_vacuumed
from ae_pipeline.store.format.manifest import (
    LARGEST_MANIFEST,
    MANIFEST_NAME,
    Manifest,
    holds_part_of_store,
    is_spelt,
    kept_snapshots,
    read_manifest,
    snapshot_name,
)
from ae_pipeline.store.storage.folder import LocalStorage, Storage, place_of, read_whole, refuse_cache_link

_BLOCK = 8 << 20
_NAMED = 100
# What all snapshots of a store have in common.
_SAME = ("codec", "samples", "latent", "columns")


@dataclass
class Snapshots:
    """What the manifests of a store are."""

    names: list[str]
    """All files of the store."""
    manifest: Manifest | None = None
    """Of the snapshot to check. If the newest is damaged, the latest that is not; None if all are."""
    newest: bool = False
    """Whether that is the newest snapshot."""
    earlier: list[int] = field(default_factory=list)
    """Snapshots before the newest that can be opened."""
    damaged: list[tuple[str, str, bool]] = field(default_factory=list)
    """File, what is wrong, and whether rows that the file listed are listed nowhere else."""
    notices: list[str] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    """Names of all manifests that belong to the store, or are in the notices."""

    def damage(self, storage: Storage, name: str, error: StoreError, *, costs: bool = False) -> None:
        """Note that a file is damaged or missing."""
        self.damaged.append((name, _reason(error, storage, name) if name in self.names else "is missing", costs))


def read_snapshots(storage: Storage, snapshot: int | None) -> Snapshots:
    """Read all manifests that should be there, or that of one snapshot.

    Raises StoreError if there is no store, or no such snapshot.
    """
    found = Snapshots(storage.names())
    if isinstance(storage, LocalStorage):
        for name in storage.links():
            refuse_cache_link(storage.path / name)
    if snapshot is not None:
        return _read_one(storage, snapshot, found)
    newest = _read_newest(storage, found)
    removed = _read_removed(storage, found)
    kept = set(kept_snapshots(storage))
    last = newest.snapshot if newest else max(kept, default=0) + 1
    missing = [number for number in range(removed.oldest, last) if number not in kept]
    for number in sorted({*missing[:_NAMED], *kept}.intersection(range(removed.oldest, last))):
        manifest = _read_earlier(storage, number, newest, found)
        if manifest:
            found.earlier.append(number)
            found.manifest = manifest
    if len(missing) > _NAMED:
        found.damaged.append((snapshot_name(missing[_NAMED]), f"is missing, as {len(missing):,} in all are", False))
    _check_others([number for number in sorted(kept) if not removed.oldest <= number < last], newest, found)
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


def damage_of_file(storage: Storage, name: str, wanted: str | None, most: int) -> str | None:
    """What is wrong with a file of at most `most` bytes whose SHA-256 is known; None if nothing is."""
    if wanted is None:
        return "has no digest in the manifest"
    whole = hashlib.sha256()
    try:
        size = storage.size(name)
        if size > most:
            return f"has {size} bytes, expected at most {most}"
        for start in range(0, size, _BLOCK):
            whole.update(storage.read_range(name, start, _BLOCK))
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {first_line(error)}"
    return None if whole.hexdigest() == wanted else "was changed: its SHA-256 is not the one in the manifest"


def json_bytes(values: Any) -> bytes:
    """A JSON file as `files.write_json` writes it."""
    return (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _read_one(storage: Storage, snapshot: int, found: Snapshots) -> Snapshots:
    name = snapshot_name(snapshot)
    try:
        found.manifest = read_manifest(storage, snapshot)
        _check_spelling(storage, name if name in found.names else MANIFEST_NAME, found.manifest)
    except NewerFormatError:
        raise
    except StoreError as error:
        if name not in found.names:
            raise
        found.damage(storage, name, error, costs=found.manifest is None)
    return found


def _read_newest(storage: Storage, found: Snapshots) -> Manifest | None:
    found.known.add(MANIFEST_NAME)
    manifest = None
    try:
        manifest = read_manifest(storage)
        _check_spelling(storage, MANIFEST_NAME, manifest)
    except NewerFormatError:
        raise
    except StoreError as error:
        if not holds_part_of_store(storage):
            raise
        found.damage(storage, MANIFEST_NAME, error, costs=manifest is None)
    return manifest


def _check_spelling(storage: Storage, name: str, manifest: Manifest | None = None) -> None:
    """A digest is over a manifest's values: it says nothing of the spaces between them."""
    data = read_whole(storage, name, most=LARGEST_MANIFEST)
    if not (manifest and is_spelt(manifest, data)) and data != json_bytes(json.loads(data)):
        raise StoreError("was changed between its values, which are as they were")


def _read_removed(storage: Storage, found: Snapshots) -> Vacuumed:
    found.known.add(VACUUMED_NAME)
    try:
        removed = read_vacuumed(storage)
        if VACUUMED_NAME in found.names:
            _check_spelling(storage, VACUUMED_NAME)
    except StoreError as error:
        found.damage(storage, VACUUMED_NAME, error)
        return Vacuumed(parts=[0] * (min(kept_snapshots(storage), default=1) - 1))
    return removed


def _read_earlier(storage: Storage, number: int, newest: Manifest | None, found: Snapshots) -> Manifest | None:
    name = snapshot_name(number)
    found.known.add(name)
    try:
        manifest = read_manifest(storage, number)
        _check_spelling(storage, name, manifest)
        if newest and newest.parts[: len(manifest.parts)] != manifest.parts:
            raise StoreError(f"lists other parts than snapshot {newest.snapshot} begins with")
        if newest and any(getattr(newest, key) != getattr(manifest, key) for key in _SAME):
            raise StoreError(f"has another codec or other columns than snapshot {newest.snapshot}")
    except StoreError as error:
        found.damage(storage, name, error)
        return None
    return manifest


def _check_others(numbers: list[int], newest: Manifest | None, found: Snapshots) -> None:
    """Manifests that an interrupted append or vacuum left; or of a later snapshot than the newest."""
    found.known |= {snapshot_name(number) for number in numbers}
    later = [number for number in numbers if newest and number > newest.snapshot]
    if newest and later:
        reason = f"is of snapshot {newest.snapshot}, but there was a later one than {max(later)}: an old copy"
        found.damaged.append((MANIFEST_NAME, reason, True))
    left = [snapshot_name(number) for number in numbers if number not in later]
    if left:
        found.notices.append(
            f"an interrupted append or vacuum left {', '.join(left)}; the next one removes or replaces it"
        )


def _reason(error: StoreError, storage: Storage, name: str) -> str:
    """A message without the file and the advice, which the report gives once."""
    text = str(error).removeprefix(f"{place_of(storage, name)} ")
    return text.split("; restore")[0].removeprefix("is damaged: ")
