"""`verify --deep`: the parts of a store against the data that they were made from."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ae_pipeline.codec.codec import BLOCK_ROWS, Codec
from ae_pipeline.data.parquet.writer import rechunk
from ae_pipeline.data.sample_files import key_in_path
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DataError, StoreError, as_in_messages
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.care.findings import Compared, Verified
from ae_pipeline.store.care.make_again import Plan, find_shards, make_again, open_sources, plan_again
from ae_pipeline.store.care.same_values import same_values
from ae_pipeline.store.executors import HERE
from ae_pipeline.store.format.part_entries import PartEntry, rows_of_shards
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import load_store_codec
from ae_pipeline.store.writing.shards import Progress, Running, each_part

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
    plans = plan_again(store, {part.name for part in parts}, sources, codec)
    if not plans:
        raise _no_data(store, parts, sources)
    held = set(store.manifest.shard_digests)
    others = [found for digest, found in find_shards(sources).items() if digest not in held]
    paths = {samples.file_name(shard.path): as_in_messages(str(shard.path)) for samples, shard in others}
    missing = {
        part.name: _absent(part, plans) for part in parts if not (part.name in plans and plans[part.name].is_complete)
    }
    compared = Compared(
        not_compared=list(missing),
        renewed={name: paths[file] for name, files in missing.items() for file in files if file in paths},
        rows_not_in_store=sum(shard.rows for _, shard in others),
        left_out=[as_in_messages(samples.left_out) for samples in sources if samples.left_out],
    )
    running = Running(execute, store.storage)
    complete = {name: plan for name, plan in plans.items() if plan.is_complete}
    for name, made in make_again(complete, store.manifest, codec, folder, progress, running) if complete else ():
        _compare(store, plans[name].part, made, folder, compared)
        (folder / made.name).unlink()
    _compare_some(
        store, [plan for plan in plans.values() if not plan.is_complete], codec, folder, progress, running, compared
    )
    same = set(compared.same_rows)
    compared.same_rows = [name for name in plans if name in same]  # they came in any order
    compared.different = {name: compared.different[name] for name in plans if name in compared.different}
    compared.rounded = {name: compared.rounded[name] for name in plans if name in compared.rounded}
    return compared


def _absent(part: PartEntry, plans: dict[str, Plan]) -> list[str]:
    """The files of a part's shards whose data was not given."""
    return plans[part.name].absent if part.name in plans else [shard.file for shard in part.shards]


def _compare_some(
    store: LatentStore,
    plans: list[Plan],
    codec: Codec,
    folder: Path,
    progress: Progress,
    running: Running,
    compared: Compared,
) -> None:
    """Compare the rows of those shards of joined parts whose data was given, where it was not for all of them."""
    places = {part.name: list(rows_of_shards([part])) for part in (plan.part for plan in plans)}
    pairs = [
        (one, job)
        for plan in plans
        for one, job in zip(places[plan.part.name], plan.jobs, strict=True)
        if job is not None
    ]
    for number, made in each_part([job for _, job in pairs], codec, folder, progress, running) if pairs else ():
        one, name = pairs[number][0], pairs[number][0].part.name
        if made.rows != one.rows:
            compared.different[name] = f"{one.shard.file}: has {one.rows} rows, the data {made.rows}"
        else:
            tables = store.part_tables(one.part, one.start, one.rows)
            found, changed = _difference(store, tables, LatentStore(folder, store.manifest, store).part_tables(made))
            if found:
                compared.different[name] = f"{one.shard.file}: {found}"
            elif changed:
                compared.rounded[name] = compared.rounded.get(name, 0) + changed
        (folder / made.name).unlink()
    for plan in plans:
        compared.partly[plan.part.name] = len(plan.found)


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
    again = LatentStore(folder, store.manifest, codec_of=store)
    found, changed = _difference(store, store.part_tables(listed), again.part_tables(made))
    if found:
        compared.different[name] = found
    elif changed:
        compared.rounded[name] = changed
    else:
        compared.same_rows.append(name)


def _difference(store: LatentStore, found: Iterator[pa.Table], expected: Iterator[pa.Table]) -> tuple[str | None, int]:
    """How rows differ from those of the data, as many; None, and how many latents are the next integer."""
    changed = total = largest = 0
    for tables in zip(rechunk(found, BLOCK_ROWS), rechunk(expected, BLOCK_ROWS), strict=True):
        here, there = map(store.to_rows, tables)
        if not same_values(here.attributes, there.attributes):
            return "has other ids or attributes than the data", 0
        steps = np.abs(here.latents.astype(np.int16) - there.latents)
        changed += int(np.count_nonzero(steps))
        largest = max(largest, int(steps.max()))
        total += steps.size
    if largest > 1 or changed > _ROUNDED_SHARE * total:
        return f"{changed:,} of {total:,} latents are not those of the data", changed
    return None, changed
