"""Encode a data set into a latent store: one input shard makes one part, by a pure function of codec and shard.

The parts are written in a work folder named by what they are made from, so that a run that was cut off is taken up
again; the manifest is written last, and one rename makes the folder the store. `appending.py` adds to a store with
the same pieces.
"""

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ae_pipeline.codec import BLOCK_ROWS, Codec
from ae_pipeline.codec_header import HEADER_NAME, WEIGHTS_NAME, CodecHeader, read_header
from ae_pipeline.devices import choose_device, cpu_count, one_torch_thread, use_one_torch_thread
from ae_pipeline.errors import CodecError, DataError, TargetError
from ae_pipeline.files import (
    finished_file,
    locked_folder,
    make_folder,
    refuse_existing,
    rename_folder,
    sha256_file,
    sha256_json,
)
from ae_pipeline.latent_store import ERROR, LatentStore, PartWriter, part_metadata
from ae_pipeline.layouts import LATENT
from ae_pipeline.manifest import (
    CODEC_FOLDER,
    CodecEntry,
    ColumnEntry,
    LatentEntry,
    Manifest,
    PartEntry,
    ShardEntry,
    SourceEntry,
    Totals,
    write_manifest,
)
from ae_pipeline.params import EncodeParams
from ae_pipeline.provenance import library_versions
from ae_pipeline.samples import ID, SampleSet, Shard

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

    @property
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


def encode_samples(
    samples: SampleSet,
    codec_path: Path,
    store: Path,
    params: EncodeParams,
    *,
    name: str,
    git: dict[str, Any],
    work: Path | None = None,
    progress: Progress = lambda rows: None,
) -> LatentStore:
    """Write a latent store at `store`, which must not exist yet.

    `name` is recorded as the data set's name; `git` as in `provenance.git_state`. `work` is where unfinished work is
    kept (default: beside the store). Peak memory does not depend on the number of rows.
    Raises TargetError, DataError, CodecError.
    """
    refuse_existing(store)
    header = read_header(codec_path)
    check_samples(samples, header, codec_path)
    jobs = plan_jobs(((samples, shard) for shard in samples.shards), header.fingerprint, params)
    source = SourceEntry(name=name, digest=samples.digest, rows=samples.rows)
    key = sha256_json([job.digest for job in jobs])
    return create_store(store, jobs, codec_path, params, source=source, key=key, git=git, work=work, progress=progress)


def check_samples(samples: SampleSet, header: CodecHeader, codec_path: Path) -> None:
    """Raise CodecError or DataError unless the codec is for these samples and their ids can be kept."""
    if header.spec != samples.spec:
        raise CodecError(
            f"{codec_path} is for samples of {header.spec.describe()}, but the data set has {samples.spec.describe()}; "
            "use the codec that was trained for it"
        )
    check_ids(samples)


def check_ids(samples: SampleSet) -> None:
    """Raise DataError unless the ids are of a type that a store keeps."""
    check_id_type(samples.files[0], samples.attributes_schema.field(ID).type)


def check_id_type(file: Path, kind: pa.DataType) -> None:
    """The same of one file."""
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{file}: `{ID}` is of type {kind}, expected integers or strings; convert it first")


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


