"""How a store is written, wherever it lies: claim the codec, deliver the parts, put the manifest, sweep.

    made = create_store(storage, jobs, source, key, Writing(codec, params, name="mnist", git=git_state(root)))
    grown = add_snapshot(made, data, tag, jobs, ...)                   # data and tag as `read_tagged` gives them

Parts are made in a work folder named by what they are made from, so that a run that was cut off is taken up again.
Until the manifest lists them they belong to no store: putting it, by one rename or one conditional put, is the commit.

In a folder, one writer has the lock, and its parts are moved in together. At a URL several may be at work, each as if
it were alone: parts, codec and kept snapshots are only made where there is none, what is there already is taken if it
is right, and the server lets one manifest through.
"""

import re
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.errors import PipelineError, StoreError, TargetError
from ae_pipeline.files import clear_folder, sha256_file, sha256_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.executors import HERE
from ae_pipeline.store.format.entries import SourceEntry
from ae_pipeline.store.format.manifest import (
    CODEC_FOLDER,
    MANIFEST_NAME,
    PART_NAME,
    Manifest,
    PartEntry,
    grown_text,
    holds_part_of_store,
    kept_snapshots,
    manifest_bytes,
    part_number,
    read_manifest,
    snapshot_name,
    write_manifest,
)
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.parts import CODEC_FILES
from ae_pipeline.store.storage.folder import Storage, place_of
from ae_pipeline.store.writing.new_manifest import copy_codec, first_manifest, grown
from ae_pipeline.store.writing.shards import Progress, Running, ShardJob, encode_shard, run_jobs

_NO_TAG = '"00000000000000000000000000000000"'


@dataclass(frozen=True)
class Writing:
    """How a store is written, whatever goes into it; the fields as in `encode_samples`."""

    codec_path: Path
    params: EncodeParams
    name: str
    git: dict[str, Any]
    work: Path | None
    progress: Progress
    execute: ExecuteParams = HERE
    allow_partial: bool = False

    def running(self, storage: Storage) -> Running:
        """Where the jobs run whose parts go there."""
        return Running(self.execute, storage, self.allow_partial)


def refuse_taken(storage: Storage) -> None:
    """Raise TargetError unless a new store can be made there, and StoreError where one has lost its manifest."""
    # Where writers bring their files one by one, it may also be one that is not finished.
    if not storage.shared and not storage.exists(MANIFEST_NAME) and holds_part_of_store(storage):
        read_manifest(storage)  # raises: it says what to do
    storage.refuse_taken(MANIFEST_NAME)


def create_store(storage: Storage, jobs: list[ShardJob], source_digest: str, key: str, writing: Writing) -> LatentStore:
    """Make a store of the jobs, as its first snapshot; `key` names the work folder."""
    rows = sum(job.shard.rows for job in jobs)
    source = SourceEntry(name=writing.name, digest=source_digest, rows=rows)
    with storage.work_folder(writing.work, key) as folder:
        copy = copy_codec(writing.codec_path, folder / CODEC_FOLDER, jobs[0].codec_fingerprint)
        if storage.shared:
            _claim(storage, folder)
        codec = Codec.load(folder / CODEC_FOLDER, choose_device(writing.params.device))
        # The manifest's columns and probe are taken from the first part.
        deliver = partial(_deliver, storage, kept=jobs[0].part_name)
        made = run_jobs(jobs, codec, folder, writing.progress, deliver, writing.running(storage))
        first = made.parts[0].name
        if not (folder / first).exists() and not storage.fetch(first, folder / first):
            raise StoreError(f"{place_of(storage, first)} was removed meanwhile; encode again")
        manifest = first_manifest(folder, codec, copy, made, writing.params, source=source, git=writing.git)
        # Left by an interrupted run, and not listed.
        clear_folder(folder, keep={CODEC_FOLDER, *(part.name for part in made.parts)})
        write_manifest(folder, manifest)
        if not storage.publish(folder, MANIFEST_NAME):
            raise _lost(storage, folder, "choose another target, or append to it")
        sweep(storage, manifest)
    return LatentStore(storage, manifest)


def add_snapshot(
    store: LatentStore, data: bytes, tag: str, jobs: list[ShardJob], writing: Writing, names: list[str] | None
) -> tuple[LatentStore, list[PartEntry]]:
    """Add the parts of the jobs to a store whose manifest is `data`, with this tag; what it is then, and the parts.

    `names` are those of the store's files, from who has it locked.
    """
    storage, old = store.storage, store.manifest
    # One folder for whatever comes after this snapshot: parts in it are told apart by their names.
    key = sha256_json([old.codec.fingerprint, [part.job for part in old.parts]])
    with storage.work_folder(writing.work, key) as folder:
        codec = Codec.load(writing.codec_path, choose_device(writing.params.device))
        made = run_jobs(jobs, codec, folder, writing.progress, partial(_deliver, storage), writing.running(storage))
        # A lock binds those who ask for it: nothing is put into a store that somebody else has put in this place.
        if storage.tag(MANIFEST_NAME) != tag:
            raise TargetError(f"{storage.location} was changed while new rows were being encoded; append again")
        storage.bring(folder, [part.name for part in made.parts])
        new = grown(store, made, name=writing.name, git=writing.git)
        _keep(storage, old, data)
        if not storage.replace(MANIFEST_NAME, grown_text(new, old, data), tag):
            raise _lost(storage, folder, "append again")
        sweep(storage, new, names)
    return LatentStore(storage, new), made.parts


