"""Is a store whole? Every file against the manifest, the manifest against itself, and this machine against the writer.

    verified = verify_store("data/latents/test")
    verified.whole, verified.damaged, verified.notices, verified.next_step    # findings.py

Damage is what costs rows, or would. What costs nothing is a notice: leftovers of interrupted runs, ids that several
rows have, a machine that decodes to other integers. `deep.py` compares a store with the data it was made from.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ae_pipeline.errors import CodecError, DamagedPartError, StoreError, first_line, named
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store.care.findings import Damage, Verified
from ae_pipeline.store.care.part_checks import damage_of_part
from ae_pipeline.store.care.repeated_ids import repeated_ids
from ae_pipeline.store.care.snapshots import Snapshots, read_snapshots, state_of
from ae_pipeline.store.executors import HERE, Needs, run_shards
from ae_pipeline.store.format.entries import MANIFEST_NAME
from ae_pipeline.store.format.manifest import CODEC_FOLDER, Manifest
from ae_pipeline.store.format.part_entries import PART_NAME, PartEntry
from ae_pipeline.store.format.segment_file import SEGMENT_NAME
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.parts import CODEC_FILES
from ae_pipeline.store.reading.decode import load_store_codec
from ae_pipeline.store.storage.folder import LocalStorage, Storage, read_whole
from ae_pipeline.store.storage.place import open_storage
from ae_pipeline.store.writing.new_manifest import measure_probe

_NAMED = 5
_UNFINISHED = re.compile(f"{PART_NAME}|{SEGMENT_NAME}")
# What was replaced or removed on purpose while it was being read is not damaged.
_TRIES = 3


def verify_store(
    place: Path | str | Storage,
    snapshot: int | None = None,
    progress: Callable[[int], None] = lambda rows: None,
    execute: ExecuteParams = HERE,
) -> Verified:
    """Check every file of a store, or of one snapshot of it, and never stop at the first that is damaged.

    Memory does not depend on the number of rows. A store may grow meanwhile. Raises StoreError only if there is no
    store, or no such snapshot.
    """
    storage = open_storage(place)
    for _ in range(_TRIES):
        before = state_of(storage)
        verified = _verify(storage, snapshot, progress, execute)
        if verified.whole or state_of(storage) == before:
            break
    return verified


def _verify(
    storage: Storage, snapshot: int | None, progress: Callable[[int], None], execute: ExecuteParams
) -> Verified:
    snapshots = read_snapshots(storage, snapshot)
    manifest = snapshots.manifest
    if manifest is None:
        return Verified(storage.location, None, None, [], 0, 0, snapshots.damaged, snapshots.notices)
    store = LatentStore(storage, manifest)
    codec_damage = _check_codec(store)
    part_damage, whole = _check_parts(store, manifest.parts, progress, execute)
    older = list(snapshots.older.values()) if snapshots.newest else []
    older_damage, _ = _check_parts(store, older, lambda rows: None, execute) if older else ([], [])
    # The newest snapshot has their rows in a part that was joined from them.
    part_damage += [replace(damage, rows=0) for damage in older_damage]
    notices = [*snapshots.notices, *_unlisted(snapshots, manifest)]
    if whole:
        notices += _ids_notice(store, whole)
    return Verified(
        store=storage.location,
        format=manifest.format,
        snapshot=manifest.snapshot,
        earlier_snapshots=snapshots.earlier,
        parts=len(manifest.parts),
        rows=manifest.totals.rows,
        damaged=[*snapshots.damaged, *codec_damage, *part_damage],
        notices=notices,
        missing=[f"{entry.shard.file} ({entry.rows:,} rows): {entry.reason}" for entry in manifest.missing],
        missing_rows=manifest.missing_rows,
        decoding=_probe(store, able=not codec_damage and _has_first(snapshots, manifest, whole)),
    )


def damage_of_file(storage: Storage, name: str, wanted: str | None, most: int) -> str | None:
    """What is wrong with a file of at most `most` bytes whose SHA-256 is known; None if nothing is."""
    if wanted is None:
        return "has no digest in the manifest"
    try:
        found = hashlib.sha256(read_whole(storage, name, most=most)).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {first_line(error)}"
    except StoreError as error:
        return error.finding
    return None if found == wanted else "was changed: its SHA-256 is not the one in the manifest"


def damaged_codec_files(store: LatentStore) -> Iterator[tuple[str, str]]:
    """Files of the store's codec that are not what the manifest says, each with the reason."""
    wanted: dict[Any, str] = dict(store.manifest.codec.files)
    most = store.manifest.codec.bytes  # of both files together
    for name in CODEC_FILES:
        if reason := damage_of_file(store.storage, f"{CODEC_FOLDER}/{name}", wanted.get(name), most):
            yield name, reason


