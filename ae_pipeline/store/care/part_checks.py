"""One part of a store against what its manifest says of it: every byte, then every row."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ae_pipeline.data.samples import ID
from ae_pipeline.errors import StoreError, first_line
from ae_pipeline.store.format.manifest import Manifest, PartEntry
from ae_pipeline.store.format.part_writer import ERROR, PART_KEY, part_metadata
from ae_pipeline.store.format.verified_file import DamagedError, short_digest
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import LocalStorage, Storage, place_of

_BLOCK = 8 << 20
_ROWS = 65_536


def damage_of_part(store: LatentStore, part: PartEntry) -> str | None:
    """What is wrong with a part, in a few words; None if nothing is. Reads all of it, from a remote store once."""
    try:
        with _checked_bytes(store, part) as readable, readable.open_part(part) as parquet:
            _check_description(store.manifest, part, parquet)
            _check_rows(readable, part, parquet)
    except FileNotFoundError:
        return "is missing"
    except StoreError as error:
        return _reason(error, store, part)
    except DamagedError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {first_line(error)}"
    return None


def parts_of_other_size(store: LatentStore) -> list[str]:
    """Names of parts that are missing or have not the size in the manifest; reads nothing. Of a local store."""
    if not isinstance(store.storage, LocalStorage):
        return []  # a question to the server for each part

    found = {path.name: path.stat().st_size for path in store.path.iterdir() if path.is_file()}
    return [part.name for part in store.manifest.parts if found.get(part.name) != part.bytes]


@contextmanager
def _checked_bytes(store: LatentStore, part: PartEntry) -> Iterator[LatentStore]:
    """The store to read a part from whose size, SHA-256 and pieces were compared: of a remote one, a copy of it."""
    if isinstance(store.storage, LocalStorage):
        _check_bytes(store.storage, part, None)
        yield store
        return
    with tempfile.TemporaryDirectory(prefix="ae-pipeline-verify-") as folder:
        with open(Path(folder, part.name), "wb") as copy:
            _check_bytes(store.storage, part, copy)
        yield LatentStore(Path(folder), store.manifest)


def _check_bytes(storage: Storage, part: PartEntry, copy: BinaryIO | None) -> None:
    found = storage.size(part.name)
    if found != part.bytes:
        raise DamagedError(f"has {found} bytes, the manifest says {part.bytes}")
    pieces: list[tuple[int, str | None]] = [
        (int(size), wanted) for size, wanted in (piece.split(":") for piece in part.pieces or [])
    ]
    if not pieces:
        starts = range(0, part.bytes, _BLOCK)
        pieces = [(min(_BLOCK, part.bytes - start), None) for start in starts]
    if sum(size for size, _ in pieces) != part.bytes:
        raise DamagedError("its pieces in the manifest do not add up to its size")
    whole = hashlib.sha256()
    changed = []
    start = 0
    for size, wanted in pieces:
        piece = hashlib.sha256()
        for block in range(start, start + size, _BLOCK):
            data = storage.read_range(part.name, block, min(_BLOCK, start + size - block))
            whole.update(data)
            piece.update(data)
            if copy:
                copy.write(data)
        if wanted not in (None, short_digest(piece)):
            changed.append(f"{start} to {start + size}")
        start += size
    if changed:
        raise DamagedError(f"bytes {', '.join(changed)} were changed")
    if whole.hexdigest() != part.sha256:
        raise DamagedError("its SHA-256 is not the one in the manifest")


def _check_description(manifest: Manifest, part: PartEntry, parquet: pq.ParquetFile) -> None:
    """What the footer says. The bytes are as written: what does not fit here was written wrong."""
    found = [(field.name, str(field.type)) for field in parquet.schema_arrow]
    expected = [(column.name, column.type) for column in manifest.columns]
    if found != expected:
        raise DamagedError(f"has the columns {_listed(found)}, the manifest says {_listed(expected)}")
    metadata = parquet.schema_arrow.metadata or {}
    if metadata.get(PART_KEY) != part_metadata(part.job)[PART_KEY] or part.job[:16] not in part.name:
        raise DamagedError("was made by another job than the manifest says")
    groups = [parquet.metadata.row_group(number).num_rows for number in range(parquet.metadata.num_row_groups)]
    if sum(groups) != part.rows:
        raise DamagedError(f"has {sum(groups)} rows, the manifest says {part.rows}")
    wanted = manifest.latent.row_group_rows
    if any(rows != wanted for rows in groups[:-1]) or groups[-1] > wanted:
        raise DamagedError(f"has row groups of other than {wanted} rows")


def _check_rows(store: LatentStore, part: PartEntry, parquet: pq.ParquetFile) -> None:
    levels = store.manifest.latent.levels
    lowest, highest = -(levels // 2), levels - 1 - levels // 2
    smallest: list[Any] = []
    largest: list[Any] = []
    for batch in parquet.iter_batches(batch_size=_ROWS):
        table = pa.table(batch)
        for name in (ID, ERROR):
            if table.column(name).null_count:
                raise DamagedError(f"has rows without `{name}`")
        latents = store.to_rows(table).latents
        if latents.min() < lowest or latents.max() > highest:
            raise DamagedError(f"has latents that are not from {lowest} to {highest}")
        ids = pc.min_max(table.column(ID)).as_py()
        smallest.append(ids["min"])
        largest.append(ids["max"])
    if (min(smallest), max(largest)) != (part.id_min, part.id_max):
        raise DamagedError(
            f"has ids from {min(smallest)} to {max(largest)}, the manifest says from {part.id_min} to {part.id_max}"
        )


def _reason(error: StoreError, store: LatentStore, part: PartEntry) -> str:
    """A message without the file and the advice, which the report gives once."""
    text = str(error).split("; restore it")[0]
    text = text.split(f"{part.name} ", 1)[-1]
    return text.removeprefix(f"{place_of(store.storage, part.name)} ").removeprefix("is damaged: ")


def _listed(columns: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in columns)
