"""Add data sets to a latent store that grows: one call, one new snapshot, and no shard twice.

    appended = append_samples(store, [SampleSet.open(new)], codec, params.encode, name="inbox", git=git_state(root))
    appended.store.manifest.snapshot, appended.parts, appended.skipped

The new parts are made beside the store, moved into it, and count from the moment when `_manifest.json` is replaced:
that one rename is the commit. Whatever stops a run leaves the old snapshot or the new one, whole; the next append takes
up what it left. The manifests of earlier snapshots stay in `_snapshots/`.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.codec.header import CodecHeader, read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DataError, TargetError
from ae_pipeline.files import finished_file, locked_folder, recorded_name, sha256_json, sync_folder
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.format.manifest import (
    MANIFEST_NAME,
    PART_NAME,
    SNAPSHOTS_FOLDER,
    Manifest,
    PartEntry,
    SourceEntry,
    is_spelt,
    manifest_bytes,
    read_manifest,
    refuse_links,
    snapshot_path,
    write_manifest,
)
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import LocalStorage, as_place, open_storage
from ae_pipeline.store.storage.work_folder import work_folder
from ae_pipeline.store.writing.checks import attribute_columns, check_columns, check_names, check_samples
from ae_pipeline.store.writing.encoding import create_store, has_manifest, refuse_existing_store
from ae_pipeline.store.writing.new_manifest import grown
from ae_pipeline.store.writing.plan import Appended, new_pieces, plan_append, snapshot_key
from ae_pipeline.store.writing.shards import Progress, ShardJob, plan_jobs, run_jobs


def append_samples(
    store: Path | str,
    sets: list[SampleSet],
    codec_path: Path,
    params: EncodeParams,
    *,
    name: str,
    git: dict[str, Any],
    work: Path | None = None,
    progress: Progress = lambda rows: None,
) -> Appended:
    """Add all shards of `sets` that the store does not hold yet, as one snapshot; without any, nothing is changed.

    Shards are told apart by content (`SampleSet.shard_digest`). A store that does not exist is made, as snapshot 1.
    `store` is a folder or a URL. `name`, `git`, `work` and `progress` as in `encode_samples`; `work` must be
    on the file system of a store that is a folder.
    Raises TargetError (another run is writing the store), DataError (other columns or layout), CodecError, StoreError.
    """
    store = as_place(store)
    header = read_header(codec_path)
    for samples in sets:
        check_samples(samples, header, codec_path)
    if not has_manifest(store):
        return _create(store, sets, codec_path, header, params, name=name, git=git, work=work, progress=progress)
    if isinstance(store, str):
        from ae_pipeline.store.writing.remote import append_remote

        return append_remote(store, sets, codec_path, params, name=name, git=git, work=work, progress=progress)
    with locked_folder(store):
        old = read_manifest(store)
        refuse_links(store)
        jobs, skipped = plan_append(LatentStore(store, old), sets, codec_path, params)
        if not jobs:
            _clear_leftovers(store, old)
            return Appended(LatentStore(store, old), [], skipped)
        with work_folder(store, work, snapshot_key(old)) as folder:
            _take_back(store, folder, old, jobs)
            parts = run_jobs(jobs, Codec.load(codec_path, choose_device(params.device)), folder, progress)
            _check_unchanged(store, old)
            _move(folder, store, parts)
        new = grown(LatentStore(store, old), parts, name=name, git=git)
        _commit(store, new)
    return Appended(LatentStore(store, new), parts, skipped)


def _create(
    store: Path | str,
    sets: list[SampleSet],
    codec_path: Path,
    header: CodecHeader,
    params: EncodeParams,
    **options: Any,
) -> Appended:
    refuse_existing_store(store)
    if not sets:
        raise DataError(f"no data set to make {store} of; give at least one")
    for samples in sets:
        check_names(samples)
        check_columns(samples.files[0], attribute_columns(samples), attribute_columns(sets[0]), sets[0].files[0])
    pieces, skipped = new_pieces(sets, set())
    jobs = plan_jobs(pieces, header.fingerprint, params)
    shards = [job.samples.shard_digest(job.shard) for job in jobs]
    rows = sum(job.shard.rows for job in jobs)
    source = SourceEntry(name=recorded_name(options.pop("name")), digest=sha256_json(shards), rows=rows)
    key = sha256_json([header.fingerprint, []])
    made = create_store(store, jobs, codec_path, params, source=source, key=key, **options)
    return Appended(made, made.manifest.parts, skipped)


def _take_back(store: Path, folder: Path, old: Manifest, jobs: list[ShardJob]) -> None:
    """Move parts that an interrupted append left in the store to where `encode_shard` checks them before use."""
    listed = {part.name for part in old.parts}
    for job in jobs:
        left = store / job.part_name
        if job.part_name not in listed and left.exists() and not left.is_symlink():
            os.replace(left, folder / job.part_name)
    _clear_leftovers(store, old)


def _clear_leftovers(store: Path, old: Manifest) -> None:
    """Remove what an interrupted append left: parts that no snapshot lists, and temporary files."""
    for name in {*LocalStorage(store).names()} - {part.name for part in old.parts}:
        folder, _, last = name.rpartition("/")
        if re.match(PART_NAME, name) or (
            folder in ("", SNAPSHOTS_FOLDER) and last.startswith(".") and last.endswith(".tmp")
        ):
            (store / name).unlink()


def _check_unchanged(store: Path, old: Manifest) -> None:
    """The lock binds those who ask for it: a store that somebody put in this place meanwhile is not overwritten."""
    if not is_spelt(old, manifest_bytes(open_storage(store))) and read_manifest(store) != old:
        raise TargetError(f"{store} was changed while new rows were being encoded; append again")


def _move(folder: Path, store: Path, parts: list[PartEntry]) -> None:
    """Into the store, where no snapshot lists them yet; the work folder goes, with whatever else is in it."""
    for part in parts:
        try:
            os.replace(folder / part.name, store / part.name)
        except OSError as error:
            raise TargetError(
                f"cannot move {folder / part.name} into {store}: {error.strerror}; choose a work folder on the same "
                "file system"
            ) from None
    sync_folder(store)
    shutil.rmtree(folder)
    # After the commit nobody would look for it again.
    sync_folder(folder.parent)


def _commit(store: Path, new: Manifest) -> None:
    """Keep the old manifest, then replace it: the rename in `write_manifest` is the one moment of the commit."""
    with finished_file(snapshot_path(store, new.snapshot - 1)) as temporary:
        shutil.copyfile(store / MANIFEST_NAME, temporary)
    sync_folder(store)
    write_manifest(store, new)
