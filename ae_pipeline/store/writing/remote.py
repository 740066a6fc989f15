"""Stores at URLs: the same bytes as in a folder, and one conditional put of the manifest as the commit.

    encode_samples(samples, codec, "s3://bucket/store", params, name="mnist", git=git_state(root))
    append_samples("s3://bucket/store", [more], codec, params, name="mnist", git=git_state(root))

Parts are made one by one in a local work folder and uploaded under their final names; until the manifest lists them
they belong to no store. No file that a manifest may list is ever replaced: parts, codec and kept snapshots are only
made where there is none, and what is there already is taken if it is right. So writers need no lock: each of them works
as if it were alone, and the server lets one manifest through.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, PipelineError, StoreError, TargetError
from ae_pipeline.files import locked_folder, recorded_name, sha256_file, sha256_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.format.manifest import (
    CODEC_FOLDER,
    MANIFEST_NAME,
    PART_NAME,
    SNAPSHOTS_FOLDER,
    Manifest,
    PartEntry,
    SourceEntry,
    kept_snapshots,
    manifest_bytes,
    parse_manifest,
    read_manifest,
    write_manifest,
)
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.parts import CODEC_FILES
from ae_pipeline.store.storage.folder import RemoteStorage, place_of
from ae_pipeline.store.storage.url import RemoteFiles
from ae_pipeline.store.writing.new_manifest import copy_codec, first_manifest, grown
from ae_pipeline.store.writing.plan import Appended, part_number, plan_append, snapshot_key
from ae_pipeline.store.writing.shards import Progress, ShardJob, encode_shard, run_jobs

_NO_TAG = '"00000000000000000000000000000000"'


def refuse_existing_remote(url: str) -> None:
    """Raise TargetError if there is a store at a URL, or none can be made."""
    files = RemoteFiles(url)
    if files.exists(MANIFEST_NAME):
        raise TargetError(f"{files.location} exists already; choose another target, or remove it first")


def is_finished_remote(url: str, jobs: list[ShardJob]) -> bool:
    """Whether there is a store of these jobs in its first snapshot, with the codec and all parts in their sizes."""
    files = RemoteStorage(url)
    try:
        manifest = read_manifest(files)
        LatentStore(files, manifest).codec_header()
        return (
            manifest.snapshot == 1
            and [part.job for part in manifest.parts] == [job.digest for job in jobs]
            and all(files.size(part.name) == part.bytes for part in manifest.parts)
        )
    except (CodecError, StoreError, FileNotFoundError):
        return False


def create_remote(
    url: str,
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
    """`encoding.create_store` at a URL. Raises TargetError if another writer was faster."""
    files = RemoteFiles(url)
    with _work_folder(files, work, key) as folder:
        copy = copy_codec(codec_path, folder / CODEC_FOLDER, jobs[0].codec_fingerprint)
        _claim(files, folder)
        codec = Codec.load(folder / CODEC_FOLDER, choose_device(params.device))
        # The manifest's columns and probe are taken from the first part.
        parts = run_jobs(jobs, codec, folder, progress, partial(_deliver, files, kept=jobs[0].part_name))
        manifest = first_manifest(folder, codec, copy, parts, params, source=source, git=git)
        _commit(files, folder, manifest, None)
    return LatentStore(files, manifest)


def append_remote(
    url: str,
    sets: list[SampleSet],
    codec_path: Path,
    params: EncodeParams,
    *,
    name: str,
    git: dict[str, Any],
    work: Path | None,
    progress: Progress,
) -> Appended:
    """`appending.append_samples` at a URL where there is a store."""
    files = RemoteFiles(url)
    files.refuse_unreplaceable()
    data, tag = _read_tagged(files)
    old = parse_manifest(data, place_of(files, MANIFEST_NAME))
    store = LatentStore(files, old)
    jobs, skipped = plan_append(store, sets, codec_path, params)
    if not jobs:
        _sweep(files, old)
        return Appended(store, [], skipped)
    with _work_folder(files, work, snapshot_key(old)) as folder:
        codec = Codec.load(codec_path, choose_device(params.device))
        parts = run_jobs(jobs, codec, folder, progress, partial(_deliver, files))
        new = grown(store, parts, name=name, git=git)
        _keep(files, old, data)
        _commit(files, folder, new, tag)
    return Appended(LatentStore(files, new), parts, skipped)


@contextmanager
def _work_folder(files: RemoteFiles, work: Path | None, key: str) -> Iterator[Path]:
    """Where parts are until they are uploaded. In `work`, what an interrupted run left is used again."""
    if work is None:
        with tempfile.TemporaryDirectory(prefix="ae-pipeline-") as folder:
            yield Path(folder)
        return
    name = PurePosixPath(files.base).name
    with locked_folder(work / f".{name}.{sha256_json([recorded_name(files.location), key])[:16]}.partial") as folder:
        yield folder
        shutil.rmtree(folder)


def _claim(files: RemoteFiles, folder: Path) -> None:
    """Upload the codec before anything is encoded: two writers with different codecs cannot both get further.

    Raises TargetError if another codec is there, or if the server takes a file that it should have refused.
    """
    for name in CODEC_FILES:
        inside, data = f"{CODEC_FOLDER}/{name}", (folder / CODEC_FOLDER / name).read_bytes()
        if files.create(inside, data):
            if name == CODEC_FILES[0] and files.create(inside, data):
                raise _careless(files, "If-None-Match")
        elif not files.holds(inside, data):
            raise TargetError(
                f"{place_of(files, inside)} is of another codec: an encode that is still running, or was cut off; wait "
                f"for it, or remove {files.location} if nothing writes it, or choose another target"
            )


def _deliver(files: RemoteFiles, job: ShardJob, codec: Codec, folder: Path, *, kept: str | None = None) -> PartEntry:
    """Make the part of a job and upload it, or take the one that is there if it is whole and of the same job.

    What is there wins over what was made here: another writer's manifest may list it by now, and on another processor
    the same job can give other bytes.
    """
    path = folder / job.part_name
    for _ in range(3):
        found = sha256_file(path) if files.fetch(job.part_name, path) else None
        entry = encode_shard(job, codec, folder)
        if found == entry.sha256 or (found is None and files.upload(job.part_name, path)):
            if job.part_name != kept:
                path.unlink()
            return entry
        if found is not None:
            _discard(files, job.part_name)
    raise TargetError(f"another run is writing {place_of(files, job.part_name)}; wait for it, or choose another target")


def _discard(files: RemoteFiles, name: str) -> None:
    """Remove a part that is not what its name says. Raises TargetError if a store lists it by now."""
    if files.exists(MANIFEST_NAME) and name in {part.name for part in read_manifest(files).parts}:
        raise TargetError(
            f"{place_of(files, name)} is damaged, and was written by another run meanwhile; verify the store"
        )
    files.remove(name)


def _keep(files: RemoteFiles, old: Manifest, data: bytes) -> None:
    """Keep the manifest of the snapshot that was read, byte for byte, before it is replaced."""
    name = f"{SNAPSHOTS_FOLDER}/{old.snapshot}.json"
    if not files.create(name, data) and not files.holds(name, data):
        raise StoreError(
            f"{place_of(files, name)} is not the manifest of snapshot {old.snapshot}; remove or restore it"
        )
    if files.replace(name, data, _NO_TAG):
        raise _careless(files, "If-Match")


def _commit(files: RemoteFiles, folder: Path, manifest: Manifest, tag: str | None) -> None:
    """Put the manifest: the one moment of the commit. Raises TargetError if somebody else was faster."""
    write_manifest(folder, manifest)
    won = files.commit(MANIFEST_NAME, (folder / MANIFEST_NAME).read_bytes(), replacing=tag)
    if won:
        _sweep(files, manifest)
        return
    shutil.rmtree(folder, ignore_errors=True)
    _sweep(files, read_manifest(files))
    raise TargetError(
        f"{files.location} was written by another run meanwhile, which changed nothing here and loses nothing there; "
        + ("append again" if tag else "choose another target, or append to it")
    )


def _sweep(files: RemoteFiles, manifest: Manifest) -> None:
    """Remove parts that no writer can commit any more; what cannot be removed does no harm.

    Appends count parts on from the highest number in the newest manifest, so a part that is not listed and not above it
    can only be of a writer who started before this snapshot, and whose manifest will be refused. Parts above it may be
    in use by an append that is running: they stay until a snapshot has passed their number.
    """
    listed = {part.name for part in manifest.parts}
    highest = max(part_number(name) for name in listed)
    try:
        names = {name for name in files.names() if re.match(PART_NAME, name) and part_number(name) <= highest}
        if names - listed:
            for snapshot in kept_snapshots(files):
                listed |= {part.name for part in read_manifest(files, snapshot).parts}
        for name in sorted(names - listed):
            files.remove(name)
    except PipelineError:
        return


def _read_tagged(files: RemoteFiles) -> tuple[bytes, str]:
    """The newest manifest, and the tag of just these bytes."""
    while True:
        tag = files.tag(MANIFEST_NAME)
        data = manifest_bytes(files)
        if files.tag(MANIFEST_NAME) == tag:
            return data, tag


def _careless(files: RemoteFiles, header: str) -> TargetError:
    return TargetError(
        f"{files.location}: its server ignores the condition {header} of a put, so two writers could spoil one store; "
        "use a server that honours it, or encode into a folder and copy that"
    )
