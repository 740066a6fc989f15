"""Encode a data set into a latent store: one input shard makes one part, by a pure function of codec and shard.

The parts are written in a work folder named by what they are made from, so that a run that was cut off is taken up
again; the manifest is written last, and one rename makes the folder the store. `appending.py` adds to a store with
the same pieces.
"""

import glob
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.arrow_files import arrow_file
from ae_pipeline.codec import Codec
from ae_pipeline.codec_header import HEADER_NAME, WEIGHTS_NAME, CodecHeader, read_header
from ae_pipeline.devices import choose_device
from ae_pipeline.errors import CodecError, DataError, LinkedStoreError, StoreError, TargetError
from ae_pipeline.files import (
    clear_folder,
    finished_file,
    is_free,
    locked_folder,
    make_folder,
    recorded_name,
    refuse_existing,
    rename_folder,
    require_one_file_system,
    sha256_file,
    sha256_json,
)
from ae_pipeline.params import EncodeParams
from ae_pipeline.provenance import library_versions
from ae_pipeline.sample_schema import refuse_alike
from ae_pipeline.samples import ID, SampleSet
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.manifest import (
    CODEC_FOLDER,
    MANIFEST_NAME,
    STORE_FORMAT,
    CodecEntry,
    ColumnEntry,
    LatentEntry,
    Manifest,
    PartEntry,
    SourceEntry,
    Totals,
    holds_part_of_store,
    read_manifest,
    write_manifest,
)
from ae_pipeline.store.part_writer import BESIDE
from ae_pipeline.store.probe import measure_probe
from ae_pipeline.store.shard_jobs import Progress, ShardJob, plan_jobs, run_jobs
from ae_pipeline.store.storage import as_place, open_storage


def encode_samples(
    samples: SampleSet,
    codec_path: Path,
    store: Path | str,
    params: EncodeParams,
    *,
    name: str,
    git: dict[str, Any],
    work: Path | None = None,
    progress: Progress = lambda rows: None,
) -> LatentStore:
    """Write a latent store at `store`, a folder or a URL such as s3://bucket/store, that must not exist yet.

    A store that is whole and of just this work is left as it is.

    `name` is recorded as the data set's name; `git` as in `provenance.git_state`. `work` is where unfinished work is
    kept (default: beside the store; of a URL, a temporary folder). Peak memory does not depend on the number of rows.
    Raises TargetError, DataError, CodecError, UnreachableError.
    """
    store = as_place(store)
    if not has_manifest(store):
        refuse_existing_store(store)
    header = read_header(codec_path)
    check_samples(samples, header, codec_path)
    check_names(samples)
    source = SourceEntry(name=recorded_name(name), digest=samples.digest, rows=samples.rows)
    jobs = _jobs(samples, header, params)
    # A run that was stopped after its last step is to be repeated like any other.
    if is_finished(store, jobs):
        progress(samples.rows)
        return LatentStore.open(store)
    refuse_existing_store(store)
    key = sha256_json([job.digest for job in jobs])
    return create_store(store, jobs, codec_path, params, source=source, key=key, git=git, work=work, progress=progress)


def remove_other(store: Path, samples: SampleSet, codec_path: Path, params: EncodeParams) -> None:
    """Remove what is at `store`, unless it is the finished store that `encode_samples` would make of the others."""
    if store.exists() and not is_finished(store, _jobs(samples, read_header(codec_path), params)):
        shutil.rmtree(store)


