"""Give a damaged store its bytes back, from the data it was made from.

    repaired = repair_store(store, [SampleSet.open(data)], git=git_state(root))
    repaired.files, repaired.failed

Parts that are damaged are made again beside the store, compared with the SHA-256 in the manifest, and only then moved
in. Where they cannot come out the same, nothing is changed, unless new bytes are accepted: those are a new snapshot.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, PipelineError, StoreError, first_line
from ae_pipeline.files import finished_file, locked_folder, make_folder, write_json
from ae_pipeline.store.care.lost_manifest import rebuild_folder, rebuild_manifest
from ae_pipeline.store.care.part_repairs import repair_folder, repair_parts
from ae_pipeline.store.care.snapshot_checks import damage_of_file, json_bytes, read_snapshots
from ae_pipeline.store.care.snapshots import VACUUMED_NAME, read_vacuumed
from ae_pipeline.store.care.vacuum import temporary_files
from ae_pipeline.store.care.verify import Verified, damaged_codec_files, verify_store
from ae_pipeline.store.format.manifest import (
    CODEC_FOLDER,
    MANIFEST_NAME,
    SNAPSHOTS_FOLDER,
    manifest_bytes,
    parse_manifest,
    read_manifest,
    refuse_links,
)
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import LocalStorage
from ae_pipeline.store.writing.shards import Progress


@dataclass
class Repaired:
    """What a repair did. Files that are in no list were whole."""

    store: str
    files: list[str] = field(default_factory=list)
    """Given back byte for byte."""
    made_anew: list[str] = field(default_factory=list)
    """A manifest, and parts with it, that hold the rows of the data; not known to be the bytes that were lost."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Parts that have new bytes under a new name, by their former name; there is a new snapshot then."""
    failed: dict[str, str] = field(default_factory=dict)
    """Files that are still damaged, and why."""
    snapshot: int | None = None
    """The newest one."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "whole": not self.failed}


def repair_store(
    store: Path,
    sources: list[SampleSet],
    *,
    codec_path: Path | None = None,
    accept_new_bytes: bool = False,
    device: str = "auto",
    git: dict[str, Any],
    progress: Progress = lambda rows: None,
) -> Repaired:
    """Repair what `verify_store` finds damaged, as far as the data and the codec in `codec_path` allow.

    A part is made again by the store's own codec. `device` should be that of the run that wrote it. Whatever stops a
    repair leaves each file as it was, or whole. Raises TargetError (another run is writing the store), StoreError,
    DataError, CodecError.
    """
    found = verify_store(store)  # raises if there is no store: a lock would make a folder
    if found.whole and not _left(store):
        return Repaired(str(store), snapshot=found.snapshot)
    refuse_links(store)
    with locked_folder(store):
        for path in _left(store):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        repair = _Repair(store, sources, codec_path, accept_new_bytes, device, git, progress)
        repair.codec()  # first: a lost manifest is made again with it
        repair.manifests(verify_store(store))
        if MANIFEST_NAME not in repair.done.failed:
            repair.codec()
            repair.parts(verify_store(store))
            repair.done.snapshot = read_manifest(store).snapshot
    return repair.done


def _left(store: Path) -> list[Path]:
    """What a repair that was cut off left, beside the store and in it."""
    folders = [folder for folder in (repair_folder(store), rebuild_folder(store)) if folder.exists()]
    return [*temporary_files(store), *folders]


class _Repair:
    """One repair of a store that is locked: the manifest before the parts, for it says what they should be."""

    def __init__(
        self,
        store: Path,
        sources: list[SampleSet],
        codec_copy: Path | None,
        accept_new_bytes: bool,
        device: str,
        git: dict[str, Any],
        progress: Progress,
    ):
        self.done = Repaired(str(store))
        self._store, self._sources, self._codec_copy, self._device = store, sources, codec_copy, device
        self._options: dict[str, Any] = {"accept_new_bytes": accept_new_bytes, "git": git, "progress": progress}

    def manifests(self, found: Verified) -> None:
        """Those of all snapshots, and the record of removed ones."""
        for damage in found.damaged:
            name = damage.file
            if name != MANIFEST_NAME and not name.startswith(f"{SNAPSHOTS_FOLDER}/"):
                continue
            if self._is_only_misspelt(name):
                write_json(self._store / name, json.loads(manifest_bytes(LocalStorage(self._store), name)))
                self.done.files.append(name)
            elif name == MANIFEST_NAME:
                self._rebuild(damage.reason)
            elif name == VACUUMED_NAME:
                self.done.failed[name] = f"{damage.reason}; `ae-pipeline vacuum` writes it anew"
            else:
                self.done.failed[name] = (
                    f"{damage.reason}; it cannot be made again, but the newest snapshot lists all of its rows: "
                    "`ae-pipeline vacuum` removes the earlier snapshots"
                )

    def codec(self) -> None:
        """From a copy elsewhere; by what the newest manifest that can be read says of it."""
        manifest = read_snapshots(LocalStorage(self._store), None).manifest
        if manifest is None:
            return
        recorded: dict[Any, str] = dict(manifest.codec.files)
        other = self._codec_copy
        for name, reason in damaged_codec_files(LatentStore(self._store, manifest)):
            inside = f"{CODEC_FOLDER}/{name}"
            if other is None:
                self.done.failed[inside] = f"{reason}; give a folder with a copy of the codec (--codec)"
            elif damage_of_file(LocalStorage(other), name, recorded.get(name), manifest.codec.bytes):
                self.done.failed[inside] = f"{reason}, and {other / name} is not a copy of it"
            else:
                make_folder(self._store / CODEC_FOLDER)
                with finished_file(self._store / inside) as temporary:
                    shutil.copyfile(other / name, temporary)
                self.done.files.append(inside)

    def parts(self, found: Verified) -> None:
        """From the data."""
        store = LatentStore.open(self._store)
        damaged = {damage.file: damage.reason for damage in found.damaged}
        parts = [part for part in store.manifest.parts if part.name in damaged]
        if not parts:
            return
        try:
            store.codec_header()
            codec = Codec.load(store.codec_path, choose_device(self._device))
        except (CodecError, StoreError):
            reason = "cannot be made again without the store's codec, which is damaged"
            self.done.failed |= {part.name: reason for part in parts}
            return
        done = repair_parts(store, parts, self._sources, codec, **self._options)
        self.done.files += done.same
        self.done.replaced = {name: entry.name for name, entry in done.replaced.items()}
        self.done.failed |= done.failed
        if done.replaced:  # earlier snapshots went with it
            gone = f"{SNAPSHOTS_FOLDER}/"
            self.done.failed = {name: why for name, why in self.done.failed.items() if not name.startswith(gone)}

    def _is_only_misspelt(self, name: str) -> bool:
        """Whether all values of a manifest are as they were, which their digest says, and only its spelling is not."""
        try:
            data = manifest_bytes(LocalStorage(self._store), name)
            if name == VACUUMED_NAME:
                read_vacuumed(self._store)
            else:
                parse_manifest(data, name)
            return data != json_bytes(json.loads(data))
        except (StoreError, OSError):
            return False

    def _rebuild(self, reason: str) -> None:
        if not self._sources:
            self.done.failed[MANIFEST_NAME] = (
                f"{reason}; give all data sets of the store with --source, in the order in which they were added, to "
                "make it again; earlier snapshots that are whole can be read as they are (--snapshot)"
            )
            return
        try:
            folder = self._codec_to_rebuild_with()
            codec = Codec.load(folder, choose_device(self._device))
            written, proven = rebuild_manifest(self._store, self._sources, codec, folder, **self._options)
            (self.done.files if proven else self.done.made_anew).extend(written)
        except PipelineError as error:
            self.done.failed[MANIFEST_NAME] = f"{reason}; {error}"

    def _codec_to_rebuild_with(self) -> Path:
        """The store's own; where that is lost with all manifests, the copy. The names of parts prove that it is one."""
        inside = self._store / CODEC_FOLDER
        try:
            Codec.load(inside, "cpu")
        except CodecError as error:
            if self._codec_copy is None:
                raise CodecError(
                    f"cannot be made again without the store's codec, which is damaged ({first_line(error)}); give a "
                    "folder with a copy of the codec (--codec)"
                ) from None
            return self._codec_copy
        return inside
