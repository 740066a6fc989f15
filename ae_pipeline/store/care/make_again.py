"""Parts of a store made again from the data that they were made from.

    jobs = plan_again(store, {part.name for part in parts}, sources, codec)
    with empty_folder(store.path) as folder:
        for name, made in zip(jobs, make_again(jobs.values(), codec, folder)):
            made.sha256 == ...

A part is a function of codec, shard and settings, and the manifest says which shard, by its content. So it can be made
again wherever the same data is, whatever it is called there. `verify --deep` compares what comes out (`deep.py`),
`repair` moves it in, and a lost manifest is made from it (`lost_manifest.py`).
"""

import shutil
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.devices import cpu_count
from ae_pipeline.codec.header import read_header
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet, Shard
from ae_pipeline.errors import CodecError, StoreError
from ae_pipeline.files import clear_folder, locked_folder
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.care.vacuum import repair_folder
from ae_pipeline.store.format.manifest import CODEC_FOLDER, PartEntry, holds_part_of_store, read_manifest
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.place import open_storage
from ae_pipeline.store.writing.checks import check_samples
from ae_pipeline.store.writing.shards import Progress, ShardJob, plan_jobs, run_jobs


@dataclass(frozen=True)
class Means:
    """What a repair is given: data, the codec where the store's is damaged, and what it may do."""

    sources: list[SampleSet]
    codec_copy: Path | None
    accept_new_bytes: bool
    device: str
    git: dict[str, Any]
    progress: Progress


def open_sources(data: list[Path], store: Path | str, codec: Path | None = None) -> list[SampleSet]:
    """Data sets for a store. Its manifest, or else a codec, gives the shape where the files do not say it.

    `codec` is a copy of the store's. Raises DataError, and StoreError if there is no store.
    """
    spec, stored = None, None
    try:
        manifest = read_manifest(store)
        spec = SampleSpec(tuple(manifest.samples.shape), manifest.samples.dtype)
        stored = {column.name: column.type for column in manifest.columns}
    except StoreError:
        if not holds_part_of_store(open_storage(store)):
            raise
        with suppress(CodecError):  # then the files have to say it
            spec = read_header(codec or Path(store, CODEC_FOLDER)).spec
    return [SampleSet.open(path, spec, stored) for path in data]


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
    jobs, first_row = {}, 0
    for number, part in enumerate(manifest.parts):
        if part.name in names and part.shard.digest in shards:
            pieces = [shards[part.shard.digest]]
            (jobs[part.name],) = plan_jobs(pieces, codec.fingerprint, settings, number=number, first_row=first_row)
        first_row += part.rows
    return jobs


def make_again(
    jobs: Iterable[ShardJob], codec: Codec, folder: Path, progress: Progress = lambda rows: None
) -> Iterator[PartEntry]:
    """Make the parts of jobs, whose numbers rise, in `folder`, which must not hold any.

    As many are made at a time as there are CPUs: whoever takes each one away needs no more space than that.
    """
    waiting = iter(jobs)
    while some := list(islice(waiting, cpu_count())):
        yield from run_jobs(some, codec, folder, progress)


@contextmanager
def empty_folder(store: Path) -> Iterator[Path]:
    """`repair_folder`, locked and emptied: a part that a run has left there is known by no digest."""
    with locked_folder(repair_folder(store)) as folder:
        clear_folder(folder)
        yield folder
        shutil.rmtree(folder)
