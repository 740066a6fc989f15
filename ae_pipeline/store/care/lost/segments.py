"""Segments of a manifest, made again and proven: by what other snapshots say of the same parts, or by the data.

    failed = repair_segments(store, names, means)          # by name, why one could not be made again

The manifest has the digest of each of its segments, so what has that digest is what was lost. What a segment lists of a
part is in that part's file, but for the shard: which file of the data that was, the data says.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.errors import CodecError, PipelineError, StoreError
from ae_pipeline.files import sync_folder
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.care.make_again import Means, empty_folder
from ae_pipeline.store.care.part_checks import damage_of_segment
from ae_pipeline.store.format.manifest import CODEC_FOLDER, Manifest, kept_snapshots, read_manifest
from ae_pipeline.store.format.part_entries import PartEntry, part_number
from ae_pipeline.store.format.segment_file import SEGMENTS_FOLDER, SegmentEntry, table_of, write_segment
from ae_pipeline.store.format.segments import SegmentedParts
from ae_pipeline.store.storage.folder import LocalStorage
from ae_pipeline.store.writing.appending import new_pieces
from ae_pipeline.store.writing.checks import check_samples
from ae_pipeline.store.writing.shards import Running, ShardJob, entry_of, is_whole, plan_jobs, run_jobs

_GIVE_DATA = "give the data that it lists with --source, all of it and in the order in which it was added"
_JOINED = (
    "it lists parts that were joined; restore it from a copy, or take _manifest.json away and run `ae-pipeline repair` "
    "with all the data that was encoded and --accept-new-bytes"
)


def repair_segments(store: Path, names: Sequence[str], means: Means) -> dict[str, str]:
    """Make segments of the snapshots of a locked store again; by name, why one could not be.

    Raises PipelineError for sources or a codec that are not the store's.
    """
    newest = read_manifest(store)
    manifests = [newest]
    for number in reversed(kept_snapshots(LocalStorage(store))):
        with suppress(StoreError):  # one that is damaged is among what failed
            manifests.append(read_manifest(store, number))
    failed: dict[str, str] = {}
    for name in names:
        if not any(_from_other(store, name, manifest, manifests) for manifest in manifests):
            failed[name] = "no other snapshot says what it lists"
    for segment, first_row in _places(newest):
        if segment.name in failed:
            reason = _from_data(store, segment, first_row, newest, means)
            if reason is None:
                del failed[segment.name]
            else:
                failed[segment.name] += f", and {reason}"
    for name in failed.keys() - {segment.name for segment in newest.segments}:
        failed[name] += (
            "; the newest snapshot lists all of its rows: `ae-pipeline vacuum` removes the earlier snapshots"
        )
    return failed


def _from_other(store: Path, name: str, manifest: Manifest, others: Sequence[Manifest]) -> bool:
    """Whether a segment of a manifest could be made of what another one lists in the same place."""
    start = 0
    for segment in manifest.segments:
        if segment.name == name:
            break
        start += segment.parts
    else:
        return False
    for other in others:
        parts = other.parts
        if len(parts) < start + segment.parts:
            continue
        with suppress(StoreError):  # it is damaged, too
            if isinstance(parts, SegmentedParts):
                table = parts.table_between(start, start + segment.parts)
            else:
                table = table_of(parts[start : start + segment.parts])
            with empty_folder(store) as folder:
                if _put(store, segment, write_segment(folder, segment.snapshot, table), folder):
                    return True
    return False


def _put(store: Path, segment: SegmentEntry, made: SegmentEntry, folder: Path) -> bool:
    """Move a segment that was made into a store, if it is the one that is wanted."""
    if made.sha256 != segment.sha256:
        return False
    (store / SEGMENTS_FOLDER).mkdir(exist_ok=True)
    os.replace(folder / made.name, store / segment.name)
    sync_folder(store / SEGMENTS_FOLDER)
    sync_folder(store)
    return True


def _places(manifest: Manifest) -> Iterator[tuple[SegmentEntry, int]]:
    """Yield each segment with the number of its first row."""
    row = 0
    for segment in manifest.segments:
        yield segment, row
        row += segment.rows


def _from_data(store: Path, segment: SegmentEntry, first_row: int, manifest: Manifest, means: Means) -> str | None:
    """Make a segment again from the data that it lists. Returns None, or why it could not be."""
    if segment.shards > segment.parts:
        return _JOINED
    try:
        codec = Codec.load(store / CODEC_FOLDER, choose_device(means.device))
    except CodecError:
        return "the store's codec, which is needed to make it again, is damaged"
    for samples in means.sources:
        check_samples(samples, codec.header, store / CODEC_FOLDER)
    for jobs in _candidates(store, segment, first_row, manifest, codec, means):
        # Parts that are whole need not be encoded again to say what they are.
        for there in ([job for job in jobs if is_whole(store / job.part_name, job)], []):
            with empty_folder(store) as folder:
                made = _entries(store, folder, jobs, there, codec, means)
                if made and _put(store, segment, write_segment(folder, segment.snapshot, table_of(made)), folder):
                    return None
    return f"the data does not; {_GIVE_DATA}"


def _candidates(
    store: Path, segment: SegmentEntry, first_row: int, manifest: Manifest, codec: Codec, means: Means
) -> Iterator[list[ShardJob]]:
    """Yield shards of the data, side by side, that have as many rows and parts and whose parts the store has."""
    known = _known_digests(manifest)
    pieces, _ = new_pieces(means.sources, known)
    settings = EncodeParams(layout=manifest.latent.layout, row_group_rows=manifest.latent.row_group_rows)
    number = segment.last_number + 1 - segment.parts
    for start in range(len(pieces) + 1 - segment.parts):
        some = pieces[start : start + segment.parts]
        if sum(shard.rows for _, shard in some) != segment.rows:
            continue
        jobs = plan_jobs(some, codec.fingerprint, settings, number=number, first_row=first_row)
        if any((store / job.part_name).exists() for job in jobs):
            yield jobs


def _known_digests(manifest: Manifest) -> set[str]:
    """The digests of the shards that whole segments list."""
    parts = manifest.parts
    if not isinstance(parts, SegmentedParts) or parts.storage is None:
        return set()
    whole = [segment.name for segment in parts.segments if not damage_of_segment(parts.storage, segment)]
    return set(manifest.model_copy(update={"parts": parts.only(whole)}).shard_digests)


def _entries(
    store: Path, folder: Path, jobs: list[ShardJob], there: list[ShardJob], codec: Codec, means: Means
) -> list[PartEntry]:
    """The parts of the jobs, in order: of those that are there, and of the others as they are made in `folder`."""
    entries = {job.number: entry_of(store / job.part_name, job) for job in there}
    others = [job for job in jobs if job.number not in entries]
    try:
        running = Running(means.execute, LocalStorage(store))
        made = run_jobs(others, codec, folder, means.progress, running=running).parts if others else []
    except PipelineError:
        return []
    entries |= {part_number(part.name): part for part in made}
    return [entries[number] for number in sorted(entries)]
