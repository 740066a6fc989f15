"""Give a damaged store its bytes back, from the data it was made from.

    repaired = repair_store(store, [SampleSet.open(data)], git=git_state(root))
    repaired.files, repaired.failed

Parts that are damaged are made again beside the store, compared with the SHA-256 in the manifest, and only then moved
in. Where they cannot come out the same, nothing is changed, unless new bytes are accepted: those are a new snapshot.
"""

import json
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DataError, PipelineError, StoreError, named
from ae_pipeline.files import finished_file, sync_folder, write_json
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.care.findings import Repaired, Verified
from ae_pipeline.store.care.joining import joined_job
from ae_pipeline.store.care.lost.manifest import rebuild_manifest
from ae_pipeline.store.care.lost.segments import repair_segments
from ae_pipeline.store.care.make_again import Means, Plan, empty_folder, make_again, plan_again
from ae_pipeline.store.care.snapshots import MISSPELT, VACUUMED_NAME, note_removed, read_snapshots
from ae_pipeline.store.care.vacuum import repair_folder, vacuum_locked
from ae_pipeline.store.care.verify import damage_of_file, damaged_codec_files, verify_store
from ae_pipeline.store.executors import HERE
from ae_pipeline.store.format.entries import MANIFEST_NAME, SNAPSHOTS_FOLDER
from ae_pipeline.store.format.manifest import (
    CODEC_FOLDER,
    Manifest,
    kept_snapshots,
    manifest_bytes,
    read_manifest,
    settled,
    write_manifest,
)
from ae_pipeline.store.format.part_entries import PartEntry, ShardEntry
from ae_pipeline.store.format.segment_file import SEGMENT_NAME
from ae_pipeline.store.format.segments import SegmentedParts
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import load_store_codec
from ae_pipeline.store.storage.folder import LocalStorage
from ae_pipeline.store.writing.checks import attribute_columns, check_columns, stored_attributes
from ae_pipeline.store.writing.new_manifest import measure_probe
from ae_pipeline.store.writing.next_manifest import next_manifest
from ae_pipeline.store.writing.shards import Progress, Running

_NAMED = 3


def repair_store(
    store: Path,
    sources: list[SampleSet],
    *,
    codec_path: Path | None = None,
    accept_new_bytes: bool = False,
    device: str = "auto",
    git: dict[str, Any],
    progress: Progress = lambda rows: None,
    execute: ExecuteParams = HERE,
) -> Repaired:
    """Repair what `verify_store` finds damaged, as far as the data and the codec in `codec_path` allow.

    A part is made again by the store's own codec. `device` should be that of the run that wrote it. Whatever stops a
    repair leaves each file as it was, or whole. Raises TargetError (another run is writing the store), StoreError,
    DataError, CodecError.
    """
    storage = LocalStorage(store)
    found = verify_store(storage)  # raises if there is no store: a lock would make a folder
    done = Repaired(str(store), snapshot=found.snapshot)
    if found.whole and not storage.temporary() and not repair_folder(store).exists():
        return done
    with storage.locked():
        if repair_folder(store).exists():
            with empty_folder(store):
                pass  # and it goes
        means = Means(sources, codec_path, accept_new_bytes, device, git, progress, execute)
        _repair_codec(store, means, done)  # first: a lost manifest is made again with it
        _repair_manifests(store, verify_store(store), means, done)
        if MANIFEST_NAME not in done.failed:
            _repair_codec(store, means, done)
            _repair_segments(store, means, done)
        if not {MANIFEST_NAME, *_newest_segments(store)} & done.failed.keys():
            damaged = verify_store(store).damaged_files
            _repair_parts(LatentStore.open(store), damaged, means, done)
            _repair_older_parts(store, damaged, means, done)
            done.snapshot = read_manifest(store).snapshot
    return done


def _repair_codec(store: Path, means: Means, done: Repaired) -> None:
    """Copy the codec's files from elsewhere, if they are what the newest manifest that can be read says of them."""
    manifest = read_snapshots(LocalStorage(store), None).manifest
    if manifest is None:
        return
    recorded: dict[Any, str] = dict(manifest.codec.files)
    other = means.codec_copy
    for name, reason in damaged_codec_files(LatentStore(store, manifest)):
        inside = f"{CODEC_FOLDER}/{name}"
        if other is None:
            done.failed[inside] = f"{reason}; give a folder with a copy of the codec (--codec)"
        elif damage_of_file(LocalStorage(other), name, recorded.get(name), manifest.codec.bytes):
            done.failed[inside] = f"{reason}, and {other / name} is not a copy of it"
        else:
            with finished_file(store / inside) as temporary:
                shutil.copyfile(other / name, temporary)
            done.files.append(inside)


def _repair_manifests(store: Path, found: Verified, means: Means, done: Repaired) -> None:
    """Repair the manifests of all snapshots, and the record of removed ones."""
    for damage in found.damaged:
        name = damage.file
        if name != MANIFEST_NAME and not name.startswith(f"{SNAPSHOTS_FOLDER}/"):
            continue
        if damage.reason == MISSPELT:
            write_json(store / name, json.loads(manifest_bytes(LocalStorage(store), name)))
            done.files.append(name)
        elif name == MANIFEST_NAME:
            try:
                written, proven = rebuild_manifest(store, means)
                (done.files if proven else done.made_anew).extend(written)
            except PipelineError as error:
                done.failed[name] = f"{damage.reason}; {error}"
        elif name == VACUUMED_NAME:
            done.failed[name] = f"{damage.reason}; `ae-pipeline vacuum` writes it anew"
        else:
            done.failed[name] = (
                f"{damage.reason}; it cannot be made again, but the newest snapshot lists all of its rows: "
                "`ae-pipeline vacuum` removes the earlier snapshots"
            )