def has_manifest(store: Path | str) -> bool:
    """Whether there is a store at a folder or URL; a place without a manifest is none."""
    try:
        open_storage(store).size(MANIFEST_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # reading it says why
    return True


def refuse_existing_store(store: Path | str) -> None:
    """Raise TargetError unless a new store can be made at a folder or URL."""
    if isinstance(store, Path):
        if not has_manifest(store) and store.is_dir() and holds_part_of_store(open_storage(store)):
            read_manifest(store)  # raises: it says what to do about a manifest that was lost
        refuse_existing(store)
        for folder in store.resolve().parents:
            if has_manifest(folder):
                raise TargetError(f"{store} lies inside the store {folder}; choose a target outside it")
        return
    from ae_pipeline.store.remote import refuse_existing_remote

    refuse_existing_remote(store)


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


def check_names(samples: SampleSet) -> None:
    """Raise DataError for columns that a new store does not take: readers could not tell them from others.

    Stores that have such columns were written before this was checked; they are read, repaired and grow as ever.
    """
    ids = "the rows' ids" if samples.has_ids else "the row numbers that are ids where a file has no column of that name"
    refuse_alike(samples.files[0], samples.attributes_schema, {**BESIDE, ID: ids})


def check_id_type(file: Path, kind: pa.DataType) -> None:
    """The same of one file."""
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{file}: `{ID}` is of type {kind}, expected integers or strings; convert it first")


def create_store(
    store: Path | str,
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
    if isinstance(store, str):
        from ae_pipeline.store.remote import create_remote

        return create_remote(
            store, jobs, codec_path, params, source=source, key=key, git=git, work=work, progress=progress
        )
    with work_folder(store, work, key) as folder:
        codec = Codec.load(codec_path, choose_device(params.device))
        entries = run_jobs(jobs, codec, folder, progress)
        copy = copy_codec(codec_path, folder / CODEC_FOLDER, jobs[0].codec_fingerprint)
        manifest = first_manifest(folder, codec, copy, entries, params, source=source, git=git)
        # Left by an interrupted run, and not listed.
        clear_folder(folder, keep={CODEC_FOLDER, *(part.name for part in manifest.parts)})
        write_manifest(folder, manifest)
        try:
            rename_folder(folder, store)
        except TargetError:
            if not is_free(store):  # somebody else's store has the name now: this work is of no use
                shutil.rmtree(folder)
            raise
    return LatentStore.open(store)


def first_manifest(
    folder: Path,
    codec: Codec,
    copy: CodecEntry,
    parts: list[PartEntry],
    params: EncodeParams,
    *,
    source: SourceEntry,
    git: dict[str, Any],
) -> Manifest:
    """The manifest of a new store, with its probe; `folder` holds the codec and the first part."""
    manifest = Manifest(
        format=STORE_FORMAT,
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
        columns=columns_of(folder / parts[0].name),
        source=source,
        parts=parts,
        totals=Totals(
            rows=source.rows,
            bytes_in=source.rows * codec.spec.nbytes,
            bytes_parts=sum(part.bytes for part in parts),
        ),
        written_by=written_by(git),
    )
    return manifest.model_copy(update={"probe": measure_probe(LatentStore(folder, manifest), codec=codec)})


def _jobs(samples: SampleSet, header: CodecHeader, params: EncodeParams) -> list[ShardJob]:
    return plan_jobs(((samples, shard) for shard in samples.shards), header.fingerprint, params)


def is_finished(store: Path | str, jobs: list[ShardJob]) -> bool:
    """Whether there is a store of these jobs, in its first snapshot and undamaged: reads all its bytes.

    Of a store at a URL, only the sizes of its parts are compared.
    """
    if isinstance(store, str):
        from ae_pipeline.store.remote import is_finished_remote

        return is_finished_remote(store, jobs)
    try:
        manifest = read_manifest(store)
        files = {part.name: part.sha256 for part in manifest.parts}
        files |= {f"{CODEC_FOLDER}/{name}": digest for name, digest in manifest.codec.files.items()}
        return (
            manifest.snapshot == 1
            and [part.job for part in manifest.parts] == [job.digest for job in jobs]
            and all(sha256_file(store / name) == digest for name, digest in files.items())
        )
    except LinkedStoreError:
        raise  # it may be just that one
    except (StoreError, OSError):
        return False


def partial_folder(store: Path, work: Path | None, key: str) -> Path:
    """Where unfinished parts of a store are kept; `key` is a digest of what is being made."""
    return (work or store.parent) / f".{store.name}.{key[:16]}.partial"


def unfinished_work(store: Path) -> list[Path]:
    """Work folders beside a store that interrupted runs have left: of other data, another codec or another layout."""
    return sorted(store.parent.glob(f".{glob.escape(store.name)}.{'[0-9a-f]' * 16}.partial"))


@contextmanager
def work_folder(store: Path, work: Path | None, key: str) -> Iterator[Path]:
    """`partial_folder`, made and locked.

    Raises TargetError if another run has it, and before any work if it is not on the store's file system.
    """
    make_folder(store.parent)
    with locked_folder(partial_folder(store, work, key)) as folder:
        try:
            require_one_file_system(folder, store.parent)
            yield folder
        finally:
            with suppress(OSError):  # it has become the store, or holds work that the next run takes up
                folder.rmdir()


def written_by(git: dict[str, Any]) -> dict[str, Any]:
    """The manifest's `written_by`."""
    return {"versions": library_versions(), "git": git}


def columns_of(part: Path) -> list[ColumnEntry]:
    """Names and types of a part's columns."""
    return [ColumnEntry(name=field.name, type=str(field.type)) for field in pq.read_schema(arrow_file(part))]


def copy_codec(source: Path, target: Path, fingerprint: str) -> CodecEntry:
    """The codec's files in a folder of their own, and their entry in the manifest. Raises CodecError."""
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
