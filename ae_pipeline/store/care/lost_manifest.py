"""A lost manifest written again, by encoding the data again: the parts then prove themselves, and the digest the rest.

What only the manifest knew (who wrote it, under which name) is taken from what can still be read of the damaged file.
If the digest in it is that of the manifest that comes out, but for a few digits, it is the one that was lost.
"""

import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import CodecHeader
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DataError, StoreError
from ae_pipeline.files import locked_folder, sha256_file, sha256_json, sync_folder, write_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.care.snapshots import read_vacuumed
from ae_pipeline.store.format.manifest import (
    CODEC_FOLDER,
    LARGEST_MANIFEST,
    MANIFEST_NAME,
    PART_NAME,
    Manifest,
    PartEntry,
    SourceEntry,
    kept_snapshots,
    read_manifest,
)
from ae_pipeline.store.storage.folder import LocalStorage, read_whole
from ae_pipeline.store.storage.work_folder import partial_folder
from ae_pipeline.store.writing.checks import check_samples
from ae_pipeline.store.writing.new_manifest import copy_codec, first_manifest
from ae_pipeline.store.writing.shards import Progress, ShardJob, plan_jobs, run_jobs

# Of 64 digits of a digest. By chance no two values of the world's agree in so many.
_DIGITS_PROOF = 60


@dataclass(frozen=True)
class Salvaged:
    """What can still be read of a damaged manifest; None where that is gone."""

    snapshot: int | None
    name: str | None
    """Of the data set."""
    layout: str | None
    row_group_rows: int | None
    written_by: dict[str, Any] | None
    digest: str
    """What stands where the digest is in a whole file."""


def rebuild_manifest(
    store: Path,
    sources: list[SampleSet],
    codec: Codec,
    codec_path: Path,
    *,
    accept_new_bytes: bool,
    git: dict[str, Any],
    progress: Progress,
) -> tuple[list[str], bool]:
    """Write `_manifest.json` of a store that the caller has locked, and put back parts.

    Returns what was written, and whether it is proven to be what was lost.

    `sources` are all data sets of the store, in the order in which they were added, and `codec_path` is where the codec
    was loaded from: the store's own, or a copy. Without proof that it is the
    manifest that was lost, nothing is changed unless new bytes are accepted. Raises StoreError, DataError.
    """
    for samples in sources:
        check_samples(samples, codec.header, codec_path)
    salvaged = salvage(store)
    settings = _settings(store, salvaged)
    jobs = _plan(store, sources, codec.header, settings)
    with locked_folder(rebuild_folder(store)) as folder:
        for left in folder.iterdir():  # each part has to be made now: there is no digest to check what was left
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        parts = run_jobs(jobs, codec, folder, progress)
        entry = copy_codec(codec_path, folder / CODEC_FOLDER, codec.fingerprint)
        source = _sources(sources, parts, salvaged)[0]
        manifest = first_manifest(folder, codec, entry, parts, settings, source=source, git=git)
        candidates = list(_candidates(store, manifest, _sources(sources, parts, salvaged), salvaged))
        proven = [values for values in candidates if _is_proven(values, salvaged)]
        if not proven and not accept_new_bytes:
            raise StoreError(_not_proven(store, parts))
        written = _put_back(store, folder, parts)
        values = (proven or candidates)[0]
        write_json(store / MANIFEST_NAME, {**values, "digest": sha256_json(values)})
        shutil.rmtree(folder)
    return [*written, MANIFEST_NAME], bool(proven)


def rebuild_folder(store: Path) -> Path:
    """Where all parts are made again; of use to nobody after the repair."""
    return partial_folder(store, None, sha256_json(["rebuild"]))


def salvage(store: Path) -> Salvaged:
    """Read what is left of `_manifest.json`."""
    try:
        text = read_whole(LocalStorage(store), MANIFEST_NAME, most=LARGEST_MANIFEST).decode("utf-8", "replace")
    except (FileNotFoundError, StoreError):  # StoreError: too large to be one
        text = ""

    def value(pattern: str) -> Any:
        found = re.search(pattern, text, re.DOTALL)
        try:
            return json.loads(found[1]) if found else None
        except ValueError:
            return None

    return Salvaged(
        snapshot=value(r'\n  "snapshot": ([0-9]{1,9}),'),
        name=value(r'\n  "source": \{\n    "name": ("[^\n]*"),\n'),
        layout=value(r'\n    "layout": ("list"|"binary"|"coded"),'),
        row_group_rows=value(r'\n    "row_group_rows": ([0-9]{1,9})\n'),
        written_by=value(r'\n  "written_by": (\{.*?\n  \})'),
        digest=text[-68:-4],
    )


