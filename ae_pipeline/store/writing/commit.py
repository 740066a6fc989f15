"""How a store is written, wherever it lies: claim the codec, deliver the parts, put the manifest, sweep.

    made = create_store(storage, jobs, source, key, Writing(codec, params, name="mnist", git=git_state(root)))
    grown = add_snapshot(made, data, tag, jobs, ...)                   # data and tag as `read_tagged` gives them

Parts are made in a work folder named by what they are made from, so that a run that was cut off is taken up again.
Until the manifest lists them they belong to no store: putting it, by one rename or one conditional put, is the commit.

In a folder, one writer has the lock, and its parts are moved in together. At a URL several may be at work, each as if
it were alone: parts, codec and kept snapshots are only made where there is none, what is there already is taken if it
is right, and the server lets one manifest through. `steps.py` has what every change of a store has in common.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.errors import StoreError, TargetError
from ae_pipeline.files import clear_folder, sha256_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.executors import HERE
from ae_pipeline.store.format.entries import MANIFEST_NAME, SourceEntry
from ae_pipeline.store.format.manifest import (
    CODEC_FOLDER,
    grown_text,
    holds_part_of_store,
    read_manifest,
    settled,
    write_manifest,
)
from ae_pipeline.store.format.part_entries import PartEntry
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.parts import CODEC_FILES
from ae_pipeline.store.storage.folder import Storage, place_of
from ae_pipeline.store.writing.new_manifest import copy_codec, first_manifest, grown
from ae_pipeline.store.writing.shards import Progress, Running, ShardJob, encode_shard, run_jobs
from ae_pipeline.store.writing.steps import (
    Read,
    careless,
    deliver,
    lost,
    put_segments,
    put_snapshot,
    refuse_changed,
    sweep,
)


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
        manifest, segments = settled(manifest, storage, folder)
        put_segments(storage, folder, segments)
        write_manifest(folder, manifest)
        if not storage.publish(folder, MANIFEST_NAME):
            raise lost(storage, folder, "choose another target, or append to it")
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
    key = sha256_json([old.codec.fingerprint, old.made_of])
    with storage.work_folder(writing.work, key) as folder:
        codec = Codec.load(writing.codec_path, choose_device(writing.params.device))
        made = run_jobs(jobs, codec, folder, writing.progress, partial(_deliver, storage), writing.running(storage))
        refuse_changed(storage, tag, "new rows were being encoded; append again")
        new, segments = settled(grown(store, made, name=writing.name, git=writing.git), storage, folder)
        put_segments(storage, folder, segments)
        storage.bring(folder, [*(part.name for part in made.parts), *segments])
        put_snapshot(storage, grown_text(new, old, data), Read(old, data, tag), folder, "append again")
        sweep(storage, new, names)
    return LatentStore(storage, new), made.parts


def _claim(storage: Storage, folder: Path) -> None:
    """Put the codec there before anything is encoded: two writers with different codecs cannot both get further.

    Raises TargetError if another codec is there, or if the server takes a file that it should have refused.
    """
    for name in CODEC_FILES:
        inside, data = f"{CODEC_FOLDER}/{name}", (folder / CODEC_FOLDER / name).read_bytes()
        if storage.create(inside, data):
            if name == CODEC_FILES[0] and storage.create(inside, data):
                raise careless(storage, "If-None-Match")
        elif not storage.holds(inside, data):
            raise TargetError(
                f"{place_of(storage, inside)} is of another codec: an encode that is still running, or was cut off; "
                f"wait for it, or remove {storage.location} if nothing writes it, or choose another target"
            )


def _deliver(storage: Storage, job: ShardJob, codec: Codec, folder: Path, *, kept: str | None = None) -> PartEntry:
    """Make the part of a job in the work folder, or take the one that is there; see `steps.deliver`."""
    return deliver(storage, job.part_name, folder, lambda: encode_shard(job, codec, folder), kept=kept)
