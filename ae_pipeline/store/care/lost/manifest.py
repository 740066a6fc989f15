"""A lost manifest, made again. The names of parts prove the data and its order, the digest proves the rest.

What only the manifest knew (who wrote it, under which name) is taken from what can still be read of the damaged file.
If the digest in it is that of a proposal, but for a few digits, that proposal is the manifest that was lost.
"""

import itertools
import json
import operator
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import choose_device
from ae_pipeline.data.parquet.limits import read_footer
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DataError, StoreError
from ae_pipeline.files import make_folder, sha256_file, sha256_json, sync_folder, write_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.care.joining import CannotJoinError, join_parts, joined_job
from ae_pipeline.store.care.make_again import Means, empty_folder
from ae_pipeline.store.care.snapshots import read_vacuumed
from ae_pipeline.store.format.entries import LARGEST_MANIFEST, MANIFEST_NAME, SourceEntry
from ae_pipeline.store.format.layouts import LAYOUTS
from ae_pipeline.store.format.manifest import (
    CODEC_FOLDER,
    JOINED_FORMAT,
    SEGMENTED_FORMAT,
    Manifest,
    format_of,
    kept_snapshots,
    manifest_values,
    read_manifest,
    settled,
)
from ae_pipeline.store.format.part_entries import PART_NAME, JoinedEntry, PartEntry, ShardEntry, part_number
from ae_pipeline.store.format.part_writer import PART_KEY
from ae_pipeline.store.format.segment_file import SEGMENT_NAME, SEGMENTS_FOLDER, SegmentEntry, found_segment
from ae_pipeline.store.format.segments import SegmentedParts
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import LocalStorage, read_whole
from ae_pipeline.store.writing.appending import new_pieces
from ae_pipeline.store.writing.checks import check_samples
from ae_pipeline.store.writing.new_manifest import copy_codec, first_manifest
from ae_pipeline.store.writing.next_manifest import totals_of
from ae_pipeline.store.writing.shards import Running, ShardJob, plan_jobs, run_jobs

# So many of the 64 digits of two digests never agree by chance.
_DIGITS_PROOF = 60
# Numbers that a part may say it was joined from: what is read there may be anything.
_MOST_JOINED = 1_000_000


# Where a whole manifest has the values that only it knows.
_PLACES = {
    "snapshot": r'\n  "snapshot": ([0-9]{1,9}),',
    "name": r'\n  "source": \{\n    "name": ("[^\n]*"),\n',
    "layout": rf'\n    "layout": ("(?:{"|".join(LAYOUTS)})"),',
    "row_group_rows": r'\n    "row_group_rows": ([0-9]{1,9})\n',
    "written_by": r'\n  "written_by": (\{.*?\n  \})',
}


def rebuild_manifest(store: Path, means: Means) -> tuple[list[str], bool]:
    """Make the newest manifest again from all of the data, and the parts that are not in the store as that gives them.

    Returns what was written, and whether it is proven to be what was lost. Without proof nothing is written, unless
    new bytes are accepted. Raises PipelineError.
    """
    if not means.sources:
        raise StoreError(
            "give all data sets of the store with --source, in the order in which they were added, to make it again; "
            "earlier snapshots that are whole can be read as they are (--snapshot)"
        )
    codec = _codec_to_rebuild_with(store, means)
    path = codec.folder
    assert path is not None, "it was loaded from there"
    for samples in means.sources:
        check_samples(samples, codec.header, path)
    lost = _LostManifest(store, means.sources)
    jobs = lost.plan(codec.fingerprint)
    with empty_folder(store) as folder:
        running = Running(means.execute, LocalStorage(store))
        made_again = run_jobs(jobs, codec, folder, means.progress, running=running)
        entry = copy_codec(path, folder / CODEC_FOLDER, codec.fingerprint)
        source = lost.possible_sources(made_again.parts)[0]
        made = first_manifest(folder, codec, entry, made_again, lost.settings, source=source, git=means.git)
        made = lost.joined(made, folder)
        parts = made.parts
        values, proven, segments = lost.propose(lost.in_segments(made), folder)
        other = [part.name for part in parts if not _holds(store, part)]
        if not proven and not means.accept_new_bytes:
            raise _not_proven(store, len(other), len(parts))
        for name in (*other, *segments):
            make_folder((store / name).parent)
            os.replace(folder / name, store / name)
            sync_folder((store / name).parent)
        sync_folder(store)
        write_json(store / MANIFEST_NAME, values)
    return [*other, *segments, MANIFEST_NAME], proven