def _settings(store: Path, salvaged: Salvaged) -> EncodeParams:
    """Layout and rows of a row group: from an earlier snapshot, or what is left of the manifest."""
    for number in reversed(kept_snapshots(LocalStorage(store))):
        try:
            latent = read_manifest(store, number).latent
        except StoreError:
            continue
        return EncodeParams(layout=latent.layout, row_group_rows=latent.row_group_rows)
    values = {"layout": salvaged.layout, "row_group_rows": salvaged.row_group_rows}
    known = {name: value for name, value in values.items() if value}
    return EncodeParams.model_validate(known)  # where it is not known, the default: then parts are found, or not


def _plan(store: Path, sources: list[SampleSet], header: CodecHeader, settings: EncodeParams) -> list[ShardJob]:
    """The jobs whose parts are in the store. Raises DataError unless the data is all of the store's, in its order."""
    pieces = [(samples, shard) for samples in sources for shard in samples.shards]
    once = {samples.shard_digest(shard): (samples, shard) for samples, shard in reversed(pieces)}
    there = {path.name for path in store.iterdir() if re.match(PART_NAME, path.name)}
    plans = [plan_jobs(some, header.fingerprint, settings) for some in (pieces, list(reversed(once.values())))]
    jobs = max(plans, key=lambda plan: len(there & {job.part_name for job in plan}))
    unknown = sorted(there - {job.part_name for job in jobs})
    if unknown or not there:
        raise DataError(
            f"{store}: {len(unknown)} of its {len(there)} parts do not come from the given data "
            f"({', '.join(unknown[:3])}); give all data sets of the store in the order in which they were added, "
            "with the store's codec and the version of pyarrow that wrote it; take away parts that an interrupted "
            "append left"
        )
    return jobs


def _sources(sources: list[SampleSet], parts: list[PartEntry], salvaged: Salvaged) -> list[SourceEntry]:
    """What `source` may have been: of a store that was encoded at once, or of one that grew."""
    rows = sum(part.rows for part in parts)
    digests = [sha256_json([part.shard.digest for part in parts])]
    if len(sources) == 1 and salvaged.snapshot in (None, 1):
        digests.insert(0, sources[0].digest)
    return [SourceEntry(name=salvaged.name or "rebuilt", digest=digest, rows=rows) for digest in digests]


def _candidates(
    store: Path, manifest: Manifest, sources: list[SourceEntry], salvaged: Salvaged
) -> Iterator[dict[str, Any]]:
    """What the manifest may have been: what is left of it first, then what may stand in its place."""
    kept = kept_snapshots(LocalStorage(store))
    snapshots = [salvaged.snapshot, max([*kept, len(read_vacuumed(store).parts)], default=0) + 1]
    writers = [salvaged.written_by, manifest.written_by]
    for snapshot, writer, source in itertools.product(filter(None, snapshots), filter(None, writers), sources):
        update = {
            "snapshot": snapshot,
            "parent": snapshot - 1 if snapshot > 1 else None,
            "written_by": writer,
            "source": source,
        }
        values = manifest.model_copy(update=update).model_dump(mode="json")
        yield values
        yield _as_format_1(values)


def _as_format_1(values: dict[str, Any]) -> dict[str, Any]:
    parts = [{key: value for key, value in part.items() if key != "pieces"} for part in values["parts"]]
    older = {**values, "format": 1, "parts": parts}
    del older["probe"]
    return older


def _is_proven(values: dict[str, Any], salvaged: Salvaged) -> bool:
    """Whether the digest is that of these values; a few of its digits may be what is damaged."""
    same = sum(found == wanted for found, wanted in zip(salvaged.digest, sha256_json(values), strict=False))
    return same >= _DIGITS_PROOF


def _not_proven(store: Path, parts: list[PartEntry]) -> str:
    changed = sum(not _is_same(store, part) for part in parts)
    found = (
        f"{changed} of the {len(parts)} parts are missing or have other bytes in the store"
        if changed
        else f"all {len(parts)} parts are in the store as the data gives them: no row is in doubt"
    )
    return (
        f"{store / MANIFEST_NAME}: {found}; but who wrote the store, when it grew and the name of its data set stood "
        "only in the manifest that was lost; --accept-new-bytes writes one that says so, with the parts as they are "
        "made now"
    )


def _put_back(store: Path, folder: Path, parts: list[PartEntry]) -> list[str]:
    """Parts that are missing, or are not what the data gives."""
    written = [part.name for part in parts if not _is_same(store, part)]
    for name in written:
        os.replace(folder / name, store / name)
    sync_folder(store)
    return written


def _is_same(store: Path, part: PartEntry) -> bool:
    path = store / part.name
    return path.exists() and sha256_file(path) == part.sha256
