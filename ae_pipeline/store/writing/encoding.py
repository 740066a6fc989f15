"""Encode a data set into a latent store: one input shard makes one part, by a pure function of codec and shard.

The parts are written in a work folder named by what they are made from, so that a run that was cut off is taken up
again; the manifest is written last, and one rename makes the folder the store. `appending.py` adds to a store with
the same pieces.
"""

import shutil
from pathlib import Path
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.codec.header import CodecHeader, read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import LinkedStoreError, StoreError, TargetError
from ae_pipeline.files import (
    clear_folder,
    is_free,
    recorded_name,
    refuse_existing,
    rename_folder,
    sha256_file,
    sha256_json,
)
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.format.manifest import (
    CODEC_FOLDER,
    MANIFEST_NAME,
    SourceEntry,
    holds_part_of_store,
    read_manifest,
    write_manifest,
)
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import as_place, open_storage
from ae_pipeline.store.storage.work_folder import work_folder
from ae_pipeline.store.writing.checks import check_names, check_samples
from ae_pipeline.store.writing.new_manifest import copy_codec, first_manifest
from ae_pipeline.store.writing.shards import Progress, ShardJob, plan_jobs, run_jobs


def encode_samples(
    samples: SampleSet,
    codec_path: Path,
    store: Path | str,
    params: EncodeParams,
    *,
    name: str,
    git: dict[str, Any],
    work: Path | None = None,
    progress: Progress = lambda rows: None,
) -> LatentStore:
    """Write a latent store at `store`, a folder or a URL such as s3://bucket/store, that must not exist yet.

    A store that is whole and of just this work is left as it is.

    `name` is recorded as the data set's name; `git` as in `provenance.git_state`. `work` is where unfinished work is
    kept (default: beside the store; of a URL, a temporary folder). Peak memory does not depend on the number of rows.
    Raises TargetError, DataError, CodecError, UnreachableError.
    """
    store = as_place(store)
    if not has_manifest(store):
        refuse_existing_store(store)
    header = read_header(codec_path)
    check_samples(samples, header, codec_path)
    check_names(samples)
    source = SourceEntry(name=recorded_name(name), digest=samples.digest, rows=samples.rows)
    jobs = _jobs(samples, header, params)
    # A run that was stopped after its last step is to be repeated like any other.
    if is_finished(store, jobs):
        progress(samples.rows)
        return LatentStore.open(store)
    refuse_existing_store(store)
    key = sha256_json([job.digest for job in jobs])
    return create_store(store, jobs, codec_path, params, source=source, key=key, git=git, work=work, progress=progress)


def remove_other(store: Path, samples: SampleSet, codec_path: Path, params: EncodeParams) -> None:
    """Remove what is at `store`, unless it is the finished store that `encode_samples` would make of the others."""
    if store.exists() and not is_finished(store, _jobs(samples, read_header(codec_path), params)):
        shutil.rmtree(store)


def has_manifest(store: Path | str) -> bool:
    """Whether there is a store at a folder or URL; a place without a manifest is none."""
    try:
        open_storage(store).size(MANIFEST_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # reading it says why
    return True


def refuse_existing_store(store: Path | str) -> None:
    """Raise TargetError unless a new store can be made at a folder or URL."""
    if isinstance(store, Path):
        if not has_manifest(store) and store.is_dir() and holds_part_of_store(open_storage(store)):
            read_manifest(store)  # raises: it says what to do about a manifest that was lost
        refuse_existing(store)
        for folder in store.resolve().parents:
            if has_manifest(folder):
                raise TargetError(f"{store} lies inside the store {folder}; choose a target outside it")
        return
    from ae_pipeline.store.writing.remote import refuse_existing_remote

    refuse_existing_remote(store)


def create_store(
    store: Path | str,
    jobs: list[ShardJob],
    codec_path: Path,
    params: EncodeParams,
    *,
    source: SourceEntry,
    key: str,
    git: dict[str, Any],
    work: Path | None,
    progress: Progress,
) -> LatentStore:
    """Run the jobs in the work folder of `key`, and make that folder the store, as its first snapshot."""
    if isinstance(store, str):
        from ae_pipeline.store.writing.remote import create_remote

        return create_remote(
            store, jobs, codec_path, params, source=source, key=key, git=git, work=work, progress=progress
        )
    with work_folder(store, work, key) as folder:
        codec = Codec.load(codec_path, choose_device(params.device))
        entries = run_jobs(jobs, codec, folder, progress)
        copy = copy_codec(codec_path, folder / CODEC_FOLDER, jobs[0].codec_fingerprint)
        manifest = first_manifest(folder, codec, copy, entries, params, source=source, git=git)
        # Left by an interrupted run, and not listed.
        clear_folder(folder, keep={CODEC_FOLDER, *(part.name for part in manifest.parts)})
        write_manifest(folder, manifest)
        try:
            rename_folder(folder, store)
        except TargetError:
            if not is_free(store):  # somebody else's store has the name now: this work is of no use
                shutil.rmtree(folder)
            raise
    return LatentStore.open(store)


def _jobs(samples: SampleSet, header: CodecHeader, params: EncodeParams) -> list[ShardJob]:
    return plan_jobs(((samples, shard) for shard in samples.shards), header.fingerprint, params)


def is_finished(store: Path | str, jobs: list[ShardJob]) -> bool:
    """Whether there is a store of these jobs, in its first snapshot and undamaged: reads all its bytes.

    Of a store at a URL, only the sizes of its parts are compared.
    """
    if isinstance(store, str):
        from ae_pipeline.store.writing.remote import is_finished_remote

        return is_finished_remote(store, jobs)
    try:
        manifest = read_manifest(store)
        files = {part.name: part.sha256 for part in manifest.parts}
        files |= {f"{CODEC_FOLDER}/{name}": digest for name, digest in manifest.codec.files.items()}
        return (
            manifest.snapshot == 1
            and [part.job for part in manifest.parts] == [job.digest for job in jobs]
            and all(sha256_file(store / name) == digest for name, digest in files.items())
        )
    except LinkedStoreError:
        raise  # it may be just that one
    except (StoreError, OSError):
        return False
