"""Damaged parts made again, compared with what the manifest says, and moved in: byte for byte, or as a new snapshot."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DataError, StoreError
from ae_pipeline.files import sync_folder
from ae_pipeline.store.care.findings import Repaired
from ae_pipeline.store.care.make_again import empty_folder, make_again, plan_again
from ae_pipeline.store.care.snapshots import note_removed
from ae_pipeline.store.care.vacuum import vacuum_locked
from ae_pipeline.store.format.manifest import SNAPSHOTS_FOLDER, Manifest, PartEntry, write_manifest
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import load_store_codec
from ae_pipeline.store.writing.checks import attribute_columns, check_columns, check_samples, stored_attributes
from ae_pipeline.store.writing.commit import part_number
from ae_pipeline.store.writing.new_manifest import measure_probe, next_manifest
from ae_pipeline.store.writing.shards import Progress, ShardJob


@dataclass(frozen=True)
class Means:
    """What a repair is given."""

    sources: list[SampleSet]
    codec_copy: Path | None
    accept_new_bytes: bool
    device: str
    git: dict[str, Any]
    progress: Progress


def repair_parts(store: LatentStore, damaged: set[str], means: Means, done: Repaired) -> None:
    """Repair the damaged parts of a store that the caller has locked. Raises DataError, CodecError, TargetError."""
    manifest = store.manifest
    parts = {part.name: part for part in manifest.parts if part.name in damaged}
    if not parts:
        return
    try:
        codec = load_store_codec(store, means.device)
    except (CodecError, StoreError):
        done.failed |= dict.fromkeys(parts, "cannot be made again without the store's codec, which is damaged")
        return
    for samples in means.sources:
        check_samples(samples, codec.header, store.codec_path)
    jobs = plan_again(manifest, list(parts.values()), means.sources)
    hopeless = {name: _why_not(store, part, jobs.get(name), means) for name, part in parts.items()}
    done.failed |= {name: why for name, why in hopeless.items() if why}
    jobs = {name: job for name, job in jobs.items() if not hopeless[name]}
    if not jobs:
        return
    number = 1 + max(part_number(part.name) for part in manifest.parts)
    replaced: dict[str, PartEntry] = {}
    with empty_folder(store.path) as folder:
        for name, made in zip(jobs, make_again(jobs.values(), codec, folder, means.progress), strict=True):
            listed = parts[name]
            if made.sha256 == listed.sha256:
                os.replace(folder / made.name, store.path / name)
                sync_folder(store.path)
                done.files.append(name)
            elif why := _why_not_other(manifest, listed, made, means):
                done.failed[name] = why
                (folder / made.name).unlink()
            else:
                # A name that no snapshot lists: until the commit nothing changes for anyone.
                new = f"part-{number + len(replaced):05d}-{made.job[:16]}.parquet"
                os.replace(folder / made.name, store.path / new)
                replaced[name] = replace(made, name=new)
        if replaced:
            _commit(store, replaced, means.git)
            # Earlier snapshots went with it.
            done.failed = {
                name: why for name, why in done.failed.items() if not name.startswith(f"{SNAPSHOTS_FOLDER}/")
            }
    done.replaced = {name: entry.name for name, entry in replaced.items()}


def _why_not(store: LatentStore, part: PartEntry, job: ShardJob | None, means: Means) -> str | None:
    """Why it is of no use to make a part again."""
    if job is None:
        groups = f", row groups {part.shard.row_groups}" if part.shard.row_groups != [0] else ""
        return f"no source holds what it was made from ({part.shard.file}{groups}, unchanged)"
    if job.digest != part.job and not means.accept_new_bytes:
        return _other_job(store.manifest)
    try:
        columns = attribute_columns(job.samples)
        check_columns(job.samples.files[0], columns, stored_attributes(store.manifest), store.path)
    except DataError as error:
        return str(error)
    return None


def _other_job(manifest: Manifest) -> str:
    recorded = manifest.written_by.get("versions", {}).get("pyarrow")
    if recorded not in (None, pa.__version__):
        return (
            f"cannot come out byte for byte with pyarrow {pa.__version__}: the store was written with {recorded}; "
            "install that version, or accept new bytes (--accept-new-bytes)"
        )
    return (
        f"was not made by encoding this file as it is with pyarrow {pa.__version__}: by another version of pyarrow, or "
        "from a file that the inbox changed; use that version, or accept new bytes (--accept-new-bytes)"
    )


def _why_not_other(manifest: Manifest, listed: PartEntry, made: PartEntry, means: Means) -> str | None:
    """Why a part with other bytes does not take the place of the one that was there."""
    if (made.rows, made.id_min, made.id_max) != (listed.rows, listed.id_min, listed.id_max):
        return (
            f"comes out with {made.rows} rows and ids from {made.id_min} to {made.id_max}, the manifest says "
            f"{listed.rows} and from {listed.id_min} to {listed.id_max}: it was not made from this file as it is"
        )
    if means.accept_new_bytes:
        return None
    here = torch.backends.cpu.get_cpu_capability()
    there = manifest.probe.instructions if manifest.probe else "not recorded"
    return (
        f"comes out with other bytes on this machine (CPU here: {here}, the writer's: {there}, which may have encoded "
        "on a GPU); repair on a machine and device as the writer's, or accept new bytes (--accept-new-bytes)"
    )


def _commit(store: LatentStore, replaced: dict[str, PartEntry], git: dict[str, Any]) -> None:
    """A new snapshot with the new parts in the places of the old; earlier ones cannot be whole again and go."""
    sync_folder(store.path)
    old = store.manifest
    parts = [replaced.get(part.name, part) for part in old.parts]
    new = next_manifest(old, parts, git)
    if new.probe is None or parts[0] != old.parts[0]:
        # A store of format 1 needs its first part whole for this: DamagedPartError otherwise.
        new = new.model_copy(update={"probe": measure_probe(LatentStore(store.path, new))})
    note_removed(store.path, old.snapshot)
    write_manifest(store.path, new)
    vacuum_locked(store.path, keep=1)
