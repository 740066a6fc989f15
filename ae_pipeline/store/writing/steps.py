"""The steps that every change of a store has in common, wherever it lies; `commit.py` says how they work together.

data, tag = read_tagged(storage)
part = deliver(storage, name, folder, make)              # made, or taken from a run that was cut off
storage.bring(folder, [part.name])
put_snapshot(storage, text, Read(old, data, tag), folder, "append again")
sweep(storage, new)
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ae_pipeline.errors import PipelineError, StoreError, TargetError
from ae_pipeline.files import sha256_file
from ae_pipeline.store.format.entries import MANIFEST_NAME
from ae_pipeline.store.format.manifest import Manifest, kept_snapshots, manifest_bytes, read_manifest, snapshot_name
from ae_pipeline.store.format.part_entries import PART_NAME, PartEntry, part_number
from ae_pipeline.store.format.segment_file import SEGMENT_NAME, segment_snapshot
from ae_pipeline.store.storage.folder import Storage, place_of

_NO_TAG = '"00000000000000000000000000000000"'


@dataclass(frozen=True)
class Read:
    """The newest manifest as a writer has read it: its values, bytes and tag."""

    manifest: Manifest
    data: bytes
    tag: str


def read_tagged(storage: Storage) -> tuple[bytes, str]:
    """The newest manifest, and the tag of just these bytes."""
    while True:
        data = manifest_bytes(storage)
        tag = storage.tag(MANIFEST_NAME)
        if storage.holds(MANIFEST_NAME, data):
            return data, tag


def refuse_changed(storage: Storage, tag: str, meanwhile: str) -> None:
    """Raise TargetError unless the manifest is still the one with this tag.

    A lock binds those who ask for it: nothing is put into a store that somebody else has put in this place.
    """
    if storage.tag(MANIFEST_NAME) != tag:
        raise TargetError(f"{storage.location} was changed while {meanwhile}")


def put_snapshot(storage: Storage, text: bytes, old: Read, folder: Path, again: str) -> None:
    """Commit a snapshot whose parts are there: keep the manifest before it, and put the new one in its place.

    Raises TargetError where another writer was faster; `again` says what to do then.
    """
    _keep(storage, old.manifest, old.data)
    if not storage.replace(MANIFEST_NAME, text, old.tag):
        raise lost(storage, folder, again)


def put_segments(storage: Storage, folder: Path, names: list[str]) -> None:
    """Bring new segments to where several write, before the manifest that lists them; else they come with the parts.

    Their names have their digests: what is there already is the same, or damaged. Raises StoreError.
    """
    for name in names if storage.shared else ():
        data = (folder / name).read_bytes()
        if not storage.create(name, data) and not storage.holds(name, data):
            raise StoreError("is not what its name says", place=place_of(storage, name), advice="remove it, then again")


def sweep(storage: Storage, manifest: Manifest, names: list[str] | None = None) -> None:
    """Remove parts and segments that no writer can commit any more, of `names` or all; what cannot be does no harm.

    That is every part that no snapshot lists, for whoever has the lock. Where several write, appends count parts on
    from the highest number in the newest manifest. So a part that is not listed and not above it can only be of a
    writer who started before this snapshot, and whose manifest will be refused. Parts above it may be in use by an
    append that is running: they stay until a snapshot has passed their number. A segment has the number of the snapshot
    that it is for, which one writer alone can commit.
    """
    # Whoever makes a missing part gives it the number that it was to have.
    awaited = {entry.number for entry in manifest.missing}
    try:
        names = storage.names() if names is None else names
        left = manifest.unlisted([name for name in names if name.startswith("part-")])
        left = {name for name in left if re.match(PART_NAME, name) and part_number(name) not in awaited}
        segments = {name for name in names if name.startswith("_") and re.match(SEGMENT_NAME, name)}
        segments -= {one.name for one in manifest.segments}
        if storage.shared:
            highest = manifest.last_number
            left = {name for name in left if part_number(name) <= highest}
            segments = {name for name in segments if segment_snapshot(name) <= manifest.snapshot}
        for snapshot in kept_snapshots(storage) if left or segments else []:
            kept = read_manifest(storage, snapshot)
            left = kept.unlisted(left)
            segments -= {one.name for one in kept.segments}
        for name in (*sorted(left), *sorted(segments)):
            storage.remove(name)
    except (PipelineError, OSError):
        return


def deliver(
    storage: Storage, name: str, folder: Path, make: Callable[[], PartEntry], *, kept: str | None = None
) -> PartEntry:
    """Have `make` make a part in the work folder, or take the one that is there if it is whole and of the same job.

    Where several write, it is put into its place at once. What is there wins over what was made here: another writer's
    manifest may list it by now, and on another processor the same job can give other bytes.
    """
    path = folder / name
    for _ in range(3):
        there = storage.fetch(name, path)
        if not storage.shared:
            return make()
        found = sha256_file(path) if there else None
        entry = make()
        if found == entry.sha256 or (found is None and storage.create(name, path)):
            if name != kept:
                path.unlink()
            return entry
        if found is not None:
            _discard(storage, name)
    raise TargetError(f"another run is writing {place_of(storage, name)}; wait for it, or choose another target")


def _discard(storage: Storage, name: str) -> None:
    """Remove a part that is not what its name says. Raises TargetError if a store lists it by now."""
    if storage.exists(MANIFEST_NAME) and not read_manifest(storage).unlisted([name]):
        raise TargetError(
            f"{place_of(storage, name)} is damaged, and was written by another run meanwhile; verify the store"
        )
    storage.remove(name)


def _keep(storage: Storage, old: Manifest, data: bytes) -> None:
    """Keep the manifest of the snapshot that was read, byte for byte, before it is replaced."""
    name = snapshot_name(old.snapshot)
    if not storage.shared:
        storage.remove(name)  # an append that was cut off may have kept it already
    if not storage.create(name, data) and not storage.holds(name, data):
        raise StoreError(
            f"{place_of(storage, name)} is not the manifest of snapshot {old.snapshot}; remove or restore it"
        )
    if storage.replace(name, data, _NO_TAG):
        raise careless(storage, "If-Match")


def lost(storage: Storage, folder: Path, advice: str) -> TargetError:
    """The error for a writer who was too late; what was made for nothing goes."""
    shutil.rmtree(folder, ignore_errors=True)
    if storage.shared:
        sweep(storage, read_manifest(storage))
    return TargetError(
        f"{storage.location} was written by another run meanwhile, which changed nothing here and loses nothing there; "
        + advice
    )


def careless(storage: Storage, header: str) -> TargetError:
    """The error for a server that takes a file that it should have refused by this condition."""
    return TargetError(
        f"{storage.location}: its server ignores the condition {header} of a put, so two writers could spoil one "
        "store; use a server that honours it, or encode into a folder and copy that"
    )
