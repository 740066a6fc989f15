"""Damaged parts made again, compared with what the manifest says, and moved in: byte for byte, or as a new snapshot."""

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DataError
from ae_pipeline.files import locked_folder, sha256_json, sync_folder
from ae_pipeline.store.care.make_again import Remade, Shards, find_shards, plan_part, remake
from ae_pipeline.store.care.snapshots import Vacuumed, parts_of_snapshots, write_vacuumed
from ae_pipeline.store.care.vacuum import vacuum_locked
from ae_pipeline.store.format.manifest import STORE_FORMAT, Manifest, PartEntry, Totals, write_manifest
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.work_folder import partial_folder
from ae_pipeline.store.writing.checks import attribute_columns, check_columns, check_samples, stored_attributes
from ae_pipeline.store.writing.new_manifest import written_by
from ae_pipeline.store.writing.probe import measure_probe
from ae_pipeline.store.writing.shards import Progress, ShardJob


@dataclass
class RepairedParts:
    """Parts by what became of them."""

    same: list[str] = field(default_factory=list)
    """Given back byte for byte."""
    replaced: dict[str, PartEntry] = field(default_factory=dict)
    """Listed in the new snapshot as these; by their former names."""
    failed: dict[str, str] = field(default_factory=dict)
    """Unchanged, and why."""


def repair_parts(
    store: LatentStore,
    parts: list[PartEntry],
    sources: list[SampleSet],
    codec: Codec,
    *,
    accept_new_bytes: bool,
    git: dict[str, Any],
    progress: Progress,
) -> RepairedParts:
    """Repair damaged `parts` of a store that the caller has locked. Raises DataError, TargetError."""
    for samples in sources:
        check_samples(samples, codec.header, store.codec_path)
    done = RepairedParts()
    shards = find_shards(sources)
    work = [(part, job) for part in parts if (job := _plan(store, part, shards, accept_new_bytes, done))]
    if not work:
        return done
    with locked_folder(repair_folder(store.path)) as folder:
        for left in folder.iterdir():
            left.unlink()  # what a repair that was cut off had not moved in yet
        number = 1 + max(int(part.name.split("-")[1]) for part in store.manifest.parts)
        for remade in remake(work, codec, folder, progress):
            _take(store, remade, folder, accept_new_bytes, number + len(done.replaced), done)
        if done.replaced:
            _commit(store, done.replaced, git)
        shutil.rmtree(folder)
    return done


def repair_folder(store: Path) -> Path:
    """Where parts are made again; of use to nobody after the repair."""
    return partial_folder(store, None, sha256_json(["repair"]))


def _plan(
    store: LatentStore, part: PartEntry, shards: Shards, accept_new_bytes: bool, done: RepairedParts
) -> ShardJob | None:
    job = plan_part(store.manifest, part, shards)
    if job is None:
        groups = f", row groups {part.shard.row_groups}" if part.shard.row_groups != [0] else ""
        done.failed[part.name] = f"no source holds what it was made from ({part.shard.file}{groups}, unchanged)"
    elif job.digest != part.job and not accept_new_bytes:
        done.failed[part.name] = _other_job(store.manifest)
        return None
    else:
        try:
            columns = attribute_columns(job.samples)
            check_columns(job.samples.files[0], columns, stored_attributes(store.manifest), store.path)
        except DataError as error:
            done.failed[part.name] = str(error)
            return None
    return job


def _other_job(manifest: Manifest) -> str:
    import pyarrow as pa

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


def _take(
    store: LatentStore, remade: Remade, folder: Path, accept_new_bytes: bool, number: int, done: RepairedParts
) -> None:
    """Move a part in if it is the one that was there, or may be another."""
    made, listed = remade.entry, remade.listed
    if remade.identical:
        os.replace(folder / made.name, store.path / listed.name)
        sync_folder(store.path)
        done.same.append(listed.name)
        return
    found = (made.rows, made.id_min, made.id_max)
    if found != (listed.rows, listed.id_min, listed.id_max):
        done.failed[listed.name] = (
            f"comes out with {made.rows} rows and ids from {made.id_min} to {made.id_max}, the manifest says "
            f"{listed.rows} and from {listed.id_min} to {listed.id_max}: it was not made from this file as it is"
        )
    elif not accept_new_bytes:
        done.failed[listed.name] = _other_bytes(store.manifest)
    else:
        # A name that no snapshot lists: until the commit nothing changes for anyone.
        name = f"part-{number:05d}-{made.job[:16]}.parquet"
        os.replace(folder / made.name, store.path / name)
        done.replaced[listed.name] = replace(made, name=name)
        return
    (folder / made.name).unlink()


def _other_bytes(manifest: Manifest) -> str:
    here = torch.backends.cpu.get_cpu_capability()
    there = manifest.probe.instructions if manifest.probe else "not recorded"
    return (
        f"comes out with other bytes on this machine (CPU here: {here}, the writer's: {there}, which may have encoded "
        "on a GPU); repair on a machine and device as the writer's, or accept new bytes "
        "(--accept-new-bytes)"
    )


def _commit(store: LatentStore, replaced: dict[str, PartEntry], git: dict[str, Any]) -> None:
    """A new snapshot with the new parts in the places of the old; earlier ones cannot be whole again and go."""
    sync_folder(store.path)
    old = store.manifest
    parts = [replaced.get(part.name, part) for part in old.parts]
    new = old.model_copy(
        update={
            "format": STORE_FORMAT,
            "snapshot": old.snapshot + 1,
            "parent": old.snapshot,
            "parts": parts,
            "totals": Totals(
                rows=old.totals.rows, bytes_in=old.totals.bytes_in, bytes_parts=sum(part.bytes for part in parts)
            ),
            "written_by": written_by(git),
        }
    )
    if new.probe is None or parts[0] != old.parts[0]:
        # Of a store of format 1 the first part has to be whole for it: DamagedPartError otherwise.
        new = new.model_copy(update={"probe": measure_probe(LatentStore(store.path, new))})
    write_vacuumed(store.path, Vacuumed(parts=parts_of_snapshots(store.path, old.snapshot)))
    sync_folder(store.path)
    write_manifest(store.path, new)
    vacuum_locked(store.path, keep=1)
