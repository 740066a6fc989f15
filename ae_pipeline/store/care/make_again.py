"""Parts of a store made again from the data that they were made from.

    jobs = plan_again(store, {part.name for part in parts}, sources, codec)
    with empty_folder(store.path) as folder:
        for name, made in make_again(jobs, codec, folder):
            made.sha256 == ...

A part is a function of codec, shard and settings, and the manifest says which shard, by its content. So it can be made
again wherever the same data is, whatever it is called there. `verify --deep` compares what comes out (`deep.py`),
`repair` moves it in, and a lost manifest is made from it (`lost_manifest.py`).
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
from ae_pipeline.store.care.vacuum import repair_folder
from ae_pipeline.store.executors import HERE
from ae_pipeline.store.format.manifest import CODEC_FOLDER, PartEntry, holds_part_of_store
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
        if part.shard.row_groups:
            continue  # of one file
        names: dict[str, None] = {}
        try:
            for array in store.read_column(part, SOURCE_FILE):
                names.update(dict.fromkeys(array.to_pylist()))
        except (DamagedPartError, StoreError):
            names = {}
        groups.append(KnownGroup(part.shard.digest, part.shard.file, tuple(names)))
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


def plan_again(
    store: LatentStore, names: Container[str], sources: list[SampleSet], codec: Codec
) -> dict[str, ShardJob]:
    """The jobs that make parts of these names again, in the manifest's order; a part whose data is not there has none.

    A job's digest is not the part's where another version of pyarrow made the part, or where the inbox changed the
    file on its way in. Its number only tells the jobs apart: parts that were made at different times may share one.
    Raises DataError or CodecError for sources that are not for the store's codec.
    """
    for samples in sources:
        check_samples(samples, codec.header, store.codec_path)
    manifest = store.manifest
    shards = find_shards(sources)
    settings = EncodeParams(layout=manifest.latent.layout, row_group_rows=manifest.latent.row_group_rows)
    jobs = {}
    for number, (part, first_row) in enumerate(zip(manifest.parts, manifest.first_rows(), strict=True)):
        if part.name in names and part.shard.digest in shards:
            pieces = [shards[part.shard.digest]]
            (jobs[part.name],) = plan_jobs(pieces, codec.fingerprint, settings, number=number, first_row=first_row)
    return jobs


def make_again(
    jobs: Mapping[str, ShardJob],
    codec: Codec,
    folder: Path,
    progress: Progress = lambda rows: None,
    running: Running | None = None,
) -> Iterator[tuple[str, PartEntry]]:
    """Make parts by their jobs in `folder`, which must not hold any; yields each with its name in `jobs`, as they come.

    Few are made meanwhile: whoever takes each one away needs no more space than that.
    """
    names = list(jobs)
    for place, entry in each_part(list(jobs.values()), codec, folder, progress, running):
        yield names[place], entry


@contextmanager
def empty_folder(store: Path) -> Iterator[Path]:
    """`repair_folder`, locked and emptied: a part that a run has left there is known by no digest."""
    with locked_folder(repair_folder(store)) as folder:
        clear_folder(folder)
        yield folder
        shutil.rmtree(folder)