def _repair_segments(store: Path, means: Means, done: Repaired) -> None:
    """Repair the segments of all snapshots; without those of the newest one, nobody knows what its parts were."""
    if not _newest_segments(store):
        return
    names = [damage.file for damage in verify_store(store).damaged if re.match(SEGMENT_NAME, damage.file)]
    if not names:
        return
    failed = repair_segments(store, names, means)
    done.files += [name for name in names if name not in failed]
    done.failed |= failed


def _newest_segments(store: Path) -> set[str]:
    try:
        return {segment.name for segment in read_manifest(store).segments}
    except StoreError:
        return set()


def _repair_parts(store: LatentStore, damaged: set[str], means: Means, done: Repaired) -> None:
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
    plans = plan_again(store, parts, means.sources, codec)
    hopeless = {name: _why_not(store, part, plans.get(name), means) for name, part in parts.items()}
    done.failed |= {name: why for name, why in hopeless.items() if why}
    plans = {name: plan for name, plan in plans.items() if not hopeless[name]}
    if not plans:
        return
    running = Running(means.execute, store.storage)
    number = manifest.next_number
    same, refused = set[str](), dict[str, str]()
    other, replaced = dict[str, PartEntry](), dict[str, PartEntry]()
    with empty_folder(store.path) as folder:
        for name, made in make_again(plans, manifest, codec, folder, means.progress, running):
            listed = parts[name]
            if made.sha256 == listed.sha256:
                os.replace(folder / made.name, store.path / name)
                sync_folder(store.path)
                same.add(name)
            elif why := _why_not_other(manifest, listed, made, means):
                refused[name] = why
                (folder / made.name).unlink()
            else:
                other[name] = made
        done.files += [name for name in plans if name in same]
        done.failed |= {name: why for name in plans if (why := refused.get(name))}
        for name in (name for name in plans if name in other):
            # A name that no snapshot lists: until the commit nothing changes for anyone.
            made = replace(other[name], name=f"part-{number + len(replaced):05d}-{other[name].job[:16]}.parquet")
            os.replace(folder / other[name].name, store.path / made.name)
            replaced[name] = made
        if replaced:
            _commit(store, replaced, means.git)
            # Earlier snapshots went with it.
            done.failed = {
                name: why for name, why in done.failed.items() if not name.startswith(f"{SNAPSHOTS_FOLDER}/")
            }
    done.replaced |= {name: entry.name for name, entry in replaced.items()}


def _repair_older_parts(store: Path, damaged: set[str], means: Means, done: Repaired) -> None:
    """Repair damaged parts that only earlier snapshots list, as their rows were joined with others since."""
    means = replace(means, accept_new_bytes=False)  # no snapshot is made of an earlier one
    left = damaged - {part.name for part in read_manifest(store).parts} - done.replaced.keys()
    for number in kept_snapshots(LocalStorage(store)):
        with suppress(StoreError):  # one that is damaged is among what failed
            earlier = LatentStore.open(store, number)
            found = left & {part.name for part in earlier.manifest.parts}
            left -= found
            _repair_parts(earlier, found, means, done)
            for name in found & done.failed.keys():
                done.failed[name] += (
                    "; no row is lost, as the newest snapshot has its rows: `ae-pipeline vacuum` removes it"
                )


def _why_not(store: LatentStore, part: PartEntry, plan: Plan | None, means: Means) -> str | None:
    """Why it is of no use to make a part again."""
    if plan is None or not plan.is_complete:
        if isinstance(part.shard, ShardEntry):
            groups = f", row groups {part.shard.row_groups}" if part.shard.row_groups not in ([], [0]) else ""
            return f"no source holds what it was made from ({part.shard.file}{groups}, unchanged)"
        absent = plan.absent if plan else [shard.file for shard in part.shards]
        return (
            f"no source holds {len(absent):,} of the {len(part.shard):,} files that it was made from, unchanged: "
            f"{named(absent, _NAMED)}"
        )
    if not _is_same_work(store.manifest, part, plan) and not means.accept_new_bytes:
        return _other_job(store.manifest)
    try:
        for job in plan.found:
            columns = attribute_columns(job.samples)
            check_columns(job.samples.files[0], columns, stored_attributes(store.manifest), store.path)
    except DataError as error:
        return str(error)
    return None


def _is_same_work(manifest: Manifest, part: PartEntry, plan: Plan) -> bool:
    """Whether what is planned is what has made a part. The name of a part that was joined has 16 digits of its job."""
    if not part.is_joined:
        return all(job.digest == part.job for job in plan.found)
    same = all(job.digest[:16] in entry.name for entry, job in zip(part.joined, plan.found, strict=True))
    return same and joined_job(manifest.codec.fingerprint, manifest.latent, part.joined) == part.job


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
    if isinstance(old.parts, SegmentedParts):
        parts: Sequence[PartEntry] = old.parts.replaced(replaced)
    else:
        parts = [replaced.get(part.name, part) for part in old.parts]
    new = next_manifest(old, parts, git)
    if new.probe is None or parts[0] != old.parts[0]:
        # A store of format 1 needs its first part whole for this: DamagedPartError otherwise.
        new = new.model_copy(update={"probe": measure_probe(LatentStore(store.path, new))})
    new, _ = settled(new, store.storage, store.path)
    note_removed(store.path, old.snapshot)
    write_manifest(store.path, new)
    vacuum_locked(store.path, keep=1)