def create_store(
    store: Path,
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
    """Run the jobs in the work folder of `key`, and make that folder the store, as its first snapshot."""
    make_folder(store.parent)
    with locked_folder(partial_folder(store, work, key)) as folder:
        codec = Codec.load(codec_path, choose_device(params.device))
        entries = run_jobs(jobs, codec, folder, progress)
        entry = _copy_codec(codec_path, folder / CODEC_FOLDER, jobs[0].codec_fingerprint)
        manifest = _first_manifest(codec, entry, source, entries, _columns(folder / entries[0].name), params, git)
        _sweep(folder, manifest)
        write_manifest(folder, manifest)
        try:
            rename_folder(folder, store)
        except TargetError:
            shutil.rmtree(folder)  # somebody else's store has the name now: this work is of no use
            raise
    return LatentStore.open(store)


def _first_manifest(
    codec: Codec,
    copy: CodecEntry,
    source: SourceEntry,
    parts: list[PartEntry],
    columns: list[ColumnEntry],
    params: EncodeParams,
    git: dict[str, Any],
) -> Manifest:
    return Manifest(
        format=1,
        snapshot=1,
        parent=None,
        codec=copy,
        samples=codec.header.samples,
        latent=LatentEntry(
            size=codec.latent_size,
            levels=codec.header.quantiser.levels,
            layout=params.layout,
            row_group_rows=params.row_group_rows,
        ),
        columns=columns,
        source=source,
        parts=parts,
        totals=Totals(
            rows=source.rows,
            bytes_in=source.rows * codec.spec.nbytes,
            bytes_parts=sum(part.bytes for part in parts),
        ),
        written_by=written_by(git),
    )


def partial_folder(store: Path, work: Path | None, key: str) -> Path:
    """Where unfinished parts of a store are kept; `key` is a digest of what is being made."""
    return (work or store.parent) / f".{store.name}.{key[:16]}.partial"


def written_by(git: dict[str, Any]) -> dict[str, Any]:
    """The manifest's `written_by`."""
    return {"versions": library_versions(), "git": git}


def encode_shard(job: ShardJob, codec: Codec, folder: Path) -> PartEntry:
    """Make one part in `folder`, or take the one that is there if it is whole and of the same job."""
    path = folder / job.part_name
    if not _is_whole(path, job):
        schema = job.samples.attributes_schema
        first_row = job.first_row
        with PartWriter(path, schema, job.layout, codec.latent_size, job.row_group_rows, job.digest) as writer:
            for block in job.samples.blocks(job.shard, BLOCK_ROWS):
                if block.attributes.column(ID).null_count:
                    raise DataError(f"{job.shard.path}: some rows have no id; give every row one, or drop the column")
                latents, error = codec.encode_block(block.pixels, measure=True)
                assert error is not None
                attributes = block.attributes
                if not job.samples.has_ids:
                    numbers = np.arange(first_row, first_row + len(latents))
                    attributes = attributes.set_column(0, schema.field(ID), [numbers])
                writer.write(attributes, latents, error)
                first_row += len(latents)
    ids = _id_range(path)
    return PartEntry(
        name=job.part_name,
        rows=job.shard.rows,
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
        id_min=ids[0],
        id_max=ids[1],
        job=job.digest,
        shard=ShardEntry(
            file=job.shard.path.name,
            row_groups=list(job.shard.row_groups),
            digest=job.samples.shard_digest(job.shard),
        ),
    )


def run_jobs(jobs: list[ShardJob], codec: Codec, folder: Path, progress: Progress) -> list[PartEntry]:
    """All jobs, one per CPU at a time; a GPU is fed by two, so that reading overlaps computing."""
    workers = min(len(jobs), cpu_count() if codec.device.type == "cpu" else 2)
    entries: dict[int, PartEntry] = {}
    with one_torch_thread(), ThreadPoolExecutor(workers, initializer=use_one_torch_thread) as pool:
        running = {pool.submit(encode_shard, job, codec, folder): job for job in jobs}
        try:
            for done in as_completed(running):
                entries[running[done].number] = done.result()
                progress(running[done].shard.rows)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [entries[number] for number in sorted(entries)]


def _is_whole(path: Path, job: ShardJob) -> bool:
    """Whether an earlier run left this part finished. Reads all of it: its page checksums must hold."""
    if not path.exists():
        return False
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
            names = [*job.samples.attributes_schema.names, LATENT, ERROR]
            if (schema.metadata, schema.names, rows) != (part_metadata(job.digest), names, job.shard.rows):
                return False
            for _ in parquet.iter_batches(batch_size=BLOCK_ROWS):
                pass
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def _id_range(path: Path) -> tuple[int | str, int | str]:
    with pq.ParquetFile(path) as parquet:
        batches = list(parquet.iter_batches(batch_size=65_536, columns=[ID]))
    ranges = [pc.min_max(batch.column(0)).as_py() for batch in batches]
    return min(found["min"] for found in ranges), max(found["max"] for found in ranges)


def _columns(part: Path) -> list[ColumnEntry]:
    return [ColumnEntry(name=field.name, type=str(field.type)) for field in pq.read_schema(part)]


def _copy_codec(source: Path, target: Path, fingerprint: str) -> CodecEntry:
    shutil.rmtree(target, ignore_errors=True)  # an interrupted run may have left half a copy
    make_folder(target)
    for name in (HEADER_NAME, WEIGHTS_NAME):
        with finished_file(target / name) as temporary:
            shutil.copyfile(source / name, temporary)
    if read_header(target).fingerprint != fingerprint:
        raise CodecError(f"{source} changed while it was being used; encode again")
    return CodecEntry(
        fingerprint=fingerprint,
        bytes=sum((target / name).stat().st_size for name in (HEADER_NAME, WEIGHTS_NAME)),
        files={name: sha256_file(target / name) for name in (HEADER_NAME, WEIGHTS_NAME)},
    )


def _sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what an interrupted run left in the work folder and the manifest does not list."""
    listed = {part.name for part in manifest.parts} | {CODEC_FOLDER}
    for item in folder.iterdir():
        if item.name not in listed:
            if item.is_dir():
                shutil.rmtree(item)
            else:
                item.unlink()
