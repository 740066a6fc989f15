"""The command line's `decode`: a store, or chosen rows of it, into Parquet or images."""

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ae_pipeline.cli.options import (
    INCOMPLETE,
    Address,
    AsJson,
    Device,
    Executor,
    Memory,
    Snapshot,
    StorePlace,
    Workers,
    complete_once_named,
    execution,
    row_progress,
    show,
)
from ae_pipeline.errors import ConfigError, DamagedPartError, named, printable

if TYPE_CHECKING:
    from pyarrow import Schema

    from ae_pipeline.codec.header import CodecHeader
    from ae_pipeline.data.blocks import Block
    from ae_pipeline.params.operation import ExecuteParams
    from ae_pipeline.store.format.part_entries import PartEntry
    from ae_pipeline.store.latent_store import LatentStore


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
        Literal["own", "parquet", "png", "rows"] | None,
        typer.Option(
            "--format",
            help="own: as your records were (pictures, arrays, Parquet); parquet: Parquet with your column; png: an "
            "image for each row, and index.parquet; rows: a column `pixels`. [default: own]",
        ),
    ] = None,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored",
            help="Move each value to where it most likely was (codecs within a bound): a smaller mean error, but up to "
            "twice the bound; `info` says restored_max_error.",
        ),
    ] = False,
    device: Device = "auto",
    executor: Executor = "threads",
    workers: Workers = None,
    address: Address = None,
    memory: Memory = None,
    as_json: AsJson = False,
) -> None:
    """Decode a store, or chosen rows of it, from the store alone: your columns, pictures or arrays again.

    Rows come in the store's order. The result is whole or not there at all.
    """
    from ae_pipeline.store.latent_store import LatentStore

    if re.match(r"[a-z][a-z0-9+.]+:/", str(out)):  # a path has one slash of a URL's two
        raise ConfigError(
            f"--out is a URL, {str(out).replace(':/', '://')}; give a folder, and copy what is in it then"
        )
    if output_format == "png" and out.suffix == ".parquet":
        raise ConfigError(f"--format png writes a folder, and {out} looks like a file; give a folder")
    execute = execution(executor, workers, address, memory)
    opened = LatentStore.open(store, snapshot)
    if opened.manifest.missing:
        rows = f"{len(opened.manifest.missing):,} shard(s) with {opened.manifest.missing_rows:,} rows"
        print(printable(f"note: {store} was written without {rows} of its data; `info` lists them"), file=sys.stderr)
    damage = _Damage(opened) if skip_damaged else None
    chosen = _listed(ids, "--ids")
    if chosen is not None:
        _refuse_absent(opened, chosen, damage)
    selection = {"filter": where, "ids": chosen, "columns": _listed([columns] if columns else None, "--columns")}
    with complete_once_named("out", out, as_json=as_json):
        how = {"device": device, "restored": restored}
        result = _decode(opened, out, selection, output_format, how, damage, execute)
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
    store: "LatentStore",
    out: Path,
    selection: dict[str, Any],
    output_format: str | None,
    how: dict[str, Any],
    damage: _Damage | None,
    execute: "ExecuteParams",
) -> dict[str, Any]:
    import pyarrow as pa

    from ae_pipeline.store.reading.decode import attribute_names, decode_parts, decode_rows, refuse_inside_store
    from ae_pipeline.store.reading.export import export_file, export_images

    everything = not any(value is not None for value in selection.values())
    header = store.codec_header()
    schema = store.attributes_schema()
    attributes = pa.schema([schema.field(name) for name in attribute_names(store, selection["columns"])])
    target = _Target(store, attributes, out, output_format)
    rows = store.manifest.totals.rows if selection["filter"] is None and selection["ids"] is None else None
    with row_progress("decode", rows) as report:
        count = 0

        def progress(more: int) -> None:
            nonlocal count
            count += more
            report(more)

        if everything and target.open_file and out.suffix != ".parquet":
            files = decode_parts(
                store, out, target.open_file, **how, on_damaged=damage, progress=progress, execute=execute
            )
            count -= damage.rows if damage else 0
        else:
            _refuse_executor(execute)
            refuse_inside_store(store, out)
            if target.form and selection["columns"] is not None:
                more = [name for name in target.form.needed(store) if name not in selection["columns"]]
                selection = selection | {"columns": [*selection["columns"], *more]}
            blocks = _readable(store, decode_rows(store, **selection, on_damaged=damage, **how), damage)
            files = 1
            if target.open_file:
                export_file(blocks, target.open_file, out, progress)
            elif target.form:
                files = target.export(blocks, progress)
            else:
                files = export_images(blocks, attributes, header.spec, out, progress)
    return {"out": str(out), "rows": count, "samples": header.spec.describe(), "files": files, **_promise(header, how)}


def _promise(header: "CodecHeader", how: dict[str, Any]) -> dict[str, Any]:
    """How far from its original a value can be that was written, where the codec promises something."""
    if header.max_error is None:
        return {}
    return {
        "max_error": header.restored_max_error if how["restored"] else header.max_error,
        "restored": how["restored"],
    }


def _refuse_executor(execute: "ExecuteParams") -> None:
    """Raise ConfigError for an executor or workers that were asked for, and would not be used."""
    if execute.by_processes or execute.workers:
        raise ConfigError(
            "--executor and --workers are for a whole store that becomes a folder of Parquet, a file for each part; "
            "chosen rows or columns, a single file, pictures, sound and arrays are decoded in this process: leave them "
            "out"
        )


class _Target:
    """What is written: Parquet files that `open_file` opens, or else files in the `form` of the records, or images."""

    def __init__(self, store: "LatentStore", attributes: "Schema", out: Path, wanted: str | None):
        from ae_pipeline.data.samples import ShardWriter
        from ae_pipeline.store.reading.own_form import OwnForm, RecordsWriter

        header = store.codec_header()
        own = header.kind is not None and wanted != "rows"
        self.form = OwnForm(store, attributes) if own else None
        self.open_file: Any = None
        self._out, self._as_files = out, False
        if self.form is None:
            if wanted != "png":
                self.open_file = partial(ShardWriter, attributes=attributes, spec=header.spec)
        elif wanted == "png":
            self._as_files = self.form.ending == ".png"
            self.form = self.form if self._as_files else None
        else:
            sort = self.form.form.sort if wanted == "own" or out.suffix != ".parquet" else "table"
            self._as_files = sort == "files" and self.form.ending is not None
            if wanted == "parquet" or not (self._as_files or sort == "array"):
                self.open_file = partial(RecordsWriter, self.form)
        if out.suffix == ".parquet" and not self.open_file:
            raise ConfigError(
                f"the records are written as files into a folder, and {out} looks like a file; give a folder, or "
                "--format parquet"
            )

    def export(self, blocks: "Iterator[Block]", progress: Any) -> int:
        from ae_pipeline.store.reading.own_files import export_records

        assert self.form is not None
        return export_records(blocks, self.form, self._out, as_files=self._as_files, progress=progress)


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
