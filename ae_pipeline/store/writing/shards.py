"""The unit of work: one input shard makes one part, by a pure function of codec and shard.

    jobs = plan_jobs(((samples, shard) for shard in samples.shards), codec.fingerprint, params)
    parts, missing = run_jobs(jobs, codec, folder, progress)

Resuming, appending, repairing and encoding in parallel are all this: make the part of a job, wherever and whenever.
"""

import hashlib
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ae_pipeline.codec.codec import BLOCK_ROWS, Codec
from ae_pipeline.data.blocks import Block
from ae_pipeline.data.parquet.columns import NamedColumnsFile
from ae_pipeline.data.parquet.limits import read_footer
from ae_pipeline.data.samples import ID, SampleSet, Shard
from ae_pipeline.errors import DataError, PipelineError, WorkerError, first_line, named, warn
from ae_pipeline.files import arrow_file, sha256_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.executors import HERE, Needs, each_shard
from ae_pipeline.store.executors.attempts import Failed
from ae_pipeline.store.executors.lent import Borrowed, lent
from ae_pipeline.store.format.layouts import LATENT
from ae_pipeline.store.format.part_entries import MissingEntry, PartEntry, ShardEntry
from ae_pipeline.store.format.part_writer import ERROR, PartWriter, part_metadata
from ae_pipeline.store.format.verified_file import cut
from ae_pipeline.store.storage.folder import Storage

_NAMED = 5
_NOT_COMMITTED = ", but nothing is committed (`encode` and `append` do that with --allow-partial)"
Progress = Callable[[int], None]


