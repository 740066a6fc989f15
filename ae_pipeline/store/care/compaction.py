"""Small parts of a store joined into larger ones, without decoding, as one snapshot.

    done = compact_store(store, CompactParams(), git=git_state(root))
    done.joined, done.into, done.snapshot

What a store holds stays: rows and their order, ids, attributes, latents, errors, and which row came from which shard.
Earlier snapshots stay, too, and with them the files of the parts that were joined, until `vacuum` removes both.
Whatever stops a compaction leaves the old snapshot or the new one, whole; of it and another writer, one wins.

**Which parts**: one is small with less than half the rows and bytes that a joined part may have. Small ones that
stand side by side are joined, as many as fit, unless one of them has more rows than all others together: that one
waits until they have as many. So a row is only ever copied into a part that is at least twice as large.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from ae_pipeline.files import sha256_json
from ae_pipeline.params.operation import CompactParams
from ae_pipeline.store.care.joining import CannotJoinError, TooLargeError, join_parts, joined_job, schema_of, why_not
from ae_pipeline.store.care.part_checks import checked_bytes
from ae_pipeline.store.format.entries import MANIFEST_NAME
from ae_pipeline.store.format.manifest import Manifest, manifest_text, parse_manifest, settled
from ae_pipeline.store.format.part_entries import PartEntry
from ae_pipeline.store.format.segments import SegmentedParts
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.storage.folder import Storage, place_of
from ae_pipeline.store.storage.place import open_storage
from ae_pipeline.store.writing.next_manifest import next_manifest
from ae_pipeline.store.writing.steps import (
    Read,
    deliver,
    put_segments,
    put_snapshot,
    read_tagged,
    refuse_changed,
    sweep,
)

# Where a record has several rows these columns tell it from the one before: the second one says which file brought it.
_SAYS_RECORD = ("record", "file_sha256")
Group = list[PartEntry]
"""Parts that stand side by side and become one."""


@dataclass
class Compacted:
    """What a compaction did, or with `dry_run` would do."""

    store: str
    snapshot: int
    """The newest one."""
    joined: int = 0
    """Parts that were joined."""
    into: int = 0
    """Parts that they became."""
    rows: int = 0
    """Rows of these."""
    parts: int = 0
    """Parts that the store has then."""
    bytes_before: int = 0
    """Bytes of the parts that were joined."""
    bytes_after: int | None = None
    """Bytes of those that they became; None: not known before it is done."""
    left: dict[str, str] = field(default_factory=dict)
    """Parts that could not be joined with the one after them, and why."""


def compact_store(
    place: Path | str | Storage,
    params: CompactParams,
    *,
    git: dict[str, Any],
    at_least: int = 2,
    dry_run: bool = False,
    work: Path | None = None,
) -> Compacted:
    """Join the small parts of a store, a folder or at a URL, as one snapshot; `dry_run` only says which that would be.

    Nothing is done unless at least so many parts can be joined. `git` as in `provenance.git_state`; `work`: where parts
    are made (default: beside the store). Memory is that of a row group. Raises TargetError (another run is writing the
    store), DamagedPartError, StoreError.
    """
    storage = open_storage(place)
    left: dict[str, str] = {}
    store = LatentStore.open(storage)  # raises if there is no store: a lock would make a folder
    if dry_run or sum(map(len, groups_by_size(store.manifest.parts, params))) < at_least:
        return _planned(store, _plan(store, params, at_least, left), left)
    with storage.locked() as names:
        data, tag = read_tagged(storage)
        store = LatentStore(storage, parse_manifest(data, place_of(storage, MANIFEST_NAME), storage))
        groups = _plan(store, params, at_least, left)
        if not groups:
            sweep(storage, store.manifest, names)
            return _planned(store, groups, left)
        return _compact(store, Read(store.manifest, data, tag), groups, left, git, work, names)


def _compact(
    store: LatentStore,
    read: Read,
    groups: list[Group],
    left: dict[str, str],
    git: dict[str, Any],
    work: Path | None,
    names: list[str] | None,
) -> Compacted:
    storage, old = store.storage, store.manifest
    key = sha256_json(["compact", old.codec.fingerprint, old.made_of])
    with storage.work_folder(work, key) as folder:
        made: list[tuple[Group, PartEntry]] = []
        for group in groups:
            made += _joined(store, group, old.next_number + len(made), folder, left)
        if not made:
            storage.bring(folder, [])  # which removes the folder
            return _planned(store, [], left)
        refuse_changed(storage, read.tag, "its parts were being joined; run the same command again")
        new = next_manifest(old, _replaced(old.parts, made), git)
        new, segments = settled(new if new.probe else _with_probe(new, store), storage, folder)
        put_segments(storage, folder, segments)
        storage.bring(folder, [*(entry.name for _, entry in made), *segments])
        put_snapshot(storage, b"".join(manifest_text(new)), read, folder, "run the same command again")
        sweep(storage, new, names)
    done = _planned(LatentStore(storage, new), [], left)
    done.joined, done.into = sum(len(group) for group, _ in made), len(made)
    done.rows = sum(entry.rows for _, entry in made)
    done.bytes_before = sum(part.bytes for group, _ in made for part in group)
    done.bytes_after = sum(entry.bytes for _, entry in made)
    return done


def _joined(
    store: LatentStore, group: Group, number: int, folder: Path, left: dict[str, str]
) -> list[tuple[Group, PartEntry]]:
    """Join a group, or where that would be too large in memory, each half of it. What cannot be is noted in `left`."""
    if len(group) < 2:
        return []
    entries = [entry for part in group for entry in part.joined]
    job = joined_job(store.manifest.codec.fingerprint, store.manifest.latent, entries)
    name = f"part-{number:05d}-{job[:16]}.parquet"
    try:
        with ExitStack() as stack:
            held = [(_checked(store, part, stack), part) for part in group]
            make = lambda: join_parts(held, entries, number, store.manifest, folder)  # noqa: E731
            return [(group, deliver(store.storage, name, folder, make))]
    except TooLargeError as error:
        if len(group) == 2:
            left[group[0].name] = str(error)
        half = len(group) // 2
        first = _joined(store, group[:half], number, folder, left)
        return first + _joined(store, group[half:], number + len(first), folder, left)
    except CannotJoinError as error:
        left |= {part.name: str(error) for part in group}
        return []


def _checked(store: LatentStore, part: PartEntry, stack: ExitStack) -> LatentStore:
    """The store to read a part from, all bytes of which were compared; of a part at a URL, with a copy of it."""
    with store.reading(part.name):
        return stack.enter_context(checked_bytes(store, part))


def _with_probe(new: Manifest, store: LatentStore) -> Manifest:
    """A store of format 1 has no probe, and gets one with its next snapshot, as by an append."""
    from ae_pipeline.store.writing.new_manifest import measure_probe  # loads torch

    return new.model_copy(update={"probe": measure_probe(store)})


def _replaced(parts: Sequence[PartEntry], made: list[tuple[Group, PartEntry]]) -> Sequence[PartEntry]:
    """All parts, each group replaced by the part that it became."""
    first = {group[0].name: entry for group, entry in made}
    gone = {part.name for group, _ in made for part in group[1:]}
    if isinstance(parts, SegmentedParts):
        return parts.replaced(first, gone)
    return [first.get(part.name, part) for part in parts if part.name not in gone]


def _planned(store: LatentStore, groups: list[Group], left: dict[str, str]) -> Compacted:
    parts = [part for group in groups for part in group]
    return Compacted(
        store.location,
        store.manifest.snapshot,
        joined=len(parts),
        into=len(groups),
        rows=sum(part.rows for part in parts),
        parts=len(store.manifest.parts) - len(parts) + len(groups),
        bytes_before=sum(part.bytes for part in parts),
        left=left,
    )


def _plan(store: LatentStore, params: CompactParams, at_least: int, left: dict[str, str]) -> list[Group]:
    """Which parts are to be joined. First by what the manifest says, then by the columns in their files."""
    groups = groups_by_size(store.manifest.parts, params)
    if sum(map(len, groups)) < at_least:
        return []
    known = {column.name for column in store.manifest.columns} if store.codec_header().kind else set()
    says = [name for name in _SAYS_RECORD if name in known] if _SAYS_RECORD[0] in known else []
    fitting = [some for group in groups for one in _fitting(store, group, says, left) for some in _balanced(one)]
    return fitting if sum(map(len, fitting)) >= at_least else []


def groups_by_size(parts: Sequence[PartEntry], params: CompactParams) -> list[Group]:
    """Small parts that stand side by side, as many as a joined part may have."""
    most_bytes = round(params.megabytes * 1e6)
    found: list[Group] = []
    for small, run in groupby(parts, lambda part: 2 * part.rows < params.rows and 2 * part.bytes < most_bytes):
        group: Group = []
        rows = size = 0
        for part in run if small else ():
            if group and (rows + part.rows > params.rows or size + part.bytes > most_bytes):
                found.append(group)
                group, rows, size = [], 0, 0
            group.append(part)
            rows, size = rows + part.rows, size + part.bytes
        found.append(group)
    return [some for group in found for some in _balanced(group)]


def _balanced(group: Group) -> list[Group]:
    """What of a group is worth to be joined: without parts that have more rows than all others together."""
    if len(group) < 2:
        return []
    rows = [part.rows for part in group]
    place = rows.index(max(rows))
    if 2 * rows[place] <= sum(rows):
        return [group]
    return [*_balanced(group[:place]), *_balanced(group[place + 1 :])]


def _fitting(store: LatentStore, group: Group, says: list[str], left: dict[str, str]) -> Iterator[Group]:
    """A group, cut where two parts have other columns, or where two records would be taken for one.

    `says`: columns by which the rows of a record are told from those of the next; none where each row is one.
    """
    some: Group = []
    before: tuple[pa.Schema, list[Any]] | None = None
    for part in group:
        schema = schema_of((store, part))
        if reason := why_not(schema):
            left[part.name] = reason
            yield some
            some, before = [], None
            continue
        first, last = _ends(store, part, says)
        if before and (reason := _apart(before, schema, first)):
            left[some[-1].name] = reason
            yield some
            some = []
        some.append(part)
        before = schema, last
    yield some


def _apart(before: tuple[pa.Schema, list[Any]], schema: pa.Schema, first: list[Any]) -> str | None:
    if not before[0].equals(schema, check_metadata=True):
        return "the next part's columns may be null where its own may not, or are described otherwise"
    if first and before[1] == first:
        return f"it ends with a record {first[0]!r}, and the next part begins with another one of that name"
    return None


def _ends(store: LatentStore, part: PartEntry, columns: list[str]) -> tuple[list[Any], list[Any]]:
    """What these columns say in the first row of a part, and in the last one."""
    if not columns:
        return [], []
    rows = pa.concat_tables(store.part_tables(part, columns=columns))
    return [rows.column(name)[0].as_py() for name in columns], [rows.column(name)[-1].as_py() for name in columns]
