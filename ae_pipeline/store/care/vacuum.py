"""Remove from a store what no kept snapshot needs: earlier manifests, their parts, and what interrupted runs left.

    vacuumed = vacuum_store(store, keep=2)
    vacuumed.snapshots, vacuumed.files, vacuumed.bytes

Order: first what no manifest can list, then the record that these snapshots are gone (`snapshots.py`), then their
manifests, then files. So whatever stops it, every snapshot that is left is whole.
"""

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ae_pipeline.errors import ConfigError, StoreError, TargetError
from ae_pipeline.files import locked_folder, sync_folder
from ae_pipeline.store.care.snapshots import note_removed, read_vacuumed
from ae_pipeline.store.format.entries import MANIFEST_NAME, SNAPSHOTS_FOLDER
from ae_pipeline.store.format.manifest import kept_snapshots, read_manifest, snapshot_name
from ae_pipeline.store.format.part_entries import PART_NAME
from ae_pipeline.store.format.segment_file import SEGMENT_NAME
from ae_pipeline.store.storage.folder import LocalStorage
from ae_pipeline.store.storage.work_folder import partial_folder, unfinished_work


@dataclass
class Vacuum:
    """What was removed, or would be."""

    store: str
    kept: list[int]
    """Snapshots that can be opened."""
    snapshots: list[int]
    """Snapshots that cannot be opened any more."""
    files: list[str] = field(default_factory=list)
    """All files that are removed, manifests included; folders of interrupted runs end in `/`."""
    bytes: int = 0


def vacuum_store(store: Path, keep: int = 1, *, dry_run: bool = False) -> Vacuum:
    """Keep the newest `keep` snapshots and remove everything that is not theirs; `dry_run` only says what that is.

    Who has a removed snapshot open can go on as long as the newest has its parts too, and is told otherwise.
    Raises TargetError (another run is writing the store), StoreError (a manifest that is to be kept is damaged).
    """
    if keep < 1:
        raise ConfigError(f"cannot keep {keep} snapshots; the newest one always stays: give at least 1")
    read_manifest(store)  # raises if there is no store; before a lock makes a folder
    with locked_folder(store):
        return vacuum_locked(store, keep, dry_run=dry_run)


def vacuum_locked(store: Path, keep: int, *, dry_run: bool = False) -> Vacuum:
    """Do what `vacuum_store` does, for a caller who has locked the store."""
    storage, newest = LocalStorage(store), read_manifest(store)
    names = storage.own_names()
    there = kept_snapshots(storage)
    if there and there[-1] > newest.snapshot:
        raise StoreError(
            f"{store / MANIFEST_NAME} is of snapshot {newest.snapshot}, but {store / snapshot_name(there[-1])} is of a "
            "later one: it is an old copy; put the newest one back first"
        )
    try:
        first = noted = len(read_vacuumed(store)) + 1
    except StoreError:  # it is damaged, and is made anew
        first, noted = min(there, default=newest.snapshot), 0
    oldest = max(newest.snapshot - keep + 1, first)
    lost = set(range(oldest, newest.snapshot)).difference(there)
    if lost:
        raise StoreError(
            f"{store / snapshot_name(max(lost))} is missing, and cannot be made again; keep "
            f"{newest.snapshot - max(lost)} or fewer"
        )
    kept = [*(read_manifest(store, number) for number in range(oldest, newest.snapshot)), newest]
    parts = {name for name in names if re.match(PART_NAME, name)}
    segments = {name for name in names if re.match(SEGMENT_NAME, name)}
    for manifest in kept:
        parts = manifest.unlisted(parts)
        segments -= {segment.name for segment in manifest.segments}
    left = [store / name for name in (*parts, *segments)]
    # The newest one's number is there after an append that was cut off before its commit.
    gone = [number for number in there if number < oldest or number == newest.snapshot]
    manifests = [store / snapshot_name(number) for number in gone]
    temporary = [store / name for name in storage.temporary()]
    folders = _unfinished(store)
    paths = [*manifests, *sorted([*left, *temporary]), *folders]
    found = Vacuum(
        str(store),
        kept=[manifest.snapshot for manifest in kept],
        snapshots=[number for number in gone if number != newest.snapshot],
        files=[f"{path.name}/" if path in folders else path.relative_to(store).as_posix() for path in paths],
        bytes=sum(file.stat().st_size for path in paths for file in [path, *path.rglob("*")] if file.is_file()),
    )
    if not dry_run:
        # First what frees space and needs no record: a full disk has no room for one.
        for path in temporary:
            path.unlink()
        for folder in folders:
            with suppress(TargetError), locked_folder(folder):  # a run may have taken it up meanwhile
                shutil.rmtree(folder)
        if oldest > noted:
            note_removed(store, oldest - 1)
        _remove(store, manifests, left)
    return found


def repair_folder(store: Path) -> Path:
    """Name the folder in which a repair makes parts again. Nobody needs it afterwards."""
    return partial_folder(store, None, "parts-made-again")


def _unfinished(store: Path) -> list[Path]:
    """Work folders beside the store that no run is using."""
    store, free = store.absolute(), []
    for folder in filter(Path.is_dir, [*unfinished_work(store), repair_folder(store)]):
        with suppress(TargetError), locked_folder(folder):
            free.append(folder)
    return free


def _remove(store: Path, manifests: list[Path], parts: list[Path]) -> None:
    for path in manifests:
        path.unlink()
    if manifests:
        sync_folder(store / SNAPSHOTS_FOLDER)  # before a part goes that a removed manifest lists
    for path in parts:
        path.unlink()
    for folder in {store, *(path.parent for path in parts)}:
        sync_folder(folder)
