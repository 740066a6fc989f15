"""What became of the files of an inbox in one run, and what one snapshot of a growing store added.

`<store>.batches/<snapshot>.json` is written after the snapshot. One that a crash prevented is written by the next run,
with the numbers that can be had from the store alone.
"""

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ae_pipeline.data.samples import ID
from ae_pipeline.evaluation.drift.measure import read_errors
from ae_pipeline.files import write_json
from ae_pipeline.operation.inbox.columns import FILE_DIGEST, FILE_DIGEST_TYPE, LABEL
from ae_pipeline.operation.inbox.files.listing import remove_temporary
from ae_pipeline.operation.inbox.files.names import IMAGES_NAME, shown
from ae_pipeline.store.care.snapshots import added_shards
from ae_pipeline.store.format.entries import MANIFEST_NAME
from ae_pipeline.store.format.part_entries import ShardEntry, ShardRows, rows_of_shards
from ae_pipeline.store.latent_store import LatentStore

# Older stores have this name. A Parquet file may be called so, too: then its rows name that file itself.
_FORMER_IMAGES_NAME = "images.parquet"
_NAMED = 3  # files of each kind that a summary names
_NOT_OF_A_BATCH = ("joined_parts", "why_not_joined")


@dataclass
class InboxRun:
    """What one run did. Files go by their path in the inbox.

    Four of its fields say why: `quarantined` cannot be used; `failed` could not be read or put into quarantine, and is
    tried again by the next run; `why_waiting` is not ready (`waiting` counts these); `left_alone` is not to be taken,
    by its name or kind. Errors are the rows' MSE of values scaled to [0, 1]; all nulls where nothing was new.
    """

    store: str = ""
    snapshot: int | None = None
    files: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: int = 0
    why_waiting: dict[str, str] = field(default_factory=dict)
    left_alone: dict[str, str] = field(default_factory=dict)
    known: int = 0
    colour_to_grey: int = 0
    transparency_dropped: int = 0
    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    mean_error: float | None = None
    median_error: float | None = None
    p95_error: float | None = None
    max_error: float | None = None
    seconds: float = 0.0
    joined_parts: int = 0
    """Parts of the store that were joined after the files were encoded."""
    why_not_joined: str = ""
    """What kept parts from being joined, which is tried again by the next run."""

    def statistics(self) -> dict[str, Any]:
        """The numbers, flat: files are counted."""
        counts = {name: len(getattr(self, name)) for name in ("files", "quarantined", "failed", "left_alone")}
        values = {**asdict(self), **counts}
        return {name: value for name, value in values.items() if name not in ("why_waiting", "why_not_joined")}

    def summary(self) -> str:
        """One line says what became of all files but those that were known; it names a few of each kind."""
        text = f"{len(self.files)} file(s), {self.rows:,} rows encoded; {len(self.quarantined)} in quarantine"
        for what, files in (("FAILED", self.failed), ("waiting", self.why_waiting), ("left alone", self.left_alone)):
            if files:
                some = [f"{name}: {why}" for name, why in list(files.items())[:_NAMED]]
                more = f", and {len(files) - _NAMED:,} more" if len(files) > _NAMED else ""
                text += f"; {len(files):,} {what} ({', '.join(some)}{more})"
        text += f"; {self.joined_parts:,} small parts of the store were joined" if self.joined_parts else ""
        return text + (f"; small parts could NOT be joined: {self.why_not_joined}" if self.why_not_joined else "")


def batch_facts(store: Path, snapshot: int) -> dict[str, Any]:
    """Files, rows, bytes (samples uncompressed, and their Parquet parts) and errors of the rows of one snapshot.

    Files go by their name without a folder, images by their path. Errors are the rows' MSE of values scaled to [0, 1].
    """
    opened, shards = added_shards(store, snapshot)
    errors = read_errors(opened, shards)
    rows = sum(one.rows for one in shards)
    files = []
    for one in shards:
        if one.shard.file == IMAGES_NAME:
            files += _values(opened, one, ID)
        elif one.shard.row_groups[:1] in ([], [0]):  # else: more of a large file that the part before began
            files.append(one.shard.file)
    return {
        "store": str(store),
        "snapshot": snapshot,
        "files": files,
        "rows": rows,
        "bytes_in": rows * opened.codec_header().spec.nbytes,
        "bytes_out": sum(one.bytes for one in shards),
        "mean_error": _finite(errors.mean(dtype=np.float64)),
        "median_error": _finite(np.median(errors)),
        "p95_error": _finite(np.percentile(errors, 95)),
        "max_error": _finite(errors.max()),
    }