def _codec_to_rebuild_with(store: Path, means: Means) -> Codec:
    """The store's own; where that is lost with all manifests, the copy. The names of parts prove that it is one."""
    device = choose_device(means.device)
    try:
        return Codec.load(store / CODEC_FOLDER, device)
    except CodecError as error:
        if means.codec_copy is None:
            raise CodecError(
                f"cannot be made again without the store's codec, which is damaged ({error})",
                advice="give a folder with a copy of the codec (--codec)",
            ) from None
        return Codec.load(means.codec_copy, device)


def _holds(store: Path, part: PartEntry) -> bool:
    path = store / part.name
    return path.exists() and sha256_file(path) == part.sha256


def _not_proven(store: Path, changed: int, parts: int) -> StoreError:
    """Why nothing is written; `changed` of the parts are not in the store as the data gives them."""
    found = (
        f"{changed} of the {parts} parts are missing or have other bytes in the store"
        if changed
        else f"all {parts} parts are in the store as the data gives them: no row is in doubt"
    )
    return StoreError(
        f"{store / MANIFEST_NAME}: {found}; but who wrote the store, when it grew and the name of its data set stood "
        "only in the manifest that was lost",
        advice="--accept-new-bytes writes one that says so, with the parts as they are made now",
    )


class _LostManifest:
    """Proposes the newest manifest of a store; `sources` are all of its data sets, in the order they were added in."""

    def __init__(self, store: Path, sources: list[SampleSet]):
        self._store, self._sources = store, sources
        self._kept = kept_snapshots(LocalStorage(store))
        self._left, self._digest = _salvage(store)
        self._joined: dict[str, list[str]] = {}
        self.settings = self._find_settings()
        """Layout and rows of a row group."""

    def plan(self, fingerprint: str) -> list[ShardJob]:
        """The jobs whose parts are in the store. Raises DataError unless the data is all of the store's, in its order.

        `fingerprint` is that of the codec.
        """
        pieces = [(samples, shard) for samples in self._sources for shard in samples.shards]
        once, _ = new_pieces(self._sources, set())
        there = {path.name for path in self._store.iterdir() if re.match(PART_NAME, path.name)}
        joined = {name: names_joined(self._store / name) for name in there}
        plans = [plan_jobs(some, fingerprint, self.settings) for some in (pieces, once)]
        known = [_known(there, joined, plan) for plan in plans]
        best = max(range(len(plans)), key=lambda place: len(known[place]))
        jobs, unknown = plans[best], sorted(there - known[best].keys())
        self._joined = {name: names for name, names in known[best].items() if names}
        if unknown or not there:
            raise DataError(
                f"{self._store}: {len(unknown)} of its {len(there)} parts do not come from the given data "
                f"({', '.join(unknown[:3])}); give all data sets of the store in the order in which they were added, "
                "with the store's codec and the version of pyarrow that wrote it; take away parts that an interrupted "
                "append left"
            )
        return jobs

    def joined(self, made: Manifest, folder: Path) -> Manifest:
        """The manifest with those parts joined that are joined in the store; `folder` has what `made` lists.

        The later part wins where a compaction joined what another one had joined before.
        """
        parts = {part.name: part for part in made.parts}
        for name in sorted(self._joined, key=part_number, reverse=True):
            names = self._joined[name]
            if not parts.keys() >= set(names):
                continue
            entries = [entry for each in names for entry in parts[each].joined]
            held = [(LatentStore(folder, made), parts[each]) for each in names]
            with suppress(CannotJoinError):
                joined = join_parts(held, entries, part_number(name), made, folder)
                if joined.name == name:
                    parts = _replaced(parts, names, joined)
        listed = list(parts.values())
        spec = SampleSpec(tuple(made.samples.shape), made.samples.dtype)
        update = {"parts": listed, "format": format_of(listed), "totals": totals_of(listed, spec)}
        return made.model_copy(update=update)

    def in_segments(self, made: Manifest) -> Manifest:
        """The manifest with its parts in the segments that are in the store and list them, if there are any."""
        found = list(_segments_in(self._store))
        parts, items, run = list(made.parts), list[SegmentEntry | tuple[PartEntry, ...]](), list[PartEntry]()
        while parts:
            fitting = [pair for pair in found if pair[1] == parts[: len(pair[1])]]
            if not fitting:
                run.append(parts.pop(0))
                continue
            # One that took others in is the later one.
            segment, listed = max(fitting, key=lambda pair: len(pair[1]))
            items += [tuple(run), segment] if run else [segment]
            run = []
            del parts[: len(listed)]
        if not found and format_of(made.parts) != SEGMENTED_FORMAT:
            return made
        items += [tuple(run)] if run else []
        update = {"parts": SegmentedParts(LocalStorage(self._store), items), "format": SEGMENTED_FORMAT}
        return made.model_copy(update=update)

    def possible_sources(self, parts: Sequence[PartEntry]) -> list[SourceEntry]:
        """List what `source` may have been in a store that was encoded at once, and in one that grew."""
        rows = sum(part.rows for part in parts)
        digests = [sha256_json([shard.digest for part in parts for shard in part.shards])]
        if len(self._sources) == 1 and (self._joined or self._left.get("snapshot") in (None, 1)):
            digests.insert(0, self._sources[0].digest)
        name = self._left.get("name") or "rebuilt"
        return [SourceEntry(name=name, digest=digest, rows=rows) for digest in digests]

    def propose(self, made: Manifest, folder: Path) -> tuple[dict[str, Any], bool, list[str]]:
        """The JSON object of the manifest, whether it is proven to be the lost one, and the segments that it needs.

        `made` lists the parts; segments are written into `folder`. A few digits of the digest may be what is damaged.
        """
        proposals = list(self._proposals(made, folder))
        proven = [
            pair for pair in proposals if sum(map(operator.eq, self._digest, sha256_json(pair[0]))) >= _DIGITS_PROOF
        ]
        values, segments = (proven or proposals)[0]
        return {**values, "digest": sha256_json(values)}, bool(proven), segments

    def _find_settings(self) -> EncodeParams:
        """Take them from an earlier snapshot, or from what is left of the manifest."""
        for number in reversed(self._kept):
            try:
                latent = read_manifest(self._store, number).latent
            except StoreError:
                continue
            return EncodeParams(layout=latent.layout, row_group_rows=latent.row_group_rows)
        known = {name: self._left[name] for name in ("layout", "row_group_rows") if name in self._left}
        try:
            return EncodeParams.model_validate(known)
        except ValidationError:  # a number of rows of which a digit is what is damaged
            return EncodeParams()  # the default, by which parts are found, or not

    def _proposals(self, made: Manifest, folder: Path) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """Yield manifests, with what is left of the lost one first, then with what may stand in its place.

        Each with the names of its segments that are written for it.
        """
        snapshots = [self._left.get("snapshot"), max([*self._kept, len(read_vacuumed(self._store))]) + 1]
        writers = [self._left.get("written_by"), made.written_by]
        sources = self.possible_sources(made.parts)
        for snapshot, writer, source in itertools.product(filter(None, snapshots), filter(None, writers), sources):
            parent = snapshot - 1 if snapshot > 1 else None
            update = {"snapshot": snapshot, "parent": parent, "written_by": writer, "source": source}
            newer = made.model_copy(update=update)
            newer, segments = settled(newer, LocalStorage(self._store), folder)
            yield manifest_values(newer), segments
            if newer.format >= JOINED_FORMAT:
                continue
            older = newer.model_copy(update={"format": 1})
            yield older.model_dump(mode="json", exclude={"probe": True, "parts": {"__all__": {"pieces"}}}), []