def _check_codec(store: LatentStore) -> list[Damage]:
    rows = store.manifest.totals.rows
    damaged = [Damage(f"{CODEC_FOLDER}/{name}", reason, rows) for name, reason in damaged_codec_files(store)]
    if not damaged:
        try:
            load_store_codec(store, "cpu")
        except (CodecError, StoreError) as error:
            damaged.append(Damage(CODEC_FOLDER, f"cannot be loaded: {error.finding}", rows))
    return damaged


def _check_parts(
    store: LatentStore, parts: Sequence[PartEntry], progress: Callable[[int], None], execute: ExecuteParams
) -> tuple[list[Damage], Sequence[PartEntry]]:
    # Each job gets its part; with those of all others it would be large.
    check = partial(damage_of_part, store.storage, store.manifest.model_copy(update={"parts": []}))

    def done(place: int, reason: str | None) -> None:  # noqa: ARG001
        progress(parts[place].rows)

    files = (store.path / MANIFEST_NAME,) if isinstance(store.storage, LocalStorage) else ()
    cpu = torch.device("cpu")
    reasons = run_shards(check, parts, len(parts), cpu, done, execute=execute, needs=Needs(files=files))
    if not any(reasons):
        return [], parts  # of a million parts, no list is made
    pairs = list(zip(parts, reasons, strict=True))
    damaged = [Damage(part.name, reason, part.rows, part.id_min, part.id_max) for part, reason in pairs if reason]
    return damaged, [part for part, reason in pairs if not reason]


def _ids_notice(store: LatentStore, parts: Sequence[PartEntry]) -> list[str]:
    try:
        number, some = repeated_ids(store, parts)
    except DamagedPartError as error:
        return [f"ids could not be compared, a file changed meanwhile: {first_line(error)}"]
    if not number:
        return []
    names = named([str(name) for name in some], _NAMED, number)
    return [f"ids that are on more than one row: {number:,}, as they came with the data: {names}"]


def _unlisted(snapshots: Snapshots, manifest: Manifest) -> list[str]:
    if not snapshots.newest:  # an earlier snapshot lists fewer parts
        return []
    if any(snapshots.segments.values()):
        return []  # what a damaged segment lists is not known
    listed = snapshots.known | snapshots.older.keys() | snapshots.segments.keys()
    listed |= {f"{CODEC_FOLDER}/{name}" for name in CODEC_FILES}
    others = [name for name in snapshots.names if name not in listed and not name.startswith("part-")]
    others += sorted(manifest.unlisted([name for name in snapshots.names if name.startswith("part-")]) - listed)
    left = [name for name in others if _UNFINISHED.match(name) or name.split("/")[-1].startswith(".")]
    strange = sorted({*others} - {*left})
    notices = []
    if left:
        notices.append(
            f"{len(left):,} files that an interrupted run left, which cost only space: {named(left, _NAMED)}; the "
            "next append uses them or removes them, `ae-pipeline vacuum` removes them"
        )
    if strange:
        notices.append(f"files that do not belong to the store: {named(strange, _NAMED)}")
    return notices


def _has_first(snapshots: Snapshots, manifest: Manifest, whole: Sequence[PartEntry]) -> bool:
    """Whether the store's first part is whole: what is listed first may have stood behind a lost segment."""
    return not any(snapshots.segments.values()) and manifest.parts[0] in whole[:1]


def _probe(store: LatentStore, *, able: bool) -> str:
    recorded = store.manifest.probe
    if recorded is None:
        return f"not recorded: the store is of format {store.manifest.format}"
    if not able:
        return "not checked: the codec or the first part is damaged"
    found = measure_probe(store, recorded.rows)
    if found.pixels_sha256 == recorded.pixels_sha256:
        return (
            f"reproduced: this machine ({found.instructions}) decodes to the same values as the machine that wrote the "
            f"store ({recorded.instructions})"
        )
    return (
        f"differs: this machine ({found.instructions}) decodes some values otherwise than the machine that wrote the "
        f'store ({recorded.instructions}); integers may differ by 1 (docs/store-format.md, "Not promised")'
    )