@dataclass(frozen=True)
class ShardJob:
    """Everything that decides the bytes of one part."""

    samples: SampleSet
    shard: Shard
    number: int
    first_row: int
    codec_fingerprint: str
    layout: str
    row_group_rows: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) that names the work; equal digests mean equal parts."""
        made_of = {
            "codec": self.codec_fingerprint,
            "shard": self.samples.shard_digest(self.shard),
            # Row numbers stand in for ids where the source has none.
            "first_row": self.first_row,
            "layout": self.layout,
            "row_group_rows": self.row_group_rows,
            "pyarrow": pa.__version__,
            **self.samples.changed_by,
        }
        return sha256_json(made_of)

    @property
    def part_name(self) -> str:
        """File name of the part."""
        return f"part-{self.number:05d}-{self.digest[:16]}.parquet"


def plan_jobs(
    pieces: Iterable[tuple[SampleSet, Shard]],
    codec_fingerprint: str,
    params: EncodeParams,
    *,
    number: int = 0,
    first_row: int = 0,
) -> list[ShardJob]:
    """One job for each shard; parts and rows are counted on from `number` and `first_row`."""
    jobs: list[ShardJob] = []
    for samples, shard in pieces:
        layout, rows = params.layout, params.row_group_rows
        jobs.append(ShardJob(samples, shard, number, first_row, codec_fingerprint, layout, rows))
        number += 1
        first_row += shard.rows
    return jobs


Make = Callable[[ShardJob, Codec, Path], PartEntry]


@dataclass(frozen=True)
class Running:
    """Where jobs run, and what becomes of those that fail."""

    execute: ExecuteParams = HERE
    store: Storage | None = None
    """The store that parts are made for; at a URL, other machines find the codec in it."""
    allow_partial: bool = False


class Made(NamedTuple):
    """What came of some jobs."""

    parts: list[PartEntry]
    missing: list[MissingEntry]


def encode_shard(job: ShardJob, codec: Codec, folder: Path) -> PartEntry:
    """Make one part in `folder`, or take the one that is there if it is whole and of the same job."""
    path = folder / job.part_name
    if not is_whole(path, job):
        _write_part(path, job, codec)
    try:
        return entry_of(path, job)
    except DataError:
        path.unlink()
        raise


def entry_of(path: Path, job: ShardJob) -> PartEntry:
    """What a manifest says of the part of a job. Raises DataError if readers would refuse it."""
    whole = hashlib.sha256()
    try:
        # All of it is read back: where its pieces are is known when all is written, and readers would refuse
        # a row group that is too large.
        pieces = cut(path, whole)
    except ValueError as error:
        raise DataError(
            f"{job.shard.path}: {first_line(error)}; set encode.row_group_rows to less than {job.row_group_rows} (a "
            "store that has rows keeps the number that it began with: encode these into another one)"
        ) from None
    id_min, id_max = _id_range(path)
    return PartEntry(
        name=job.part_name,
        rows=job.shard.rows,
        bytes=path.stat().st_size,
        sha256=whole.hexdigest(),
        id_min=id_min,
        id_max=id_max,
        job=job.digest,
        shard=ShardEntry(
            file=job.samples.file_name(job.shard.path),
            row_groups=list(job.shard.row_groups),
            digest=job.samples.shard_digest(job.shard),
        ),
        pieces=pieces,
    )


def _write_part(path: Path, job: ShardJob, codec: Codec) -> None:
    """Encode the shard."""
    schema = job.samples.attributes_schema
    first_row = job.first_row
    try:
        part = PartWriter(
            path, schema, job.layout, codec.latent_size, job.row_group_rows, job.digest, streams=codec.streams
        )
    except DataError as refused:
        raise DataError(f"{job.shard.path}: {refused}") from None
    with part as writer:
        for block in job.samples.blocks(job.shard, codec.block_rows):
            job.samples.refuse_missing_ids(job.shard, first_row - job.first_row, block.attributes)
            latents, error = _encode(block, job, codec)
            writer.write(job.samples.numbered(block.attributes, first_row), latents, error)
            first_row += len(latents)


def _encode(block: Block, job: ShardJob, codec: Codec) -> tuple[np.ndarray, np.ndarray]:
    try:
        latents, error = codec.encode_block(block.pixels, measure=True)
    except DataError as found:
        raise DataError(f"{job.shard.path}: {found}") from None
    assert error is not None
    return latents, error


def run_jobs(
    jobs: list[ShardJob],
    codec: Codec,
    folder: Path,
    progress: Progress,
    make: Make = encode_shard,
    running: Running | None = None,
) -> Made:
    """All jobs side by side (`executors`); their parts in the order of their numbers.

    One that fails by its own fault stops no other: what can be made is made, and then an error names all that cannot,
    or where that is allowed, they are returned as missing; at least one part there must be.
    """
    running = running or Running()
    parts: dict[int, PartEntry] = {}
    failed: dict[int, PipelineError] = {}
    jobs = sorted(jobs, key=lambda job: job.number)
    own_disk = None if running.store is not None and running.store.shared else folder
    for place, made in _each(jobs, codec, folder, make, running, own_disk):
        if isinstance(made, Failed):
            failed[place] = _named(jobs[place], made.error)
            if len(parts) + len(failed) < len(jobs):
                end = "" if running.allow_partial else _NOT_COMMITTED
                warn([f"{failed[place]}; the other shards go on{end}"])
            continue
        parts[place] = made
        progress(jobs[place].shard.rows)
    if failed and not (running.allow_partial and parts):
        raise _all_in_one(list(failed.values()), len(jobs), len(parts))
    missing = [_missing(jobs[place], failed[place]) for place in sorted(failed)]
    return Made([parts[place] for place in sorted(parts)], missing)


def each_part(
    jobs: list[ShardJob], codec: Codec, folder: Path, progress: Progress, running: Running | None = None
) -> Iterator[tuple[int, PartEntry]]:
    """Yield the part of each job with its place, as they come: few lie in the folder if each is taken away at once.

    Raises the first error.
    """
    with closing(_each(jobs, codec, folder, encode_shard, running or Running(), own_disk=folder)) as found:
        for place, made in found:
            if isinstance(made, Failed):
                raise _named(jobs[place], made.error)
            progress(jobs[place].shard.rows)
            yield place, made


def _each(
    jobs: list[ShardJob], codec: Codec, folder: Path, make: Make, running: Running, own_disk: Path | None
) -> Generator[tuple[int, PartEntry | Failed], None, None]:
    with lent(codec, running.store) as borrowed:
        first = jobs[0].samples if jobs else None
        files = () if first is None or first.elsewhere is not None else (jobs[0].shard.path,)
        needs = Needs(borrowed, own_disk, files)
        alone = (replace(job, samples=job.samples.only(job.shard)) for job in jobs)
        job = partial(_made, make, borrowed, folder, own_disk is None)
        with closing(each_shard(job, alone, len(jobs), codec.device, running.execute, needs)) as found:
            for place, result in found:
                if isinstance(result, Failed):
                    yield place, result
                    continue
                entry, seen = result
                jobs[place].samples.join(seen)
                yield place, entry


def _made(make: Make, codec: Borrowed, folder: Path, to_url: bool, job: ShardJob) -> tuple[PartEntry, Any]:
    """The part of a job, and what was seen meanwhile. A machine that lacks the files has its own copies.

    So it has a folder of its own where parts go to a URL.
    """
    samples = job.samples.only(job.shard)  # it has seen nothing, also where the job is tried again
    with ExitStack() as stack:
        stack.enter_context(samples.here())
        if to_url and not folder.exists():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ae-pipeline-")))
        return make(replace(job, samples=samples), codec.codec(), folder), samples.seen()


def _named(job: ShardJob, error: PipelineError) -> PipelineError:
    """An error that says which shard it is of."""
    if not isinstance(error, WorkerError):
        return error
    groups = list(job.shard.row_groups)
    which = f" (row groups {groups[0]} to {groups[-1]})" if len(groups) > 1 else ""
    return error.with_fields(finding=f"{job.shard.path}{which} could not be encoded: {error.finding}")


def _all_in_one(errors: list[PipelineError], count: int, made: int) -> PipelineError:
    """What is raised in the end: the error, or what all of them are, whose kind is that of the first."""
    if len(errors) == 1:
        return errors[0]
    texts = [str(error) for error in errors]
    kept = f"; the other {made:,} are finished, and the same command takes them up" if made else ""
    return type(errors[0])(f"{len(errors):,} of {count:,} shards could not be encoded{kept}: {named(texts, _NAMED)}")


def _missing(job: ShardJob, error: PipelineError) -> MissingEntry:
    name = job.samples.file_name(job.shard.path)
    return MissingEntry(
        number=job.number,
        first_row=job.first_row,
        rows=job.shard.rows,
        job=job.digest,
        shard=ShardEntry(file=name, row_groups=list(job.shard.row_groups), digest=job.samples.shard_digest(job.shard)),
        reason=str(error).replace(str(job.shard.path), name),
    )


def is_whole(path: Path, job: ShardJob) -> bool:
    """Whether an earlier run left this part finished. Reads all of it: its page checksums must hold."""
    if not path.exists():
        return False
    try:
        cut(path)  # raises for what would take too much memory
        options = {"metadata": read_footer(path), "page_checksum_verification": True}
        with pq.ParquetFile(arrow_file(path), **options) as parquet:
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
            names = [*job.samples.attributes_schema.names, LATENT, ERROR]
            if (schema.metadata, schema.names, rows) != (part_metadata(job.digest), names, job.shard.rows):
                return False
            for _ in parquet.iter_batches(batch_size=BLOCK_ROWS):
                pass
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def _id_range(path: Path) -> tuple[int | str, int | str]:
    """The least id of a part and the greatest."""
    with NamedColumnsFile(arrow_file(path)) as parquet:
        batches = parquet.iter_batches(batch_size=65_536, columns=[ID])
        found = [pc.min_max(batch.column(0)).as_py() for batch in batches]
    return min(ids["min"] for ids in found), max(ids["max"] for ids in found)
