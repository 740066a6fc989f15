"""The manifests of a store: the newest one, those of earlier snapshots, and the record of those that were removed."""

import hashlib
import json
from dataclasses import dataclass, field

from ae_pipeline.errors import NewerFormatError, StoreError, first_line
from ae_pipeline.files import json_bytes
from ae_pipeline.store.care.findings import Damage
from ae_pipeline.store.care.snapshots import VACUUMED_NAME, read_vacuumed
from ae_pipeline.store.format.manifest import (
    LARGEST_MANIFEST,
    MANIFEST_NAME,
    Manifest,
    holds_part_of_store,
    kept_snapshots,
    manifest_text,
    read_manifest,
    snapshot_name,
)
from ae_pipeline.store.storage.folder import Storage, read_whole

MISSPELT = "was changed between its values, which are as they were"
_NAMED = 100
# What all snapshots of a store have in common.
_SAME = ("codec", "samples", "latent", "columns")


@dataclass
class Snapshots:
    """What the manifests of a store are."""

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

    def damage(self, name: str, reason: str, *, costs: bool = False) -> None:
        """Note that a file is damaged or missing; `costs`: rows that it listed may be listed nowhere else."""
        found = reason if name in self.names else "is missing"
        self.damaged.append(Damage(name, found, None if costs else 0))


def read_snapshots(storage: Storage, snapshot: int | None) -> Snapshots:
    """Read all manifests that should be there, or that of one snapshot.

    Raises StoreError if there is no store, or no such snapshot.
    """
    found = Snapshots(storage.names())
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


def damage_of_file(storage: Storage, name: str, wanted: str | None, most: int) -> str | None:
    """What is wrong with a file of at most `most` bytes whose SHA-256 is known; None if nothing is."""
    if wanted is None:
        return "has no digest in the manifest"
    try:
        found = hashlib.sha256(read_whole(storage, name, most=most)).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {first_line(error)}"
    except StoreError as error:
        return error.finding
    return None if found == wanted else "was changed: its SHA-256 is not the one in the manifest"


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
    return manifest


def _check_spelling(storage: Storage, name: str, manifest: Manifest | None = None) -> None:
    """Raise StoreError unless a file is spelt as it was written: its digest is over its values, not the spaces."""
    data = read_whole(storage, name, most=LARGEST_MANIFEST)
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
        _check_spelling(storage, name, manifest)
        if newest and newest.parts[: len(manifest.parts)] != manifest.parts:
            raise StoreError(f"lists other parts than snapshot {newest.snapshot} begins with")
        if newest and any(getattr(newest, key) != getattr(manifest, key) for key in _SAME):
            raise StoreError(f"has another codec or other columns than snapshot {newest.snapshot}")
    except StoreError as error:
        found.damage(name, error.finding)
        return None
    return manifest


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
