"""Remove from a store what no kept snapshot needs: earlier manifests, their parts, and what interrupted runs left.

    vacuumed = vacuum_store(store, keep=2)
    vacuumed.snapshots, vacuumed.files, vacuumed.bytes

Order: first what no manifest can list, then the record that these snapshots are gone (`snapshots.py`), then their
manifests, then files. So whatever stops it, every snapshot that is left is whole.
"""

import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ae_pipeline.errors import ConfigError, StoreError, TargetError
from ae_pipeline.files import locked_folder, sync_folder
from ae_pipeline.store.care.snapshots import note_removed, read_vacuumed
from ae_pipeline.store.format.manifest import (
    CODEC_FOLDER,
    MANIFEST_NAME,
    PART_NAME,
    SNAPSHOTS_FOLDER,
    Manifest,
    kept_snapshots,
    read_manifest,
    refuse_links,
    snapshot_path,
)
from ae_pipeline.store.storage.folder import LocalStorage
from ae_pipeline.store.storage.work_folder import partial_folder

REPAIR = "parts-made-again"
"""The work folder of a repair is called `.<store>.parts-made-again.partial`."""


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

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


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
    newest = read_manifest(store)
    refuse_links(store)
    there = kept_snapshots(LocalStorage(store))
    if there and there[-1] > newest.snapshot:
        raise StoreError(
            f"{store / MANIFEST_NAME} is of snapshot {newest.snapshot}, but {snapshot_path(store, there[-1])} is of a "
            "later one: it is an old copy; put the newest one back first"
        )
    try:
        first = noted = read_vacuumed(store).oldest
    except StoreError:  # it is damaged, and is made anew
        first, noted = min(there, default=newest.snapshot), 0
    oldest = max(newest.snapshot - keep + 1, first)
    lost = set(range(oldest, newest.snapshot)).difference(there)
    if lost:
        raise StoreError(
            f"{snapshot_path(store, max(lost))} is missing, and cannot be made again; keep "
            f"{newest.snapshot - max(lost)} or fewer"
        )
    kept = [read_manifest(store, number) for number in range(oldest, newest.snapshot)]
    # The newest one's number is there after an append that was cut off before its commit.
    gone = [number for number in there if number < oldest or number == newest.snapshot]
    left = _left(store, [*kept, newest])
    folders = _unfinished(store)
    temporary = temporary_files(store)
    paths = [*(snapshot_path(store, number) for number in gone), *sorted([*left, *temporary]), *folders]
    found = Vacuum(
        str(store),
        kept=[manifest.snapshot for manifest in [*kept, newest]],
        snapshots=[number for number in gone if number != newest.snapshot],
        files=[_name(path, store) for path in paths],
        bytes=sum(file.stat().st_size for path in paths for file in _files(path)),
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
        _remove(store, [snapshot_path(store, number) for number in gone], left)
    return found


def _left(store: Path, kept: list[Manifest]) -> list[Path]:
    """Parts that no kept snapshot lists."""
    listed = {part.name for manifest in kept for part in manifest.parts}
    parts = [path for path in store.iterdir() if re.match(PART_NAME, path.name) and not path.is_dir()]
    return [path for path in parts if path.name not in listed]


def repair_folder(store: Path) -> Path:
    """Name the folder in which a repair makes parts again. Nobody needs it afterwards."""
    return partial_folder(store, None, REPAIR)


def temporary_files(store: Path) -> list[Path]:
    """Files of a store that were being written when a run was cut off; or are, by who has locked the store."""
    folders = [folder for folder in (store, store / CODEC_FOLDER, store / SNAPSHOTS_FOLDER) if folder.is_dir()]
    files = [path for folder in folders for path in folder.iterdir() if not path.is_dir()]
    return [path for path in files if re.fullmatch(r"\..*\.tmp", path.name)]


def _unfinished(store: Path) -> list[Path]:
    """Work folders beside the store that no run is using."""
    pattern = rf"\.{re.escape(store.absolute().name)}\.([0-9a-f]{{16}}|{REPAIR})\.partial"
    folders = [path for path in store.absolute().parent.iterdir() if re.fullmatch(pattern, path.name) and path.is_dir()]
    free = []
    for folder in sorted(folders):
        with suppress(TargetError), locked_folder(folder):
            free.append(folder)
    return free


def _remove(store: Path, manifests: list[Path], files: list[Path]) -> None:
    for path in manifests:
        path.unlink()
    if manifests:
        sync_folder(store / SNAPSHOTS_FOLDER)  # before a file goes that a removed manifest lists
    for path in files:
        path.unlink()
    for folder in {path.parent for path in files}:
        sync_folder(folder)


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def _name(path: Path, store: Path) -> str:
    return f"{path.name}/" if path.is_dir() else path.relative_to(store).as_posix()
