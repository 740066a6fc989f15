"""Parts of a store made again from the data that they were made from.

    plans = plan_again(store, {part.name for part in parts}, sources, codec)
    with empty_folder(store.path) as folder:
        for name, made in make_again(plans, store.manifest, codec, folder):
            made.sha256 == ...

A part is a function of codec, shard and settings, and the manifest says which shard, by its content. So it can be made
again wherever the same data is, whatever it is called there. A part that was joined from others is made of its shards'
parts, which are made again and joined. `verify --deep` compares what comes out (`deep.py`),
`repair` moves it in, and a lost manifest is made from it (`lost/manifest.py`).
"""

import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import read_header
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet, Shard
from ae_pipeline.errors import CodecError, DamagedPartError, DataError, StoreError, named
from ae_pipeline.files import clear_folder, locked_folder
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.sources.own_files.columns import SOURCE_FILE
from ae_pipeline.sources.own_files.grouping import KnownGroup
from ae_pipeline.sources.own_files.opening import open_data
from ae_pipeline.sources.own_files.samples import OwnSamples
from ae_pipeline.store.care.joining import CannotJoinError, join_parts
from ae_pipeline.store.care.vacuum import repair_folder
from ae_pipeline.store.executors import HERE
from ae_pipeline.store.format.manifest import CODEC_FOLDER, Manifest, holds_part_of_store
from ae_pipeline.store.format.part_entries import PartEntry, part_number, rows_of_shards
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.place import open_storage
from ae_pipeline.store.writing.checks import check_samples
from ae_pipeline.store.writing.shards import Progress, Running, ShardJob, each_part, plan_jobs


@dataclass(frozen=True)
class Means:
    """What a repair is given: data, the codec where the store's is damaged, and what it may do."""

    sources: list[SampleSet]
    codec_copy: Path | None
    accept_new_bytes: bool
    device: str
    git: dict[str, Any]
    progress: Progress
    execute: ExecuteParams = HERE


def open_sources(
    data: Sequence[Path | str], store: Path | str, codec: Path | None = None, *, skip_unreadable: bool = True
) -> list[SampleSet]:
    """Data sets for a store: prepared Parquet, or the user's own files where its codec has a kind.

    Its manifest, or else a codec, gives the shape where the files do not say it. `codec` is a copy of the store's.
    Records that cannot be read are left out and listed, unless they are to be refused. Raises DataError, and StoreError
    if there is no store.
    """
    spec, stored, header, known = None, None, None, []
    try:
        opened = LatentStore.open(store)
        spec = SampleSpec(tuple(opened.manifest.samples.shape), opened.manifest.samples.dtype)
        stored = {column.name: column.type for column in opened.manifest.columns}
        with suppress(CodecError, StoreError):
            header = read_header(codec or opened.codec_path)
            known = known_groups(opened) if header.kind else []
    except StoreError:
        if not holds_part_of_store(open_storage(store)):
            raise
        with suppress(CodecError):  # then the files have to say it
            header = read_header(codec or Path(store, CODEC_FOLDER))
            spec = header.spec
    kind = header.kind if header else None
    return [open_data(path, kind, spec, stored=stored, skip_unreadable=skip_unreadable, known=known) for path in data]


def known_groups(store: LatentStore) -> list[KnownGroup]:
    """The parts of a store that were made from several files of one record each, and the names of these files.

    The names are in the column `source_file`; those of a part whose column cannot be read are not known.
    """
    if SOURCE_FILE not in {column.name for column in store.manifest.columns}:
        return []
    groups = []
    for part in store.manifest.parts:
        if all(shard.row_groups for shard in part.shards):
            continue  # each of one file
        try:
            found = [
                (entry.shard, tuple(dict.fromkeys(names))) for entry, names in store.shard_values(part, SOURCE_FILE)
            ]
        except (DamagedPartError, StoreError):
            found = [(shard, ()) for shard in part.shards]
        groups += [KnownGroup(shard.digest, shard.file, names) for shard, names in found if not shard.row_groups]
    return groups


def refuse_torn(sources: list[SampleSet], store: Path | str) -> None:
    """Raise DataError for files that a store has under these names, but not as they are now, or not with all others.

    Their rows would be there twice.
    """
    for samples in sources:
        if isinstance(samples, OwnSamples) and samples.unmatched:
            raise DataError(
                f"{store} has {len(samples.unmatched):,} of these files already, and they were changed since, or files "
                f"that were encoded with them are missing: {named(samples.unmatched, 5)}",
                advice="give the new files alone (a folder or a glob), from a folder in which their names differ from "
                "those in the store",
            )


