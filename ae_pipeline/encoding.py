"""Encode a data set into a latent store: one input shard makes one part, by a pure function of codec and shard.

The parts are written in a work folder named by what they are made from, so that a run that was cut off is taken up
again; the manifest is written last, and one rename makes the folder the store.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ae_pipeline.codec import BLOCK_ROWS, Codec
from ae_pipeline.codec_header import HEADER_NAME, WEIGHTS_NAME, read_header
from ae_pipeline.devices import choose_device, cpu_count, one_torch_thread, use_one_torch_thread
from ae_pipeline.errors import CodecError, DataError, TargetError
from ae_pipeline.files import finished_file, make_folder, refuse_existing, rename_folder, sha256_file, sha256_json
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
    codec_fingerprint: str
    layout: str
    row_group_rows: int

    @property
    def digest(self) -> str:
        """SHA-256 (hex) that names the work; equal digests mean equal parts."""
        first_row = sum(shard.rows for shard in self.samples.shards[: self.number])
        made_of = {
            "codec": self.codec_fingerprint,
            "shard": self.samples.shard_digest(self.shard),
            # Row numbers stand in for ids where the source has none.
            "first_row": first_row,
            "layout": self.layout,
            "row_group_rows": self.row_group_rows,
            "pyarrow": pa.__version__,
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
    if header.spec != samples.spec:
        raise CodecError(
            f"{codec_path} is for samples of {header.spec.describe()}, but the data set has {samples.spec.describe()}; "
            "use the codec that was trained for it"
        )
    _check_ids(samples)
    jobs = [
        ShardJob(samples, shard, number, header.fingerprint, params.layout, params.row_group_rows)
        for number, shard in enumerate(samples.shards)
    ]
    key = sha256_json([job.digest for job in jobs])[:16]
    make_folder(store.parent)
    with _own_folder((work or store.parent) / f".{store.name}.{key}.partial") as folder:
        codec = Codec.load(codec_path, choose_device(params.device))
        entries = _run(jobs, codec, folder, progress)
        manifest = Manifest(
            format=1,
            snapshot=1,
            parent=None,
            codec=_copy_codec(codec_path, folder / CODEC_FOLDER, header.fingerprint),
            samples=header.samples,
            latent=LatentEntry(
                size=codec.latent_size,
                levels=header.quantiser.levels,
                layout=params.layout,
                row_group_rows=params.row_group_rows,
            ),
            columns=_columns(folder / entries[0].name),
            source=SourceEntry(name=name, digest=samples.digest, rows=samples.rows),
            parts=entries,
            totals=Totals(
                rows=samples.rows, bytes_in=samples.nbytes, bytes_parts=sum(entry.bytes for entry in entries)
            ),
            written_by={"versions": library_versions(), "git": git},
        )
        _sweep(folder, manifest)
        write_manifest(folder, manifest)
        try:
            rename_folder(folder, store)
        except TargetError:
            shutil.rmtree(folder)  # somebody else's store has the name now: this work is of no use
            raise
    return LatentStore.open(store)


def encode_shard(job: ShardJob, codec: Codec, folder: Path) -> PartEntry:
    """Make one part in `folder`, or take the one that is there if it is whole and of the same job."""
    path = folder / job.part_name
    if not _is_whole(path, job):
        schema = job.samples.attributes_schema
        with PartWriter(path, schema, job.layout, codec.latent_size, job.row_group_rows, job.digest) as writer:
            for block in job.samples.blocks(job.shard, BLOCK_ROWS):
                if block.attributes.column(ID).null_count:
                    raise DataError(f"{job.shard.path}: some rows have no id; give every row one, or drop the column")
                latents, error = codec.encode_block(block.pixels, measure=True)
                assert error is not None
                writer.write(block.attributes, latents, error)
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


@contextmanager
def _own_folder(folder: Path) -> Iterator[Path]:
    """Make a work folder and lock it: of two runs that want the same work done, the second is told."""
    make_folder(folder)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    except BlockingIOError:
        raise TargetError(f"another run is writing {folder}; wait for it, or choose another target") from None
    finally:
        os.close(lock)


def _check_ids(samples: SampleSet) -> None:
    kind = samples.attributes_schema.field(ID).type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{samples.files[0]}: `{ID}` is of type {kind}, expected integers or strings; convert it first")


def _run(jobs: list[ShardJob], codec: Codec, folder: Path, progress: Progress) -> list[PartEntry]:
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
