"""The manifest of a new store, or of its next snapshot, and the copy of the codec that it names."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import read_header
from ae_pipeline.errors import CodecError
from ae_pipeline.files import arrow_file, finished_file, sha256_file, sha256_json
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.format.entries import CodecEntry, LatentEntry, ProbeEntry, SourceEntry
from ae_pipeline.store.format.manifest import STORE_FORMAT, Manifest
from ae_pipeline.store.format.part_entries import LateEntry, part_number
from ae_pipeline.store.format.segments import SegmentedParts
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.parts import CODEC_FILES
from ae_pipeline.store.writing.checks import columns_of
from ae_pipeline.store.writing.next_manifest import next_manifest, totals_of, written_by
from ae_pipeline.store.writing.shards import Made

_PROBED_ROWS = 256


def first_manifest(
    folder: Path,
    codec: Codec,
    copy: CodecEntry,
    made: Made,
    params: EncodeParams,
    *,
    source: SourceEntry,
    git: dict[str, Any],
) -> Manifest:
    """The manifest of a new store, with its probe; `folder` holds the codec and the first part."""
    parts = made.parts
    manifest = Manifest(
        format=STORE_FORMAT,
        snapshot=1,
        parent=None,
        codec=copy,
        samples=codec.header.samples,
        latent=LatentEntry(
            size=codec.latent_size,
            levels=codec.header.quantiser.levels,
            layout=params.layout,
            row_group_rows=params.row_group_rows,
        ),
        columns=columns_of(pq.read_schema(arrow_file(folder / parts[0].name))),
        source=source,
        missing=made.missing,
        parts=parts,
        totals=totals_of(parts, codec.spec),
        written_by=written_by(git),
    )
    return manifest.model_copy(update={"probe": measure_probe(LatentStore(folder, manifest), codec=codec)})


def grown(store: LatentStore, made: Made, *, name: str, git: dict[str, Any]) -> Manifest:
    """The manifest of the snapshot after the open one: its parts and these."""
    parts = store.manifest.parts
    both = parts.with_added(made.parts) if isinstance(parts, SegmentedParts) else [*parts, *made.parts]
    absent = {entry.number: entry for entry in (*store.manifest.missing, *made.missing)}
    filled = [(part, absent.pop(part_number(part.name), None)) for part in made.parts]
    late = [LateEntry(shard=part.shards[0].digest, first_row=entry.first_row) for part, entry in filled if entry]
    missing = list(absent.values())
    if isinstance(both, SegmentedParts):
        digest = both.digest_of_shards()
    else:
        digest = sha256_json([shard.digest for part in both for shard in part.shards])
    new = next_manifest(store.manifest, both, git)
    source = SourceEntry(name=name, digest=digest, rows=new.totals.rows)
    probe = store.manifest.probe or measure_probe(store)  # a store of format 1 has none
    return new.model_copy(
        update={"source": source, "missing": missing, "late": [*store.manifest.late, *late], "probe": probe}
    )


def copy_codec(source: Path, target: Path, fingerprint: str) -> CodecEntry:
    """The codec's files in a folder of their own, and their entry in the manifest. Raises CodecError."""
    shutil.rmtree(target, ignore_errors=True)  # an interrupted run may have left half a copy
    for name in CODEC_FILES:
        with finished_file(target / name) as temporary:
            shutil.copyfile(source / name, temporary)
    if read_header(target).fingerprint != fingerprint:
        raise CodecError(f"{source} changed while it was being used; encode again")
    return CodecEntry(
        fingerprint=fingerprint,
        bytes=sum((target / name).stat().st_size for name in CODEC_FILES),
        files={name: sha256_file(target / name) for name in CODEC_FILES},
    )


def measure_probe(store: LatentStore, rows: int = _PROBED_ROWS, codec: Codec | None = None) -> ProbeEntry:
    """A digest of the store's first rows, decoded on this machine's CPU. Raises StoreError, CodecError.

    Float sums in a matrix product depend on the processor's instructions and on the library: on another machine a
    decoded integer may be the next one. Nothing is lost then, but rows are not byte for byte what they were.
    `codec` is the store's, if it is loaded already; on another device than the CPU it is loaded once more.
    """
    store.codec_header()
    if codec is None or codec.device.type != "cpu":
        codec = Codec.load(store.codec_path, "cpu")
    first = next(store.read_part(store.manifest.parts[0], rows))
    digest = hashlib.sha256()
    for start in range(0, len(first.latents), codec.block_rows):
        pixels = np.ascontiguousarray(codec.decode(first.latents[start : start + codec.block_rows]))
        digest.update(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    return ProbeEntry(
        rows=len(first.latents),
        pixels_sha256=digest.hexdigest(),
        instructions=torch.backends.cpu.get_cpu_capability(),
    )
