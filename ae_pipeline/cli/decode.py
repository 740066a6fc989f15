"""The command line's `decode`: a store, or chosen rows of it, into Parquet or images."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ae_pipeline.cli.options import AsJson, Device, Snapshot, StorePlace, complete_once_named, row_progress, show
from ae_pipeline.errors import ConfigError, DamagedPartError, named, printable

if TYPE_CHECKING:
    from ae_pipeline.data.samples import Block
    from ae_pipeline.store.format.manifest import PartEntry
    from ae_pipeline.store.latent_store import LatentStore

INCOMPLETE = 3
"""Exit code: the result was written, and rows that could not be read are missing from it."""


def decode(
    store: StorePlace,
    out: Annotated[
        Path,
        typer.Option(help="What to write; must not exist yet. One file if it ends in .parquet, otherwise a folder."),
    ],
    ids: Annotated[
        list[str] | None,
        typer.Option(
            help="Only these rows, e.g. 3,17,99; can be repeated. (An id with a comma: --where \"id = 'a,b'\".)"
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help='Only rows of which this is true, e.g. "label = 7 AND error < 0.01".')
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Only these columns beside the id and the pixels, e.g. label,name.")
    ] = None,
    snapshot: Snapshot = None,
    skip_damaged: Annotated[
        bool,
        typer.Option(
            "--skip-damaged", help=f"Leave damaged parts out, say which, and exit with {INCOMPLETE} if there are any."
        ),
    ] = False,
    output_format: Annotated[
        Literal["parquet", "png"], typer.Option("--format", help="png: one image per row, and index.parquet.")
    ] = "parquet",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Decode a store, or chosen rows of it, into Parquet or PNG files, from the store alone.

    Rows come in the store's order. The result is whole or not there at all.
    """
    from ae_pipeline.store.latent_store import LatentStore

    if re.match(r"[a-z][a-z0-9+.]+:/", str(out)):  # a path has one slash of a URL's two
        raise ConfigError(
            f"--out is a URL, {str(out).replace(':/', '://')}; give a folder, and copy what is in it then"
        )
    if output_format == "png" and out.suffix == ".parquet":
        raise ConfigError(f"--format png writes a folder, and {out} looks like a file; give a folder")
    opened = LatentStore.open(store, snapshot)
    damage = _Damage(opened) if skip_damaged else None
    chosen = _listed(ids, "--ids")
    if chosen is not None:
        _refuse_absent(opened, chosen, damage)
    selection = {"filter": where, "ids": chosen, "columns": _listed([columns] if columns else None, "--columns")}
    with complete_once_named("out", out, as_json=as_json):
        result = _decode(opened, out, selection, output_format, device, damage)
        if damage is not None:
            result |= {"missing_parts": len(damage.parts), "missing_rows": damage.rows}
        show(result, as_json=as_json)
    if damage is not None and damage.parts:
        damage.report(chosen=where is not None or chosen is not None)
        raise typer.Exit(INCOMPLETE)


class _Damage:
    """What could not be read. Called with each part, maybe more than once."""

    def __init__(self, store: "LatentStore"):
        self.parts: dict[str, tuple[PartEntry, DamagedPartError]] = {}
        self._store = store

    def __call__(self, part: "PartEntry", error: DamagedPartError) -> None:
        self.parts[part.name] = (part, error)

    @property
    def rows(self) -> int:
        """All rows of those parts."""
        return sum(part.rows for part, _ in self.parts.values())

    def report(self, *, chosen: bool) -> None:
        """To standard error: which parts, and which rows are missing."""
        for part, error in self.parts.values():
            print(printable(f"warning: {error}"), file=sys.stderr)
            print(f"  missing: {part.rows} rows with ids from {part.id_min!r} to {part.id_max!r}", file=sys.stderr)
        manifest = self._store.manifest
        missing = f"{len(self.parts)} of {len(manifest.parts)} parts, with {self.rows} of {manifest.totals.rows} rows"
        which = "; not all of them may have been asked for" if chosen else ""
        print(f"incomplete: could not read {missing}{which}", file=sys.stderr)


def _decode(
    store: "LatentStore", out: Path, selection: dict[str, Any], output_format: str, device: str, damage: _Damage | None
) -> dict[str, Any]:
    import pyarrow as pa

    from ae_pipeline.store.reading.decode import attribute_names, decode_rows, decode_store, refuse_inside_store
    from ae_pipeline.store.reading.export import export_images, export_parquet

    everything = not any(value is not None for value in selection.values())
    rows = store.manifest.totals.rows if selection["filter"] is None and selection["ids"] is None else None
    with row_progress("decode", rows) as progress:
        if everything and output_format == "parquet" and out.suffix != ".parquet":
            decoded = decode_store(store, out, device=device, on_damaged=damage, progress=progress)
            spec, count, files = decoded.spec, decoded.rows, len(decoded.files)
        else:
            refuse_inside_store(store, out)
            spec = store.codec_header().spec
            schema = store.attributes_schema()
            attributes = pa.schema([schema.field(name) for name in attribute_names(store, selection["columns"])])
            blocks = _readable(store, decode_rows(store, **selection, on_damaged=damage, device=device), damage)
            export = export_images if output_format == "png" else export_parquet
            count = export(blocks, attributes, spec, out, progress)
            files = count if output_format == "png" else 1
    return {"out": str(out), "rows": count, "samples": spec.describe(), "files": files}


def _readable(store: "LatentStore", blocks: "Iterator[Block]", damage: _Damage | None) -> "Iterator[Block]":
    """Hand the blocks on. If no part at all could be read, raise in the end, before anything has its name."""
    yield from blocks
    if damage is not None and len(damage.parts) == len(store.manifest.parts):
        raise next(iter(damage.parts.values()))[1]


def _refuse_absent(store: "LatentStore", ids: list[str], damage: _Damage | None) -> None:
    """Raise ConfigError for ids that no row has, and that no damaged part can have held."""
    from ae_pipeline.store.reading.scan import absent_ids, may_hold

    absent = absent_ids(store, ids, damage)
    damaged = [part for part, _ in damage.parts.values()] if damage else []
    absent = [value for value in absent if not any(may_hold(part, [value]) for part in damaged)]
    if absent:
        ids = [str(value) for value in absent]
        raise ConfigError(f"{store.location} has no rows with the ids {named(ids, 10)}; nothing was written")


def _listed(given: list[str] | None, option: str) -> list[str] | None:
    """Values that are separated by commas, of an option that may be repeated."""
    if given is None:
        return None
    values = [value.strip() for text in given for value in text.split(",") if value.strip()]
    if not values:
        raise ConfigError(f"{option} names nothing; give some, separated by commas, or leave it out")
    return values
