"""Encode a data set into a new latent store. `commit.py` has the steps, `appending.py` adds to a store."""

import shutil
from pathlib import Path
from typing import Any

from ae_pipeline.codec.header import CodecHeader, read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import LinkedStoreError, StoreError, TargetError
from ae_pipeline.files import sha256_file, sha256_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.executors import HERE
from ae_pipeline.store.format.entries import MANIFEST_NAME
from ae_pipeline.store.format.manifest import parse_manifest
from ae_pipeline.store.format.part_entries import ShardRows, part_number, rows_of_shards
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import Storage, place_of
from ae_pipeline.store.storage.place import open_storage
from ae_pipeline.store.writing.checks import check_names, check_samples
from ae_pipeline.store.writing.commit import Writing, add_snapshot, create_store, refuse_taken
from ae_pipeline.store.writing.shards import Progress, ShardJob, plan_jobs
from ae_pipeline.store.writing.steps import read_tagged


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
    execute: ExecuteParams = HERE,
    allow_partial: bool = False,
) -> LatentStore:
    """Write a latent store at `store`, a folder or a URL such as s3://bucket/store, that must not exist yet.

    A store that is whole and of just this work is left as it is; one of this work in which shards are missing gets
    these, as its next snapshot.

    `name` is recorded as the data set's name; `git` as in `provenance.git_state`. `work` is where unfinished work is
    kept (default: beside the store; of a URL, a temporary folder). `execute` says where shards are encoded. With
    `allow_partial`, a store is written although some shards could not be, which its manifest lists. Peak memory does
    not depend on the number of rows.
    Raises TargetError, DataError, CodecError, UnreachableError, WorkerError, and ConfigError for a URL that no store
    can be at.
    """
    storage = open_storage(store)
    if not storage.exists(MANIFEST_NAME):
        refuse_taken(storage)
    header = read_header(codec_path)
    check_samples(samples, header, codec_path)
    check_names(samples)
    jobs = _jobs(samples, header, params)
    # A run that was stopped after its last step is to be repeated like any other.
    found = _finished(storage, jobs)
    if found:
        progress(samples.rows)
        return found
    writing = Writing(codec_path, params, name, git, work, progress, execute, allow_partial)
    if left := _left_of(storage, jobs):
        return _complete(storage, left, writing)
    refuse_taken(storage)
    key = sha256_json([job.digest for job in jobs])
    return create_store(storage, jobs, samples.digest, key, writing)


def _left_of(storage: Storage, jobs: list[ShardJob]) -> list[ShardJob]:
    """List the jobs that are missing in a store of all others; none if it is no such store.

    A file that was mended has another digest, so its job is known by its place, and by its number of rows.
    """
    try:
        manifest = LatentStore.open(storage).manifest
    except LinkedStoreError:
        raise
    except (StoreError, OSError):
        return []
    held = {_job_of(one) for one in rows_of_shards(manifest.parts)}
    missing = {entry.number: entry for entry in manifest.missing}
    left = [job for job in jobs if not held & {job.digest, job.part_name}]
    places = [(job.number, job.first_row, job.shard.rows) for job in left]
    wanted = [(number, missing[number].first_row, missing[number].rows) for number in sorted(missing)]
    return left if places == wanted and len(held) + len(left) == len(jobs) else []


def _complete(storage: Storage, left: list[ShardJob], writing: Writing) -> LatentStore:
    """Add what is missing to a store that was written without it."""
    with storage.locked() as names:
        data, tag = read_tagged(storage)
        old = LatentStore(storage, parse_manifest(data, place_of(storage, MANIFEST_NAME), storage))
        missing = {entry.number for entry in old.manifest.missing}
        if {job.number for job in left} != missing:
            raise TargetError(f"{storage.location} was changed meanwhile; run the same command again")
        writing.progress(old.manifest.totals.rows)
        return add_snapshot(old, data, tag, left, writing, names)[0]


def finished_or_removed(store: Path, samples: SampleSet, codec_path: Path, params: EncodeParams) -> LatentStore | None:
    """The finished store that `encode_samples` would make of the others; what else is at that place is removed."""
    found = _finished(open_storage(store), _jobs(samples, read_header(codec_path), params)) if store.exists() else None
    if store.exists() and not found:
        shutil.rmtree(store)
    return found


def _jobs(samples: SampleSet, header: CodecHeader, params: EncodeParams) -> list[ShardJob]:
    return plan_jobs(((samples, shard) for shard in samples.shards), header.fingerprint, params)


def _number(one: ShardRows) -> int:
    return part_number(one.name)


def _job_of(one: ShardRows) -> str:
    """The digest of the job that made a part; of one that was joined since, its name, which has 16 digits of it."""
    return one.name if one.part.is_joined else one.part.job


def _finished(storage: Storage, jobs: list[ShardJob]) -> LatentStore | None:
    """The store of just these jobs, undamaged: in a folder all its bytes are read, once."""
    try:
        store = LatentStore.open(storage)
        manifest = store.manifest
        held = sorted(rows_of_shards(manifest.parts), key=_number)
        whole = (
            not manifest.missing
            and len(held) == len(jobs)
            and all(_job_of(one) in (job.digest, job.part_name) for one, job in zip(held, jobs, strict=True))
            and all(sha256_file(store.codec_path / name) == digest for name, digest in manifest.codec.files.items())
            and all(storage.size(part.name) == part.bytes for part in manifest.parts)
            and (storage.shared or all(sha256_file(store.path / part.name) == part.sha256 for part in manifest.parts))
        )
    except LinkedStoreError:
        raise  # it may be just that one
    except (StoreError, OSError):
        return None
    return store if whole else None
