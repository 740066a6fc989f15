"""Parts of a store made again from the data they were made from: to compare them (`verify --deep`), or to repair them.

A part is a function of codec, shard and settings, and the manifest says which shard, by its content. So it can be made
again wherever the same data is, whatever it is called there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ae_pipeline.codec.codec import BLOCK_ROWS, Codec
from ae_pipeline.codec.devices import cpu_count
from ae_pipeline.data.sample_files import key_in_path
from ae_pipeline.data.samples import SampleSet, Shard
from ae_pipeline.errors import DataError
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.format.manifest import Manifest, PartEntry
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.checks import check_samples
from ae_pipeline.store.writing.shards import Progress, ShardJob, plan_jobs, run_jobs

Shards = dict[str, tuple[SampleSet, Shard]]
# On another processor a latent on a rounding edge may become the next integer: few do, and by one only.
_ROUNDED_SHARE = 0.01


@dataclass(frozen=True)
class Remade:
    """A part as the manifest lists it, and as it came out now: `entry` lies in the folder it was made in."""

    listed: PartEntry
    job: ShardJob
    entry: PartEntry

    @property
    def identical(self) -> bool:
        """Byte for byte."""
        return self.entry.sha256 == self.listed.sha256


@dataclass
class Compared:
    """A store against the data it was made from."""

    identical: int = 0
    """Parts that come out byte for byte."""
    same_rows: list[str] = field(default_factory=list)
    """Parts with the same rows in other bytes: another version of pyarrow wrote them."""
    rounded: dict[str, int] = field(default_factory=dict)
    """Parts in which some latents are the next integer, as on another processor, and how many."""
    different: dict[str, str] = field(default_factory=dict)
    """Parts whose rows are not those of the data, and how they differ."""
    not_compared: list[str] = field(default_factory=list)
    """Whole parts whose data was not given."""
    renewed: dict[str, str] = field(default_factory=dict)
    """Of these, parts for which a file of the right name was given, with rows that no part holds; and its path."""
    rows_not_in_store: int = 0
    """Rows of the given data that the store does not hold."""
    left_out: list[str] = field(default_factory=list)
    """What lies beside the files of the given data, and is no part of it, in words."""


def find_shards(sources: list[SampleSet]) -> Shards:
    """All shards by content."""
    return {samples.shard_digest(shard): (samples, shard) for samples in sources for shard in samples.shards}


def plan_part(manifest: Manifest, part: PartEntry, shards: Shards) -> ShardJob | None:
    """The job that makes a part again; None if its data is not there.

    Its digest is not `part.job` where another version of pyarrow, or a file that was changed on its way in (by the
    inbox), made the part.
    """
    found = shards.get(part.shard.digest)
    if found is None:
        return None
    before = manifest.parts[: [other.name for other in manifest.parts].index(part.name)]
    settings = EncodeParams(layout=manifest.latent.layout, row_group_rows=manifest.latent.row_group_rows)
    number, first_row = int(part.name.split("-")[1]), sum(other.rows for other in before)
    return plan_jobs([found], manifest.codec.fingerprint, settings, number=number, first_row=first_row)[0]


def remake(
    work: list[tuple[PartEntry, ShardJob]], codec: Codec, folder: Path, progress: Progress = lambda rows: None
) -> Iterator[Remade]:
    """Make parts in `folder`, which must not hold any; as many at a time as there are CPUs."""
    size = cpu_count()
    for start in range(0, len(work), size):
        some = work[start : start + size]
        # Numbers only tell the jobs apart here: parts that were made at different times may share one.
        jobs = [replace(job, number=place) for place, (_, job) in enumerate(some)]
        for (part, job), entry in zip(some, run_jobs(jobs, codec, folder, progress), strict=True):
            yield Remade(part, job, entry)


def compare_with_source(
    store: LatentStore, parts: list[PartEntry], sources: list[SampleSet], codec: Codec, folder: Path, progress: Progress
) -> Compared:
    """Make these parts again in `folder` and compare bytes, or where they differ, rows.

    Raises DataError if none of them was made from these sources.
    """
    for samples in sources:
        check_samples(samples, codec.header, store.codec_path)
    shards = find_shards(sources)
    compared = Compared(left_out=[samples.left_out for samples in sources if samples.left_out])
    work = []
    for part in parts:
        job = plan_part(store.manifest, part, shards)
        if job is None:
            compared.not_compared.append(part.name)
        else:
            work.append((part, job))
    if not work:
        columns = {column.name for column in store.manifest.columns}
        above = next(filter(None, (key_in_path(samples.files[0], columns) for samples in sources)), None)
        hint = f", and give the folder above `{above}`, whose key is a column in the store" if above else ""
        raise DataError(
            f"none of the {len(parts)} parts of {store.location} was made from the given data; give the files that "
            f"were encoded, unchanged{hint}"
        )
    held = {part.shard.digest for part in store.manifest.parts}
    others = {
        samples.file_name(shard.path): str(shard.path)
        for digest, (samples, shard) in shards.items()
        if digest not in held
    }
    files = {part.name: part.shard.file for part in parts}
    compared.renewed = {name: others[files[name]] for name in compared.not_compared if files[name] in others}
    compared.rows_not_in_store = sum(shard.rows for digest, (_, shard) in shards.items() if digest not in held)
    for remade in remake(work, codec, folder, progress):
        _compare(store, remade, folder, compared)
        (folder / remade.entry.name).unlink()
    return compared


def _compare(store: LatentStore, remade: Remade, folder: Path, compared: Compared) -> None:
    name = remade.listed.name
    if remade.identical:
        compared.identical += 1
        return
    if remade.entry.rows != remade.listed.rows:
        compared.different[name] = f"has {remade.listed.rows} rows, the data {remade.entry.rows}"
        return
    made = LatentStore(folder, store.manifest)
    changed = total = 0
    largest = 0
    pairs = zip(store.read_part(remade.listed, BLOCK_ROWS), made.read_part(remade.entry, BLOCK_ROWS), strict=True)
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
    columns = ([column.combine_chunks() for column in table.columns] for table in (one, other))
    return one.schema.equals(other.schema) and all(map(_same, *columns))


def _same(one: Any, other: Any) -> bool:
    """Whether two arrays of one type hold the same values. `equals` says that NaN differs from NaN."""
    if one.equals(other):
        return True
    if len(one) != len(other) or not one.is_null().equals(other.is_null()):
        return False
    if pa.types.is_floating(one.type):
        found, expected = (array.drop_null().to_numpy(zero_copy_only=False) for array in (one, other))
        both_nan = np.isnan(found) & np.isnan(expected)
        return bool(np.all(both_nan | ((found == expected) & (np.signbit(found) == np.signbit(expected)))))
    parts = (_parts(array) for array in (one, other))
    return pa.types.is_nested(one.type) and all(map(_same, *parts))


def _parts(array: Any) -> list[Any]:
    """What a nested array consists of beside its nulls."""
    if pa.types.is_struct(array.type):
        return list(array.flatten())
    if pa.types.is_map(array.type):
        array = array.cast(pa.list_(pa.struct([array.type.key_field, array.type.item_field])))
    return [pc.list_value_length(array), array.flatten()]