def find_shards(sources: list[SampleSet]) -> dict[str, tuple[SampleSet, Shard]]:
    """All shards by content."""
    return {samples.shard_digest(shard): (samples, shard) for samples in sources for shard in samples.shards}


@dataclass(frozen=True)
class Plan:
    """How a part is made again: a job for each of its shards, in order; None where the shard's data is not there."""

    part: PartEntry
    jobs: list[ShardJob | None]

    @property
    def found(self) -> list[ShardJob]:
        """The jobs of shards whose data is there."""
        return [job for job in self.jobs if job]

    @property
    def is_complete(self) -> bool:
        """Whether the data of all shards is there."""
        return None not in self.jobs

    @property
    def absent(self) -> list[str]:
        """The files of the shards whose data is not there."""
        return [shard.file for shard, job in zip(self.part.shards, self.jobs, strict=True) if job is None]


def plan_again(store: LatentStore, names: Container[str], sources: list[SampleSet], codec: Codec) -> dict[str, Plan]:
    """How parts of these names are made again, in the manifest's order; a part of whose data nothing is there has none.

    A job's digest is not the part's where another version of pyarrow made the part, or where the inbox changed the
    file on its way in. Its number only tells the jobs apart: parts that were made at different times may share one.
    Raises DataError or CodecError for sources that are not for the store's codec.
    """
    for samples in sources:
        check_samples(samples, codec.header, store.codec_path)
    manifest = store.manifest
    shards = find_shards(sources)
    settings = EncodeParams(layout=manifest.latent.layout, row_group_rows=manifest.latent.row_group_rows)
    plans: dict[str, Plan] = {}
    held = zip(rows_of_shards(manifest.parts), manifest.first_rows(), strict=True)
    for number, (one, first_row) in enumerate(held):
        if one.part.name not in names:
            continue
        plan = plans.setdefault(one.part.name, Plan(one.part, []))
        pieces = [shards[one.shard.digest]] if one.shard.digest in shards else []
        jobs = plan_jobs(pieces, codec.fingerprint, settings, number=number, first_row=first_row)
        plan.jobs.append(jobs[0] if jobs else None)
    return {name: plan for name, plan in plans.items() if plan.found}


def make_again(
    plans: Mapping[str, Plan],
    manifest: Manifest,
    codec: Codec,
    folder: Path,
    progress: Progress = lambda rows: None,
    running: Running | None = None,
) -> Iterator[tuple[str, PartEntry]]:
    """Make parts by complete plans in `folder`, which must not hold any; yields each with its name, as they come.

    `manifest` is that of the store. Few are made meanwhile: whoever takes each one away needs no more space than that.
    """
    jobs = [(name, place, job) for name, plan in plans.items() for place, job in enumerate(plan.found)]
    waiting: dict[str, dict[int, PartEntry]] = {}
    for number, entry in each_part([job for _, _, job in jobs], codec, folder, progress, running):
        name, place, _ = jobs[number]
        plan = plans[name]
        if not plan.part.is_joined:
            yield name, entry
            continue
        made = waiting.setdefault(name, {})
        made[place] = entry
        if len(made) == len(plan.jobs):
            yield name, _joined_again(plan.part, [made[place] for place in sorted(made)], manifest, folder)
            del waiting[name]


def _joined_again(listed: PartEntry, made: list[PartEntry], manifest: Manifest, folder: Path) -> PartEntry:
    """The part that was joined from these, of which nothing is left in the folder. Raises StoreError."""
    store = LatentStore(folder, manifest)
    try:
        return join_parts([(store, part) for part in made], listed.joined, part_number(listed.name), manifest, folder)
    except CannotJoinError as error:
        raise StoreError(f"cannot be joined again: {error}", place=listed.name) from None
    finally:
        for part in made:
            (folder / part.name).unlink()


@contextmanager
def empty_folder(store: Path) -> Iterator[Path]:
    """`repair_folder`, locked and emptied: a part that a run has left there is known by no digest."""
    with locked_folder(repair_folder(store)) as folder:
        clear_folder(folder)
        yield folder
        shutil.rmtree(folder)
