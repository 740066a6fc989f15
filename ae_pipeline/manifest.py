"""_manifest.json: what a latent store holds. Written last; a store without it does not exist.

A store that grows keeps the manifests of its earlier snapshots as `_snapshots/<number>.json`.
Format version 1, documented in docs/store-format.md. Readable without torch.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ae_pipeline.codec_header import Samples, Sha256
from ae_pipeline.errors import StoreError, first_line
from ae_pipeline.files import sha256_json, write_json

STORE_FORMAT = 1
MANIFEST_NAME = "_manifest.json"
CODEC_FOLDER = "_codec"
SNAPSHOTS_FOLDER = "_snapshots"
_LARGEST_MANIFEST = 256 << 20

Count = Annotated[int, Field(ge=0)]
PART_NAME = r"^part-[0-9]{5,}-[0-9a-f]{16}\.parquet$"
PartName = Annotated[str, Field(pattern=PART_NAME)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardEntry(_Entry):
    """The input shard that a part was made from."""

    file: str
    row_groups: list[Count]
    digest: Sha256


class PartEntry(_Entry):
    """One Parquet file of the store."""

    name: PartName
    rows: Annotated[int, Field(ge=1)]
    bytes: Count
    sha256: Sha256
    id_min: int | str
    id_max: int | str
    job: Sha256
    shard: ShardEntry


class CodecEntry(_Entry):
    """The copy of the codec inside the store."""

    fingerprint: Sha256
    bytes: Count
    files: dict[Literal["codec.json", "weights.safetensors"], Sha256]


class LatentEntry(_Entry):
    """How latents are stored."""

    size: Annotated[int, Field(ge=1)]
    levels: Annotated[int, Field(ge=2, le=256)]
    layout: Literal["list", "binary"]
    row_group_rows: Annotated[int, Field(ge=1)]


class SourceEntry(_Entry):
    """The data set that was encoded."""

    name: str
    digest: Sha256
    rows: Count


class ColumnEntry(_Entry):
    """A column and its Arrow type."""

    name: str
    type: str


class Totals(_Entry):
    """Sums over all parts; `bytes_in` is the samples uncompressed, without ids and attributes."""

    rows: Count
    bytes_in: Count
    bytes_parts: Count


class Manifest(_Entry):
    """The whole of _manifest.json."""

    format: Literal[1]
    snapshot: Annotated[int, Field(ge=1)]
    parent: int | None
    codec: CodecEntry
    samples: Samples
    latent: LatentEntry
    columns: list[ColumnEntry]
    source: SourceEntry
    parts: Annotated[list[PartEntry], Field(min_length=1)]
    totals: Totals
    written_by: dict[str, Any]

    @model_validator(mode="after")
    def _totals_agree(self) -> "Manifest":
        if sum(part.rows for part in self.parts) != self.totals.rows:
            raise ValueError("totals.rows is not the sum of the parts' rows")
        if len({part.name for part in self.parts}) != len(self.parts):
            raise ValueError("a part is listed twice")
        return self


def write_manifest(store: Path, manifest: Manifest) -> None:
    """Commit a store: after this it exists. Adds the digest over the manifest's own contents."""
    values = manifest.model_dump(mode="json")
    write_json(store / MANIFEST_NAME, {**values, "digest": sha256_json(values)})


def read_manifest(store: Path, snapshot: int | None = None) -> Manifest:
    """Read and check the manifest of the newest snapshot, or of an earlier one. Raises StoreError."""
    newest = _read(store, store / MANIFEST_NAME)
    if snapshot in (None, newest.snapshot):
        return newest
    path = snapshot_path(store, snapshot or 0)
    if not path.exists():
        kept = {int(file.stem) for file in path.parent.glob("*.json") if file.stem.isdigit()} | {newest.snapshot}
        numbers = ", ".join(map(str, sorted(kept)))
        raise StoreError(f"{store} has no snapshot {snapshot}; it has {numbers}: give one of them")
    manifest = _read(store, path)
    if manifest.snapshot != snapshot:
        raise StoreError(f"{path} is of snapshot {manifest.snapshot}, expected {snapshot}; restore the store")
    return manifest


def snapshot_path(store: Path, snapshot: int) -> Path:
    """Where the manifest of an earlier snapshot is kept."""
    return store / SNAPSHOTS_FOLDER / f"{snapshot}.json"


def _read(store: Path, path: Path) -> Manifest:
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise StoreError(f"{path} is larger than {_LARGEST_MANIFEST} bytes; that is not a manifest")
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if not store.exists():
            raise StoreError(f"no store at {store}") from None
        raise StoreError(
            f"{store} is not a complete latent store ({MANIFEST_NAME} is missing); encode again, or give another folder"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} is not readable JSON: {first_line(error)}; restore the store") from None
    if not isinstance(values, dict) or values.get("format") != STORE_FORMAT:
        found = values.get("format") if isinstance(values, dict) else type(values).__name__
        raise StoreError(f"{path} has format {found!r}, expected {STORE_FORMAT}; use a newer ae-pipeline")
    digest = values.pop("digest", None)
    try:
        found_digest = sha256_json(values)
    except (ValueError, RecursionError) as error:  # NaN, half a character: read by Python, but not JSON
        raise StoreError(f"{path} is not readable JSON: {first_line(error)}; restore the store") from None
    if digest != found_digest:
        raise StoreError(f"{path} was changed: its digest does not match its contents; restore the store")
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"{path} is not a valid manifest: {place}: {first['msg']}; restore the store") from None
