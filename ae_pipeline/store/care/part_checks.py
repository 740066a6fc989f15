"""One part of a store, or one segment of its manifest, against what the manifest says: every byte, then every row."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ae_pipeline.data.samples import ID
from ae_pipeline.errors import first_line
from ae_pipeline.store.format.manifest import Manifest
from ae_pipeline.store.format.part_entries import PART_NAME, PartEntry
from ae_pipeline.store.format.part_writer import ERROR, PART_KEY, part_metadata
from ae_pipeline.store.format.segment_file import SegmentEntry, SegmentFile, as_file, what_it_lists
from ae_pipeline.store.format.verified_file import DamagedError, check_bytes
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import LocalStorage, Storage

_ROWS = 65_536


def damage_of_part(storage: Storage, manifest: Manifest, part: PartEntry) -> str | None:
    """What is wrong with a part, in a few words; None if nothing is. Reads all of it, from a remote store once.

    `manifest` is that of the store; its list of parts is not used.
    """
    store = LatentStore(storage, manifest)

    def check() -> None:
        with checked_bytes(store, part) as readable, readable.checked_part(part) as parquet:
            # The bytes are as written: what does not fit from here on was written wrong.
            _check_groups(store, part, parquet)
            _check_rows(store, part, parquet)

    return _what_is_wrong(check)


def size_warnings(store: LatentStore) -> list[str]:
    """Warn of parts of a local store that are missing or have not the size in the manifest; reads nothing of them.

    Growing makes damage no worse, but whoever adds to a store should hear of it.
    """
    if not isinstance(store.storage, LocalStorage):
        return []  # a question to the server for each part
    found = {path.name: path.stat().st_size for path in store.path.iterdir() if path.is_file()}
    wrong = [part.name for part in store.manifest.parts if found.get(part.name) != part.bytes]
    if not wrong:
        return []
    which = f"{len(wrong)} parts of the store are missing or of another size ({', '.join(wrong[:3])})"
    return [f"{which}: see `ae-pipeline verify {store.location}`"]


@contextmanager
def checked_bytes(store: LatentStore, part: PartEntry) -> Iterator[LatentStore]:
    """The store to read a part from whose bytes were all compared: of a remote one, a copy of the part."""
    if isinstance(store.storage, LocalStorage):
        check_bytes(store.storage, part)
        yield store
        return
    with tempfile.TemporaryDirectory(prefix="ae-pipeline-verify-") as folder:
        with open(Path(folder, part.name), "wb") as copy:
            check_bytes(store.storage, part, copy)
        yield LatentStore(Path(folder), store.manifest, codec_of=store)


def _check_groups(store: LatentStore, part: PartEntry, parquet: pq.ParquetFile) -> None:
    metadata = parquet.schema_arrow.metadata or {}
    if (
        metadata.get(PART_KEY) != part_metadata(part.job, part.joined_numbers)[PART_KEY]
        or part.job[:16] not in part.name
    ):
        raise DamagedError("was made by another job than the manifest says")
    groups = [parquet.metadata.row_group(number).num_rows for number in range(parquet.metadata.num_row_groups)]
    wanted = store.manifest.latent.row_group_rows
    if any(rows != wanted for rows in groups[:-1]) or groups[-1] > wanted:
        raise DamagedError(f"has row groups of other than {wanted} rows")


def _check_rows(store: LatentStore, part: PartEntry, parquet: pq.ParquetFile) -> None:
    levels = store.manifest.latent.levels
    lowest, highest = -(levels // 2), levels - 1 - levels // 2
    ids: list[Any] = []
    for batch in parquet.iter_batches(batch_size=_ROWS):
        table = pa.table(batch)
        for name in (ID, ERROR):
            if table.column(name).null_count:
                raise DamagedError(f"has rows without `{name}`")
        latents = store.to_latents(table)
        if latents.min() < lowest or latents.max() > highest:
            raise DamagedError(f"has latents that are not from {lowest} to {highest}")
        ids += pc.min_max(table.column(ID)).as_py().values()
    least, greatest = min(ids), max(ids)
    if (least, greatest) != (part.id_min, part.id_max):
        told = f"the manifest says from {part.id_min} to {part.id_max}"
        raise DamagedError(f"has ids from {least} to {greatest}, {told}")


def damage_of_segment(storage: Storage, segment: SegmentEntry) -> str | None:
    """What is wrong with a segment, in a few words; None if nothing is."""

    def check() -> None:
        check_bytes(storage, as_file(segment))
        with SegmentFile(storage, as_file(segment)) as file:
            # The bytes are as written: what does not fit from here on was written wrong.
            _check_entries(segment, file.columns())

    return _what_is_wrong(check)


def _what_is_wrong(check: Callable[[], None]) -> str | None:
    """What a check of a file finds, in a few words; None if nothing."""
    try:
        check()
    except FileNotFoundError:
        return "is missing"
    except MemoryError:  # Arrow's is one of its exceptions
        raise
    except OSError as error:
        return f"cannot be read: {first_line(error)}"
    except (pa.ArrowException, ValueError, KeyError) as error:
        return first_line(error)
    return None


def _check_entries(segment: SegmentEntry, table: pa.Table) -> None:
    found = what_it_lists(table)
    for key, value in found.items():
        if value != getattr(segment, key):
            raise DamagedError(f"has {key} {value}, the manifest says {getattr(segment, key)}")
    names = table.column("name")
    if not pc.all(pc.match_substring_regex(names, PART_NAME)).as_py():
        raise DamagedError("lists a name that no part can have")
    # The digits of a job stand in the name of its part, behind a number of any length.
    numbers = pc.cast(pc.utf8_slice_codeunits(names, 5, -25), pa.int64())
    if pc.max(numbers).as_py() != segment.last_number:
        raise DamagedError(f"has parts up to number {pc.max(numbers).as_py()}, the manifest says {segment.last_number}")
    if pc.min(table.column("rows")).as_py() < 1 or pc.min(table.column("bytes")).as_py() < 0:
        raise DamagedError("lists a part without rows, or with less than no bytes")
    _check_shards(table)


def _check_shards(table: pa.Table) -> None:
    shards = table.column("shards").combine_chunks()
    counts = pc.list_value_length(shards)
    if pc.min(counts).as_py() < 1:
        raise DamagedError("lists a part without a shard")
    joined = pc.filter(shards, pc.greater(counts, 1))
    rows = pc.filter(table.column("rows"), pc.greater(counts, 1))
    for some, wanted in zip(joined, rows, strict=True):
        if sum(shard["rows"] or 0 for shard in some.as_py()) != wanted.as_py():
            raise DamagedError("lists a joined part whose rows are not those of its shards")
