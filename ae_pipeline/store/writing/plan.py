"""What an append has to do: shards that the store does not hold yet."""

from dataclasses import dataclass
from pathlib import Path

from ae_pipeline.codec.header import CodecHeader, read_header
from ae_pipeline.data.samples import SampleSet, Shard
from ae_pipeline.errors import CodecError, DataError
from ae_pipeline.files import sha256_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.format.manifest import Manifest, PartEntry
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.checks import attribute_columns, check_columns, stored_attributes
from ae_pipeline.store.writing.shards import ShardJob, plan_jobs


@dataclass(frozen=True)
class Appended:
    """What one append did: the store as it is now, the parts that are new, and the shards that it had already."""

    store: LatentStore
    parts: list[PartEntry]
    skipped: int


def plan_append(
    store: LatentStore, sets: list[SampleSet], codec_path: Path, params: EncodeParams
) -> tuple[list[ShardJob], int]:
    """The work that makes a store hold all of `sets`, and how many of their shards it holds already.

    Raises CodecError, DataError or StoreError unless they fit together.
    """
    header, old = read_header(codec_path), store.manifest
    _check_fits(store, sets, codec_path, header, params)
    pieces, skipped = new_pieces(sets, {part.shard.digest for part in old.parts})
    number = 1 + max(part_number(part.name) for part in old.parts)
    return plan_jobs(pieces, header.fingerprint, params, number=number, first_row=old.totals.rows), skipped


def part_number(name: str) -> int:
    """The number in a part's name."""
    return int(name.split("-")[1])


def snapshot_key(old: Manifest) -> str:
    """One work folder for whatever comes after this snapshot: parts in it are told apart by their names."""
    return sha256_json([old.codec.fingerprint, [part.job for part in old.parts]])


def _check_fits(
    store: LatentStore, sets: list[SampleSet], codec_path: Path, header: CodecHeader, params: EncodeParams
) -> None:
    old, where = store.manifest, store.location
    if header.fingerprint != old.codec.fingerprint:
        store.codec_header()  # where it is the store's own that was changed, this says so
        raise CodecError(
            f"{codec_path} has fingerprint {header.fingerprint[:12]}..., but {where} was written with "
            f"{old.codec.fingerprint[:12]}...; append with that codec, or encode into another store"
        )
    store.codec_header()
    for setting in ("layout", "row_group_rows"):
        wanted, found = getattr(old.latent, setting), getattr(params, setting)
        if found != wanted:
            raise DataError(
                f"encode.{setting} is {found}, but {where} has {wanted}; set it to that, or encode into another store"
            )
    for samples in sets:
        check_columns(samples.files[0], attribute_columns(samples), stored_attributes(old), where)


def new_pieces(sets: list[SampleSet], known: set[str]) -> tuple[list[tuple[SampleSet, Shard]], int]:
    """Shards whose content is not known and did not occur before in `sets`, and how many others there are."""
    seen = set(known)
    pieces = []
    for samples in sets:
        for shard in samples.shards:
            digest = samples.shard_digest(shard)
            if digest not in seen:
                seen.add(digest)
                pieces.append((samples, shard))
    return pieces, sum(len(samples.shards) for samples in sets) - len(pieces)
