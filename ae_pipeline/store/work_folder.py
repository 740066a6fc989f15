"""Where the unfinished parts of a store are kept, so that a run that was cut off is taken up again."""

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