def _segments_in(store: Path) -> Iterator[tuple[SegmentEntry, list[PartEntry]]]:
    """Yield the whole segments that lie in a store's folder, and their parts."""
    for path in sorted((store / SEGMENTS_FOLDER).glob("*.parquet")):
        name = f"{SEGMENTS_FOLDER}/{path.name}"
        with suppress(OSError, ValueError, KeyError, pa.ArrowException, StoreError, DataError):
            if re.match(SEGMENT_NAME, name):
                yield found_segment(LocalStorage(store), name)


def names_joined(path: Path) -> list[int]:
    """The numbers of the parts that a part says it was joined from; none where it says or has nothing."""
    try:
        metadata = read_footer(path).metadata or {}
        runs = json.loads(metadata.get(PART_KEY, b"{}")).get("joined", [])
        numbers = chain.from_iterable(range(first, last + 1) for first, last in runs)
        return list(islice(numbers, _MOST_JOINED))
    except (OSError, ValueError, TypeError, AttributeError, pa.ArrowException):
        return []


def _known(there: set[str], joined: dict[str, list[int]], plan: list[ShardJob]) -> dict[str, list[str]]:
    """The parts that are planned, or were joined from such: of the latter, the names of these."""
    found: dict[str, list[str]] = {name: [] for name in there & {job.part_name for job in plan}}
    by_number = {job.number: job for job in plan}
    for name in there:
        if joined[name] and by_number.keys() >= set(joined[name]):
            jobs = [by_number[number] for number in joined[name]]
            if (
                joined_job(jobs[0].codec_fingerprint, _settings_of(jobs[0]), [_entry_of(job) for job in jobs])[:16]
                in name
            ):
                found[name] = [job.part_name for job in jobs]
    return found


