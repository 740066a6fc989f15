"""What a manifest says of a store as a whole: codec, latents, source, columns, probe and totals."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ae_pipeline.data.json_types import JsonModel, Sha256
from ae_pipeline.files import recorded_name

MANIFEST_NAME = "_manifest.json"
SNAPSHOTS_FOLDER = "_snapshots"
LARGEST_MANIFEST = 256 << 20
REBUILD = "restore it from a copy, or run `ae-pipeline repair` with all the data that was encoded"
MOST_ROW_GROUP_ROWS = 1_000_000

FileName = Annotated[str, BeforeValidator(lambda name: recorded_name(name) if isinstance(name, str) else name)]
Count = Annotated[int, Field(ge=0, strict=True)]


class CodecEntry(JsonModel):
    """The copy of the codec inside the store."""

    fingerprint: Sha256
    bytes: Count
    files: dict[Literal["codec.json", "weights.safetensors"], Sha256]


class LatentEntry(JsonModel):
    """How latents are stored."""

    size: Annotated[int, Field(ge=1)]
    levels: Annotated[int, Field(ge=2, le=256)]
    layout: Literal["list", "binary", "packed", "coded", "stream"]
    row_group_rows: Annotated[int, Field(ge=1, le=MOST_ROW_GROUP_ROWS)]


class SourceEntry(JsonModel):
    """The data set that was encoded."""

    name: FileName
    digest: Sha256
    rows: Count


class ColumnEntry(JsonModel):
    """A column and its Arrow type."""

    name: str
    type: str


class ProbeEntry(JsonModel):
    """The first rows of the first part, decoded by whoever wrote the store, to tell whether others decode alike."""

    rows: Annotated[int, Field(ge=1, le=1024)]
    pixels_sha256: Sha256
    """Digest of the decoded rows, in C order, little-endian."""
    instructions: str
    """The CPU's instruction set that torch used, as torch names it: e.g. AVX512."""


class Totals(JsonModel):
    """Sums over all parts; `bytes_in` is the samples uncompressed, without ids and attributes."""

    rows: Count
    bytes_in: Count
    bytes_parts: Count
