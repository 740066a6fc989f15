"""Give a damaged store its bytes back, from the data it was made from.

    repaired = repair_store(store, [SampleSet.open(data)], git=git_state(root))
    repaired.files, repaired.failed

Parts that are damaged are made again beside the store, compared with the SHA-256 in the manifest, and only then moved
in. Where they cannot come out the same, nothing is changed, unless new bytes are accepted: those are a new snapshot.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, PipelineError
from ae_pipeline.files import finished_file, make_folder, sync_folder, write_json
from ae_pipeline.store.care.findings import Repaired, Verified
from ae_pipeline.store.care.lost_manifest import LostManifest
from ae_pipeline.store.care.make_again import empty_folder, make_again
from ae_pipeline.store.care.part_repairs import Means, repair_parts
from ae_pipeline.store.care.snapshot_checks import MISSPELT, damage_of_file, read_snapshots
from ae_pipeline.store.care.snapshots import VACUUMED_NAME
from ae_pipeline.store.care.vacuum import repair_folder
from ae_pipeline.store.care.verify import damaged_codec_files, verify_store
from ae_pipeline.store.format.manifest import (
    CODEC_FOLDER,
    MANIFEST_NAME,
    SNAPSHOTS_FOLDER,
    manifest_bytes,
    read_manifest,
)
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import LocalStorage
from ae_pipeline.store.writing.checks import check_samples
from ae_pipeline.store.writing.new_manifest import copy_codec, first_manifest
from ae_pipeline.store.writing.shards import Progress


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
    storage = LocalStorage(store)
    found = verify_store(storage)  # raises if there is no store: a lock would make a folder
    done = Repaired(str(store), snapshot=found.snapshot)
    if found.whole and not storage.temporary() and not repair_folder(store).exists():
        return done
    with storage.locked():
        if repair_folder(store).exists():
            with empty_folder(store):
                pass  # and it goes
        means = Means(sources, codec_path, accept_new_bytes, device, git, progress)
        _repair_codec(store, means, done)  # first: a lost manifest is made again with it
        _repair_manifests(store, verify_store(store), means, done)
        if MANIFEST_NAME not in done.failed:
            _repair_codec(store, means, done)
            repair_parts(LatentStore.open(store), verify_store(store).damaged_files, means, done)
            done.snapshot = read_manifest(store).snapshot
    return done


def _repair_codec(store: Path, means: Means, done: Repaired) -> None:
    """Copy the codec's files from elsewhere, if they are what the newest manifest that can be read says of them."""
    manifest = read_snapshots(LocalStorage(store), None).manifest
    if manifest is None:
        return
    recorded: dict[Any, str] = dict(manifest.codec.files)
    other = means.codec_copy
    for name, reason in damaged_codec_files(LatentStore(store, manifest)):
        inside = f"{CODEC_FOLDER}/{name}"
        if other is None:
            done.failed[inside] = f"{reason}; give a folder with a copy of the codec (--codec)"
        elif damage_of_file(LocalStorage(other), name, recorded.get(name), manifest.codec.bytes):
            done.failed[inside] = f"{reason}, and {other / name} is not a copy of it"
        else:
            make_folder(store / CODEC_FOLDER)
            with finished_file(store / inside) as temporary:
                shutil.copyfile(other / name, temporary)
            done.files.append(inside)


def _repair_manifests(store: Path, found: Verified, means: Means, done: Repaired) -> None:
    """Repair the manifests of all snapshots, and the record of removed ones."""
    for damage in found.damaged:
        name = damage.file
        if name != MANIFEST_NAME and not name.startswith(f"{SNAPSHOTS_FOLDER}/"):
            continue
        if damage.reason == MISSPELT:
            write_json(store / name, json.loads(manifest_bytes(LocalStorage(store), name)))
            done.files.append(name)
        elif name == MANIFEST_NAME:
            _rebuild(store, damage.reason, means, done)
        elif name == VACUUMED_NAME:
            done.failed[name] = f"{damage.reason}; `ae-pipeline vacuum` writes it anew"
        else:
            done.failed[name] = (
                f"{damage.reason}; it cannot be made again, but the newest snapshot lists all of its rows: "
                "`ae-pipeline vacuum` removes the earlier snapshots"
            )


def _rebuild(store: Path, reason: str, means: Means, done: Repaired) -> None:
    """Make the newest manifest again, from all of the data."""
    if not means.sources:
        done.failed[MANIFEST_NAME] = (
            f"{reason}; give all data sets of the store with --source, in the order in which they were added, to "
            "make it again; earlier snapshots that are whole can be read as they are (--snapshot)"
        )
        return
    try:
        written, proven = _manifest_again(store, means)
        (done.files if proven else done.made_anew).extend(written)
    except PipelineError as error:
        done.failed[MANIFEST_NAME] = f"{reason}; {error}"


def _manifest_again(store: Path, means: Means) -> tuple[list[str], bool]:
    """Write the manifest that the data gives, and the parts that are not in the store as the data gives them.

    Returns what was written, and whether it is proven to be what was lost. Without proof nothing is written, unless
    new bytes are accepted. Raises PipelineError.
    """
    path = _codec_to_rebuild_with(store, means.codec_copy)
    codec = Codec.load(path, choose_device(means.device))
    for samples in means.sources:
        check_samples(samples, codec.header, path)
    lost = LostManifest(store, means.sources)
    jobs = lost.plan(codec.fingerprint)
    with empty_folder(store) as folder:
        parts = list(make_again(jobs, codec, folder, means.progress))
        entry = copy_codec(path, folder / CODEC_FOLDER, codec.fingerprint)
        source = lost.possible_sources(parts)[0]
        made = first_manifest(folder, codec, entry, parts, lost.settings, source=source, git=means.git)
        values, proven = lost.propose(made)
        other = [part.name for part in parts if not lost.has(part)]
        if not proven and not means.accept_new_bytes:
            raise lost.not_proven(len(other), len(parts))
        for name in other:
            os.replace(folder / name, store / name)
        sync_folder(store)
        write_json(store / MANIFEST_NAME, values)
    return [*other, MANIFEST_NAME], proven


def _codec_to_rebuild_with(store: Path, copy: Path | None) -> Path:
    """The store's own; where that is lost with all manifests, the copy. The names of parts prove that it is one."""
    inside = store / CODEC_FOLDER
    try:
        Codec.load(inside, "cpu")
    except CodecError as error:
        if copy is None:
            raise CodecError(
                f"cannot be made again without the store's codec, which is damaged ({error})",
                advice="give a folder with a copy of the codec (--codec)",
            ) from None
        return copy
    return inside