def statistics_path(store: Path, snapshot: int) -> Path:
    """Where a batch's numbers are."""
    return store.with_name(f"{store.name}.batches") / f"{snapshot}.json"


def write_missing(store: Path) -> list[int]:
    """Write the files of snapshots that have none, which a crash after their commit prevented; returns those.

    They lack what only that run knew, which is null.
    """
    newest = LatentStore.open(store).manifest.snapshot
    remove_temporary(statistics_path(store, 1).parent)
    missing = [number for number in range(1, newest + 1) if not statistics_path(store, number).exists()]
    missing = [number for number in missing if added_shards(store, number)[1]]  # a repair adds no rows
    for number in missing:
        facts = batch_facts(store, number)
        unknown = [item.name for item in fields(InboxRun) if item.name not in facts]
        write_statistics(store, number, {**facts, **dict.fromkeys(unknown)})
    return missing


def write_statistics(store: Path, snapshot: int, facts: dict[str, Any]) -> None:
    """Write a batch's numbers. The path of a store need not be UTF-8, which JSON is."""
    kept = {name: value for name, value in facts.items() if name not in _NOT_OF_A_BATCH}
    write_json(statistics_path(store, snapshot), {**kept, "store": shown(facts["store"])})


def growing_stores(growing: Path) -> list[Path]:
    """All stores below the folder that they grow in; unfinished ones have hidden names."""
    return sorted(manifest.parent for manifest in growing.glob(f"[!.]*/{MANIFEST_NAME}"))


def known_contents(growing: Path) -> set[str]:
    """What tells the files apart that any store below `growing` holds, under this champion or an earlier one.

    Digests of shards from the manifests, for Parquet and IDX; digests of files from the rows, for images: all of it
    is what was committed. Raises StoreError.
    """
    known: set[str] = set()
    for folder in growing_stores(growing):
        store = LatentStore.open(folder)
        has_digests = (FILE_DIGEST, str(FILE_DIGEST_TYPE)) in ((c.name, c.type) for c in store.manifest.columns)
        known.update(store.manifest.shard_digests)
        for part in store.manifest.parts if has_digests else ():
            # Only images need the column, and reading it costs.
            if any(_is_of_images(shard) for shard in part.shards):
                for entry, digests in store.shard_values(part, FILE_DIGEST):
                    known |= {digest.hex() for digest in digests if digest is not None and _is_of_images(entry.shard)}
    return known


def stored_labels(growing: Path, keys: list[str]) -> list[Any] | None:
    """The labels of the shards with these digests, in this order, from whatever store below `growing` holds them.

    None where there are none: the store has no such column, or only nulls in it. Raises StoreError.
    """
    for folder in growing_stores(growing):
        store = LatentStore.open(folder)
        shards = {one.shard.digest: one for one in rows_of_shards(store.manifest.parts)}
        if LABEL in [column.name for column in store.manifest.columns] and all(key in shards for key in keys):
            labels = [label for key in keys for label in _values(store, shards[key], LABEL)]
            return None if all(label is None for label in labels) else labels
    return None


def _is_of_images(shard: ShardEntry) -> bool:
    return shard.file in (IMAGES_NAME, _FORMER_IMAGES_NAME)


def _values(store: LatentStore, one: ShardRows, name: str) -> list[Any]:
    return [value for values in store.read_values(one, name) for value in values.to_pylist()]


def _finite(value: Any) -> float | None:
    """A float for JSON, which has no infinity."""
    return float(value) if math.isfinite(value) else None