def _settings_of(job: ShardJob) -> EncodeParams:
    return EncodeParams.model_validate({"layout": job.layout, "row_group_rows": job.row_group_rows})


def _entry_of(job: ShardJob) -> JoinedEntry:
    groups, digest = list(job.shard.row_groups), job.samples.shard_digest(job.shard)
    shard = ShardEntry(file=job.samples.file_name(job.shard.path), row_groups=groups, digest=digest)
    return JoinedEntry(name=job.part_name, rows=job.shard.rows, shard=shard)


def _replaced(parts: dict[str, PartEntry], names: list[str], joined: PartEntry) -> dict[str, PartEntry]:
    """A list of parts, by name, with one part where the first of several stood."""
    found: dict[str, PartEntry] = {}
    for name, part in parts.items():
        if name == names[0]:
            found[joined.name] = joined
        elif name not in names:
            found[name] = part
    return found


def _salvage(store: Path) -> tuple[dict[str, Any], str]:
    """The values of `_manifest.json` that can still be read, and the text in the place of the digest."""
    try:
        text = read_whole(LocalStorage(store), MANIFEST_NAME, most=LARGEST_MANIFEST).decode("utf-8", "replace")
    except (FileNotFoundError, StoreError):  # StoreError: too large to be one
        text = ""
    left = {}
    for name, pattern in _PLACES.items():
        if found := re.search(pattern, text, re.DOTALL):
            with suppress(ValueError):
                left[name] = json.loads(found[1])
    return left, text[-68:-4]
