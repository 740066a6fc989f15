"""Add data sets to a latent store that grows: one call, one new snapshot, and no shard twice.

    appended = append_samples(store, [SampleSet.open(new)], codec, params.encode, name="inbox", git=git_state(root))
    appended.store.manifest.snapshot, appended.parts, appended.skipped

Whatever stops a run leaves the old snapshot or the new one, whole; the next append takes up what it left. The manifests
of earlier snapshots stay in `_snapshots/`. `commit.py` has the steps.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ae_pipeline.codec.header import CodecHeader, read_header
from ae_pipeline.data.samples import SampleSet, Shard
from ae_pipeline.errors import CodecError, DataError
from ae_pipeline.files import sha256_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.executors import HERE
from ae_pipeline.store.format.entries import MANIFEST_NAME
from ae_pipeline.store.format.manifest import Manifest, parse_manifest
from ae_pipeline.store.format.part_entries import MissingEntry, PartEntry, part_number, rows_of_shards
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import Storage, place_of
from ae_pipeline.store.storage.place import open_storage
from ae_pipeline.store.writing.checks import (
    attribute_columns,
    check_columns,
    check_names,
    check_samples,
    stored_attributes,
)
from ae_pipeline.store.writing.commit import (
    Writing,
    add_snapshot,
    create_store,
    refuse_taken,
)
from ae_pipeline.store.writing.shards import Progress, ShardJob, plan_jobs
from ae_pipeline.store.writing.steps import read_tagged, sweep


@dataclass(frozen=True)
class Appended:
    """What one append did: the store as it is now, the parts that are new, and the shards that it had already."""

    store: LatentStore
    parts: list[PartEntry]
    skipped: int


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
    execute: ExecuteParams = HERE,
    allow_partial: bool = False,
) -> Appended:
    """Add all shards of `sets` that the store does not hold yet, as one snapshot; without any, nothing is changed.

    Shards are told apart by content (`SampleSet.shard_digest`). A store that does not exist is made, as snapshot 1.
    `store` is a folder or a URL. The other arguments are as in `encode_samples`; `work` must be on the file system of a
    store that is a folder. Shards that the manifest says are missing are made as they would have been.
    Raises TargetError (another run is writing the store), DataError (other columns or layout), CodecError, StoreError,
    WorkerError.
    """
    storage = open_storage(store)
    writing = Writing(codec_path, params, name, git, work, progress, execute, allow_partial)
    header = read_header(codec_path)
    for samples in sets:
        check_samples(samples, header, codec_path)
    if not storage.exists(MANIFEST_NAME):
        return _create(storage, sets, header, writing)
    with storage.locked() as names:
        data, tag = read_tagged(storage)
        old = LatentStore(storage, parse_manifest(data, place_of(storage, MANIFEST_NAME), storage))
        jobs, skipped = _plan(old, sets, header, writing)
        if not jobs:
            sweep(storage, old.manifest, names)
            return Appended(old, [], skipped)
        grown, parts = add_snapshot(old, data, tag, jobs, writing, names)
    return Appended(grown, parts, skipped)


def _create(storage: Storage, sets: list[SampleSet], header: CodecHeader, writing: Writing) -> Appended:
    refuse_taken(storage)
    if not sets:
        raise DataError(f"no data set to make {storage.location} of; give at least one")
    for samples in sets:
        check_names(samples)
        check_columns(samples.files[0], attribute_columns(samples), attribute_columns(sets[0]), sets[0].files[0])
    pieces, skipped = new_pieces(sets, set())
    jobs = plan_jobs(pieces, header.fingerprint, writing.params)
    digest = sha256_json([job.samples.shard_digest(job.shard) for job in jobs])
    made = create_store(storage, jobs, digest, sha256_json([header.fingerprint, []]), writing)
    return Appended(made, list(made.manifest.parts), skipped)


def _plan(
    store: LatentStore, sets: list[SampleSet], header: CodecHeader, writing: Writing
) -> tuple[list[ShardJob], int]:
    """The work that makes a store hold all of `sets`, and how many of their shards it holds already.

    Raises CodecError, DataError or StoreError unless they fit together.
    """
    old, where, params = store.manifest, store.location, writing.params
    store.codec_header()  # first: where it is the store's own codec that was changed, this says so
    if header.fingerprint != old.codec.fingerprint:
        raise CodecError(
            f"{writing.codec_path} has fingerprint {header.fingerprint[:12]}..., but {where} was written with "
            f"{old.codec.fingerprint[:12]}...; append with that codec, or encode into another store"
        )
    for setting in ("layout", "row_group_rows"):
        wanted, found = getattr(old.latent, setting), getattr(params, setting)
        if found != wanted:
            raise DataError(
                f"encode.{setting} is {found}, but {where} has {wanted}; set it to that, or encode into another store"
            )
    for samples in sets:
        check_columns(samples.files[0], attribute_columns(samples), stored_attributes(old), where)
    given = {samples.shard_digest(shard) for samples in sets for shard in samples.shards}
    pieces, skipped = new_pieces(sets, old.held(given))
    places = {digest: entry for samples in sets for digest, entry in absent_places(samples, old).items()}
    first_row = old.totals.rows + old.missing_rows
    new = [(samples, shard) for samples, shard in pieces if samples.shard_digest(shard) not in places]
    jobs = plan_jobs(new, header.fingerprint, params, number=old.next_number, first_row=first_row)
    for samples, shard in pieces:
        if entry := places.get(samples.shard_digest(shard)):
            piece = [(samples, shard)]
            jobs += plan_jobs(piece, header.fingerprint, params, number=entry.number, first_row=entry.first_row)
    return jobs, skipped


def absent_places(samples: SampleSet, manifest: Manifest) -> dict[str, MissingEntry]:
    """What is missing in a store and can be made of these samples, by the digests of their shards.

    A file that was mended has another digest. It is known by its name and number of rows, if it stands among the others
    of its data set, which the store holds, where the missing one stood; so no other file of that name takes its place.
    """
    if not manifest.missing:
        return {}
    held = {one.shard.digest: part_number(one.name) for one in rows_of_shards(manifest.parts)}
    digests = [samples.shard_digest(shard) for shard in samples.shards]
    starts = {held[digest] - place for place, digest in enumerate(digests) if digest in held}
    same = {entry.shard.digest: entry for entry in manifest.missing}
    by_number = {entry.number: entry for entry in manifest.missing}
    found = {}
    for place, (shard, digest) in enumerate(zip(samples.shards, digests, strict=True)):
        for entry in [same.get(digest), *(by_number.get(start + place) for start in starts)]:
            alike = entry and (entry.shard.file, entry.rows) == (samples.file_name(shard.path), shard.rows)
            if entry and digest not in held and (alike or entry.shard.digest == digest):
                found[digest] = entry
    return found


def new_pieces(sets: list[SampleSet], known: set[str]) -> tuple[list[tuple[SampleSet, Shard]], int]:
    """Shards whose content is not known and did not occur before in `sets`, and how many others there are."""
    seen = set(known)
    pieces = []
    for samples in sets:
        for shard in samples.shards:
            digest = samples.shard_digest(shard)
            if digest not in seen:
                seen.add(digest)
                pieces.append((samples, shard))
    return pieces, sum(len(samples.shards) for samples in sets) - len(pieces)