def read_tagged(storage: Storage) -> tuple[bytes, str]:
    """The newest manifest, and the tag of just these bytes."""
    while True:
        data = manifest_bytes(storage)
        tag = storage.tag(MANIFEST_NAME)
        if storage.holds(MANIFEST_NAME, data):
            return data, tag


def sweep(storage: Storage, manifest: Manifest, names: list[str] | None = None) -> None:
    """Remove parts that no writer can commit any more, of `names` or all; what cannot be removed does no harm.

    That is every part that no snapshot lists, for whoever has the lock. Where several write, appends count parts on
    from the highest number in the newest manifest. So a part that is not listed and not above it can only be of a
    writer who started before this snapshot, and whose manifest will be refused. Parts above it may be in use by an
    append that is running: they stay until a snapshot has passed their number.
    """
    listed = {part.name for part in manifest.parts}
    # Whoever makes a missing part gives it the number that it was to have.
    awaited = {entry.number for entry in manifest.missing}
    try:
        left = {name for name in {*(names or storage.names())} - listed if re.match(PART_NAME, name)}
        left = {name for name in left if part_number(name) not in awaited}
        if left and storage.shared:
            highest = max(part_number(name) for name in listed)
            left = {name for name in left if part_number(name) <= highest}
        for snapshot in kept_snapshots(storage) if left else []:
            left -= {part.name for part in read_manifest(storage, snapshot).parts}
        for name in sorted(left):
            storage.remove(name)
    except (PipelineError, OSError):
        return


def _claim(storage: Storage, folder: Path) -> None:
    """Put the codec there before anything is encoded: two writers with different codecs cannot both get further.

    Raises TargetError if another codec is there, or if the server takes a file that it should have refused.
    """
    for name in CODEC_FILES:
        inside, data = f"{CODEC_FOLDER}/{name}", (folder / CODEC_FOLDER / name).read_bytes()
        if storage.create(inside, data):
            if name == CODEC_FILES[0] and storage.create(inside, data):
                raise _careless(storage, "If-None-Match")
        elif not storage.holds(inside, data):
            raise TargetError(
                f"{place_of(storage, inside)} is of another codec: an encode that is still running, or was cut off; "
                f"wait for it, or remove {storage.location} if nothing writes it, or choose another target"
            )


def _deliver(storage: Storage, job: ShardJob, codec: Codec, folder: Path, *, kept: str | None = None) -> PartEntry:
    """Make the part of a job in the work folder, or take the one that is there if it is whole and of the same job.

    Where several write, it is put into its place at once. What is there wins over what was made here: another writer's
    manifest may list it by now, and on another processor the same job can give other bytes.
    """
    path = folder / job.part_name
    for _ in range(3):
        there = storage.fetch(job.part_name, path)
        if not storage.shared:
            return encode_shard(job, codec, folder)
        found = sha256_file(path) if there else None
        entry = encode_shard(job, codec, folder)
        if found == entry.sha256 or (found is None and storage.create(job.part_name, path)):
            if job.part_name != kept:
                path.unlink()
            return entry
        if found is not None:
            _discard(storage, job.part_name)
    raise TargetError(
        f"another run is writing {place_of(storage, job.part_name)}; wait for it, or choose another target"
    )


def _discard(storage: Storage, name: str) -> None:
    """Remove a part that is not what its name says. Raises TargetError if a store lists it by now."""
    if storage.exists(MANIFEST_NAME) and name in {part.name for part in read_manifest(storage).parts}:
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
        raise _careless(storage, "If-Match")


def _lost(storage: Storage, folder: Path, advice: str) -> TargetError:
    """Another writer was faster: what was made for nothing goes."""
    shutil.rmtree(folder, ignore_errors=True)
    if storage.shared:
        sweep(storage, read_manifest(storage))
    return TargetError(
        f"{storage.location} was written by another run meanwhile, which changed nothing here and loses nothing there; "
        + advice
    )


def _careless(storage: Storage, header: str) -> TargetError:
    return TargetError(
        f"{storage.location}: its server ignores the condition {header} of a put, so two writers could spoil one "
        "store; use a server that honours it, or encode into a folder and copy that"
    )
