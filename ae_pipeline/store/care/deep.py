"""`verify --deep`: the parts of a store against the data that they were made from."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.codec.codec import BLOCK_ROWS, Codec
from ae_pipeline.data.sample_files import key_in_path
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DataError, StoreError, as_in_messages
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.care.findings import Compared, Verified
from ae_pipeline.store.care.make_again import find_shards, make_again, open_sources, plan_again
from ae_pipeline.store.executors import HERE
from ae_pipeline.store.format.manifest import PartEntry
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import load_store_codec
from ae_pipeline.store.writing.shards import Progress, Running

# On another processor a latent on a rounding edge may become the next integer: few do, and by one only.
_ROUNDED_SHARE = 0.01


def verify_deep(
    place: Path | str,
    verified: Verified,
    data: Sequence[Path | str],
    device: str,
    progress: Progress,
    execute: ExecuteParams = HERE,
) -> Verified:
    """Encode the data of a verified store again, and add to the report how its whole parts compare.

    Nothing is added where the store's codec cannot be loaded. Raises DataError, CodecError: not the data of the store.
    """
    if verified.snapshot is None:
        return verified
    store = LatentStore.open(place, verified.snapshot)
    try:
        codec = load_store_codec(store, device)
    except (CodecError, StoreError):
        return verified
    parts = [part for part in store.manifest.parts if part.name not in verified.damaged_files]
    with tempfile.TemporaryDirectory() as folder:
        sources = open_sources(data, place)
        return replace(
            verified, deep=compare_with_source(store, parts, sources, codec, Path(folder), progress, execute)
        )


def compare_with_source(
    store: LatentStore,
    parts: list[PartEntry],
    sources: list[SampleSet],
    codec: Codec,
    folder: Path,
    progress: Progress,
    execute: ExecuteParams = HERE,
) -> Compared:
    """Make these parts again in `folder` and compare bytes, or where they differ, rows.

    Raises DataError if none of them was made from these sources.
    """
    jobs = plan_again(store, {part.name for part in parts}, sources, codec)
    if not jobs:
        raise _no_data(store, parts, sources)
    held = {part.shard.digest for part in store.manifest.parts}
    others = [found for digest, found in find_shards(sources).items() if digest not in held]
    paths = {samples.file_name(shard.path): as_in_messages(str(shard.path)) for samples, shard in others}
    missing = {part.name: part.shard.file for part in parts if part.name not in jobs}
    compared = Compared(
        not_compared=list(missing),
        renewed={name: paths[file] for name, file in missing.items() if file in paths},
        rows_not_in_store=sum(shard.rows for _, shard in others),
        left_out=[as_in_messages(samples.left_out) for samples in sources if samples.left_out],
    )
    listed = {part.name: part for part in parts}
    for name, made in make_again(jobs, codec, folder, progress, Running(execute, store.storage)):
        _compare(store, listed[name], made, folder, compared)
        (folder / made.name).unlink()
    same = set(compared.same_rows)
    compared.same_rows = [name for name in jobs if name in same]  # they came in any order
    compared.different = {name: compared.different[name] for name in jobs if name in compared.different}
    compared.rounded = {name: compared.rounded[name] for name in jobs if name in compared.rounded}
    return compared


def _no_data(store: LatentStore, parts: list[PartEntry], sources: list[SampleSet]) -> DataError:
    columns = {column.name for column in store.manifest.columns}
    above = next(filter(None, (key_in_path(samples.files[0], columns) for samples in sources)), None)
    hint = f", and give the folder above `{above}`, whose key is a column in the store" if above else ""
    return DataError(
        f"none of the {len(parts)} parts of {store.location} was made from the given data; give the files that "
        f"were encoded, unchanged{hint}"
    )


def _compare(store: LatentStore, listed: PartEntry, made: PartEntry, folder: Path, compared: Compared) -> None:
    name = listed.name
    if made.sha256 == listed.sha256:
        compared.identical += 1
        return
    if made.rows != listed.rows:
        compared.different[name] = f"has {listed.rows} rows, the data {made.rows}"
        return
    again = LatentStore(folder, store.manifest)
    changed = total = 0
    largest = 0
    pairs = zip(store.read_part(listed, BLOCK_ROWS), again.read_part(made, BLOCK_ROWS), strict=True)
    for found, expected in pairs:
        if not _same_values(found.attributes, expected.attributes):
            compared.different[name] = "has other ids or attributes than the data"
            return
        steps = np.abs(found.latents.astype(np.int16) - expected.latents)
        changed += int(np.count_nonzero(steps))
        largest = max(largest, int(steps.max()))
        total += steps.size
    if largest > 1 or changed > _ROUNDED_SHARE * total:
        compared.different[name] = f"{changed:,} of {total:,} latents are not those of the data"
    elif changed:
        compared.rounded[name] = changed
    else:
        compared.same_rows.append(name)


def _same_values(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables of parts hold the same values: Arrow's `equals` says that NaN differs from NaN."""
    return one.schema.equals(other.schema) and _in_parquet(one) == _in_parquet(other)


def _in_parquet(table: pa.Table) -> pa.Buffer:
    """The values alone: no chunks, no dictionaries, nothing in the place of a null."""
    file = pa.BufferOutputStream()
    plain = table.combine_chunks().replace_schema_metadata()
    pq.write_table(plain, file, use_dictionary=False, write_statistics=False, compression="none")
    return file.getvalue()
